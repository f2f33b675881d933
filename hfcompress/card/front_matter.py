"""The front matter of a model card: the metadata that the Hub reads, from the report alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import validate_repo_id

from hfcompress.errors import OutputError
from hfcompress.evaluation.metrics import METRICS
from hfcompress.report.report import Artifact, RunReport
from hfcompress.utils.text import metric_label

# Identifiers that the Hub accepts as `license` (https://huggingface.co/docs/hub/repositories-licenses) and that text
# models use. Any other licence is published as `other` with its name, which is valid too.
_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m bigscience-bloom-rail-1.0 afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause
bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0
cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl osl-3.0
postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr gemma llama2 unknown other
"""


def front_matter(report: RunReport, subject: Artifact | None) -> str:
    """Render the YAML front matter, without the dashes.

    Args:
        report: The report of the run.
        subject: The artifact whose metrics are listed in `model-index`; if None, `model-index` is left out.
    """
    base_model = hub_id(report.base_model)
    license_id, license_name = _license(report.license)
    tags = [tag for tag in report.data.language.split(", ") if tag]
    codes = sorted({tag.split("-")[0].lower() for tag in tags})
    data = ModelCardData(
        language=codes[0] if len(codes) == 1 else codes or None,
        base_model=base_model,
        # The Hub knows adapter, finetune, merge and quantized. `quantized` means the same weights in lower precision.
        # Here the weights were pruned and fine-tuned, and the int8 files come from the result.
        base_model_relation="finetune" if base_model else None,
        # The Hub's snippet for `sentence-transformers` with `text-ranking` is CrossEncoder(...), with
        # trust_remote_code=True if the tag `custom_code` is set. The snippet for `transformers` would be
        # pipeline("text-ranking"), which transformers does not have.
        library_name="sentence-transformers",
        pipeline_tag="text-ranking",
        tags=_tags(report),
        metrics=[name for name in METRICS if name in report.teacher.quality],
        model_name=report.name,
        eval_results=_results(report, subject) if subject else None,
        license=license_id,
        license_name=license_name,
    )
    if set(tags) != set(codes):
        # `language` accepts codes of two or three letters only; tags such as zh-Hant go into another field.
        data["language_bcp47"] = tags
    if not subject:
        data.pop("model_name")
    return data.to_yaml()


def read_front_matter(card: str) -> dict[str, Any]:
    """Read and validate the front matter of a card, as strictly as the Hub's client.

    Raises:
        OutputError: It is missing, the client cannot read it, a field is not set, or the Hub would reject it.
    """
    block = REGEX_YAML_BLOCK.search(card)
    if block is None or not block.group(2).strip():
        raise _invalid("is missing", None)
    try:
        ModelCard(card)
        fields: dict[str, Any] = yaml.safe_load(block.group(2))
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise _invalid("cannot be read", str(error).strip().splitlines()[0]) from error
    licence = fields.get("license")
    if not isinstance(licence, str) or licence.strip().lower() in ("", "unknown", "none"):
        raise OutputError(
            "The card names no licence",
            value=licence,
            expected="`license` in the front matter of README.md, as the Hub calls it, e.g. apache-2.0",
            remedy="set publish.license in the recipe (--license of compress) and run it again with --resume",
        )
    if unset := sorted(_unset(fields)):
        raise _invalid("has fields that are not set", ", ".join(unset))
    for name in _texts(fields.get("base_model"), "base_model"):
        if hub_id(name) is None:
            raise _invalid("names a base model that cannot be on the Hub", name)
    for code in _texts(fields.get("language"), "language"):
        if not re.fullmatch("[a-z]{2,3}|code|multilingual", code):
            raise _invalid("names a language by something else than two or three letters", code)
    for key in ("tags", "metrics", "datasets"):
        _texts(fields.get(key), key)
    if licence == "other" and not fields.get("license_name"):
        raise _invalid("has the licence `other` without its name", None)
    return fields


def _invalid(problem: str, value: object) -> OutputError:
    return OutputError(
        f"The front matter of the card {problem}",
        value=value,
        expected="a block of YAML between lines of dashes at the top of README.md, as huggingface_hub reads it",
        remedy="render the card again from its report: hfcompress card DIR",
    )


def _unset(value: object, name: str = "") -> Iterator[str]:
    """Names of fields that are not set: empty, None, NaN or infinity, also as text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _unset(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _unset(inner, f"{name}[{position}]")
    elif value is None or str(value).strip() in ("", "None", "nan", "inf", "-inf"):
        yield name


def _texts(value: object, name: str) -> list[str]:
    values: list[object] = value if isinstance(value, list) else [] if value is None else [value]
    texts = [each for each in values if isinstance(each, str)]
    if len(texts) != len(values):
        raise _invalid(f"has something else than texts in `{name}`", value)
    return texts


def hub_id(name: str) -> str | None:
    """Return `name` if it is a valid model id of the Hub, `org/name` or `name`, otherwise None (e.g. for a path)."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def slug(text: str) -> str:
    """Convert `text` to an identifier of lower-case letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-") or "custom"


def _license(text: str) -> tuple[str, str | None]:
    """The fields `license` and, if that is `other`, `license_name`."""
    identifier = text.strip().lower()
    if not identifier:
        return "unknown", None
    if identifier in _LICENSES.split():
        return identifier, None
    return "other", slug(identifier)


def _tags(report: RunReport) -> list[str]:
    artifacts = report.artifacts
    tags = ["cross-encoder", "reranker", "hfcompress", report.model_type]
    if report.pruning:
        tags.append("pruning")
        if report.pruning.custom_code:
            tags.append("custom_code")
    if any(re.search("recover|distil", step.name) for step in report.steps):
        tags.append("distillation")
    if any(artifact.precision.startswith("int8") for artifact in artifacts):
        tags.append("int8")
    runtimes = {artifact.runtime for artifact in artifacts}
    return tags + [tag for runtime, tag in (("onnxruntime", "onnx"), ("openvino", "openvino")) if runtime in runtimes]


def _results(report: RunReport, subject: Artifact) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-ranking",
            task_name="Reranking",
            # Not a Hub id: the data may not be on the Hub, and a wrong link is worse than none.
            dataset_type=slug(report.data.name),
            dataset_name=report.data.name,
            dataset_split="test",
            metric_type=name,
            metric_name=f"{metric_label(name)} ({subject.name})",
            metric_value=round(subject.quality[name], 4),
        )
        for name in METRICS
        if name in subject.quality
    ]
