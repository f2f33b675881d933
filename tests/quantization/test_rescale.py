"""Files with a scaled and shifted logit: graphs of every family agree with PyTorch, and int8 keeps its order."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import FFN, HEADS, LAYERS, WORDS, families, make_pico
from transformers import BertTokenizerFast

from hfcompress.models.layout import ONNX_FP32, ONNX_INT8, OPENVINO_FP32, OPENVINO_INT8
from hfcompress.models.load import load_model
from hfcompress.models.modular import score_layer
from hfcompress.models.packing import read_packed
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.score_head import rescale_score
from hfcompress.models.surgery import apply_plan
from hfcompress.quantization import onnxruntime as onnx_backend
from hfcompress.quantization import openvino as openvino_backend
from hfcompress.quantization.config import WeightQuantizationConfig
from hfcompress.quantization.rescale import rescale_file
from hfcompress.quantization.weights import packed_file, save_packed
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.onnxruntime import OnnxRuntimeRanker
from hfcompress.rankers.openvino import OpenVinoRanker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.utils.openvino_core import openvino_core

SCALE, SHIFT = 1.37, -2.25
PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(24)]
ONE_LAYER = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(3, (0, 2, 3), tuple(range(5))),))
needs_openvino = pytest.mark.skipif(not openvino_backend.is_available(), reason="the openvino extra is not installed")


def tokenizer_for(family: str, tokenizer: BertTokenizerFast) -> BertTokenizerFast:
    copy = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=32)
    if family != "bert":
        copy.model_input_names = ["input_ids", "attention_mask"]
    return copy


@pytest.mark.parametrize("family", families("bert", "modernbert"))
@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_fp32_graphs_agree_with_pytorch(
    runtime: str, family: str, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model, words = apply_plan(make_pico(family), ONE_LAYER), tokenizer_for(family, tokenizer)
    if runtime == "onnxruntime":
        path = onnx_backend.save_onnx(onnx_backend.export_onnx(model, words), tmp_path / "model.onnx")
    else:
        path = openvino_backend.save_openvino(openvino_backend.export_openvino(model, words), tmp_path / "model.xml")
    before = TorchRanker(model, words).score(PAIRS)
    rescale_file(path, SCALE, SHIFT, score_layer(model))
    kind = OnnxRuntimeRanker if runtime == "onnxruntime" else OpenVinoRanker
    scores = kind(path, words).score(PAIRS)
    np.testing.assert_allclose(scores, TorchRanker(rescale_score(model, SCALE, SHIFT), words).score(PAIRS), atol=1e-4)
    np.testing.assert_allclose(scores, SCALE * before + SHIFT, atol=1e-4)


@pytest.mark.parametrize("path", [ONNX_INT8, pytest.param(OPENVINO_INT8, marks=needs_openvino)])
def test_int8_graphs_keep_their_order_and_their_names(path: str, repository: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(repository, tmp_path / "out")
    ranker = load_ranker(folder, file=path)
    before = ranker.score_in_batches(PAIRS, 1)
    rescale_file(folder / path, SCALE, SHIFT, "classifier")
    after = load_ranker(folder, file=path).score_in_batches(PAIRS, 1)
    np.testing.assert_allclose(after, np.float32(SCALE) * before + np.float32(SHIFT), atol=1e-4)
    assert (np.argsort(after, kind="stable") == np.argsort(before, kind="stable")).all()
    rescale_file(folder / path, 0.5, 1.0, "classifier")  # a second one goes on top
    again = load_ranker(folder, file=path).score_in_batches(PAIRS, 1)
    np.testing.assert_allclose(again, 0.5 * after + 1.0, atol=1e-4)


def test_the_output_of_a_graph_keeps_its_name(repository: Path, tmp_path: Path) -> None:
    for path in (ONNX_FP32, ONNX_INT8):
        copied = Path(shutil.copy(repository / path, tmp_path))
        before = copied.read_bytes()
        rescale_file(copied, 1.0, 0.0, "classifier")
        assert copied.read_bytes() == before  # the identity changes nothing
        names = [each.name for each in onnx.load(copied).graph.output]
        rescale_file(copied, SCALE, SHIFT, "classifier")
        model = onnx.load(copied)
        onnx.checker.check_model(model, full_check=True)
        assert [each.name for each in model.graph.output] == names == [model.graph.node[-1].output[0]]


@needs_openvino
def test_the_output_of_an_openvino_graph_keeps_its_name(repository: Path, tmp_path: Path) -> None:
    for path in (OPENVINO_FP32, OPENVINO_INT8):
        for ending in (".xml", ".bin"):
            shutil.copy((repository / path).with_suffix(ending), tmp_path)
        copied = tmp_path / Path(path).name
        names = openvino_core().read_model(str(copied)).outputs[0].get_names()
        rescale_file(copied, SCALE, SHIFT, "classifier")
        output = openvino_core().read_model(str(copied)).outputs
        assert len(output) == 1 and output[0].get_names() == names


def test_packed_weights_change_in_the_last_layer_only(repository: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(repository, tmp_path / "out")
    config = WeightQuantizationConfig(scope="all")
    path = save_packed(load_model(str(folder)), config, folder)
    before, scores = read_packed(path), load_ranker(folder, file=packed_file(config)).score(PAIRS)
    rescale_file(path, SCALE, SHIFT, "classifier")
    after = read_packed(path)
    changed = {name for name in before if not np.array_equal(before[name].numpy(), after[name].numpy())}
    assert changed == {"classifier.weight", "classifier.bias"} and before.keys() == after.keys()
    again = load_ranker(folder, file=packed_file(config)).score(PAIRS)
    np.testing.assert_allclose(again, SCALE * scores + SHIFT, atol=1e-5)
