"""`evaluate` and `compare`: models, single files and run files, and what cannot be compared."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import pytrec_eval
from conftest import IDENTITY, SIGMOID, make_pico, write_beir
from transformers import BertTokenizerFast

from hfcompress.cli import main
from hfcompress.data.ranking import RankingData
from hfcompress.data.trec_run import read_run
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import ONNX_INT8, OPENVINO_INT8
from hfcompress.quantization.openvino import is_available

QUERIES, CANDIDATES = 12, 6
Call = Callable[..., tuple[str, dict]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast, word_data: RankingData) -> Path:
    """A data folder, two models, and a run file of each."""
    root = tmp_path_factory.mktemp("inputs")
    data = write_beir(root / "words", word_data)
    for seed, name in enumerate(("first", "second")):
        save_checkpoint(root / name, make_pico(seed=seed), tokenizer, IDENTITY, 32)
        main(["evaluate", str(root / name), "--data", str(data), "--run", str(root / f"{name}.run"), "--quiet"])
    return root


@pytest.fixture
def call(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command on the data; returns what it prints and the figures that it writes."""

    def run(*arguments: object) -> tuple[str, dict]:
        figures = tmp_path / "figures.json"
        verb, *rest = map(str, arguments)
        main([verb, *rest, "--data", str(inputs / "words"), "--json", str(figures), "--quiet"])
        return capsys.readouterr().out, json.loads(figures.read_text())

    return run


