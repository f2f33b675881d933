"""Folders with one fault: each gives the scores of the good folder, or an error of hfcompress; never another one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import IDENTITY, SIGMOID, make_pico, uneven_plan
from folder_alterations import PAIRS, Alteration, altered_files, altered_keys
from report_samples import example_report
from transformers import AutoTokenizer, BertTokenizerFast

from hfcompress.errors import HfCompressError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import ONNX_INT8, OPENVINO_INT8
from hfcompress.models.load import load_config
from hfcompress.models.surgery import apply_plan
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.quantization.config import WeightQuantizationConfig
from hfcompress.quantization.openvino import is_available
from hfcompress.quantization.weights import save_packed
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import Runtime, load_ranker
from hfcompress.report.report import REPORT_FILE, RunReport


@dataclass(frozen=True)
class Good:
    """A folder without faults, and the runtime that opens it."""

    path: Path
    runtime: Runtime = "torch"

    def scores(self) -> np.ndarray:
        """Logits and scores of the pairs, of everything that reads the folder."""
        if (self.path / REPORT_FILE).is_file():
            RunReport.load(self.path)
        if (self.path / RankerCompressionConfig.CONFIG_NAME).is_file():
            assert isinstance(RankerCompressionConfig.from_pretrained(self.path).versions, dict)
        ranker = load_ranker(self.path, self.runtime, options=RankerOptions(threads=1))
        logits = ranker.score(PAIRS)
        return np.stack([logits, ranker.activation(logits)])


GRAPHS: dict[str, tuple[Runtime, str]] = {"onnx": ("onnxruntime", ONNX_INT8), "openvino": ("openvino", OPENVINO_INT8)}
FOLDERS = ("plain", "pruned", "sharded", "vocabulary", "packed", *GRAPHS)
# Alterations that change what the folder says, so that sentence-transformers, too, gives other scores.
MEANINGS: dict[str, str] = {
    "tokenizer_config.json: do_lower_case flipped": "the text is not lower-cased",
    "tokenizer_config.json: tokenize_chinese_chars flipped": "Chinese characters are not separated",
    "vocab.txt: truncated": "a smaller vocabulary; a warning compares it with the embeddings",
    "config.json: type_vocab_size zero": "a model without segments, which a graph does not contradict",
}


@pytest.fixture(scope="module")
def good(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast, request: pytest.FixtureRequest
) -> Callable[[str], Good]:
    """Builds the good folders, each once."""
    root, made = tmp_path_factory.mktemp("good"), {}

    def build(name: str) -> Good:
        if name not in made:
            if name in GRAPHS:
                made[name] = with_graph(request.getfixturevalue("repository"), root / name)
            else:
                made[name] = make_good(root / name, tokenizer)
        return made[name]

    return build


def make_good(folder: Path, tokenizer: BertTokenizerFast) -> Good:
    """Write the folder that its name describes."""
    model = make_pico()
    if folder.name == "pruned":
        model = apply_plan(model, uneven_plan())
    save_checkpoint(folder, model, tokenizer, SIGMOID, 32)
    if folder.name == "pruned":
        config = RankerCompressionConfig({"name": "mine"}, {}, {ONNX_INT8: {"mode": "dynamic"}}, {"torch": "2"})
        config.save_pretrained(folder)
        example_report().save(folder)
    elif folder.name == "sharded":
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="60KB")
    elif folder.name == "vocabulary":
        (folder / "tokenizer.json").unlink()
        words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        (folder / "vocab.txt").write_text("\n".join(word for word, _ in words), encoding="utf-8")
    elif folder.name == "packed":
        save_packed(model, WeightQuantizationConfig(bits=4), folder)
        (folder / "model.safetensors").unlink()
    return Good(folder)


def with_graph(repository: Path, folder: Path) -> Good:
    """Copy a repository with a graph for one runtime, and without other weights."""
    runtime, graph = GRAPHS[folder.name]
    shutil.copytree(repository, folder)
    for path in [*folder.glob("onnx/*"), *folder.glob("openvino/*"), folder / "model.safetensors"]:
        if path.with_suffix("") != (folder / graph).with_suffix(""):
            path.unlink()
    for file in ("config.json", "config_sentence_transformers.json"):
        (folder / file).write_text((folder / file).read_text().replace(IDENTITY, SIGMOID))
    return Good(folder, runtime)


def faults_of(good: Good, alterations: Iterator[Alteration]) -> list[str]:
    """Alterations that end in something else than the good scores, an error of hfcompress, or a listed meaning."""
    expected, faults = good.scores(), []
    for alteration in alterations:
        path = good.path / alteration.file
        content = path.read_bytes()
        path.unlink() if alteration.content is None else path.write_bytes(alteration.content)
        try:
            faults += [f"{alteration.name}: {fault}" for fault in fault_of(good, alteration, expected)]
        finally:
            path.write_bytes(content)
    return faults


def fault_of(good: Good, alteration: Alteration, expected: np.ndarray) -> Iterator[str]:
    try:
        found = good.scores()
    except HfCompressError as error:
        if not (error.problem and error.expected and error.remedy):
            yield f"an error without a remedy: {error}"
    except BaseException as error:  # a panic of a library in Rust is no Exception
        yield f"{type(error).__name__}: {error}"
    else:
        if not np.allclose(found, expected, atol=1e-5, rtol=0):
            difference = np.abs(found - expected).max()
            if alteration.name not in MEANINGS:
                yield f"scores differ by {difference:.2g}"
            elif not np.allclose(found[1], reference_scores(good), atol=1e-5, rtol=0):
                yield "scores differ from the reference"


def reference_scores(good: Good) -> np.ndarray:
    """What sentence-transformers computes for the altered folder, and for a graph, with the tokenizer alone."""
    if good.runtime == "torch":
        sentence_transformers = pytest.importorskip("sentence_transformers")
        model = sentence_transformers.CrossEncoder(str(good.path), device="cpu", trust_remote_code=True)
        return model.predict(PAIRS)
    ranker = load_ranker(good.path, good.runtime, options=RankerOptions(threads=1))
    tokenizer = AutoTokenizer.from_pretrained(good.path)
    if load_config(str(good.path)).type_vocab_size == 0:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    ranker.tokenizer = tokenizer
    return ranker.activation(ranker.score(PAIRS))


@pytest.fixture
def folder(request: pytest.FixtureRequest, good: Callable[[str], Good]) -> Good:
    if request.param == "openvino" and not is_available():
        pytest.skip("OpenVINO is not installed")
    return good(request.param)


def test_the_fuzz_test_makes_many_alterations(good: Callable[[str], Good]) -> None:
    plain = good("plain").path
    keys = {alteration.name for alteration in altered_keys(plain)}
    files = {alteration.name for name in ("plain", "vocabulary") for alteration in altered_files(good(name).path)}
    assert len(files) >= 60 and len(keys) >= 250 and set(MEANINGS) <= keys | files


@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_each_altered_file_is_refused_or_not_needed(folder: Good) -> None:
    assert not faults_of(folder, altered_files(folder.path))


@pytest.mark.soak
@pytest.mark.parametrize("folder", ["plain", "pruned", "vocabulary", *GRAPHS], indirect=True)
def test_each_altered_key_is_refused_or_not_needed(folder: Good) -> None:
    alterations = altered_keys(folder.path)
    if folder.runtime == "openvino":  # each load compiles the graph anew
        alterations = (
            alteration
            for alteration in alterations
            if alteration.what.endswith(" removed") and "." not in alteration.what
        )
    assert not faults_of(folder, alterations)
