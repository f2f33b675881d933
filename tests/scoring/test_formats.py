"""Every format: scores are those of `Ranker.score`, rows keep their order, and everything else stays as it is."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import SIGMOID, make_pico
from scoring_samples import FORMATS, QUOTED, read_scores, scored_pairs, table_of, write_input
from transformers import BertTokenizerFast

from hfcompress.data.score_text import CONFIG_KEY, text_with_score
from hfcompress.errors import DataError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.rankers.base import BatchedRanker, Pair
from hfcompress.recipe import ScoreText
from hfcompress.scoring.columns import ColumnNames
from hfcompress.scoring.parquet import score_table


@pytest.mark.parametrize("kind", FORMATS)
def test_scores_and_order(score, ranker: BatchedRanker, pairs: list[Pair], tmp_path: Path, kind: str) -> None:
    source, settings = write_input(tmp_path, kind, pairs)
    target = tmp_path / "new folder" / f"out.{kind}"
    summary = score(source, target, **({**settings, "format": kind}))
    assert (summary.pairs, summary.bad_lines, summary.new_pairs) == (len(pairs), 0, len(pairs))
    np.testing.assert_allclose(read_scores(kind, target), ranker.score(scored_pairs(kind, pairs)), atol=1e-5)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_json_lines_keep_their_bytes(score, pairs: list[Pair], tmp_path: Path) -> None:
    (query, document), source, target = pairs[0], tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        f'{{"n": 1.10, "n": 1e999, "id": {10**30}, "question": "{query}", "passage": "{document}", "é":[ ] }}',
        f'  {{"question":"{query}","passage":"\\u0062a"}}\t\r',
    ]
    source.write_text("\ufeff" + "\n\n".join(lines), encoding="utf-8", newline="")
    score(source, target)
    written = target.read_text(encoding="utf-8").split("\n")
    ends = [line.rindex(', "score": ') for line in written[:2]]
    assert [line[:end] for line, end in zip(written, ends, strict=False)] == [
        lines[0][:-1].rstrip(),
        lines[1].rstrip()[:-1],
    ]
    assert all(isinstance(json.loads(line)["score"], float) for line in written[:2]) and written[2:] == [""]


def test_csv_and_tsv_keep_their_fields(score, pairs: list[Pair], tmp_path: Path) -> None:
    source, _ = write_input(tmp_path, "csv", pairs)
    score(source, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["id", "query", "note", "document", "score"] and {row["note"] for row in rows} == {QUOTED}
    source, _ = write_input(tmp_path, "tsv", pairs)
    score(source, tmp_path / "out.tsv")
    before = source.read_text(encoding="utf-8").splitlines()
    after = (tmp_path / "out.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.rpartition("\t")[0] for line in after] == before and after[0].endswith("\tscore")


def test_parquet_keeps_types_and_metadata(score, pairs: list[Pair], tmp_path: Path) -> None:
    source, _ = write_input(tmp_path, "parquet", pairs)
    score(source, tmp_path / "out.parquet")
    before = pyarrow.parquet.read_table(source)
    after = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert after.schema.field("score").type == pyarrow.float32()
    assert after.schema.metadata[b"made by"] == b"a test"
    assert after.drop_columns("score").schema.equals(before.schema)
    assert after.drop_columns("score").to_pylist() == before.to_pylist()
    assert pyarrow.parquet.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups == 1  # of four chunks


def test_a_run_gets_new_ranks_in_its_order(score, pairs: list[Pair], tmp_path: Path) -> None:
    source, settings = write_input(tmp_path, "trec", pairs)
    score(source, tmp_path / "out.run", **settings)
    before = [line.split() for line in source.read_text().splitlines()]
    after = [line.split() for line in (tmp_path / "out.run").read_text().splitlines()]
    assert [[*row[:3], row[5]] for row in after] == [[*row[:3], row[5]] for row in before]
    for query in {row[0] for row in after}:
        rows = [row for row in after if row[0] == query]
        assert [row[3] for row in sorted(rows, key=lambda row: -float(row[4]))] == list("12345")


def test_a_data_folder_has_the_texts_of_a_run(score, pairs: list[Pair], tmp_path: Path) -> None:
    source, settings = write_input(tmp_path, "trec", pairs)
    score(source, tmp_path / "out.run", **settings)
    score(source, tmp_path / "same.run", corpus=str(tmp_path))
    assert (tmp_path / "same.run").read_bytes() == (tmp_path / "out.run").read_bytes()


def test_bm25_scores_of_a_run_come_from_its_corpus(
    score, pairs: list[Pair], tmp_path: Path, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that reads BM25 scores gets those over the corpus, and is refused for other formats."""
    from hfcompress.evaluation.systems import resolve_model
    from hfcompress.scoring.opening import ScoreSettings
    from hfcompress.scoring.score import score_file

    model = make_pico()
    setattr(model.config, CONFIG_KEY, ScoreText().model_dump())
    save_checkpoint(tmp_path / "model", model, tokenizer, SIGMOID, 32)
    candidate = resolve_model(str(tmp_path / "model"), "model", device="cpu")
    source, settings = write_input(tmp_path, "trec", [("ba de", "ba de fi"), ("", "ku li"), ("", "ba ku")])
    score_file(candidate, source, tmp_path / "out.run", ScoreSettings(progress=False, **settings))
    texts: list[Pair] = []
    monkeypatch.setattr(BatchedRanker, "encode", lambda self, pairs: texts.extend(pairs) or {"input_ids": []})
    with pytest.raises(ValueError, match="zip"):
        score_file(candidate, source, tmp_path / "other.run", ScoreSettings(progress=False, **settings))
    numbers = [int(text.split()[0]) for _, text in texts]
    assert numbers[1] == 0 < numbers[2] < numbers[0] and texts[1] == ("ba de", text_with_score("ku li", 0.0))
    source, _ = write_input(tmp_path, "jsonl", pairs)
    with pytest.raises(DataError, match="reads the BM25 score"):
        score_file(candidate, source, tmp_path / "out.jsonl", ScoreSettings(progress=False))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_gzipped_files(score, scores: np.ndarray, pairs: list[Pair], tmp_path: Path, kind: str) -> None:
    source, _ = write_input(tmp_path, kind, pairs)
    packed = tmp_path / f"in.{kind}.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    score(packed, tmp_path / f"out.{kind}.gz")
    score(packed, tmp_path / f"out.{kind}")
    assert gzip.decompress((tmp_path / f"out.{kind}.gz").read_bytes()) == (tmp_path / f"out.{kind}").read_bytes()
    np.testing.assert_allclose(read_scores(kind, tmp_path / f"out.{kind}.gz"), scores, atol=1e-5)


