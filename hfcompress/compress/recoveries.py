"""Short recoveries of the models of a family, and the measured cost of training one."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import Dataset, load_from_disk
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.compress.budget import DOCUMENTS
from hfcompress.compress.context import CompressContext
from hfcompress.compress.family import Family, FamilyMember
from hfcompress.compress.step_results import RESULT, cached_value
from hfcompress.evaluation.metrics import split_values
from hfcompress.evaluation.results import primary_values
from hfcompress.evaluation.significance import compare
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import Optimization, RecoverStep
from hfcompress.report.delta import Delta
from hfcompress.report.report import Artifact
from hfcompress.steps.workspace import StepFolder
from hfcompress.training.callbacks import without_autocast
from hfcompress.training.fit import fit
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.utils.files import write_text
from hfcompress.utils.settings import Closed

LEARNING_RATE = 2e-4
PROBE_LISTS = 32  # at least four steps, the first of which is slower


class ShortRecovery(Closed):
    """Result of a short recovery.

    Attributes:
        delta: Difference to the teacher on dev, in fp32 PyTorch.
        seconds: Duration, the evaluation included.
        pair_seconds: Seconds of training on one pair.
    """

    delta: Delta
    seconds: float
    pair_seconds: float


def optimization(documents: int) -> Optimization:
    """Settings of a recovery, for one epoch.

    Longer lists make smaller batches of lists, so that a step has as many pairs.

    Args:
        documents: Documents of a list.
    """
    lists = max(1, Optimization().queries_per_batch * DOCUMENTS // documents)
    return Optimization(learning_rate=LEARNING_RATE, queries_per_batch=lists)


def short_recovery(
    context: CompressContext,
    family: Family,
    member: FamilyMember,
    teacher: Artifact,
    scored: StepFolder,
    lists: int,
    documents: int,
) -> ShortRecovery:
    """Train a pruned model on the first lists for one epoch, and compare it with its teacher on dev.

    Args:
        context: The call.
        family: The family of the model.
        member: The model.
        teacher: Measurements of the teacher on dev.
        scored: Lists with the teacher's scores.
        lists: Number of lists to train on.
        documents: Documents of a list.
    """

    def work(folder: Path, partial: Path) -> None:
        start = time.perf_counter()
        model, tokenizer, pair_seconds = _trained(context, member, scored, lists, documents)
        with without_autocast(model):
            values = split_values(TorchRanker(model, tokenizer, options=context.options), context.data, "dev")
        step = context.recipe.evaluate
        delta = compare(
            teacher.per_query,
            primary_values(values),
            step.margin,
            step.confidence,
            seed=context.recipe.seed,
            set_of=context.data.set_of,
        )
        seconds = time.perf_counter() - start
        result = ShortRecovery(delta=delta, seconds=seconds, pair_seconds=pair_seconds)
        write_text(folder / RESULT, result.model_dump_json())

    settings = context.recipe.evaluate.model_dump(mode="json", include={"margin", "confidence"})
    inputs = [family.fingerprint, scored.fingerprint, lists, member.pruning_speedup, settings]
    name = f"recovered{member.pruning_speedup:g}on{lists}"
    folder = context.workspace.step(name, inputs, work, f"train {member.label} on {lists} lists").path
    return ShortRecovery.model_validate_json((folder / RESULT).read_bytes())


def measured_rate(
    context: CompressContext, family: Family, member: FamilyMember, scored: StepFolder, documents: int
) -> float:
    """Seconds of training on one pair, measured on a few lists; for a model without a short recovery.

    Args:
        context: The call.
        family: The family of the model.
        member: The model.
        scored: Lists with the teacher's scores.
        documents: Documents of a list.
    """
    known = [family.fingerprint, scored.fingerprint, member.pruning_speedup]

    def measure() -> float:
        return _trained(context, member, scored, PROBE_LISTS, documents)[2]

    return float(cached_value(context.workspace, "rate", known, measure))


def _trained(
    context: CompressContext, member: FamilyMember, scored: StepFolder, lists: int, documents: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, float]:
    """Train a model for one epoch, without evaluations and without a checkpoint to resume from, which would be timed.

    Returns:
        The model, its tokenizer, and the seconds of training on one pair.
    """
    found = load_from_disk(str(scored.path))
    rows = Dataset.from_list(found.select(range(min(lists, len(found)))).to_list())
    model = load_model(str(member.folder), dtype="float32", device=context.options.device)
    tokenizer = load_tokenizer(str(member.folder), context.max_length)
    splits = {name: split for name, split in context.data.splits.items() if name != "dev"}
    start = time.perf_counter()
    with TemporaryDirectory(dir=context.workspace.folder, prefix="training-") as folder:
        fit(
            RankingDistillationTrainer,
            model,
            tokenizer,
            lists=rows,
            data=replace(context.data, splits=splits),
            settings=optimization(documents),
            folder=Path(folder),
            seed=context.recipe.seed,
            progress=context.progress,
            distillation_loss=RecoverStep().loss,
        )
    return model, tokenizer, (time.perf_counter() - start) / sum(len(row) for row in rows["documents"])
