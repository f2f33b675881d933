"""BM25 teaches beside the model where dev queries are ranked better by both, and only there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import IDENTITY, make_pico
from transformers import BertTokenizerFast

from hfcompress.compress import bm25_teacher
from hfcompress.compress.bm25_teacher import WEIGHT, add_bm25_teacher
from hfcompress.compress.context import CompressContext
from hfcompress.compress.goal import Goal
from hfcompress.data.ranking import RankingData
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.recipe import DataStep, Recipe, RecoverStep, TeacherStep
from hfcompress.steps.workspace import Workspace
from hfcompress.utils.log import lines_to

BM25 = [{"bm25": False, "weight": 1.0}, {"bm25": True, "weight": WEIGHT}]


@pytest.fixture
def call(tmp_path: Path, word_data: RankingData, tokenizer: BertTokenizerFast) -> CompressContext:
    save_checkpoint(tmp_path / "teacher", make_pico(), tokenizer, IDENTITY, 32)
    workspace = Workspace(tmp_path / "out", False)
    workspace.begin()
    recipe = Recipe(
        name="words",
        data=DataStep(sets=["words"]),
        teacher=TeacherStep(model=str(tmp_path / "teacher"), max_length=32),
    )
    return CompressContext(
        Goal(seconds=60), recipe, RecoverStep(), word_data, workspace, 100.0, False, time.perf_counter(), 0.0
    )


def scores(call: CompressContext, right: bool) -> dict[str, list[float]]:
    """Scores of dev candidates that put the relevant documents first, or last."""
    dev = call.data.splits["dev"]
    return {
        query: [(1.0 if right else -1.0) * dev.qrels[query].get(document, 0) + 0.01 * number
                for number, document in enumerate(documents)]
        for query, documents in dev.candidates.items()
    }  # fmt: skip


def teachers(call: CompressContext) -> list[dict[str, object]]:
    return [each.model_dump(include={"bm25", "weight"}) for each in call.supervision.teachers]


def test_bm25_joins_a_teacher_that_it_helps(call: CompressContext, monkeypatch: pytest.MonkeyPatch) -> None:
    # BM25 is right, and the teacher hardly tells documents of a query apart but in a few lists.
    right, wrong = scores(call, True), scores(call, False)
    weak = {query: [value * (1.0 if number % 8 == 0 else 0.01) for value in wrong[query]]
            for number, query in enumerate(wrong)}  # fmt: skip
    monkeypatch.setattr(bm25_teacher, "split_scores", lambda *given, **settings: weak)
    monkeypatch.setattr(bm25_teacher, "scores_of_split", lambda *given: right)
    said: list[str] = []
    with lines_to(said.append):
        add_bm25_teacher(call)
    assert teachers(call) == BM25
    assert said[0].startswith("teachers: with BM25 at a weight of 0.25, the teacher ranks dev queries better by")
    # A resumed call takes the same decision without measuring again.
    call.supervision = RecoverStep()
    monkeypatch.setattr(bm25_teacher, "split_scores", lambda *given, **settings: pytest.fail("measured again"))
    call.workspace = Workspace(call.workspace.folder.parent, True)
    add_bm25_teacher(call)
    assert teachers(call) == BM25


@pytest.mark.parametrize("lexical", ["wrong", "equal"])
def test_bm25_is_left_out_where_it_does_not_help(
    call: CompressContext, monkeypatch: pytest.MonkeyPatch, lexical: str
) -> None:
    right = scores(call, True)
    given = scores(call, False) if lexical == "wrong" else {query: [0.0] * len(each) for query, each in right.items()}
    monkeypatch.setattr(bm25_teacher, "split_scores", lambda *given, **settings: right)
    monkeypatch.setattr(bm25_teacher, "scores_of_split", lambda *each: given)
    add_bm25_teacher(call)
    assert teachers(call) == []


def test_the_scores_are_those_of_the_model_and_of_the_corpus(call: CompressContext) -> None:
    add_bm25_teacher(call)  # with a teacher of random weights, the words of query and document tell more
    assert teachers(call) == BM25