def test_columns_and_activation(
    score, ranker: BatchedRanker, pairs: list[Pair], scores: np.ndarray, tmp_path: Path
) -> None:
    rows = [{"a": query, "b": document, "head": "ba", "score": 3} for query, document in pairs]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    score(source, target, names=ColumnNames("a", "b", None, "logit"), activation=True)
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [{**row, "logit": None} for row in found] == [{**row, "logit": None} for row in rows]
    np.testing.assert_allclose([row["logit"] for row in found], ranker.activation(scores), atol=1e-6)
    score(source, target, names=ColumnNames("a", "b", "head", "logit"))
    titled = ranker.score([(query, f"ba {document}") for query, document in pairs])
    found = [json.loads(line)["logit"] for line in target.read_text().splitlines()]
    np.testing.assert_allclose(found, titled, atol=1e-5)


def test_inputs_without_rows(score, tmp_path: Path) -> None:
    for kind, content in (("jsonl", b"\n"), ("csv", b"query,text\n"), ("tsv", b"query\ttext\n")):
        (tmp_path / f"in.{kind}").write_bytes(content)
        assert score(tmp_path / f"in.{kind}", tmp_path / f"out.{kind}").pairs == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b"" and (tmp_path / "out.csv").read_text() == "query,text,score\n"
    pyarrow.parquet.write_table(table_of([]), tmp_path / "in.parquet")
    score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column_names[-1] == "score"


def test_a_table_in_memory(ranker: BatchedRanker, pairs: list[Pair], scores: np.ndarray) -> None:
    """What an engine that cuts tables on its own does with its part of one."""
    columns = ColumnNames().among(table_of(pairs).column_names, "the table")
    scored, faults = score_table(ranker, table_of(pairs), columns)
    assert not faults and np.array_equal(scored["score"].to_numpy(), scores)
    scored, faults = score_table(ranker, table_of([*pairs[:3], ("", "ba")]), columns)
    assert scored["id"].to_pylist() == [0, 1, 2] and "row 4" in str(faults[0])


def test_a_finished_output_is_replaced(score, pairs: list[Pair], tmp_path: Path) -> None:
    source, _ = write_input(tmp_path, "jsonl", pairs)
    target = tmp_path / "out.jsonl"
    target.write_text("from before")
    shutil.copy(source, tmp_path / "again.jsonl")
    score(tmp_path / "again.jsonl", target)
    assert len(target.read_text().splitlines()) == len(pairs)
