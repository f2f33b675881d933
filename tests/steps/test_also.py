"""Additional texts in a run: in its lists, in the calibration of pruning, in its report, and in what resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset, load_from_disk
from run_samples import recipe_for

from hfcompress import pipeline
from hfcompress.errors import DataError
from hfcompress.recipe import Recipe
from hfcompress.report.report import RunReport
from hfcompress.steps.checks import check_also
from hfcompress.steps.context import RunContext
from hfcompress.steps.inputs import load_run_also, load_run_data, train_lists
from hfcompress.steps.recover import draw_lists
from hfcompress.steps.workspace import Workspace
from hfcompress.utils.log import lines_to


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    lines = [f"The animal of kind {number} lives here. It eats plants of kind {number}." for number in range(30)]
    (tmp_path / "prose.txt").write_text("\n".join(lines))
    return tmp_path / "prose.txt"


def recipe_with(inputs: Path, **recover: object) -> Recipe:
    settings = recipe_for(inputs)
    settings["teacher"] = {"model": str(inputs / "encoder"), "max_length": 32}
    settings["prune"] = {"heads": 0.5, "calibration_queries": 12}
    settings["recover"] = {"documents": 4, "random_negatives": 1, **recover}
    settings["quantize"] = {"artifacts": []}
    return Recipe.model_validate(settings)


def drawn(recipe: Recipe, tmp_path: Path) -> tuple[RunContext, Dataset, Dataset | None]:
    data = load_run_data(recipe, False)
    context = RunContext(recipe, data, Workspace(tmp_path / "none", True), False, load_run_also(recipe, data, False))
    return context, *draw_lists(context)


def test_a_run_learns_on_them_and_says_so(run_inputs: Path, prose: Path, tmp_path: Path) -> None:
    recipe = recipe_with(run_inputs, also=[str(prose)], also_share=0.2, teachers=[{}, {"bm25": True}])
    out, said = tmp_path / "out", []
    with lines_to(said.append):
        report = pipeline.run(recipe, out, progress=False)
    assert any("of all train queries, and of other texts: 10 of prose" in line for line in said)  # before it begins
    lists = load_from_disk(str(out / ".hfcompress" / "scores"))
    also = [row for row in lists if row["query_id"].startswith("also/")]
    assert len(lists) == 50 and len(also) == 10
    assert all(len(row["teacher_scores"]) == 4 and row["labels"] == [0.0] * 4 for row in also)
    assert sum(row["query_id"].startswith("also/") for row in lists.select(range(25))) == 5
    (part,) = RunReport.load(out).data.also
    assert (part.name, part.documents, part.lists) == ("prose", 30, 10) and report.data.also == [part]
    assert "**Additional texts:** prose (10 training lists, 30 documents)" in (out / "README.md").read_text()
    # Pruning is calibrated on them: other texts find another plan, another share only other lists.
    changes: list[tuple[dict[str, object], bool]] = [
        ({"also_share": 0.4}, True),
        ({"also": [str(run_inputs / "encoder" / ".." / "words")]}, False),
    ]
    for changed, kept in changes:
        said.clear()
        recipe = recipe_with(run_inputs, **{**recipe.recover.model_dump(), **changed})  # type: ignore[union-attr]
        with lines_to(said.append):
            pipeline.run(recipe, out, resume=True, progress=False)
        assert any(line.startswith("prune: kept") for line in said) is kept
        assert any(line.startswith("scores: done") for line in said)


def test_queries_of_the_data_are_not_drawn_again(run_inputs: Path, tmp_path: Path) -> None:
    recipe = recipe_with(run_inputs, also=[str(run_inputs / ".." / run_inputs.name / "words")])
    context, lists, also = drawn(recipe, tmp_path)
    assert also is not None and len(also) == len(lists) == 40
    assert not set(also["query"]) & set(context.data.queries.values())


def test_pseudo_queries_are_of_documents_in_no_list(run_inputs: Path, tmp_path: Path) -> None:
    own = set(drawn(recipe_with(run_inputs), tmp_path)[1]["query_id"])
    context, lists, also = drawn(recipe_with(run_inputs, pseudo_queries=30), tmp_path)
    assert also is None and len(lists) == 70 == train_lists(context.recipe, context.data)
    labelled = [row for row in lists if row["query_id"] in own]
    used = {document for row in labelled for document in row["document_ids"]}
    made = [row["query_id"].removeprefix("pseudo-query/") for row in lists if row["query_id"] not in own]
    unused = set(context.data.corpus) - used
    assert len(labelled) == 40 and set(made[: len(unused)]) == unused
    # The limit counts both, and a share counts what there is.
    context, lists, also = drawn(recipe_with(run_inputs, pseudo_queries=30, queries=50), tmp_path)
    assert len(lists) == 50 == train_lists(context.recipe, context.data)
    context, lists, _ = drawn(recipe_with(run_inputs, pseudo_queries=9999), tmp_path)
    assert len(lists) == 160 == train_lists(context.recipe, context.data)  # each document gives its one sentence


def test_with_a_share_of_0_they_calibrate_alone(run_inputs: Path, prose: Path, tmp_path: Path) -> None:
    context, lists, also = drawn(recipe_with(run_inputs, also=[str(prose)], also_share=0), tmp_path)
    assert len(lists) == 40 and also is None
    assert context.also is not None and len(context.also) == 6


def test_too_few_texts_are_refused_before_a_run(run_inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("\n".join(f"This is the sentence with number {number}." for number in range(8)))
    recipe = recipe_with(run_inputs, also=[str(tmp_path / "few.txt")])
    data = load_run_data(recipe, False)
    with pytest.raises(DataError, match="The corpus of 'few' is too small for lists of 8 documents"):
        check_also(recipe, load_run_also(recipe, data, False))
    check_also(recipe, None)
    (tmp_path / "few.txt").write_text("\n".join(["The same sentence."] * 20))
    with pytest.raises(DataError, match="The additional texts give too few queries"):
        check_also(recipe, load_run_also(recipe, data, False))
