"""Settings in the files of sentence-transformers: scores as its CrossEncoder gives, kept wherever a model is saved."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import WORDS, make_pico, write_beir
from datasets import Dataset
from huggingface_hub.errors import LocalEntryNotFoundError
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer, BertTokenizerFast

from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData
from hfcompress.errors import ModelError
from hfcompress.evaluation.saliency import word_saliency
from hfcompress.models import sentence_transformers
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_config, load_encoder, load_model, load_tokenizer, model_fingerprint
from hfcompress.models.prompts import Prompts, encode_pairs, prompts_of, set_prompts
from hfcompress.models.sentence_transformers import (
    MODULES_FILE,
    SETTINGS_FILE,
    TRANSFORMER_FILE,
    CrossEncoderSettings,
    cross_encoder_settings,
)
from hfcompress.pipeline import run
from hfcompress.pruning.prune import prune_checkpoint
from hfcompress.quantization.artifacts import calibration_batches
from hfcompress.quantization.config import DynamicQuantizationConfig
from hfcompress.quantization.quantizer import RankerQuantizer
from hfcompress.rankers.load import activation_name, load_ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import PruneStep, Recipe
from hfcompress.report.report import RunReport
from hfcompress.steps.checks import check
from hfcompress.vocabulary.plan import plan_vocabulary
from hfcompress.vocabulary.prune import prune_vocabulary

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(25)]
ACTIVATIONS = ["Identity", "Sigmoid", "Tanh"]
PROMPTS = {"query": "ba de fi: ", "other": "sun "}


def full(name: str) -> str:
    kind = getattr(torch.nn, name)
    return f"{kind.__module__}.{name}"


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes a key."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def clear(folder: Path) -> None:
    edit(folder / SETTINGS_FILE, activation_fn=None)
    edit(folder / "config.json", sentence_transformers=None)


def place(folder: Path, where: str, name: str) -> None:
    """Name an activation in one place; every place of lower precedence names another."""
    other = full("Tanh" if name != "Tanh" else "Identity")
    clear(folder)
    if where == "file":
        edit(folder / SETTINGS_FILE, activation_fn=name)
        edit(folder / "config.json", sentence_transformers={"activation_fn": other})
    if where == "config":
        edit(folder / "config.json", sentence_transformers={"activation_fn": name})
    if where == "config with null in the file":
        edit(folder / "config.json", sentence_transformers={"activation_fn": name})
        path = folder / SETTINGS_FILE
        path.write_text(json.dumps({**json.loads(path.read_text()), "activation_fn": None}))
    if where == "legacy":
        edit(folder / "config.json", sbert_ce_default_activation_function=name)
    elif where != "file":
        edit(folder / "config.json", sbert_ce_default_activation_function=other)


def ours(folder: Path, **settings: Any) -> np.ndarray:
    ranker = load_ranker(folder, "torch", **settings)
    return ranker.activation(ranker.score(PAIRS))


def theirs(folder: Path, **settings: Any) -> np.ndarray:
    return CrossEncoder(str(folder), device="cpu", **settings).predict(PAIRS, show_progress_bar=False)


@pytest.mark.parametrize("default", [None, "query", "other"])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("where", ["file", "config", "config with null in the file", "legacy"])
def test_scores_are_those_of_sentence_transformers(
    where: str, name: str, default: str | None, cross_encoder: Path
) -> None:
    place(cross_encoder, where, full(name))
    edit(cross_encoder / SETTINGS_FILE, prompts=PROMPTS, default_prompt_name=default)
    scores = ours(cross_encoder)
    np.testing.assert_allclose(scores, theirs(cross_encoder), atol=1e-5)
    assert activation_name(load_config(str(cross_encoder))) == full(name)
    ranked = load_ranker(cross_encoder).rank("ba de", [document for _, document in PAIRS])
    assert [hit.score for hit in ranked] == sorted((hit.score for hit in ranked), reverse=True)


@pytest.mark.parametrize("name", ["Sigmoid", "Tanh", "Identity", "LogSigmoid", "Softplus", "Softsign", "ReLU"])
def test_activations_have_short_names_too(name: str, cross_encoder: Path) -> None:
    edit(cross_encoder / SETTINGS_FILE, activation_fn=f"torch.nn.{name}")
    np.testing.assert_allclose(ours(cross_encoder), theirs(cross_encoder), atol=1e-5)


def test_the_argument_comes_first(cross_encoder: Path) -> None:
    edit(cross_encoder / SETTINGS_FILE, activation_fn=full("Tanh"))
    given = theirs(cross_encoder, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(ours(cross_encoder, activation="torch.nn.Identity"), given, atol=1e-5)
    with pytest.raises(ModelError, match=r"os\.system"):
        load_ranker(cross_encoder, activation="os.system")


def test_a_null_in_the_config_hides_the_legacy_key(cross_encoder: Path) -> None:
    clear(cross_encoder)
    config = json.loads((cross_encoder / "config.json").read_text())
    changes = {"sentence_transformers": {"activation_fn": None}, "sbert_ce_default_activation_function": full("Tanh")}
    (cross_encoder / "config.json").write_text(json.dumps({**config, **changes}))
    np.testing.assert_allclose(ours(cross_encoder), theirs(cross_encoder), atol=1e-5)
    assert activation_name(load_config(str(cross_encoder))) == full("Sigmoid")


def no_modules(folder: Path) -> None:
    (folder / MODULES_FILE).unlink()


def other_type(folder: Path) -> None:
    edit(folder / SETTINGS_FILE, model_type="SentenceTransformer")


@pytest.mark.parametrize("change", [no_modules, other_type])
def test_the_file_counts_only_where_sentence_transformers_reads_it(
    change: Callable[[Path], None], cross_encoder: Path
) -> None:
    edit(cross_encoder / SETTINGS_FILE, activation_fn=full("Tanh"), prompts=PROMPTS, default_prompt_name="query")
    change(cross_encoder)
    np.testing.assert_allclose(ours(cross_encoder), theirs(cross_encoder), atol=1e-5)
    assert prompts_of(load_tokenizer(str(cross_encoder))) == Prompts()


def test_a_cross_encoder_saved_by_sentence_transformers(cross_encoder: Path, tmp_path: Path) -> None:
    model = CrossEncoder(str(cross_encoder), device="cpu", activation_fn=torch.nn.Tanh(), prompts=PROMPTS)
    model.default_prompt_name, model.max_seq_length = "query", 12
    model.save_pretrained(str(tmp_path / "saved"))
    assert "sentence_transformers" not in json.loads((tmp_path / "saved" / "config.json").read_text()) or (
        json.loads((tmp_path / "saved" / "config.json").read_text())["sentence_transformers"]["activation_fn"]
        != full("Tanh")
    )
    np.testing.assert_allclose(ours(tmp_path / "saved"), theirs(tmp_path / "saved"), atol=1e-5)


def test_the_longest_input_in_the_file_counts(cross_encoder: Path) -> None:
    edit(cross_encoder / TRANSFORMER_FILE, max_seq_length=8)
    np.testing.assert_allclose(ours(cross_encoder), theirs(cross_encoder), atol=1e-5)
    assert load_ranker(cross_encoder).tokenizer.model_max_length == 8
    assert load_ranker(cross_encoder, max_length=16).tokenizer.model_max_length == 16


def test_files_of_the_hub_are_read(
    cross_encoder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edit(cross_encoder / SETTINGS_FILE, activation_fn=full("Tanh"), prompts=PROMPTS, default_prompt_name="query")
    monkeypatch.setattr(sentence_transformers, "hf_hub_download", lambda name, file: str(cross_encoder / file))
    assert cross_encoder_settings("org/on-the-hub").activation == full("Tanh")

    def offline(name: str, file: str) -> str:
        raise LocalEntryNotFoundError(file)

    monkeypatch.setattr(sentence_transformers, "hf_hub_download", offline)
    with caplog.at_level(logging.WARNING, "hfcompress"):
        for _ in range(2):
            assert cross_encoder_settings("org/elsewhere") == CrossEncoderSettings()
    assert caplog.text.count("modules.json of org/elsewhere is not in the cache") == 1


@pytest.fixture
def prompted(cross_encoder: Path) -> Path:
    edit(cross_encoder / SETTINGS_FILE, activation_fn=full("Tanh"), prompts=PROMPTS, default_prompt_name="query")
    edit(cross_encoder / "config.json", sentence_transformers=None)
    return cross_encoder


def assert_same_settings(folder: Path, name: str = "Tanh") -> None:
    saved = json.loads((folder / SETTINGS_FILE).read_text())
    assert (saved["activation_fn"], saved["default_prompt_name"], saved["prompts"]) == (full(name), "query", PROMPTS)
    assert json.loads((folder / "config.json").read_text())["sentence_transformers"]["activation_fn"] == full(name)
    np.testing.assert_allclose(ours(folder), theirs(folder, trust_remote_code=True), atol=1e-5)


def test_quantize_keeps_activation_and_prompts(prompted: Path, tmp_path: Path) -> None:
    config = DynamicQuantizationConfig()
    RankerQuantizer.from_pretrained(prompted).quantize(tmp_path / "out", config, PAIRS[:4], progress=False)
    assert_same_settings(tmp_path / "out")
    exported = load_ranker(tmp_path / "out", "onnxruntime", "onnx/model.onnx")
    np.testing.assert_allclose(exported.activation(exported.score(PAIRS)), theirs(prompted), atol=1e-4)


def test_prune_keeps_activation_and_prompts(prompted: Path, word_data: RankingData, tmp_path: Path) -> None:
    data, out = write_beir(tmp_path / "data", word_data), tmp_path / "out"
    step = PruneStep(target_macs=0.6, importance="magnitude", vocabulary={"min_count": 1})
    prune_checkpoint(str(prompted), [str(data)], out, step, measured=False, progress=False)
    assert_same_settings(out)


def test_a_pruned_vocabulary_has_the_prompt(prompted: Path) -> None:
    model, tokenizer = load_model(str(prompted)), load_tokenizer(str(prompted))
    _, pruned = prune_vocabulary(model, tokenizer, plan_vocabulary(tokenizer, ["ba de fi sun"], progress=False))
    assert prompts_of(pruned) == prompts_of(tokenizer) == Prompts(PROMPTS, "query")


def test_training_and_calibration_read_the_prompt(prompted: Path) -> None:
    tokenizer = load_tokenizer(str(prompted))
    plain = AutoTokenizer.from_pretrained(prompted)
    wanted = plain(["ba de fi: sun"], ["ba"])["input_ids"]
    assert encode_pairs(tokenizer, ["sun"], ["ba"])["input_ids"] == wanted
    rows = Dataset.from_list([{"query": "sun", "documents": ["ba"], "labels": [1.0]}])
    assert RankingCollator(tokenizer, 32)(list(rows))["input_ids"].tolist() == wanted
    assert calibration_batches(tokenizer, [("sun", "ba")])[0]["input_ids"].tolist() == wanted
    assert next(load_ranker(prompted).batches([("sun", "ba")]))["input_ids"][:, : len(wanted[0])].tolist() == wanted


def test_saliency_is_that_of_the_query_without_its_prompt(prompted: Path) -> None:
    model, pair = load_model(str(prompted), dtype="float32"), ("sun bo", "ba sun")
    found = word_saliency(TorchRanker(model, load_tokenizer(str(prompted))), pair)
    plain = AutoTokenizer.from_pretrained(prompted)
    by_hand = word_saliency(TorchRanker(model, plain), ("ba de fi: sun bo", "ba sun"))
    assert set(found) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert found[0, 0] == pytest.approx(by_hand[0, 3]) and found[1, 1] == pytest.approx(by_hand[1, 1])


def test_a_fingerprint_follows_activation_and_prompt(cross_encoder: Path) -> None:
    seen = {model_fingerprint(str(cross_encoder))}
    edit(cross_encoder / SETTINGS_FILE, activation_fn=full("Tanh"))
    seen.add(model_fingerprint(str(cross_encoder)))
    edit(cross_encoder / SETTINGS_FILE, prompts=PROMPTS, default_prompt_name="query")
    seen.add(model_fingerprint(str(cross_encoder)))
    edit(cross_encoder / SETTINGS_FILE, default_prompt_name="other")
    assert len(seen | {model_fingerprint(str(cross_encoder))}) == 4


def logit_score(folder: Path) -> None:
    modules = json.loads((folder / MODULES_FILE).read_text())
    kind = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    (folder / MODULES_FILE).write_text(json.dumps([*modules, {"idx": 1, "name": "1", "path": "1_L", "type": kind}]))


def custom_module(folder: Path) -> None:
    (folder / MODULES_FILE).write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "mine.Transformer"}]))


def in_a_subfolder(folder: Path) -> None:
    modules = json.loads((folder / MODULES_FILE).read_text())
    (folder / MODULES_FILE).write_text(json.dumps([{**modules[0], "path": "0_Transformer"}]))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "logit score": (logit_score, r"logit_score\.LogitScore.*an LLM's next token"),
    "custom": (custom_module, r"mine\.Transformer"),
    "subfolder": (in_a_subfolder, "0_Transformer"),
    "task": (lambda folder: edit(folder / TRANSFORMER_FILE, transformer_task="text-generation"), "text-generation"),
    "message": (
        lambda folder: edit(folder / TRANSFORMER_FILE, modality_config={"text": {}, "message": {}}),
        "modality_config",
    ),
    "lower": (lambda folder: edit(folder / TRANSFORMER_FILE, do_lower_case=True), "do_lower_case"),
    "processing": (
        lambda folder: edit(folder / TRANSFORMER_FILE, processing_kwargs={"text": {"max_length": 4}}),
        "processing_kwargs",
    ),
    "length": (lambda folder: edit(folder / TRANSFORMER_FILE, max_seq_length="many"), "max_seq_length"),
    "activation": (lambda folder: edit(folder / SETTINGS_FILE, activation_fn="os.system"), r"os\.system"),
    "activation that does not keep the order": (
        lambda folder: edit(folder / SETTINGS_FILE, activation_fn="torch.nn.GELU"),
        "GELU",
    ),
    "no text": (lambda folder: edit(folder / SETTINGS_FILE, activation_fn=3), "activation_fn"),
    "prompts": (lambda folder: edit(folder / SETTINGS_FILE, prompts={"query": 3}), "prompts"),
    "default": (
        lambda folder: edit(folder / SETTINGS_FILE, prompts=PROMPTS, default_prompt_name="quary"),
        "quary.*'query', 'other'",
    ),
    "list": (lambda folder: (folder / SETTINGS_FILE).write_text("[]"), "JSON object"),
    "damaged": (lambda folder: (folder / MODULES_FILE).write_text("[{"), "JSON"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_supported_is_refused_before_the_work(fault: str, cross_encoder: Path) -> None:
    change, message = FAULTS[fault]
    change(cross_encoder)
    recipe = {"name": "x", "data": {"sets": ["api-search"]}, "teacher": {"model": str(cross_encoder), "max_length": 8}}
    for load in (load_ranker, RankerQuantizer.from_pretrained, lambda path: check(Recipe.model_validate(recipe))):
        with pytest.raises(ModelError, match=message):
            opened = load(cross_encoder)
            if isinstance(opened, RankerQuantizer):
                opened.quantize(cross_encoder / "out", DynamicQuantizationConfig(), PAIRS[:4], progress=False)


def test_a_student_is_saved_with_what_its_teacher_has(prompted: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(str(prompted)), load_tokenizer(str(prompted))
    save_checkpoint(tmp_path / "student", model, tokenizer, activation_name(model.config), 32)
    assert_same_settings(tmp_path / "student")
    save_checkpoint(
        tmp_path / "teacher", load_encoder(str(prompted)), load_tokenizer(str(prompted)), full("Identity"), 32
    )
    assert_same_settings(tmp_path / "teacher", "Identity")


def test_tokenizers_of_others_have_no_prompt(tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    assert prompts_of(tokenizer) == Prompts()
    save_checkpoint(tmp_path, make_pico(), tokenizer, full("Sigmoid"), 32)
    assert json.loads((tmp_path / SETTINGS_FILE).read_text())["prompts"] == {}
    loaded = load_tokenizer(str(tmp_path))
    set_prompts(loaded, Prompts({"a": "b"}))
    assert prompts_of(loaded).text == ""


@pytest.mark.soak
def test_a_run_trains_exports_and_measures_with_the_prompt(
    prompted: Path, word_data: RankingData, tmp_path: Path
) -> None:
    data = write_beir(tmp_path / "data", word_data)
    optimization = {"epochs": 1, "learning_rate": 1e-3, "queries_per_batch": 8}
    recipe = {
        "name": "prompted",
        "data": {"sets": [str(data)], "candidates": 6},
        "teacher": {"model": str(prompted), "max_length": 32},
        "prune": {"target_macs": 0.8, "ffn_multiple": 8, "calibration_queries": 12, "vocabulary": {"min_count": 1}},
        "recover": {"documents": 4, "random_negatives": 1, "optimization": optimization},
        "quantize": {"artifacts": [{"runtime": "onnxruntime", "mode": "dynamic"}], "calibration_pairs": 16},
        "evaluate": {"latency_queries": 2, "rounds": 2, "threads": 1, "min_rank_correlation": 0},
    }
    run(Recipe.model_validate(recipe), tmp_path / "out", progress=False)
    assert_same_settings(tmp_path / "out")
    report = RunReport.load(tmp_path / "out")
    assert report.query_prompt == PROMPTS["query"]
    assert all(artifact.cold_start for artifact in report.artifacts)
    assert f"query = {json.dumps(PROMPTS['query'])} + query" in (tmp_path / "out" / "README.md").read_text()
