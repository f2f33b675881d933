"""What comes before any choice of `compress`: checks, as many queries as the time allows, and the margin."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Sequence

from hfcompress.compress.context import CompressContext, loading_recipe
from hfcompress.compress.goal import Goal
from hfcompress.compress.step_results import cached_value, pairs_per_second
from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metrics import PRIMARY_METRIC, judged_queries, means, values_of_scores
from hfcompress.evaluation.scores import split_scores
from hfcompress.models.load import load_config, load_tokenizer, model_fingerprint
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import PruneStep, Recipe, RecoverStep, SplitLimits, VocabularyStep
from hfcompress.steps.checks import check, check_data, check_zero_shot, check_zero_shot_names
from hfcompress.steps.inputs import load_run_data, load_zero_shot
from hfcompress.steps.memory import check_memory
from hfcompress.steps.workspace import Workspace
from hfcompress.utils.device import torch_device
from hfcompress.vocabulary.content import content_of

logger = logging.getLogger(__name__)

DEV_QUERIES = (100, 400)  # minimum and maximum for choices: with more, a plan can be expected to pass by more than luck
DEV_TIME = 0.015  # of the time, for the teacher to score dev queries once; all choices take some ten times as long
FEWEST_DEV = 2  # for an interval
DEV_SHARE = 5  # without a dev split, at most one of so many train queries becomes dev
FEWEST_TEST = 50
TEST_SHARE = 0.12  # of the time, for the teacher's scores of test queries; the student's come to as much again
PSEUDO_QUERIES = 1000  # if no train query has labels


def prepare(
    recipe: Recipe, workspace: Workspace, goal: Goal, progress: bool, zero_shot: Sequence[str] = ()
) -> CompressContext:
    """Check the shared settings and load the data, with all test queries unless the time is too short for them.

    Args:
        recipe: The shared settings.
        workspace: Keeps the results of steps.
        goal: The goal.
        progress: Show progress bars.
        zero_shot: Data sets on which the final run evaluates besides its own; they are checked here.

    Raises:
        HfCompressError: A fault that the user can mend.
    """
    began = time.perf_counter()
    check(recipe)
    _check_usual_memory(recipe, goal)
    check_zero_shot_names(_with_zero_shot(recipe, zero_shot))
    if goal.vocabulary == "corpus" or goal.max_size_mb is not None:
        content_of(load_tokenizer(recipe.teacher.model))
    recipe, supervision, data = _with_queries(recipe, progress)
    for checked in (recipe, loading_recipe(recipe, supervision)):
        check_data(checked, data)
    outside = load_zero_shot(_with_zero_shot(recipe, zero_shot), data, progress)
    check_zero_shot(data, outside)
    zero_shot_pairs = sum(len(listed) for each in outside for listed in each.split("test").candidates.values())
    workspace.begin()
    teacher, threads = recipe.teacher, recipe.evaluate.threads
    known = [model_fingerprint(teacher.model), data.fingerprint(), teacher.max_length, threads]

    long_documents = recipe.evaluate.long_documents
    known += [] if long_documents.is_default else [long_documents.model_dump(mode="json")]
    options = RankerOptions(threads, device=str(torch_device(recipe.device)), long_documents=long_documents)

    def measure() -> float:
        return pairs_per_second(teacher.model, data, "dev", teacher.max_length, options)

    rate = cached_value(workspace, "probe", known, measure)

    def sizes(split: str) -> list[int]:
        return list(Counter(map(data.set_of, data.splits[split].candidates)).values())

    def most_of_each(split: str, share: float, fewest: int, most: float = math.inf) -> int:
        total = min(most, max(fewest, share * goal.seconds * rate / recipe.data.candidates))
        return even_cap(sizes(split), int(total))

    # Not by the budget of a resumed call: with other queries, all measurements would be void.
    each = cached_value(
        workspace,
        "queries",
        known,
        lambda: {
            "dev": most_of_each("dev", DEV_TIME, *DEV_QUERIES),
            "test": most_of_each("test", TEST_SHARE, FEWEST_TEST),
        },
    )
    if recipe.data.dev_from_train:
        del each["dev"]
    if max(sizes("test")) > each["test"]:
        logger.info(
            f"test: {len(data.splits['test']):,} queries take more than {TEST_SHARE:.0%} of the time: at most "
            f"{each['test']:,} of each set serve, which weakens the verdict; more time (--time-budget) allows for more"
        )
    start = time.perf_counter()
    if any(max(sizes(name)) > most for name, most in each.items()):
        limits = recipe.data.max_queries.model_copy(update=each)
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_queries": limits})})
        data = load_run_data(loading_recipe(recipe, supervision), progress)
    loading = max(start - began, time.perf_counter() - start)
    return CompressContext(
        goal=goal,
        recipe=recipe,
        supervision=supervision,
        data=data,
        workspace=workspace,
        rate=rate,
        progress=progress,
        began=began,
        loading=loading,
        zero_shot=tuple(zero_shot),
        zero_shot_pairs=zero_shot_pairs,
    )


def _check_usual_memory(recipe: Recipe, goal: Goal) -> None:
    """Check the memory of pruning and recovery, whose settings are chosen later, by those of a usual run."""
    cut = goal.vocabulary == "corpus" or goal.max_size_mb is not None
    step = PruneStep(target_macs=0.5, vocabulary=VocabularyStep() if cut else None)
    usual = recipe.model_copy(update={"prune": step, "recover": RecoverStep()})
    check_memory(usual, load_config(recipe.teacher.model))


def even_cap(sizes: Sequence[int], total: int) -> int:
    """The largest number, at least 1, so that as many of each part, or the whole part, are at most `total` together.

    Args:
        sizes: Sizes of the parts.
        total: What all of them may have.
    """
    if sum(sizes) <= total:
        return max(1, *sizes)
    rest, cap = total, 0
    for number, size in enumerate(sorted(sizes)):
        cap = rest // (len(sizes) - number)
        if size > cap:
            break
        rest -= size
    return max(1, cap)


def _with_zero_shot(recipe: Recipe, sets: Sequence[str]) -> Recipe:
    """A recipe that also evaluates on these data sets; the measurements of `compress` do not depend on them."""
    evaluate = recipe.evaluate.model_copy(update={"zero_shot": list(sets)})
    return recipe.model_copy(update={"evaluate": evaluate})


def set_margin(context: CompressContext) -> None:
    """Set the margin that `keep` of the goal stands for, by the teacher's quality on dev, before any comparison."""
    goal = context.goal
    if goal.keep is None:
        return

    def measure() -> float:
        scores = split_scores(
            Candidate.teacher(context.teacher, "teacher"),
            context.data,
            "dev",
            max_length=context.max_length,
            options=context.options,
            progress=context.progress,
        )
        return means(values_of_scores(scores, context.data, "dev"))[PRIMARY_METRIC]

    known = [model_fingerprint(context.teacher), context.data.fingerprint(), context.max_length]
    long_documents = context.recipe.evaluate.long_documents
    known += [] if long_documents.is_default else [long_documents.model_dump(mode="json")]
    teacher = float(cached_value(context.workspace, "margin", known, measure))
    context.goal = goal.with_margin(teacher)
    margin = context.goal.max_loss
    evaluate = context.recipe.evaluate.model_copy(update={"margin": margin})
    context.recipe = context.recipe.model_copy(update={"evaluate": evaluate})
    logger.info(
        f"margin: {margin:g} nDCG@10, which keeps {goal.keep:g} of the teacher's {teacher:.4f} on "
        f"{judged_queries(context.data, 'dev')} dev queries; test queries have not been seen"
    )


def _with_queries(recipe: Recipe, progress: bool) -> tuple[Recipe, RecoverStep, RankingData]:
    """The data with train and dev queries, derived from what the sets offer."""
    supervision = RecoverStep()
    step = recipe.data.model_copy(update={"max_queries": SplitLimits(dev=-(-DEV_QUERIES[1] // len(recipe.data.sets)))})
    recipe = recipe.model_copy(update={"data": step})
    data = load_run_data(recipe, progress)
    train = data.splits.get("train")
    if not (train and train.labelled):
        supervision = RecoverStep(unlabelled=True, pseudo_queries=PSEUDO_QUERIES)
        data = load_run_data(loading_recipe(recipe, supervision), progress)
    if not data.splits.get("dev"):
        grades = data.split("train").qrels.values()
        labelled = sum(any(grade > 0 for grade in each.values()) for each in grades)
        step = step.model_copy(update={"dev_from_train": max(FEWEST_DEV, min(DEV_QUERIES[0], labelled // DEV_SHARE))})
        recipe = recipe.model_copy(update={"data": step})
        data = load_run_data(loading_recipe(recipe, supervision), progress)
    return recipe, supervision, data
