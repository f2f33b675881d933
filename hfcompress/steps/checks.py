"""Checks of recipe, models and data before a run starts long work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from hfcompress.cluster.connection import check_cluster
from hfcompress.data.also import AlsoTexts
from hfcompress.data.lists import check_corpus
from hfcompress.data.load import API_SEARCH, GENERAL_TEXT
from hfcompress.data.pseudo_labels import unlabelled_splits
from hfcompress.data.ranking import RankingData
from hfcompress.data.score_text import HIGHEST, score_text_of
from hfcompress.errors import DataError, ModelError, RecipeError
from hfcompress.evaluation.metric_definitions import metric_definition
from hfcompress.evaluation.metrics import judged_queries
from hfcompress.models.architectures import label_number, require_one_score, score_weights
from hfcompress.models.load import load_config, load_tokenizer, resolve
from hfcompress.models.positions import check_max_length
from hfcompress.models.surgery import plan_of_config
from hfcompress.pruning.calibration import CALIBRATION_DOCUMENTS
from hfcompress.pruning.search.explicit import check_shares
from hfcompress.quantization.openvino import require_openvino
from hfcompress.rankers.load import FILE_RUNTIMES, activation_of, ranking_tokenizer
from hfcompress.recipe import OpenVinoInt8, Recipe
from hfcompress.recipe.teacher import ScoreLabel
from hfcompress.steps.evaluate import candidates_of
from hfcompress.steps.inputs import ray_settings_of
from hfcompress.steps.memory import check_memory
from hfcompress.training.features import check_relation_layer
from hfcompress.training.fit import check_frozen
from hfcompress.utils.device import torch_device
from hfcompress.vocabulary.content import content_of

FEWEST_ALSO = 2  # queries of additional texts: one each for fitting and comparison


def check(recipe: Recipe) -> None:
    """Check a recipe and its models, without data.

    Raises:
        HfCompressError: The first fault found.
    """
    torch_device(recipe.device)
    config = load_config(recipe.teacher.model)
    if recipe.teacher.train is None and recipe.teacher.score:
        score_weights(config, recipe.teacher.score)
    elif recipe.teacher.train is None:
        _check_cross_encoder(config)
    for name in recipe.evaluate.metrics:
        metric_definition(name)
    check_max_length(recipe.teacher.max_length, config, "teacher.max_length")
    _check_score_text(recipe, config, load_tokenizer(recipe.teacher.model))
    plan = plan_of_config(config)
    if recipe.teacher.train:
        check_frozen(recipe.teacher.train.optimization.freeze_layers, len(plan.layers))
    if recipe.prune:
        if recipe.prune.target is None:
            check_shares(recipe.prune, plan)
        if recipe.prune.runtime == "openvino":
            require_openvino()
        if recipe.prune.vocabulary:
            content_of(load_tokenizer(recipe.teacher.model))
        if recipe.recover:
            check_frozen(recipe.recover.optimization.freeze_layers, len(recipe.prune.layers or plan.layers))
            if recipe.recover.features and recipe.recover.features.relation:
                with_heads = {layer.layer for layer in plan.layers if layer.heads}
                check_relation_layer(
                    recipe.recover.features.relation_layer, sorted(with_heads & set(recipe.prune.layers or with_heads))
                )
    if recipe.recover and recipe.recover.engine == "ray":
        check_cluster(ray_settings_of(recipe.recover))
    for source in recipe.recover.teachers if recipe.recover else []:
        if source.model is not None:
            length = source.max_length or recipe.teacher.max_length
            _check_teacher(source.model, source.file, length, source.score)
    for artifact in recipe.quantize.artifacts:
        if isinstance(artifact, OpenVinoInt8) and not artifact.optional:
            require_openvino()
    _check_deploy(recipe)
    if recipe.evaluate.zero_shot and len(candidates_of(recipe, recipe.teacher.model, Path())) == 1:
        raise RecipeError(
            "The run makes no artifact that could be evaluated on zero-shot sets",
            value=f"evaluate.zero_shot: {', '.join(recipe.evaluate.zero_shot)}",
            expected="prune, or an entry of quantize.artifacts whose runtime is installed",
            remedy="add one of them, or leave out evaluate.zero_shot",
        )
    check_zero_shot_names(recipe)
    check_memory(recipe, config)


def check_zero_shot_names(recipe: Recipe) -> None:
    """Check that no zero-shot set is a set of the run, or one of its additional texts.

    Raises:
        RecipeError: One is.
    """
    also = recipe.recover.also if recipe.recover else []
    trained = set(map(_source, [*recipe.data.sets, *also, *([API_SEARCH] if GENERAL_TEXT in also else [])]))
    if known := [name for name in recipe.evaluate.zero_shot if _source(name) in trained]:
        raise RecipeError(
            "A zero-shot set is also a set of the run",
            value=f"evaluate.zero_shot: {', '.join(known)}",
            expected="sets that are not in data.sets or recover.also, on which the run trains and chooses",
            remedy="leave it out of evaluate.zero_shot, or out of the others",
        )


def _source(name: str) -> str:
    """A data set's name in a recipe: the real path where it is one."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _check_deploy(recipe: Recipe) -> None:
    names = [candidate.name for candidate in candidates_of(recipe, recipe.teacher.model, Path())[1:]]
    if recipe.evaluate.deploy is not None and recipe.evaluate.deploy not in names:
        raise RecipeError(
            "The artifact to deploy is none of this run",
            value=f"evaluate.deploy: {recipe.evaluate.deploy}",
            expected=f"one of {', '.join(names) or 'its artifacts, of which there is none'}",
            remedy="correct evaluate.deploy, or leave it out; an artifact for OpenVINO needs OpenVINO",
        )


