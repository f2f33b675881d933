"""The code in a card: every block is whole in itself, and runs on the repository that the card stands in."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_samples import example_artifact, example_delta, example_report

from hfcompress.card import render
from hfcompress.models.layout import ONNX_INT8, OPENVINO_INT8
from hfcompress.quantization.openvino import is_available
from hfcompress.rankers.load import load_ranker
from hfcompress.report.report import RunReport
from hfcompress.report.structure import PruningSummary

QUERY, DOCUMENTS = "ba de fi", ["sun ba de", "go lu", "pe pi po pu fi", "ba de fi sun", "lan"]


def pruning(custom_code: bool) -> PruningSummary:
    summary = example_report().pruning
    assert summary is not None
    return summary.model_copy(update={"custom_code": custom_code})


def blocks(report: RunReport) -> dict[str, str]:
    """Python of the card, by the library that it imports first."""
    found = re.findall(r"```python\n(.*?)```", render(report), re.DOTALL)
    library = re.compile(
        r"^(?:import|from) (hfcompress|torch|sentence_transformers|onnxruntime|openvino)", re.MULTILINE
    )
    return {library.findall(block)[0]: block for block in found}


@pytest.fixture
def report() -> RunReport:
    delta = example_delta(0.0, "non-inferior")
    artifacts = [example_artifact("onnx", "onnxruntime", 2.0, delta, path=ONNX_INT8)]
    if is_available():
        artifacts.append(example_artifact("openvino", "openvino", 3.0, delta, path=OPENVINO_INT8))
    return example_report(max_length=32, artifacts=artifacts, pruning=pruning(True))


@pytest.mark.parametrize("custom_code", [True, False])
def test_blocks_are_python_and_name_the_right_files(custom_code: bool) -> None:
    found = blocks(example_report(pruning=pruning(custom_code)))
    assert list(found) == ["hfcompress", "torch", "sentence_transformers", "onnxruntime", "openvino"]
    for block in found.values():
        ast.parse(block)
    trusting = [name for name, block in found.items() if "folder, trust_remote_code=True" in block]
    assert trusting == (["torch", "sentence_transformers"] if custom_code else [])
    assert f"{{folder}}/{ONNX_INT8}" in found["onnxruntime"]
    assert f"{{folder}}/{OPENVINO_INT8}" in found["openvino"]


def test_bare_blocks_are_short_and_need_no_pytorch() -> None:
    found = blocks(example_report())
    for name in ("onnxruntime", "openvino"):
        code = [line for line in found[name].splitlines() if line.strip()]
        assert len(code) <= 18
        assert not re.search(r"torch|transformers", found[name])


def test_transformers_js_is_shown_where_its_file_is() -> None:
    first = example_report().artifacts[0]
    assert 'dtype: "q8"' in render(example_report(artifacts=[first]))
    other = first.model_copy(update={"path": "onnx/model_qint8_static.onnx"})
    assert "q8" not in render(example_report(artifacts=[other]))


@pytest.mark.parametrize("prompt", ["query: ", 'a "quoted" {prompt}\n'])
def test_blocks_prepend_the_prompt_unless_their_library_does(prompt: str) -> None:
    found = blocks(example_report(query_prompt=prompt))
    for name, block in found.items():
        names: dict[str, str] = {"query": "sun"}
        lines = [line for line in block.splitlines() if re.match(r"query = .*\+ query", line)]
        assert len(lines) == (name not in ("hfcompress", "sentence_transformers"))
        for line in lines:
            exec(line, names)
            assert names["query"] == f"{prompt}sun"
    assert f"() => {json.dumps(prompt)} + query" in render(example_report(query_prompt=prompt))


def test_every_block_runs_alone(repository: Path, report: RunReport, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    monkeypatch.chdir(repository)
    exact = load_ranker(repository, "torch").score([(QUERY, document) for document in DOCUMENTS])
    found = blocks(report)
    assert len(found) == 4 + is_available()
    for name, block in found.items():
        block = re.sub(r"query = .*", f"query = {QUERY!r}", block)
        names: dict[str, object] = {}
        exec(re.sub(r"documents = .*", f"documents = {DOCUMENTS!r}", block), names)
        scores = np.asarray(names["scores"], dtype=np.float64)
        assert scores.shape == (5,)
        if name in ("torch", "sentence_transformers"):
            np.testing.assert_allclose(scores, exact, atol=1e-5)
        assert np.corrcoef(scores, exact)[0, 1] > 0.9, name
