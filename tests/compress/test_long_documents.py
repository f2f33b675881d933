"""`compress` says on dev what truncation costs, and leaves the choice to the user."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import IDENTITY, make_pico
from transformers import BertTokenizerFast

from hfcompress.compress.context import CompressContext
from hfcompress.compress.goal import Goal
from hfcompress.compress.long_documents import advise
from hfcompress.data.ranking import RankingData
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.recipe import DataStep, EvaluateStep, LongDocuments, Recipe, RecoverStep, TeacherStep
from hfcompress.steps.workspace import Workspace


@pytest.fixture
def context(tmp_path: Path, tokenizer: BertTokenizerFast, word_data: RankingData) -> CompressContext:
    """A call on pairs of 15 tokens, of which 10 are read."""
    teacher = tmp_path / "teacher"
    save_checkpoint(teacher, make_pico(), tokenizer, IDENTITY, 32)
    recipe = Recipe(
        name="advice",
        device="cpu",
        data=DataStep(sets=["words"]),
        teacher=TeacherStep(model=str(teacher), max_length=10),
        evaluate=EvaluateStep(threads=1),
    )
    dev = replace(word_data, splits={**word_data.splits, "dev": word_data.splits["train"]})
    workspace = Workspace(tmp_path / "out", False)
    workspace.begin()
    return CompressContext(
        Goal(seconds=3600), recipe, RecoverStep(), dev, workspace, 100.0, False, time.perf_counter(), 0.0
    )


def advice(context: CompressContext, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "hfcompress"):
        advise(context)
    return [line for record in caplog.records if (line := record.getMessage()).startswith("long documents: ")]


def test_truncation_chunks_and_a_longer_input_are_measured(
    context: CompressContext, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = advice(context, caplog)
    assert "100% of the dev pairs are longer than 10 tokens" in line and "on 40 dev queries" in line
    assert "in chunks" in line and "truncated at 40 tokens" in line and "x tokens" in line
    assert line.endswith("As chosen, documents are truncated")
    assert context.recipe.evaluate.long_documents.is_default and context.max_length == 10


def test_a_choice_is_repeated_and_not_changed(context: CompressContext, caplog: pytest.LogCaptureFixture) -> None:
    chosen = LongDocuments(mode="chunk", max_chunks=3)
    evaluate = context.recipe.evaluate.model_copy(update={"long_documents": chosen})
    context.recipe = context.recipe.model_copy(update={"evaluate": evaluate})
    (line,) = advice(context, caplog)
    assert "at most 3 chunks" in line and context.recipe.evaluate.long_documents == chosen


def test_nothing_is_measured_where_pairs_fit_or_time_is_short(
    context: CompressContext, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.compress.long_documents.split_scores", None)
    context.rate = 1e-3
    (line,) = advice(context, caplog)
    assert "too short" in line
    teacher = context.recipe.teacher.model_copy(update={"max_length": 30})
    context.recipe = context.recipe.model_copy(update={"teacher": teacher})
    assert advice(context, caplog) == []
