"""compress keeps the whole vocabulary unless size is asked for, and evaluates on other data if it is given some."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import IDENTITY, MARK, WORDS, make_pico, write_beir
from transformers import BertTokenizerFast

from hfcompress.compress import budget, choose, family
from hfcompress.compress.compress import Outcome, compress
from hfcompress.compress.goal import Goal
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError, RecipeError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_tokenizer
from hfcompress.pruning.costs.table import CostTable
from hfcompress.recipe import PruneStep, Recipe, VocabularyStep
from hfcompress.utils.log import lines_to

UNUSED = [f"{first}{second}" for first in WORDS[:64] for second in WORDS[20:82]]  # tokens that no text needs
LARGE = 0.45  # MB: less than a model with the unused tokens takes, and more than one without them
SECONDS = CostTable(
    "seconds per document", 1e-3, {0: 0.0, 4: 4e-3}, {0: 0.0, 64: 8e-3}, {0: 0.0, 4: 1e-3}, {0: 0.0, 64: 2e-3}
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, word_data: RankingData) -> Path:
    """A teacher whose tokens are mostly unused, data, and other data with some of these tokens."""
    folder = tmp_path_factory.mktemp("inputs")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", MARK, *WORDS, *dict.fromkeys(UNUSED), *"abdefgiklmnoprstu"]
    tokens += [f"##{letter}" for letter in "abdefgiklmnoprstu"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(tokens)), encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32)
    save_checkpoint(folder / "teacher", make_pico(vocab_size=len(tokenizer)), tokenizer, IDENTITY, 32)
    write_beir(folder / "words", word_data)
    test = word_data.splits["test"]
    queries = {query: f"{UNUSED[number]} {UNUSED[-number]}" for number, query in enumerate(test.candidates)}
    write_beir(folder / "others", RankingData("others", queries, word_data.corpus, {"test": test}))
    return folder


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pruned model, without recovery, and no new processes."""
    monkeypatch.setattr("hfcompress.evaluation.results.measure_cold_start", lambda *given: None)
    monkeypatch.setattr("hfcompress.pruning.find_plans.measure_costs", lambda *given, **settings: SECONDS)
    monkeypatch.setattr(choose, "FAMILY", (2.0,))
    monkeypatch.setattr(budget, "FEWEST_LISTS", 1000)

    def small(goal: Goal, ratio: float, base: choose.DeploymentForm, vocabulary: bool, stages: int = 1) -> PruneStep:
        return PruneStep(
            target_speedup=ratio, runtime=base.artifact.runtime, importance="magnitude", calibration_queries=8,
            search_steps=2, ffn_multiple=16, vocabulary=VocabularyStep() if vocabulary else None,
        )  # fmt: skip

    monkeypatch.setattr(family, "pruning", small)
    monkeypatch.setattr("hfcompress.compress.final.pruning", small)


def run(inputs: Path, out: Path, goal: Goal, zero_shot: list[str], said: list[str] | None = None) -> Outcome:
    with lines_to((said if said is not None else []).append):
        return compress(
            str(inputs / "teacher"), [str(inputs / "words")], out, goal, candidates=6, threads=1, progress=False,
            zero_shot=zero_shot,
        )  # fmt: skip


def tokens_of(folder: Path) -> int:
    return len(load_tokenizer(str(folder)))


def test_the_vocabulary_is_whole_and_other_data_is_evaluated(inputs: Path, tmp_path: Path) -> None:
    out, others = tmp_path / "out", [str(inputs / "others")]
    outcome = run(inputs, out, Goal(runtime="torch", seconds=600, max_loss=0.5), others)
    recipe = Recipe.load(out / "recipe.yaml")
    assert recipe.prune and recipe.prune.vocabulary is None and recipe.evaluate.zero_shot == others
    assert tokens_of(out) == tokens_of(inputs / "teacher")
    assert outcome.small_enough and outcome.report.zero_shot and outcome.report.zero_shot.vocabulary is None
    assert [each.name for each in outcome.report.zero_shot.sets] == ["others"]


@pytest.mark.parametrize("most", [LARGE, pytest.param(0.001, marks=pytest.mark.soak)])
def test_the_vocabulary_is_cut_where_the_size_needs_it(most: float, inputs: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "out", []
    goal = Goal(runtime="torch", seconds=600, max_loss=0.5, max_size_mb=most)
    outcome = run(inputs, out, goal, [str(inputs / "others")], said)
    recipe = Recipe.load(out / "recipe.yaml")
    assert recipe.prune and recipe.prune.target_speedup == 2.0 and recipe.prune.vocabulary == VocabularyStep()
    assert tokens_of(out) < tokens_of(inputs / "teacher") - 1000
    assert any("MB are too many: the vocabulary is cut" in line for line in said)
    assert outcome.small_enough == (outcome.chosen.size_bytes <= most * 1e6) == (most == LARGE)
    assert (
        outcome.reached == outcome.small_enough and f'"small_enough": {str(most == LARGE).lower()}' in outcome.to_json()
    )
    assert outcome.report.zero_shot and (effect := outcome.report.zero_shot.vocabulary)
    assert (effect.in_domain.changed_share, effect.sets["others"].changed_share) == (0.0, 1.0)
    assert effect.in_domain.cut == pytest.approx(effect.in_domain.whole)  # the same tokens, and so the same scores


@pytest.mark.soak
def test_a_model_that_is_small_enough_keeps_its_vocabulary(inputs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    outcome = run(inputs, tmp_path / "out", Goal(runtime="torch", seconds=600, max_loss=0.5, max_size_mb=50), [], said)
    assert outcome.small_enough and tokens_of(tmp_path / "out") == tokens_of(inputs / "teacher")
    assert not any("vocabulary is cut" in line for line in said)


def test_the_vocabulary_alone_where_the_model_is_fast_enough(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.compress.compress.pruning_speedups", lambda goal, form: ())
    outcome = run(inputs, tmp_path / "out", Goal(runtime="torch", seconds=600, max_loss=0.5, vocabulary="corpus"), [])
    assert Recipe.load(tmp_path / "out" / "recipe.yaml").prune == PruneStep(vocabulary=VocabularyStep())
    assert tokens_of(tmp_path / "out") < tokens_of(inputs / "teacher") - 1000
    assert outcome.delta.mean == pytest.approx(0.0) and outcome.chosen.name == "student-torch"


def test_a_wrong_zero_shot_set_is_refused_before_anything_is_measured(inputs: Path, tmp_path: Path) -> None:
    goal = Goal(runtime="torch", seconds=600)
    with pytest.raises(RecipeError, match="also a set of the run"):
        run(inputs, tmp_path / "out", goal, [str(inputs / "words")])
    with pytest.raises(DataError):
        run(inputs, tmp_path / "out", goal, [str(inputs / "nothing")])
    assert not (tmp_path / "out").exists()
