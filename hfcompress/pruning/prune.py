"""`hfcompress prune`: importance, search and surgery without training, from a checkpoint to pruned checkpoints."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import AliasChoices, Field
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.card.figures import structure
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.data.score_text import score_text_of
from hfcompress.errors import DataError, OutputError
from hfcompress.models.architectures import require_one_score
from hfcompress.models.layout import STRUCTURE_FILE
from hfcompress.models.load import load_config, load_model, resolve
from hfcompress.models.size import ModelSize
from hfcompress.models.surgery import pruned_copy
from hfcompress.models.wrappers import unwrapped
from hfcompress.pruning.costs.latency import Deployment, time_models
from hfcompress.pruning.find_plans import LATENCY_PAIRS, FoundPlan, deployment_of, describe, find_plans, latency_pairs
from hfcompress.pruning.memory import pruning_memory
from hfcompress.pruning.write import title_of, write_pruned
from hfcompress.quantization.artifacts import calibration_batches, export_memory
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import activation_of, ranking_tokenizer
from hfcompress.recipe import DataStep, PruneStep, Target
from hfcompress.utils.device import CPU, require_one_process, torch_device
from hfcompress.utils.files import replaced_folder, write_bytes, write_text
from hfcompress.utils.log import timed
from hfcompress.utils.machine import limited_torch_threads
from hfcompress.utils.memory import require_memory
from hfcompress.utils.settings import Closed

logger = logging.getLogger(__name__)

CALIBRATION_PAIRS = 64
FAMILY_FILE = "family.json"


class PrunedModel(Closed):
    """One pruned model, as `family.json` records it.

    Attributes:
        folder: Its folder, relative to the output folder; `.` for a single target.
        target: The target, e.g. `speedup 2`.
        calibration_loss: Divergence of its ranking from the dense model's on held-out calibration queries.
        encoder_macs_kept: Share of the encoder's MACs that remains. Older files call it `encoder_flops_kept`.
        parameters: Parameters of the model.
        predicted_speedup: Speed-up over the dense model on the same runtime, by the latency table; None where the
            target is not a time.
        measured_speedup: Measured speed-up, both models timed in turns; None where it was not measured.
    """

    folder: str
    target: str
    calibration_loss: float
    encoder_macs_kept: float = Field(validation_alias=AliasChoices("encoder_macs_kept", "encoder_flops_kept"))
    parameters: int
    predicted_speedup: float | None
    measured_speedup: float | None


def prune_checkpoint(
    name: str,
    sets: Sequence[str],
    out: Path,
    step: PruneStep,
    targets: Sequence[Target] = (),
    *,
    max_length: int | None = None,
    candidates: int = 20,
    threads: int = 0,
    seed: int = 0,
    measured: bool = True,
    progress: bool = True,
    device: str = "auto",
    dtype: str = "float32",
) -> list[PrunedModel]:
    """Load a cross-encoder and data, and prune the model without training, once for each target.

    Args:
        name: A folder, a Hub id, or `package:NAME/FOLDER`.
        sets: Data sets, as `data.sets` in a recipe, with a train split.
        out: As for `prune_model`.
        step: As for `prune_model`.
        targets: As for `prune_model`.
        max_length: Longest input in tokens; by default the tokenizer's, at most the model's positions.
        candidates: As for `prune_model`.
        threads: As for `prune_model`.
        seed: As for `prune_model`.
        measured: As for `prune_model`.
        progress: Show progress bars.
        device: Device of the model: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        dtype: As for `prune_model`.

    Returns and raises what `prune_model` does.
    """
    require_one_process()
    targets, chosen = _checked_targets(step, targets), torch_device(device)
    config = load_config(name)
    require_one_score(config)
    activation_of(config)
    _check_folder(out, name)
    tokenizer = ranking_tokenizer(name, config, max_length)
    if targets or step.has_shares:
        size = ModelSize.of(config)
        estimate = pruning_memory(size, step.importance, tokenizer.model_max_length, step.calibration_queries)
        require_memory(estimate, chosen)
        if measured:  # the unpruned model is exported too
            require_memory(export_memory(size), torch_device(CPU))
    model = load_model(name, dtype="float32", device=chosen)
    for line in _plan(name, sets, out, step, targets, measured):
        logger.info(line)
    with timed("data", logger):
        score_text = score_text_of(config)
        data = load_data(DataStep(sets=list(sets), candidates=candidates, score_text=score_text), progress)
    return prune_model(
        model,
        tokenizer,
        data,
        out,
        step,
        targets,
        candidates=candidates,
        threads=threads,
        seed=seed,
        measured=measured,
        progress=progress,
        dtype=dtype,
    )


@limited_torch_threads()
def prune_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: RankingData,
    out: Path,
    step: PruneStep,
    targets: Sequence[Target] = (),
    *,
    candidates: int = 20,
    threads: int = 0,
    seed: int = 0,
    measured: bool = True,
    progress: bool = True,
    dtype: str = "float32",
) -> list[PrunedModel]:
    """Prune a cross-encoder without training, once for each target, and write the checkpoints.

    Args:
        model: The dense model; it is not changed, and everything runs on its device.
        tokenizer: Its tokenizer; `model_max_length` is the longest input.
        data: Data with a train split.
        out: Output folder: one checkpoint, or a folder for each of several targets; and `family.json`. What an earlier
            call wrote there is replaced.
        step: How to prune; its own target is used only where `targets` is empty.
        targets: Targets, all of one kind.
        candidates: Documents to rank per query.
        threads: Threads of the runtime; 0 uses all cores.
        seed: Random seed.
        measured: Whether to export every pruned model and time it against the dense one.
        progress: Show progress bars.
        dtype: Precision in which the runtime `torch` is timed, on the device of the model: `float32`, `float16` or
            `bfloat16`.

    Returns:
        The pruned models, in the order of the targets.

    Raises:
        HfCompressError: The input has a fault that the user can correct; nothing is written then.
    """
    model = unwrapped(model)
    targets = _checked_targets(step, targets)
    _check_folder(out)
    data.split("train")
    if any(kind == "target_latency_ms" for kind, _ in targets):
        step = step.model_copy(update={"target_latency_ms": targets[0][1]})
    options = RankerOptions(threads=threads, device=str(model.device))
    deployment = replace(deployment_of(step, [], options, candidates), dtype=dtype)
    max_length = tokenizer.model_max_length
    found_plans = find_plans(
        model,
        tokenizer,
        data,
        step,
        targets,
        deployment=deployment,
        max_length=max_length,
        seed=seed,
        progress=progress,
    )
    plans = found_plans.plans
    for found in plans:
        logger.info(f"{title_of(found.target)}: {describe(found)}")
    speedups: Sequence[float | None] = [None] * len(plans)
    if measured and any(found.macs_kept < 1 for found in plans):
        with timed("timing", logger):
            speedups = _measured_speedups(model, tokenizer, data, plans, deployment, progress)
    pruned_models = []
    with timed("writing", logger), replaced_folder(out) as temporary:
        for found, speedup in zip(plans, speedups, strict=True):
            title = title_of(found.target)
            folder = "." if len(plans) == 1 else title.replace(" ", "-")
            summary, parameters = write_pruned(
                temporary / folder,
                model,
                tokenizer,
                found_plans.importance,
                found,
                data=data,
                max_length=max_length,
                vocabulary=step.vocabulary,
                weights=step.weights,
                progress=progress,
            )
            write_bytes(temporary / folder / STRUCTURE_FILE, structure(summary))
            if summary.vocabulary:
                logger.info(f"{title}: {summary.vocabulary.in_words()}")
            pruned_models.append(
                PrunedModel(
                    folder=folder,
                    target=title,
                    calibration_loss=found.loss,
                    encoder_macs_kept=found.macs_kept,
                    parameters=parameters,
                    predicted_speedup=found.speedup,
                    measured_speedup=speedup,
                )
            )
        write_text(temporary / FAMILY_FILE, family_json(pruned_models))
    return pruned_models


def family_json(pruned_models: Sequence[PrunedModel]) -> str:
    """The content of `family.json`."""
    return json.dumps([each.model_dump(mode="json") for each in pruned_models], indent=2) + "\n"


def _measured_speedups(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: RankingData,
    plans: Sequence[FoundPlan],
    deployment: Deployment,
    progress: bool,
) -> list[float]:
    """Speed-up of every pruned model over the dense one; all are exported and timed in turns."""
    pairs = latency_pairs(data, LATENCY_PAIRS)
    calibration = calibration_batches(tokenizer, pairs[:: max(1, len(pairs) // CALIBRATION_PAIRS)])
    models = [model, *(pruned_copy(model, found.plan, found.weights) for found in plans)]
    dense, *seconds = time_models(models, tokenizer, pairs, deployment, calibration, progress)
    return [dense / each for each in seconds]


def _plan(
    name: str, sets: Sequence[str], out: Path, step: PruneStep, targets: Sequence[Target], measured: bool
) -> list[str]:
    """The steps ahead, as lines for the log."""
    wanted = ", ".join(title_of(target) for target in targets) or "the shares given"
    steps = [("data", f"read {', '.join(sets)}")]
    if targets or step.has_shares:
        steps.append(("importance", f"{step.importance} on {step.calibration_queries} train queries"))
        steps.append(("search", f"plans for {wanted}"))
        if measured:
            steps.append(("timing", f"export to {step.runtime} and time beside the unpruned model"))
    cuts = [cut for cut, asked in (("vocabulary", step.vocabulary), ("single weights", step.weights)) if asked]
    what = "a checkpoint" if len(targets) < 2 else f"{len(targets)} checkpoints"
    steps.append(("writing", f"{what} without training" + (f", with {' and '.join(cuts)} cut" if cuts else "")))
    lines = [f"plan for {out}: prune {name} in {len(steps)} steps"]
    return lines + [f"  {number}. {title:<10}  {what}" for number, (title, what) in enumerate(steps, 1)]


def _checked_targets(step: PruneStep, targets: Sequence[Target]) -> list[Target]:
    """The targets, or that of the step where there are none.

    Raises:
        RecipeError: A value is not valid.
        DataError: The targets are of different kinds, or one is repeated.
    """
    targets = list(targets) or ([step.target] if step.target else [])
    for kind, value in targets:
        PruneStep.of({kind: value})
    if len(kinds := sorted({kind for kind, _ in targets})) > 1:
        raise DataError(
            "The targets are of different kinds",
            value=kinds,
            expected="several targets of one kind, e.g. speed-ups 1.5, 2 and 3",
            remedy="run the command once for each kind",
        )
    if len({title_of(target) for target in targets}) < len(targets):
        raise DataError("A target is given twice", value=targets, expected="different targets", remedy="remove one")
    return targets


def _check_folder(out: Path, name: str | None = None) -> None:
    """Check that the output folder may be replaced.

    Raises:
        OutputError: It holds files of others, or the model `name`.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / FAMILY_FILE).is_file())):
        raise OutputError(
            "The output folder holds something else",
            value=str(out),
            expected="a new or empty folder, or one that `hfcompress prune` has written",
            remedy="name another folder with --out",
        )
    if name and (model := Path(resolve(name))).is_dir() and model.resolve().is_relative_to(out.resolve()):
        raise OutputError(
            "The output folder holds the model that is to be pruned",
            value=f"{out} holds {name}",
            expected="another folder, since the files of an earlier prune are removed from it",
            remedy="name another folder with --out",
        )
