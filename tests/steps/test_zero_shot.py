"""Zero-shot sets: what they measure, what is refused before a run, and what a resumed run keeps."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import MARK, WORDS, write_beir
from run_samples import recipe_for

from hfcompress import pipeline
from hfcompress.data.document import Document
from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData, Split
from hfcompress.errors import DataError, RecipeError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metrics import means, split_quality, values_of_scores
from hfcompress.evaluation.scores import split_scores
from hfcompress.evaluation.systems import resolve_system
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DataStep, Recipe
from hfcompress.steps.checks import check, check_zero_shot
from hfcompress.steps.inputs import load_zero_shot
from hfcompress.utils.log import lines_to


def other_data(name: str, seed: int, queries: int = 10) -> RankingData:
    """Test queries of other words; their documents are those of `word_data`, with other ids."""
    rng = random.Random(seed)
    texts, corpus, candidates = {}, {}, {}
    for number in range(queries):
        words = rng.sample(WORDS, 3)
        texts[f"q{number}"] = " ".join(words)
        corpus[f"d{number}"] = Document("", " ".join([MARK, *words, *rng.sample(WORDS, 4)]))
        corpus[f"n{number}"] = Document("", " ".join(rng.sample(WORDS, 8)))
    for number in range(queries):
        others = rng.sample(sorted(set(corpus) - {f"d{number}"}), 5)
        candidates[f"q{number}"] = rng.sample([f"d{number}", *others], 6)
    test = Split({f"q{number}": {f"d{number}": 1} for number in range(queries)}, candidates)
    return RankingData(name, texts, corpus, {"test": test})


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("outside")
    return [
        str(write_beir(folder / name, other_data(name, seed, queries)))
        for name, seed, queries in (("first", 1, 10), ("second", 2, 6))
    ]


def settings_for(run_inputs: Path, sets: list[str], **changes: object) -> dict:
    settings = recipe_for(run_inputs)
    del settings["recover"]
    settings["teacher"] |= {"model": str(run_inputs / "encoder"), "train": None}
    settings["prune"] = {"heads": 0.5, "importance": "magnitude", "ffn_multiple": 8, "calibration_queries": 8}
    settings["prune"] |= {"vocabulary": {"min_count": 8, "characters": "corpus"}}
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    settings["evaluate"] |= {"zero_shot": sets, "zero_shot_queries": 8, "rounds": 1, **changes}
    return settings


def loaded(name: str) -> RankingData:
    return load_data(DataStep(sets=[name], candidates=6), progress=False).limited({"test": 8})


def test_the_artifact_to_deploy_and_its_teacher_on_other_data(
    run_inputs: Path, outside: list[str], tmp_path: Path
) -> None:
    out, said = tmp_path / "out", []
    settings = settings_for(run_inputs, outside)
    report = pipeline.run(Recipe.model_validate(settings), out, progress=False)
    found = report.zero_shot
    assert found is not None and found.artifact == report.sequence[0] == "student-onnxruntime-int8-dynamic"
    assert [(each.name, each.delta.queries) for each in found.sets] == [("first", 8), ("second", 6)]
    evaluation = Recipe.model_validate(settings).evaluate
    options = RankerOptions(evaluation.threads, evaluation.batch_tokens)  # dynamic int8 depends on the batch
    rankers = {
        "teacher": load_ranker(run_inputs / "encoder", "torch", max_length=32),
        "student": load_ranker(out, "torch", max_length=32),
    }
    graph = resolve_system(str(out / "onnx" / "model_quantized.onnx"), "model")
    assert isinstance(graph, Candidate)
    for each, name in zip(found.sets, outside, strict=True):
        data = loaded(name)
        for key, ranker in rankers.items():
            assert getattr(each, key) == pytest.approx(split_quality(ranker, data, "test")["ndcg@10"])
        scores = split_scores(graph, data, "test", max_length=32, options=options)
        assert each.artifact == pytest.approx(means(values_of_scores(scores, data, "test"))["ndcg@10"])
        assert each.delta.mean == pytest.approx(each.artifact - each.teacher)
        assert np.mean(list(each.per_query.values())) == pytest.approx(each.artifact)
        assert each.delta.worst_query in each.per_query and -1 <= each.agreement["kendall_tau"] <= 1
    differences = [
        value - each.teacher_per_query[query] for each in found.sets for query, value in each.per_query.items()
    ]
    assert found.pooled is not None and found.pooled.mean == pytest.approx(np.mean(differences))
    assert (found.pooled.queries, found.pooled.by_set) == (14, {})
    # With the whole vocabulary: the student's weights, and the teacher's embeddings for what was removed.
    effect = found.vocabulary
    assert effect is not None and effect.sets.keys() == {"first", "second"} and effect.sets["first"].changed_share > 0
    assert effect.sets["first"].cut == pytest.approx(found.sets[0].student - found.sets[0].teacher)
    student, teacher = load_model(str(out)), load_model(str(run_inputs / "encoder"))
    cut, whole = load_tokenizer(str(out), 32), load_tokenizer(str(run_inputs / "encoder"), 32)
    weight = teacher.get_input_embeddings().weight.data
    for token, row in cut.get_vocab().items():
        weight[whole.get_vocab()[token]] = student.get_input_embeddings().weight[row]
    student.get_input_embeddings().weight.data = weight
    expected = split_quality(TorchRanker(student, whole), loaded(outside[0]), "test")["ndcg@10"]
    assert effect.sets["first"].whole == pytest.approx(expected - found.sets[0].teacher)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "## Zero-shot" in card and "### With the whole vocabulary" in card and str(tmp_path) not in card
    # A resumed run keeps it; other sets are measured again, and nothing else.
    with lines_to(said.append):
        again = pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False)
        assert all(step.reused for step in again.steps) and again.zero_shot == found
        settings["evaluate"]["zero_shot"] = outside[:1]
        fewer = pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False)
        settings["evaluate"]["zero_shot"] = []
        none = pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False)
    assert [step.name for step in fewer.steps if not step.reused] == ["zero-shot"]
    assert fewer.zero_shot is not None and fewer.zero_shot.pooled is None
    assert fewer.zero_shot.sets[0].delta.mean == found.sets[0].delta.mean
    assert none.zero_shot is None and all(step.reused for step in none.steps)
    assert "zero-shot" not in [step.name for step in none.steps]
    assert "Zero-shot" not in (out / "README.md").read_text(encoding="utf-8")


def test_a_set_of_the_run_is_refused_before_its_data_is_read(run_inputs: Path, outside: list[str]) -> None:
    words = str(run_inputs / "words")
    with pytest.raises(RecipeError, match="zero-shot set is also a set of the run") as raised:
        check(Recipe.model_validate(settings_for(run_inputs, [*outside, f"{words}/../words"])))
    assert "words" in str(raised.value) and "first" not in str(raised.value.value)
    for also, zero_shot in ((outside[0], outside[0]), ("general-text", "api-search")):
        settings = settings_for(run_inputs, [zero_shot])
        settings["recover"] = {**settings.get("recover", {}), "also": [also]}
        with pytest.raises(RecipeError, match="zero-shot set is also a set of the run"):
            check(Recipe.model_validate(settings))
    settings = settings_for(run_inputs, outside)
    check(Recipe.model_validate(settings))
    del settings["prune"]
    settings["quantize"]["artifacts"] = []
    with pytest.raises(RecipeError, match="makes no artifact"):
        check(Recipe.model_validate(settings))


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_copy_of_the_runs_own_queries_is_refused(
    split: str, run_inputs: Path, word_data: RankingData, tmp_path: Path
) -> None:
    queries = {query: word_data.queries[query].upper() for query in word_data.splits[split].candidates}
    copy = RankingData("copy", queries, word_data.corpus, {"test": word_data.splits[split]})
    recipe = Recipe.model_validate(settings_for(run_inputs, [str(write_beir(tmp_path / "copy", copy))]))
    with pytest.raises(DataError, match="'copy' shares queries with the data of the run"):
        load_zero_shot(recipe, word_data, progress=False)


def test_single_queries_of_the_run_are_left_out(run_inputs: Path, word_data: RankingData, tmp_path: Path) -> None:
    data = other_data("mostly-others", 3, 12)
    data = replace(data, queries={**data.queries, "q4": word_data.queries["q7"]})
    settings = settings_for(run_inputs, [str(write_beir(tmp_path / "mostly-others", data))], zero_shot_queries=100)
    (found,) = load_zero_shot(Recipe.model_validate(settings), word_data, progress=False)
    test = found.split("test")
    assert set(test.candidates) == set(test.qrels) == set(data.queries) - {"q4"}
    assert found.notes == ("1 of 12 test queries of mostly-others are left out: the run has them, too",)


def test_sets_without_judgements_or_with_the_same_name_are_refused(word_data: RankingData) -> None:
    first, second = other_data("first", 1), other_data("second", 2)
    check_zero_shot(word_data, [first, second])
    with pytest.raises(DataError, match="has the name of another data set"):
        check_zero_shot(word_data, [first, replace(second, name="first")])
    with pytest.raises(DataError, match="has the name of another data set"):
        check_zero_shot(word_data, [replace(first, name="words")])
    test = second.splits["test"]
    unjudged = Split({query: dict.fromkeys(grades, 0) for query, grades in test.qrels.items()}, test.candidates)
    with pytest.raises(DataError, match="'test' split of 'second' has no query with a relevant document"):
        check_zero_shot(word_data, [first, replace(second, splits={"test": unjudged})])
    one = Split({**unjudged.qrels, "q0": {"d0": 1}}, test.candidates)
    with pytest.raises(DataError, match="'second' has too few test queries for an interval"):
        check_zero_shot(word_data, [first, replace(second, splits={"test": one})])