@pytest.fixture
def refused(inputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a command that must end with code 2 before the benchmark, with certain words in its message."""

    def long_work(*_arguments: object, **_settings: object) -> None:
        raise AssertionError("this should have been refused before the benchmark")

    monkeypatch.setattr("hfcompress.evaluation.results.benchmark", long_work)

    def run(words: list[str], *arguments: object) -> None:
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments), "--data", str(inputs / "words"), "--quiet"])
        message = capsys.readouterr().err
        assert end.value.code == 2
        for word in words:
            assert word in message

    return run


@pytest.fixture
def run_file(inputs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(inputs / "first.run", tmp_path))


FIGURES = ("quality", "per_query", "agreement", "delta", "tied_share")


def test_a_run_file_read_back_gives_the_same_figures(call: Call, inputs: Path, tmp_path: Path) -> None:
    path, again = tmp_path / "second.run", tmp_path / "again.run"
    baseline = ["--baseline", inputs / "first", "--metric", "auc", "--metric", "hit@1"]
    _, direct = call("evaluate", inputs / "second", *baseline, "--run", path)
    printed, read = call("evaluate", path, *baseline, "--run", again)
    for one, other in zip(direct["artifacts"], read["artifacts"], strict=True):
        assert {key: one[key] for key in FIGURES} == {key: other[key] for key in FIGURES}
    assert {"auc", "hit@1", "judged@10"} <= direct["artifacts"][1]["quality"].keys()
    assert "Hit@1" in printed and "model against baseline: " in printed
    assert read_run(path) == read_run(again) and len(path.read_text().splitlines()) == QUERIES * CANDIDATES
    assert read["artifacts"][1]["missing_queries"] == 0


def test_a_run_file_is_one_that_trec_eval_reads(
    call: Call, inputs: Path, word_data: RankingData, tmp_path: Path
) -> None:
    path = tmp_path / "first.run"
    _, figures = call("evaluate", inputs / "first", "--run", path)
    with path.open() as stream:
        run = pytrec_eval.parse_run(stream)
    qrels = {query: dict(grades) for query, grades in word_data.splits["test"].qrels.items()}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
    ours = figures["artifacts"][0]["per_query"]
    assert {query: values["ndcg_cut_10"] for query, values in theirs.items()} == pytest.approx(ours, abs=1e-12)
    rows = [line.split() for line in path.read_text().splitlines()]
    assert {len(row) for row in rows} == {6} and {row[5] for row in rows} == {"first"}
    for before, after in pairwise(rows):
        if before[0] == after[0]:
            assert int(after[3]) == int(before[3]) + 1 and float(after[4]) <= float(before[4])


def test_compare_a_file_of_a_folder_with_another_folder(call: Call, inputs: Path, repository: Path) -> None:
    printed, figures = call("compare", inputs / "first", repository / ONNX_INT8)
    first, second = figures["artifacts"]
    assert (first["runtime"], second["runtime"], second["path"]) == ("torch", "onnxruntime", ONNX_INT8)
    assert first["delta"] is None and second["delta"]["queries"] == QUERIES
    assert second["delta"]["corrected"] in printed and "80% with" in printed
    if is_available():
        _, figures = call("compare", repository / "model.safetensors", repository / OPENVINO_INT8)
        assert [artifact["runtime"] for artifact in figures["artifacts"]] == ["torch", "openvino"]


def test_compare_agrees_whether_models_or_their_run_files_are_given(call: Call, inputs: Path) -> None:
    files = [inputs / "first.run", inputs / "second.run"]
    results = [
        call("compare", *pair)[1]["artifacts"][1]
        for pair in (
            (inputs / "first", inputs / "second"),
            (files[0], files[1]),
            (inputs / "first", files[1]),
            (files[0], inputs / "second"),
        )
    ]
    for result in results[1:]:
        assert {key: result[key] for key in FIGURES} == {key: results[0][key] for key in FIGURES}


def test_a_ranker_compared_with_itself_has_no_difference(call: Call, run_file: Path) -> None:
    _, figures = call("compare", run_file, run_file)
    delta = figures["artifacts"][1]["delta"]
    assert (delta["mean"], delta["ci_low"], delta["p_difference"], delta["corrected"]) == (0, 0, 1, "non-inferior")


def test_several_sets_are_judged_by_themselves(
    inputs: Path, tmp_path: Path, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(inputs / "words", tmp_path / "others")
    for name in ("a", "b"):
        lines = []
        for line in run_file.read_text().splitlines():
            query, q0, document, rank, score, tag = line.split()
            for prefix in ("words", "others"):
                # In one of the sets b turns the order of a around.
                value = -float(score) if (name, prefix) == ("b", "others") else float(score)
                lines.append(f"{prefix}/{query} {q0} {prefix}/{document} {rank} {value} {tag}\n")
        (tmp_path / f"{name}.run").write_text("".join(lines))
    sets = ["--data", str(inputs / "words"), "--data", str(tmp_path / "others")]
    figures = tmp_path / "both.json"
    main(["compare", str(tmp_path / "a.run"), str(tmp_path / "b.run"), *sets, "--json", str(figures), "--quiet"])
    delta = json.loads(figures.read_text())["artifacts"][1]["delta"]
    assert delta["queries"] == 2 * QUERIES and {part["queries"] for part in delta["by_set"].values()} == {QUERIES}
    assert delta["by_set"]["words"]["mean"] == 0 and delta["by_set"]["words"]["corrected"] == "non-inferior"
    assert delta["worst_query"].startswith("others/")
    assert "others: " in capsys.readouterr().out


def test_a_query_that_the_run_lacks_scores_zero_and_is_counted(call: Call, run_file: Path) -> None:
    _, whole = call("evaluate", run_file)
    lost = next(query for query, value in whole["artifacts"][0]["per_query"].items() if value > 0)
    lines = [line for line in run_file.read_text().splitlines(True) if line.split()[0] != lost]
    run_file.write_text("".join(lines))
    printed, figures = call("evaluate", run_file)
    assert figures["artifacts"][0]["per_query"] == {**whole["artifacts"][0]["per_query"], lost: 0}
    assert figures["artifacts"][0]["missing_queries"] == 1 and "1 judged queries are not in the run" in printed


def spoiled(path: Path, number: int, line: str | None) -> Path:
    """A copy of a run file with another line."""
    lines = path.read_text().splitlines()
    lines[number - 1 : number] = [] if line is None else [line]
    copy = path.with_name("spoiled.run")
    copy.write_text("\n".join(lines) + "\n")
    return copy


def test_a_run_that_cannot_be_written_is_refused_before_measuring(
    inputs: Path, tmp_path: Path, refused: Callable[..., None]
) -> None:
    words = ["run file cannot be written there", "--run"]
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "my.run"):
        refused(words, "evaluate", inputs / "first", "--run", path)


def test_ids_that_a_run_cannot_hold_are_refused_before_measuring(
    inputs: Path, tmp_path: Path, refused: Callable[..., None]
) -> None:
    folder = shutil.copytree(inputs / "words", tmp_path / "spaced")
    for path in (path for path in folder.rglob("*") if path.is_file()):
        path.write_text(re.sub(r"\bd(\d+)\b", r"d \1", path.read_text()))
    refused(
        ["cannot hold this document id", "spaced/d "],
        "evaluate",
        inputs / "first",
        "--data",
        folder,
        "--run",
        tmp_path / "my.run",
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("q48 Q0 d48 1 2.5", ["line 3", "six columns"]),
        ("q48 Q0 d48 1 2.5 my tag", ["line 3", "six columns"]),
        ("q48 Q0 d48 1 high tag", ["line 3", "'high'", "finite number"]),
        ("q48 Q0 d48 1 nan tag", ["line 3", "'nan'", "finite number"]),
        ("q48 Q0 d48 1 -inf tag", ["line 3", "'-inf'", "finite number"]),
    ],
)
def test_malformed_lines_are_named(run_file: Path, refused: Callable[..., None], line: str, words: list[str]) -> None:
    refused(["spoiled.run", *words], "evaluate", spoiled(run_file, 3, line))


def test_a_document_twice_in_a_run(run_file: Path, refused: Callable[..., None]) -> None:
    again = run_file.read_text().splitlines()[0]
    refused(["line 4", " ".join(again.split()[0:3:2]), "once"], "compare", run_file, spoiled(run_file, 4, again))


def test_what_is_no_run_file(tmp_path: Path, refused: Callable[..., None]) -> None:
    empty = tmp_path / "empty.run"
    empty.write_text("\n")
    refused(["holds no ranking"], "evaluate", empty)
    binary = tmp_path / "binary.run"
    binary.write_bytes(b"\xff\xfe\x00")
    refused(["cannot be read", "UTF-8"], "evaluate", binary)
    packed = tmp_path / "plain.run.gz"
    packed.write_text("q48 Q0 d48 1 2.5 tag\n")
    refused(["cannot be read", "gzipped only"], "evaluate", packed)


def test_a_run_of_other_queries(tmp_path: Path, refused: Callable[..., None]) -> None:
    other = tmp_path / "other.run"
    other.write_text("topic-1 Q0 d48 1 2.5 tag\n")
    refused(["ranks no query of this split", "topic-1", "--split"], "evaluate", other)


@pytest.mark.parametrize("number", [2, 8])
def test_a_baseline_scored_on_other_candidates(
    inputs: Path, run_file: Path, refused: Callable[..., None], number: int
) -> None:
    words = ["ranks other documents than", "1 of 12 queries", "--candidates"]
    short = spoiled(run_file, number, None)
    refused(words, "evaluate", inputs / "second", "--baseline", short)
    refused(words, "compare", run_file, short)
    refused(words, "compare", short, inputs / "second")
    foreign = spoiled(run_file, number, run_file.read_text().splitlines()[number - 1].replace(" n", " x"))
    if foreign.read_text() != run_file.read_text():
        refused(words, "compare", foreign, run_file)


def test_too_few_queries_and_no_margin(run_file: Path, refused: Callable[..., None]) -> None:
    refused(["at least 2 queries", "--max-queries"], "compare", run_file, run_file, "--max-queries", 1)
    for margin in ("0", "-0.01", "nan"):
        refused(["margin above 0"], "compare", run_file, run_file, "--margin", margin)


def test_other_options_that_do_not_fit(
    inputs: Path, run_file: Path, tmp_path: Path, refused: Callable[..., None]
) -> None:
    refused(["no such metric", "'ndcg'", "ndcg@K"], "evaluate", run_file, "--metric", "ndcg")
    refused(["The file determines the runtime", "--runtime"], "evaluate", run_file, "--runtime", "torch")
    refused(["no such split"], "compare", run_file, run_file, "--split", "validation")
    stray = tmp_path / "stray.onnx"
    stray.write_bytes(b"")
    refused(["is not in the folder of a model", "config.json"], "compare", inputs / "first", stray)


def test_scores_are_compared_at_thresholds(call: Call, inputs: Path) -> None:
    arguments = ["evaluate", inputs / "second", "--baseline", inputs / "first"]
    printed, figures = call(*arguments, "--threshold", "0.25", "--threshold", "best")
    found = figures["score_fidelity"]
    best, own = found["thresholds"]
    assert (found["activation"], best["best"], own["best"], own["logit"]) == ("Identity", True, False, 0.25)
    runs = [read_run(inputs / f"{name}.run") for name in ("first", "second")]
    for threshold, there in zip(found["thresholds"], found["artifacts"][0]["thresholds"], strict=True):
        pairs = [
            (score >= threshold["logit"], runs[1][query][document] >= threshold["logit"])
            for query, row in runs[0].items()
            for document, score in row.items()
        ]
        assert there["changed"]["value"] == pytest.approx(sum(a != b for a, b in pairs) / len(pairs))
        assert f"threshold {'best, ' if threshold['best'] else ''}{threshold['score']:.3g}: " in printed
    assert found["artifacts"][0]["name"] == "model" and "model: scores differ from the teacher's by" in printed
    assert call(*arguments)[1]["score_fidelity"] is None


def test_thresholds_that_cannot_be_compared(
    refused: Callable[..., None], inputs: Path, tmp_path: Path, tokenizer: BertTokenizerFast
) -> None:
    first, second = inputs / "first", inputs / "second"
    refused(["no baseline", "--baseline"], "evaluate", first, "--threshold", "0.5")
    refused(["a run file"], "evaluate", first, "--baseline", inputs / "second.run", "--threshold", "0.5")
    refused(["'half'", "or best"], "evaluate", first, "--baseline", second, "--threshold", "half")
    for name in ("one", "other"):
        save_checkpoint(tmp_path / name, make_pico(), tokenizer, SIGMOID, 32)
    refused(["Sigmoid", "different scales"], "evaluate", tmp_path / "one", "--baseline", second, "--threshold", "0.5")
    arguments = ["evaluate", tmp_path / "one", "--baseline", tmp_path / "other", "--threshold", "1.5"]
    refused(["1.5", "between 0 and 1"], *arguments)


def test_the_best_threshold_needs_labels_on_dev(call: Call, inputs: Path, tmp_path: Path) -> None:
    data = shutil.copytree(inputs / "words", tmp_path / "words")
    (data / "qrels" / "dev.tsv").unlink()
    with pytest.raises(SystemExit):
        main([
            "evaluate", str(inputs / "first"), "--baseline", str(inputs / "second"), "--threshold", "best",
            "--data", str(data), "--quiet",
        ])  # fmt: skip
