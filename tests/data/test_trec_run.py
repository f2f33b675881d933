"""Run files: what is written is read again to the last digit."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfcompress.data.trec_run import read_run, write_run
from hfcompress.errors import DataError

IDS = st.text(st.characters(blacklist_categories=("Z", "C")), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(run=st.dictionaries(IDS, st.dictionaries(IDS, st.floats(allow_nan=False, allow_infinity=False), min_size=1)))
def test_a_run_survives_the_file(run: dict[str, dict[str, float]], tmp_path_factory: pytest.TempPathFactory) -> None:
    if not run:
        return
    path = write_run(tmp_path_factory.mktemp("run") / "a.run", run, {query: list(run[query]) for query in run}, "a tag")
    assert read_run(path) == run
    assert {len(line.split()) for line in path.read_text(encoding="utf-8").splitlines()} == {6}


def test_ranks_follow_the_order_given(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a.run", {"q": {"a": 1.0, "b": 0.5}}, {"q": ["b", "a"]}, "\t")
    assert path.read_text() == "q Q0 b 1 0.5 run\nq Q0 a 2 1.0 run\n"


def test_gzipped_files_tabs_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.run.gz"
    path.write_bytes(gzip.compress(b"q\tQ0\ta\t1\t-1e-3\ttag\r\n\n  q Q0 b 7 2 tag\n"))
    assert read_run(path) == {"q": {"a": -0.001, "b": 2.0}}


@pytest.mark.parametrize("run", [{"a query": {"a": 1.0}}, {"q": {"a\tb": 1.0}}, {"": {"a": 1.0}}, {"q": {"": 1.0}}])
def test_ids_that_the_format_cannot_hold(tmp_path: Path, run: dict[str, dict[str, float]]) -> None:
    with pytest.raises(DataError, match="without white space"):
        write_run(tmp_path / "a.run", run, {query: list(scores) for query, scores in run.items()}, "tag")
    assert not list(tmp_path.iterdir())


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_run(tmp_path / "nowhere.run")
