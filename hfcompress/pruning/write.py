"""Write a pruned checkpoint: structures, vocabulary and single weights cut from a copy of the model."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.data.ranking import RankingData
from hfcompress.data.score_text import HIGHEST
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import PRUNING_FILE
from hfcompress.models.prompts import prompts_of
from hfcompress.models.sparsity import sparsify, zero_share
from hfcompress.models.surgery import current_plan, needs_custom_code, pruned_copy
from hfcompress.pruning.find_plans import FoundPlan
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.summary import pruning_summary
from hfcompress.rankers.load import activation_name
from hfcompress.recipe import Target, VocabularyStep, WeightPruning
from hfcompress.report.structure import PruningSummary, SparsitySummary, VocabularySummary
from hfcompress.utils.files import write_text
from hfcompress.vocabulary.coverage import coverage
from hfcompress.vocabulary.plan import plan_vocabulary
from hfcompress.vocabulary.prune import prune_vocabulary

HELD_OUT_PAIRS = 2000


def write_pruned(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    importance: Importance,
    found: FoundPlan,
    *,
    data: RankingData,
    max_length: int,
    vocabulary: VocabularyStep | None = None,
    weights: WeightPruning | None = None,
    progress: bool = True,
) -> tuple[PruningSummary, int]:
    """Prune a copy of a model by a plan, then its vocabulary and single weights if asked for, and write the checkpoint.

    Args:
        folder: Folder to write.
        model: The dense model; it is not changed.
        tokenizer: Its tokenizer.
        importance: Importance that the plan was made from.
        found: Plan and weights.
        data: Corpus and queries whose tokens the vocabulary keeps.
        max_length: Longest input in tokens.
        vocabulary: Which tokens to keep; None keeps all.
        weights: Which single weights to set to zero; None for none. Gradual weight pruning is left to the recovery.
        progress: Show progress bars.

    Returns:
        The summary that is also written into the folder, and the number of parameters that remain.
    """
    before = current_plan(model)
    custom_code = needs_custom_code(model.config, found.plan)
    summary = pruning_summary(importance, before, found.plan, found.macs_kept, custom_code)
    activation = activation_name(model.config)
    student = pruned_copy(model, found.plan, found.weights)
    vocabulary_summary = None
    if vocabulary:
        student, tokenizer, vocabulary_summary = _prune_vocabulary(student, tokenizer, vocabulary, data, progress)
    if weights and not weights.gradual:
        sparsify(student, weights.pattern, weights.sparsity)
    summary = summary.model_copy(
        update={
            "target": title_of(found.target),
            "calibration_loss": found.loss,
            "predicted_speedup": found.speedup,
            "vocabulary": vocabulary_summary,
            "weights": sparsity_summary(student, weights) if weights else None,
        }
    )
    save_checkpoint(folder, student, tokenizer, activation, max_length)
    write_text(folder / PRUNING_FILE, summary.model_dump_json(indent=2) + "\n")
    return summary, sum(parameter.numel() for parameter in student.parameters())


def sparsity_summary(model: PreTrainedModel, step: WeightPruning) -> SparsitySummary:
    """The sparsity asked for, and the share of zeros that the model has."""
    return SparsitySummary(pattern=step.pattern, sparsity=step.sparsity, zero_share=zero_share(model))


def title_of(target: Target | None) -> str:
    """A target in words, e.g. `speedup 2`."""
    return "explicit" if target is None else f"{target[0].removeprefix('target_').replace('_', ' ')} {target[1]:g}"


def _prune_vocabulary(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    step: VocabularyStep,
    data: RankingData,
    progress: bool,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, VocabularySummary]:
    """Keep the tokens of corpus and train queries; compare tokenizers on the pairs of the dev or test split."""
    texts = [document.content for document in data.corpus.values()]
    prompt = prompts_of(tokenizer).text
    texts += [prompt + data.queries[query] for query in data.split("train", labelled=False).candidates]
    scores = map(str, range(HIGHEST + 1)) if data.score_text else ()
    plan = plan_vocabulary(
        tokenizer, texts, step.min_count, [*step.keep, *scores, *tokenizer.tokenize(prompt)], step.characters, progress
    )
    student, pruned = prune_vocabulary(student, tokenizer, plan)
    held_out = data.splits.get("dev") or data.splits.get("test") or data.split("train")
    found_pairs = (pair for query, documents in held_out.candidates.items() for pair in data.pairs(query, documents))
    pairs = [(prompt + query, document) for query, document in islice(found_pairs, HELD_OUT_PAIRS)]
    found = coverage(tokenizer, pruned, pairs, progress)
    summary = VocabularySummary(
        tokens_before=plan.size,
        tokens_after=len(plan.kept),
        min_count=step.min_count,
        held_out_pairs=found.texts,
        changed_share=found.changed,
    )
    return student, pruned, summary
