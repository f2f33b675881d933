"""Graphs of modular cross-encoders contain the head, in ONNX and OpenVINO, in fp32 and int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WORDS, uneven_plan
from modular_samples import LAYOUTS, write_layout
from sentence_transformers import CrossEncoder
from transformers import BertTokenizerFast

from hfcompress.models.layout import ONNX_FP32, ONNX_INT8, OPENVINO_FP32, OPENVINO_INT8
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.models.surgery import apply_plan
from hfcompress.quantization.config import DynamicQuantizationConfig, OpenVINOQuantizationConfig, QuantizationConfig
from hfcompress.quantization.openvino import is_available
from hfcompress.quantization.quantizer import RankerQuantizer
from hfcompress.rankers.load import Runtime, load_ranker

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(24)]
CASES = [
    pytest.param("bert-mean-norm-no-bias", ["onnxruntime"]),
    *(pytest.param(name, ["onnxruntime", "openvino"], marks=pytest.mark.soak) for name in LAYOUTS),
]
CONFIGS: dict[str, QuantizationConfig] = {
    "onnxruntime": DynamicQuantizationConfig(),
    "openvino": OpenVINOQuantizationConfig(),
}
GRAPHS = {"onnxruntime": (ONNX_FP32, ONNX_INT8), "openvino": (OPENVINO_FP32, OPENVINO_INT8)}


@pytest.mark.parametrize(("layout", "runtimes"), CASES)
def test_graphs_equal_sentence_transformers(
    layout: str, runtimes: list[Runtime], tmp_path: Path, tokenizer: BertTokenizerFast
) -> None:
    runtimes = [runtime for runtime in runtimes if runtime != "openvino" or is_available()]
    source, out = write_layout(tmp_path / "source", tokenizer, layout), tmp_path / "out"
    model, pruned = load_model(str(source)), layout == "bert-mean-norm-no-bias"
    if pruned:
        model = apply_plan(model, uneven_plan())
    RankerQuantizer(model, load_tokenizer(str(source))).quantize(out, [CONFIGS[each] for each in runtimes], PAIRS)
    peer = CrossEncoder(str(out), trust_remote_code=pruned, device="cpu")
    wanted = peer.predict(PAIRS, activation_fn=torch.nn.Identity())
    for runtime in runtimes:
        exact, small = (load_ranker(out, runtime, graph).score(PAIRS) for graph in GRAPHS[runtime])
        np.testing.assert_allclose(exact, wanted, atol=1e-4)
        assert np.corrcoef(small, wanted)[0, 1] > 0.95
