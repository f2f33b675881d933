"""Faults that users of rerankers and of their int8 forms have met elsewhere, each tried on hfcompress.

Those that other files try are not repeated here: several labels and padded batches (rankers/), padding
in graphs, static int8 without data, batches of different lengths and weights for CPUs without VNNI (quantization/),
compiled models in surgery (models/), empty texts on the command line (cli/).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import FFN, HEADS, IDENTITY, LAYERS, SIGMOID, WORDS, families, make_pico
from safetensors.torch import load_file, save_file
from torch.ao.quantization import quantize_dynamic
from transformers import BertTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan
from hfcompress.quantization import openvino as openvino_backend
from hfcompress.quantization.artifacts import calibration_batches, write_graphs
from hfcompress.quantization.config import DynamicQuantizationConfig
from hfcompress.quantization.onnxruntime import export_onnx
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.load import load_ranker
from hfcompress.recipe import Recipe
from hfcompress.steps.checks import check
from hfcompress.utils.log import warn_once

DOCUMENTS = [" ".join(WORDS[place : place + 1 + place % 7]) for place in range(12)]
PAIRS = [("ba de fi", document) for document in DOCUMENTS]
needs_openvino = pytest.mark.skipif(not openvino_backend.is_available(), reason="the openvino extra is not installed")
RUNTIMES = ["torch", "onnxruntime", pytest.param("openvino", marks=needs_openvino)]
FP32 = {"torch": None, "onnxruntime": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}


def fp32(folder: Path, runtime: str) -> BatchedRanker:
    return load_ranker(folder, runtime, FP32[runtime])  # type: ignore[arg-type]


# Inputs


@pytest.mark.parametrize("family", families("bert", "roberta", "mpnet"))
def test_token_type_ids_go_only_to_models_with_segments(
    family: str, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    changes = {"type_vocab_size": 1} if family in ("roberta", "xlm-roberta", "camembert") else {}
    one_layer = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, tuple(range(HEADS)), tuple(range(FFN))),))
    model = apply_plan(make_pico(family, **changes), one_layer)
    assert "token_type_ids" in tokenizer.model_input_names  # as of a tokenizer that was saved for BERT
    save_checkpoint(tmp_path, model, tokenizer, IDENTITY, 32)
    ours = load_tokenizer(str(tmp_path))
    segments = family in ("bert", "electra")
    assert ("token_type_ids" in ours.model_input_names) is segments
    assert np.isfinite(load_ranker(tmp_path, "torch").score(PAIRS)).all()  # a second segment would not be found
    names = {value.name for value in export_onnx(model, ours).graph.inputs}
    assert names == {"input_ids", "attention_mask"} | ({"token_type_ids"} if segments else set())
    assert set(calibration_batches(ours, PAIRS)[0]) == names
    ours.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert segments or "token_type_ids" not in saved.get("model_input_names", [])


@pytest.mark.parametrize("runtime", RUNTIMES[1:])
def test_graphs_with_segments_get_them_from_tokenizers_without(runtime: str, repository: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(repository, tmp_path / "copy")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "model_input_names": ["input_ids", "attention_mask"]})
    )
    ranker = fp32(folder, runtime)
    assert "token_type_ids" in ranker.inputs and "token_type_ids" not in ranker.tokenizer.model_input_names
    np.testing.assert_allclose(ranker.score(PAIRS), fp32(folder, "torch").score(PAIRS), atol=1e-4)


def test_graphs_with_other_inputs_are_refused(repository: Path, tmp_path: Path) -> None:
    graph = onnx.load(repository / "onnx" / "model.onnx")
    graph.graph.input.append(onnx.helper.make_tensor_value_info("position_ids", onnx.TensorProto.INT64, ["b", "s"]))
    folder = shutil.copytree(repository, tmp_path / "copy")
    onnx.save(graph, folder / "onnx" / "model.onnx")
    with pytest.raises(ModelError, match=r"position_ids.*Expected: inputs among input_ids"):
        fp32(folder, "onnxruntime")


@pytest.mark.parametrize(("family", "longest"), [("roberta", 512), ("xlm-roberta", 512), ("mpnet", 512), ("bert", 514)])
def test_lengths_end_where_positions_do(
    family: str, longest: int, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    copy = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=514)
    save_checkpoint(tmp_path, make_pico(family), copy, IDENTITY, 514)
    assert json.loads((tmp_path / "sentence_bert_config.json").read_text())["max_seq_length"] == longest
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == longest
    copy.model_max_length = 514  # as in the tokenizers of such models
    copy.save_pretrained(tmp_path)
    ranker = load_ranker(tmp_path)
    assert ranker.tokenizer.model_max_length == longest
    assert np.isfinite(ranker.score([("ba", " ".join(WORDS * 20))])).all()


def test_tokenizers_without_a_length(tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    copy = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    assert copy.model_max_length > 1e29
    save_checkpoint(tmp_path, make_pico(), copy, IDENTITY, 32)
    copy.model_max_length = int(1e30)
    copy.save_pretrained(tmp_path)
    assert load_ranker(tmp_path).tokenizer.model_max_length == 32  # of sentence_bert_config.json
    (tmp_path / "sentence_bert_config.json").unlink()
    assert load_ranker(tmp_path).tokenizer.model_max_length == 514
    save_checkpoint(tmp_path / "again", make_pico(), load_tokenizer(str(tmp_path)), IDENTITY, int(1e30))
    assert json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())["model_max_length"] == 514
    assert json.loads((tmp_path / "again" / "sentence_bert_config.json").read_text())["max_seq_length"] == 514


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_empty_texts_and_no_texts(runtime: str, repository: Path) -> None:
    ranker = fp32(repository, runtime)
    assert ranker.score([]).shape == (0,) and ranker.rank("", []) == []
    scores = ranker.score([("", ""), ("ba", ""), ("", "ba"), ("ba de", "fi")])
    assert np.isfinite(scores).all()
    assert sorted(hit.position for hit in ranker.rank("", ["", "ba"])) == [0, 1]


def test_a_query_that_fills_the_whole_input_is_told(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    ranker = fp32(repository, "torch")
    long = " ".join(WORDS[:40])
    with caplog.at_level(logging.WARNING, "hfcompress"):
        ranker.score([("ba de", " ".join(WORDS))] * 3)  # a long document is cut as a rule, and no news
        assert not caplog.records
        ranker.score([(long, "ba"), (long, "de"), ("ba", "de"), ("ba", "fi")])
        ranker.rank(long, ["ba"])
        fp32(repository, "torch").score([(long, "ba"), (long, "de"), ("ba", "de"), ("ba", "fi")])  # as in a next epoch
    (record,) = caplog.records
    assert "A query of 40 tokens is longer than half of the input of 32" in record.getMessage()


# Files


def test_external_data_that_was_left_behind(repository: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(repository, tmp_path / "copy")
    path = folder / "onnx" / "model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx_data", size_threshold=2048)
    scores = fp32(repository, "onnxruntime").score(PAIRS)
    np.testing.assert_allclose(fp32(folder, "onnxruntime").score(PAIRS), scores, atol=1e-5)
    (path.parent / "model.onnx_data").unlink()
    with pytest.raises(ModelError, match=r"cannot be opened.*copy the external data too"):
        fp32(folder, "onnxruntime")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="copy or export it again"):
        fp32(folder, "onnxruntime")


def test_several_graphs_in_one_folder(repository: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(repository, tmp_path / "copy")
    onnx_folder = folder / "onnx"
    for name in ("model_O3.onnx", "model_qint8_avx512_vnni.onnx"):
        shutil.copy(onnx_folder / "model.onnx", onnx_folder / name)
    int8 = load_ranker(folder, "onnxruntime").score(PAIRS)  # the int8 file of the layout, and none by chance
    exact = load_ranker(folder, "onnxruntime", "onnx/model_O3.onnx").score(PAIRS)
    assert 1e-4 < np.abs(int8 - exact).max() < 0.5
    (onnx_folder / "model_quantized.onnx").unlink()
    with pytest.raises(ModelError, match=r"onnx/model\.onnx, onnx/model_O3\.onnx, onnx/model_qint8_avx512_vnni\.onnx"):
        load_ranker(folder, "onnxruntime")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_weights_of_wrapped_models_are_named(prefix: str, cross_encoder: Path) -> None:
    path = cross_encoder / "model.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"names that begin with {prefix}.*inside the wrapper"):
        load_model(str(cross_encoder))


def test_compiled_models_are_saved_and_exported_under_their_own_names(
    tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    compiled = torch.compile(make_pico(num_hidden_layers=1), backend="eager")
    save_checkpoint(tmp_path, compiled, tokenizer, IDENTITY, 32)  # type: ignore[arg-type]
    write_graphs(
        tmp_path,
        compiled,
        tokenizer,
        [DynamicQuantizationConfig()],
        pairs=PAIRS,
        progress=False,
    )
    assert not any("_orig_mod" in name for name in load_file(tmp_path / "model.safetensors"))
    graph = onnx.load(tmp_path / "onnx" / "model.onnx").graph
    assert not any("_orig_mod" in weight.name for weight in graph.initializer)
    np.testing.assert_allclose(
        fp32(tmp_path, "onnxruntime").score(PAIRS), fp32(tmp_path, "torch").score(PAIRS), atol=1e-4
    )


# Int8


@pytest.mark.parametrize("file", ["onnx/model_quantized.onnx", "onnx/model.onnx"])
def test_int8_under_a_cuda_provider_is_warned_of(
    file: str,
    repository: Path,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hfcompress.rankers.onnxruntime._require", lambda wanted, found: None)  # as if CUDA were here
    options = RankerOptions(providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    with caplog.at_level(logging.WARNING, "hfcompress"):
        load_ranker(repository, "onnxruntime", file)
        assert not caplog.records
        load_ranker(repository, "onnxruntime", file, options=options)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (file == "onnx/model_quantized.onnx")
    assert all("int8 graph for the CPU, and CUDAExecutionProvider" in message for message in told)


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated")
@pytest.mark.parametrize("export", [export_onnx, pytest.param(openvino_backend.export_openvino, marks=needs_openvino)])
def test_a_quantized_module_is_not_exported(export: Callable[..., object], tokenizer: BertTokenizerFast) -> None:
    quantized = quantize_dynamic(make_pico(), {torch.nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ModelError, match=r"quantized already.*torch\.ao\.nn\.quantized.*\.Linear"):
        export(quantized, tokenizer)


# Activation functions


@pytest.mark.parametrize("activation", [IDENTITY, SIGMOID])
def test_the_activation_is_kept_and_applied_once(activation: str, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = make_pico(num_hidden_layers=1)
    save_checkpoint(tmp_path, model, tokenizer, activation, 32)
    write_graphs(tmp_path, model, tokenizer, [DynamicQuantizationConfig()], pairs=PAIRS, progress=False)
    logits = fp32(tmp_path, "torch").score(PAIRS)
    np.testing.assert_allclose(fp32(tmp_path, "onnxruntime").score(PAIRS), logits, atol=1e-4)  # none in the graph
    expected = logits if activation == IDENTITY else 1 / (1 + np.exp(-logits))
    hits = fp32(tmp_path, "onnxruntime").rank("ba de fi", DOCUMENTS)
    np.testing.assert_allclose([hit.score for hit in hits], -np.sort(-expected), atol=1e-4)
    encoder = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    np.testing.assert_allclose(encoder.predict(PAIRS), expected, atol=1e-5)
    for file in ("config.json", "config_sentence_transformers.json"):
        content = json.loads((tmp_path / file).read_text())
        assert content.get("sentence_transformers", content)["activation_fn"] == activation


def test_an_activation_that_names_code_stops_a_run_before_its_work(cross_encoder: Path) -> None:
    path = cross_encoder / "config.json"
    config = json.loads(path.read_text())
    config["sentence_transformers"]["activation_fn"] = "evil.module.Function"
    path.write_text(json.dumps(config))
    recipe = {"name": "x", "data": {"sets": ["api-search"]}, "teacher": {"model": str(cross_encoder), "max_length": 32}}
    with pytest.raises(ModelError, match=r"evil\.module\.Function"):
        check(Recipe.model_validate(recipe))
