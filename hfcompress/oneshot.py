"""prune: importance, search and surgery alone, from a checkpoint to a family of pruned checkpoints."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.architectures import require_one_score
from hfcompress.checkpoint import save_checkpoint
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.data.score_text import HIGHEST, score_text_of
from hfcompress.errors import DataError, ModelError, OutputError
from hfcompress.evaluation.pruned import pruning_summary
from hfcompress.evaluation.structure import PruningSummary, SparsitySummary, VocabularySummary
from hfcompress.figures import structure
from hfcompress.files import replaced_folder, write_bytes, write_text
from hfcompress.importance.importance import Importance
from hfcompress.latency import Deployment, deploy, time_rankers
from hfcompress.layout import PRUNING_FILE, STRUCTURE_FILE
from hfcompress.models import load_config, load_model, load_tokenizer, position_limit, resolve
from hfcompress.progress import timed
from hfcompress.pruning import LATENCY_PAIRS, Pruned, deployment_of, describe, latency_pairs, prune_family
from hfcompress.quantization.artifacts import calibration_batches
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import activation_name, activation_of
from hfcompress.recipe import DataStep, PruneStep, Target, VocabularyStep, WeightPruning
from hfcompress.sparsity import sparsify, zero_share
from hfcompress.surgery import current_plan, needs_custom_code, pruned_copy
from hfcompress.vocabulary.coverage import coverage
from hfcompress.vocabulary.plan import plan_vocabulary
from hfcompress.vocabulary.prune import prune_vocabulary

HELD_OUT_PAIRS = 2000
CALIBRATION_PAIRS = 64
ROUNDS = 7
FAMILY_FILE = "family.json"


class Member(BaseModel):
    """One model of a family, as `family.json` has it.

    Attributes:
        folder: Its folder, below the output folder; `.` for the only one.
        target: What was asked for, e.g. `speedup 2`.
        calibration_loss: Divergence of its ranking from the dense model's on held-out calibration queries.
        encoder_flops_kept: Share of the encoder's multiply-adds.
        parameters: Parameters of the model.
        predicted_speedup: What the latency table says, against the dense model on the same runtime; None where no time
            was asked for.
        measured_speedup: What the clock says, both in turns.
    """

    model_config = ConfigDict(extra="forbid")

    folder: str
    target: str
    calibration_loss: float
    encoder_flops_kept: float
    parameters: int
    predicted_speedup: float | None
    measured_speedup: float | None


def prune_checkpoint(
    name: str,
    sets: Sequence[str],
    out: Path,
    step: PruneStep,
    targets: Sequence[Target],
    max_length: int | None = None,
    candidates: int = 20,
    threads: int = 0,
    seed: int = 0,
    measured: bool = True,
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> list[Member]:
    """Prune a cross-encoder without training, once for each target, and write what comes of it.

    Args:
        name: A folder, a Hub id, or `package:NAME/FOLDER`.
        sets: As `data.sets` in a recipe, with a train split.
        out: Folder to write: the checkpoint, or with several targets a folder for each; and `family.json`.
        step: How to prune; its own target counts only where `targets` is empty.
        targets: What to reach, all of one kind.
        max_length: Longest input in tokens; by default the tokenizer's, at most the model's positions.
        candidates: Documents to rank for a query.
        threads: Threads of the runtime; 0 uses all cores.
        seed: Seed of everything random.
        measured: Whether to export every member and time it against the dense model.
        say: Called with a line for the user.
        progress: Show progress bars.

    Returns:
        The members, in the order of the targets.

    Raises:
        HfCompressError: Something that the user can mend; nothing is written then.
    """
    targets = list(targets) or ([step.target] if step.target else [])
    _check(name, out, targets)
    limit = position_limit(load_config(name))
    model, tokenizer = load_model(name, dtype="float32"), load_tokenizer(name)
    length = min(max_length or tokenizer.model_max_length, limit)
    if max_length and max_length > limit:
        raise ModelError(
            "max_length is longer than the model's positions",
            value=max_length,
            expected=f"at most {limit} tokens",
            remedy="lower it",
        )
    tokenizer.model_max_length = length
    for line in _plan(name, sets, out, step, targets, measured):
        say(line)
    with timed("data", say):
        score_text = score_text_of(model.config)
        data = load_data(DataStep(sets=list(sets), candidates=candidates, score_text=score_text), progress)
    data.split("train")
    if any(kind == "target_latency_ms" for kind, _ in targets):
        step = step.model_copy(update={"target_latency_ms": targets[0][1]})
    deployment = deployment_of(step, [], RankerOptions(threads=threads), candidates)
    family = prune_family(model, tokenizer, data, step, targets, deployment, length, seed, say, progress)
    for member in family.members:
        say(f"{title_of(member.target)}: {describe(member)}")
    speedups = None
    if measured and any(member.flops_kept < 1 for member in family.members):
        with timed("timing", say):
            speedups = _measure(model, tokenizer, data, family.members, deployment, progress)
    members = []
    with timed("writing", say), replaced_folder(out) as aside:
        for number, pruned in enumerate(family.members):
            folder = "." if len(family.members) == 1 else title_of(pruned.target).replace(" ", "-")
            summary, parameters = write_pruned(
                aside / folder,
                model,
                tokenizer,
                family.importance,
                pruned,
                step.vocabulary,
                data,
                length,
                progress,
                step.weights,
            )
            write_bytes(aside / folder / STRUCTURE_FILE, structure(summary))
            if summary.vocabulary:
                say(f"{title_of(pruned.target)}: {summary.vocabulary.in_words()}")
            members.append(
                Member(
                    folder=folder,
                    target=title_of(pruned.target),
                    calibration_loss=pruned.loss,
                    encoder_flops_kept=pruned.flops_kept,
                    parameters=parameters,
                    predicted_speedup=pruned.speedup,
                    measured_speedup=speedups[number] if speedups else None,
                )
            )
        write_text(aside / FAMILY_FILE, family_json(members))
    return members


def family_json(members: Sequence[Member]) -> str:
    """A family as `family.json` has it."""
    return json.dumps([member.model_dump(mode="json") for member in members], indent=2) + "\n"


def write_pruned(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    importance: Importance,
    pruned: Pruned,
    vocabulary: VocabularyStep | None,
    data: RankingData,
    max_length: int,
    progress: bool = True,
    weights: WeightPruning | None = None,
) -> tuple[PruningSummary, int]:
    """Cut a copy of a model by a plan and, if asked for, its vocabulary and single weights, and write the checkpoint.

    Args:
        folder: Where to write.
        model: The dense model; it stays as it is.
        tokenizer: Its tokenizer.
        importance: Importance that led to the plan.
        pruned: Plan and weights.
        vocabulary: Which tokens survive; all where left out.
        data: Corpus and queries that the vocabulary must serve.
        max_length: Longest input in tokens.
        progress: Show progress bars.
        weights: Which single weights are set to zero, unless they are to go in recovery; none where left out.

    Returns:
        What was pruned, which is also written beside the checkpoint, and the parameters that are left.
    """
    before = current_plan(model)
    summary = pruning_summary(
        importance, before, pruned.plan, pruned.flops_kept, needs_custom_code(model.config, pruned.plan)
    )
    activation = activation_name(model.config)
    student = pruned_copy(model, pruned.plan, pruned.weights)
    figures = None
    if vocabulary:
        student, tokenizer, figures = _cut_vocabulary(student, tokenizer, vocabulary, data, progress)
    if weights and not weights.gradual:
        sparsify(student, weights.pattern, weights.sparsity)
    summary = summary.model_copy(
        update={
            "target": title_of(pruned.target),
            "calibration_loss": pruned.loss,
            "predicted_speedup": pruned.speedup,
            "vocabulary": figures,
            "weights": sparsity_summary(student, weights) if weights else None,
        }
    )
    save_checkpoint(folder, student, tokenizer, activation, max_length)
    write_text(folder / PRUNING_FILE, summary.model_dump_json(indent=2) + "\n")
    return summary, sum(parameter.numel() for parameter in student.parameters())


def sparsity_summary(model: PreTrainedModel, step: WeightPruning) -> SparsitySummary:
    """What was asked of a model's single weights, and how many are zero."""
    return SparsitySummary(pattern=step.pattern, sparsity=step.sparsity, zero_share=zero_share(model))