def _check_score_text(recipe: Recipe, config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Check that the tokenizer reads scores and separator, and that the recipe writes them as the teacher learned."""
    settings, learned = recipe.data.score_text, score_text_of(config)
    if recipe.teacher.train is None and learned is not None and learned != settings:
        raise RecipeError(
            "The teacher was trained with BM25 scores in its texts, which the recipe does not write the same way",
            value=f"data.score_text: {settings.model_dump() if settings else None}",
            expected=f"data.score_text: {learned.model_dump()}, as in the teacher's config.json",
            remedy="copy these settings into the recipe, or use another teacher",
        )
    if settings is None:
        return
    pieces = tokenizer.tokenize(settings.separator)
    if len(pieces) != 1 or pieces[0] == tokenizer.unk_token:
        raise RecipeError(
            "data.score_text.separator is not a token of the teacher's tokenizer",
            value=f"{settings.separator!r}, read as {pieces}",
            expected=f"one token, such as its separator {tokenizer.sep_token!r}",
            remedy=f"set data.score_text.separator to {tokenizer.sep_token!r}",
        )
    unknown = [number for number in range(HIGHEST + 1) if tokenizer.unk_token in tokenizer.tokenize(str(number))]
    if unknown:
        raise ModelError(
            "The teacher's tokenizer has no digits, and cannot read the scores of data.score_text",
            value=f"unknown: {unknown[:5]}",
            expected=f"a tokenizer that reads the numbers 0 to {HIGHEST}",
            remedy="leave data.score_text out, or use another teacher",
        )


def _check_cross_encoder(config: PretrainedConfig) -> None:
    """Check that a model outputs one score."""
    require_one_score(config)
    activation_of(config)


def _check_teacher(name: str, file: str | None, max_length: int, score: ScoreLabel | None) -> None:
    """Check that an additional teacher exists, has one score or the label that is its score, and enough positions."""
    config = load_config(name)
    if score is None:
        _check_cross_encoder(config)
    else:
        for label in (score.label, score.against):
            if label is not None:
                label_number(config, score, label)
    ranking_tokenizer(name, config, max_length)
    if file is None:
        return
    folder = Path(resolve(name))
    if Path(file).suffix not in FILE_RUNTIMES or not (folder / file).is_file():
        found = sorted(
            path.relative_to(folder).as_posix() for suffix in FILE_RUNTIMES for path in folder.glob(f"[!.]*/*{suffix}")
        )
        raise ModelError(
            "An additional teacher has no such file",
            value=f"{file} in {name}",
            expected=f"an ONNX or OpenVINO graph or packed weights in the folder: {', '.join(found) or 'it has none'}",
            remedy="correct recover.teachers.file, or leave it out; a model on the Hub must lie in a folder first",
        )
    if FILE_RUNTIMES[Path(file).suffix] == "openvino":
        require_openvino()


def _unlabelled(recipe: Recipe) -> bool:
    return recipe.recover is not None and recipe.recover.unlabelled


def grades_by_teacher(recipe: Recipe, data: RankingData) -> bool:
    """Whether the teacher's order stands in for relevance judgements: it is given, and a split has none."""
    return _unlabelled(recipe) and recipe.teacher.train is None and bool(unlabelled_splits(data))


def check_data(recipe: Recipe, data: RankingData) -> None:
    """Check that the splits that the recipe needs exist, have relevance judgements, and have documents to rank.

    Raises:
        DataError: A split is missing, or has no relevant document or no candidates.
    """
    test = data.split("test", labelled=not grades_by_teacher(recipe, data))
    evaluated = len(test) if grades_by_teacher(recipe, data) else judged_queries(data, "test")
    if evaluated < 2:
        raise DataError(
            "One test query gives no interval and no verdict",
            value=f"{evaluated} of {len(test)} test queries have a relevant document",
            expected="at least 2 such test queries; a few hundred for a conclusive verdict",
            remedy="raise data.max_queries.test, or add test queries",
        )
    _check_candidates(data, "test")
    if recipe.teacher.train or recipe.prune or recipe.recover:
        fisher = recipe.prune is not None and recipe.prune.importance == "fisher"
        data.split("train", labelled=bool(recipe.teacher.train) or fisher or not _unlabelled(recipe))
        if "dev" in data.splits:
            data.split("dev", labelled=not grades_by_teacher(recipe, data))
            _check_candidates(data, "dev")
    if (training := recipe.teacher.train) is not None:
        check_corpus(data, 1 + training.hard_negatives + training.random_negatives)
    if recipe.prune:
        check_corpus(data, CALIBRATION_DOCUMENTS)
    if recipe.recover:
        check_corpus(data, recipe.recover.documents)


def check_zero_shot(data: RankingData, sets: Sequence[RankingData]) -> None:
    """Check that each zero-shot set has a name of its own, judged test queries, and documents to rank.

    Args:
        data: Data of the run.
        sets: The zero-shot sets.

    Raises:
        DataError: A set does not fit.
    """
    names = [*(data.sets or (data.name,)), *(each.name for each in sets)]
    if sets and len(set(names)) < len(names):
        raise DataError(
            "A zero-shot set has the name of another data set",
            value=names,
            expected="a different folder name for each set",
            remedy="rename one of the folders, or leave out a set that is named twice",
        )
    for each in sets:
        test, judged = each.split("test"), judged_queries(each, "test")
        if judged < 2:
            raise DataError(
                f"The zero-shot set {each.name!r} has too few test queries for an interval",
                value=f"{judged} of {len(test)} test queries have a relevant document",
                expected="at least 2 such test queries; a few hundred for a narrow interval",
                remedy="raise evaluate.zero_shot_queries, add test queries, or leave out the set",
            )
        _check_candidates(each, "test")


def check_also(recipe: Recipe, also: AlsoTexts | None) -> None:
    """Check that the additional texts are enough for the lists of recovery and calibration.

    Args:
        recipe: The recipe.
        also: Its additional texts; None if it names none.

    Raises:
        DataError: They have too few documents or queries.
    """
    if also is None or recipe.recover is None:
        return
    check_corpus(also.data, max(recipe.recover.documents, CALIBRATION_DOCUMENTS))
    if len(also) < FEWEST_ALSO:
        raise DataError(
            "The additional texts give too few queries",
            value=f"{len(also)} of {', '.join(recipe.recover.also)}",
            expected=f"at least {FEWEST_ALSO} queries or sentences; as many as there are train queries help",
            remedy="add texts to recover.also, or leave it out",
        )


def _check_candidates(data: RankingData, split: str) -> None:
    if not any(data.splits[split].candidates.values()):
        raise DataError(
            f"No {split} query of {data.name!r} has a document to rank",
            value=f"{len(data.splits[split])} queries with 0 candidates",
            expected="candidates for the queries of the split",
            remedy=f"correct the file with the candidates of {split}, or remove it to have them retrieved with BM25",
        )