def _cut_vocabulary(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    step: VocabularyStep,
    data: RankingData,
    progress: bool,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, VocabularySummary]:
    """Keep what corpus and train queries need; report on the pairs of the dev or test split."""
    texts = [document.content for document in data.corpus.values()]
    texts += [data.queries[query] for query in data.split("train", labelled=False).candidates]
    scores = map(str, range(HIGHEST + 1)) if data.score_text else ()
    plan = plan_vocabulary(tokenizer, texts, step.min_count, [*step.keep, *scores], step.characters, progress)
    student, cut = prune_vocabulary(student, tokenizer, plan)
    held_out = data.splits.get("dev") or data.splits.get("test") or data.split("train")
    pairs = [pair for query, documents in held_out.candidates.items() for pair in data.pairs(query, documents)]
    seen = coverage(tokenizer, cut, pairs[:HELD_OUT_PAIRS], progress)
    summary = VocabularySummary(
        tokens_before=plan.size,
        tokens_after=len(plan.kept),
        min_count=step.min_count,
        held_out_pairs=seen.texts,
        changed_share=seen.changed,
    )
    return student, cut, summary


def _measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: RankingData,
    members: Sequence[Pruned],
    deployment: Deployment,
    progress: bool,
) -> list[float]:
    """Speed-up of every member over the dense model, exported and timed in turns."""
    pairs = latency_pairs(data, LATENCY_PAIRS)
    calibration = calibration_batches(tokenizer, pairs[:: max(1, len(pairs) // CALIBRATION_PAIRS)])
    models = [model, *(pruned_copy(model, member.plan, member.weights) for member in members)]
    with tempfile.TemporaryDirectory() as folder:
        rankers = [
            deploy(each, tokenizer, deployment, calibration, Path(folder, str(number)))
            for number, each in enumerate(models)
        ]
        dense, *seconds = time_rankers(rankers, pairs, ROUNDS, deployment.documents_per_request, progress)
    return [dense / each for each in seconds]


def _plan(
    name: str, sets: Sequence[str], out: Path, step: PruneStep, targets: Sequence[Target], measured: bool
) -> list[str]:
    """What is ahead, for the user."""
    sought = ", ".join(title_of(target) for target in targets) or "the shares given"
    steps = [("data", f"read {', '.join(sets)}")]
    if targets or step.has_shares:
        steps.append(("importance", f"{step.importance} on {step.calibration_queries} train queries"))
        steps.append(("search", f"plans for {sought}"))
        if measured:
            steps.append(("timing", f"export to {step.runtime} and time beside the unpruned model"))
    cuts = [cut for cut, asked in (("vocabulary", step.vocabulary), ("single weights", step.weights)) if asked]
    what = "a checkpoint" if len(targets) < 2 else f"{len(targets)} checkpoints"
    steps.append(("writing", f"{what} without training" + (f", with {' and '.join(cuts)} cut" if cuts else "")))
    lines = [f"plan for {out}: prune {name} in {len(steps)} steps"]
    return lines + [f"  {number}. {title:<10}  {what}" for number, (title, what) in enumerate(steps, 1)]


def _check(name: str, out: Path, targets: Sequence[Target]) -> None:
    """Find out what is wrong before long work starts."""
    config = load_config(name)
    require_one_score(config)
    activation_of(config)
    for kind, value in targets:
        PruneStep.of({kind: value})
    if len({kind for kind, _ in targets}) > 1:
        raise DataError(
            "The targets of a family are of different kinds",
            value=sorted({kind for kind, _ in targets}),
            expected="several targets of one kind, e.g. speed-ups 1.5, 2 and 3",
            remedy="run the command once for each kind",
        )
    if len({title_of(target) for target in targets}) < len(targets):
        raise DataError(
            "A target is given twice", value=list(targets), expected="different targets", remedy="remove one"
        )
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / FAMILY_FILE).is_file())):
        raise OutputError(
            "The output folder holds something else",
            value=str(out),
            expected="a new or empty folder, or one that `hfcompress prune` has written",
            remedy="name another folder with --out",
        )
    if (given := Path(resolve(name))).is_dir() and given.resolve().is_relative_to(out.resolve()):
        raise OutputError(
            "The output folder holds the model that is to be pruned",
            value=f"{out} holds {name}",
            expected="a folder of its own, since all that an earlier prune has left in it goes",
            remedy="name another folder with --out",
        )


def title_of(target: Target | None) -> str:
    """A target in words, e.g. `speedup 2`."""
    return "explicit" if target is None else f"{target[0].removeprefix('target_').replace('_', ' ')} {target[1]:g}"
