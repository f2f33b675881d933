"""Modular cross-encoders: scores of sentence-transformers, kept when they are pruned, trained, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    FFN,
    HEADS,
    HIDDEN,
    IDENTITY,
    LAYERS,
    SIGMOID,
    WORDS,
    front_plan,
    make_pico,
    stock_plan,
    uneven_plan,
)
from modular_samples import LAYOUTS, WIDE, head, write_layout, write_modular
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from torch import nn
from transformers import BertTokenizerFast

from hfcompress.data.lists import training_lists, with_scores
from hfcompress.data.ranking import RankingData
from hfcompress.errors import ModelError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.layout import GENERATED, matches
from hfcompress.models.load import load_config, load_encoder, load_model, load_tokenizer, model_fingerprint
from hfcompress.models.modular import is_modular
from hfcompress.models.modules import DENSE_ACTIVATIONS
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.pruning.costs.probes import probe_model
from hfcompress.quantization.first_token import first_token_only
from hfcompress.rankers.load import activation_name, load_ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DistillationLoss, Optimization
from hfcompress.training.fit import fit
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.vocabulary.plan import plan_vocabulary
from hfcompress.vocabulary.prune import prune_vocabulary

PAIRS = [(" ".join(WORDS[n : n + 3]), " ".join(WORDS[2 * n : 2 * n + 1 + n % 9])) for n in range(24)]
PROMPTS = {"query": "ba de fi: ", "other": "sun "}
PLANS: list[Callable[[], PruningPlan]] = [stock_plan, uneven_plan, front_plan]


def reference(folder: Path, trusted: bool = False) -> np.ndarray:
    """Scores of sentence-transformers, with its activation and prompt."""
    scores: np.ndarray = CrossEncoder(str(folder), trust_remote_code=trusted, device="cpu").predict(PAIRS)
    return scores


def scores(folder: Path) -> np.ndarray:
    """Scores of hfcompress, with the checkpoint's activation and prompt."""
    ranker = load_ranker(folder, "torch")
    return ranker.activation(ranker.score(PAIRS))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_through_pruning_training_and_saving(
    layout: str, tmp_path: Path, tokenizer: BertTokenizerFast, word_data: RankingData
) -> None:
    source = write_layout(tmp_path / "source", tokenizer, layout)
    np.testing.assert_allclose(scores(source), reference(source), atol=1e-5)
    assert np.ptp(scores(source)) > 0.01
    model, own_tokenizer = load_model(str(source)), load_tokenizer(str(source))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model = apply_plan(model, uneven_plan())
    settings = Optimization(epochs=4, queries_per_batch=8, learning_rate=1e-3, precision="fp32")  # 20 steps
    lists = with_scores(training_lists(word_data, 4, 1, seed=0), load_ranker(source), progress=False)
    fit(
        RankingDistillationTrainer, model, own_tokenizer, lists=lists, data=word_data, settings=settings, seed=0,
        folder=tmp_path / "training", progress=False, distillation_loss=DistillationLoss(),
    )  # fmt: skip
    trained = {name for name, value in model.state_dict().items() if not torch.equal(value, state.get(name, value))}
    assert any(name.startswith("classifier.") for name in trained) and not any("pooler" in name for name in trained)
    saved = tmp_path / "saved"
    save_checkpoint(saved, model, own_tokenizer, SIGMOID, 32)
    np.testing.assert_allclose(scores(saved), reference(saved, trusted=True), atol=1e-5)
    again = load_model(str(saved)).state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert np.array_equal(load_ranker(saved).score(PAIRS), TorchRanker(model, own_tokenizer).score(PAIRS))


@pytest.mark.parametrize("family", ["distilbert", "mpnet", "deberta-v2", "electra", "xlm-roberta"])
def test_other_families(family: str, tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    source = write_modular(tmp_path / "source", tokenizer, family, head(("cls", "mean", "max"), bias=True, norm=True))
    np.testing.assert_allclose(scores(source), reference(source), atol=1e-5)
    model = apply_plan(load_model(str(source)), uneven_plan())
    save_checkpoint(tmp_path / "saved", model, load_tokenizer(str(source)), IDENTITY, 32)
    np.testing.assert_allclose(scores(tmp_path / "saved"), reference(tmp_path / "saved", trusted=True), atol=1e-5)


@pytest.fixture
def modular(tmp_path: Path, tokenizer: BertTokenizerFast) -> Path:
    return write_modular(tmp_path / "modular", tokenizer)


def test_files_are_those_of_sentence_transformers(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    """All that its files say is kept, apart from the longest input, which other servers read."""
    modules = [
        Pooling(HIDDEN, ("cls", "max")),
        Dense(2 * HIDDEN, HIDDEN, activation_function=nn.SiLU(), use_residual=True),
        LayerNorm(HIDDEN),
        Dense(HIDDEN, HIDDEN, use_residual=True, module_output_name="other"),
        Dense(HIDDEN, 1, activation_function=None, module_input_name="other", module_output_name="scores"),
    ]
    settings = {"prompts": PROMPTS, "default_prompt_name": "query", "activation_fn": nn.Tanh()}
    source = write_modular(tmp_path / "source", tokenizer, "bert", modules, **settings)
    model = load_model(str(source))
    saved = tmp_path / "saved"
    save_checkpoint(saved, model, load_tokenizer(str(source)), activation_name(model.config), 32)
    for name in ("modules.json", "config_sentence_transformers.json", *(f"{n}_Dense/config.json" for n in (2, 4, 5))):
        assert json.loads((saved / name).read_text()) == json.loads((source / name).read_text()), name
    transformer = json.loads((saved / "sentence_bert_config.json").read_text())
    assert transformer.pop("max_seq_length") == 32
    assert transformer == json.loads((source / "sentence_bert_config.json").read_text())
    for path in source.rglob("*.safetensors"):
        found, wanted = load_file(saved / path.relative_to(source)), load_file(path)
        assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    config = json.loads((saved / "config.json").read_text())
    assert config["architectures"] == ["BertModel"] and "auto_map" not in config and "hfcompress_modules" not in config
    assert all(matches(path.relative_to(saved).as_posix(), GENERATED) for path in saved.rglob("*") if path.is_file())
    np.testing.assert_allclose(scores(source), reference(source), atol=1e-5)
    assert np.array_equal(scores(saved), scores(source))


@pytest.mark.parametrize("plan", PLANS)
def test_custom_code_only_where_layers_are_uneven(
    plan: Callable[[], PruningPlan], tmp_path: Path, tokenizer: BertTokenizerFast
) -> None:
    for family in ("bert", "modernbert"):
        source = write_modular(tmp_path / family / "source", tokenizer, family)
        model, saved = apply_plan(load_model(str(source)), plan()), tmp_path / family / "saved"
        save_checkpoint(saved, model, load_tokenizer(str(source)), IDENTITY, 32)
        custom = (saved / "modeling_hfcompress.py").is_file()
        assert custom == (plan is not stock_plan) == ("auto_map" in json.loads((saved / "config.json").read_text()))
        np.testing.assert_allclose(scores(saved), reference(saved, trusted=custom), atol=1e-5)
        assert current_plan(load_model(str(saved))) == plan()
        if custom:
            with pytest.raises((RuntimeError, ValueError, OSError)):
                reference(saved)


def test_pruned_again_from_uneven_to_stock(modular: Path, tmp_path: Path) -> None:
    once = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (0, 1, 2, 3), (1, 2, 3)), LayerPlan(1, (0, 1, 2, 3), (1, 2))))
    twice = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (0, 1, 2, 3), (1, 2)), LayerPlan(1, (0, 1, 2, 3), (1, 2))))
    model, tokenizer = apply_plan(load_model(str(modular)), once), load_tokenizer(str(modular))
    save_checkpoint(tmp_path / "once", model, tokenizer, SIGMOID, 32)
    save_checkpoint(tmp_path / "twice", apply_plan(load_model(str(tmp_path / "once")), twice), tokenizer, SIGMOID, 32)
    config = json.loads((tmp_path / "twice" / "config.json").read_text())
    assert "auto_map" not in config and config["architectures"] == ["BertModel"]
    np.testing.assert_allclose(scores(tmp_path / "twice"), reference(tmp_path / "twice"), atol=1e-5)


def test_vocabulary(modular: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(str(modular)), load_tokenizer(str(modular))
    plan = plan_vocabulary(tokenizer, [text for pair in PAIRS for text in pair], 1, [], "corpus", False)
    assert len(plan.kept) < plan.size
    model, tokenizer = prune_vocabulary(model, tokenizer, plan)
    save_checkpoint(tmp_path / "saved", model, tokenizer, SIGMOID, 32)
    np.testing.assert_allclose(reference(tmp_path / "saved"), reference(modular), atol=1e-5)
    np.testing.assert_allclose(scores(tmp_path / "saved"), scores(modular), atol=1e-6)


def test_a_checkpoint_of_a_training_has_its_head(modular: Path, tmp_path: Path) -> None:
    model = apply_plan(load_model(str(modular)), uneven_plan())
    model.save_pretrained(tmp_path / "checkpoint")
    again = load_model(str(tmp_path / "checkpoint"))
    assert is_modular(again)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    state = load_file(tmp_path / "checkpoint" / "model.safetensors")
    del state["classifier.2.linear.bias"]
    save_file(state, tmp_path / "checkpoint" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"missing_keys: \['classifier.2.linear.bias'\]"):
        load_model(str(tmp_path / "checkpoint"))


def test_the_last_layer_reads_one_token_only_with_cls(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    inputs = tokenizer(["ba de", "fi"], ["go sun", "de"], padding=True, return_tensors="pt")
    lengths = {}
    for pooling in ("cls", "mean", "max"):
        source = write_modular(tmp_path / pooling, tokenizer, "bert", head(pooling, bias=True, norm=False))
        model = load_model(str(source))
        with torch.inference_mode(), first_token_only(model):
            output = model(**inputs, output_hidden_states=True)
        torch.testing.assert_close(output.logits, model(**inputs).logits, atol=1e-6, rtol=0)
        lengths[pooling] = output.hidden_states[-1].shape[1]
    assert lengths == {"cls": 1, "mean": inputs["input_ids"].shape[1], "max": inputs["input_ids"].shape[1]}


def test_a_probe_has_the_head(modular: Path) -> None:
    assert is_modular(probe_model(load_config(str(modular)), [(2, 8), (1, 0)]))


def test_training_of_a_modular_teacher_starts_from_its_head(modular: Path) -> None:
    state, again = load_model(str(modular)).state_dict(), load_encoder(str(modular)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in state.items())


def test_fingerprint_and_size_count_the_head(modular: Path) -> None:
    before = model_fingerprint(str(modular))
    files = {path.relative_to(modular).as_posix() for path in Candidate.student(modular).files()}
    assert {"2_Dense/model.safetensors", "3_LayerNorm/config.json", "1_Pooling/config.json"} <= files
    path = modular / "2_Dense" / "model.safetensors"
    save_file({name: 2 * value for name, value in load_file(path).items()}, path)
    assert model_fingerprint(str(modular)) != before


@pytest.mark.parametrize("name", DENSE_ACTIVATIONS)
def test_every_activation(name: str, tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    kind = DENSE_ACTIVATIONS[name]
    torch.manual_seed(1)
    dense = Dense(4, 3, activation_function=kind())
    assert dense.get_config_dict()["activation_function"] == name
    features = torch.randn(5, 4)
    assert kind()(features).shape == features.shape and not list(kind().parameters())


def edit(path: Path, **changes: object) -> None:
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def drop_weight(path: Path, name: str) -> None:
    state = load_file(path)
    del state[name]
    save_file(state, path)


def changed(folder: str, **changes: object) -> Callable[[Path], None]:
    """An edit of the settings of a module; an empty name is the transformer's."""
    return lambda model: edit(model / folder / ("config.json" if folder else "sentence_bert_config.json"), **changes)


def without_prompt(folder: Path) -> None:
    edit(folder / "1_Pooling/config.json", include_prompt=False)
    edit(folder / "config_sentence_transformers.json", prompts=PROMPTS, default_prompt_name="query")


def outside(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "5_Dense").rename(folder.parent / "5_Dense")
    modules[-1]["path"] = "../5_Dense"
    (folder / "modules.json").write_text(json.dumps(modules))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pooling": (changed("1_Pooling", pooling_mode="lasttoken"), "lasttoken"),
    "earlier pooling": (changed("1_Pooling", pooling_mode_cls_token=True), "cls_token"),
    "prompt": (without_prompt, "include_prompt"),
    "unknown setting": (changed("2_Dense", gate=True), "gate=True"),
    "code": (changed("2_Dense", activation_function="os.system"), r"os\.system"),
    "function": (
        changed("2_Dense", activation_function="torch.nn.functional.gelu"), "torch.nn.GELU"
    ),
    "width": (changed("2_Dense", in_features=8), "module 2, Dense, reads 8 numbers"),
    "embedding": (changed("1_Pooling", embedding_dimension=8), "token_embeddings has 32"),
    "outside the folder": (outside, r"path in modules\.json.*\.\./5_Dense"),
    "no score": (changed("5_Dense", module_output_name="other"), "the last module leaves"),
    "unknown input": (changed("5_Dense", module_input_name="other"), "reads other"),
    "output": (changed("", module_output_name="x"), "module_output_name"),
    "task": (changed("", transformer_task="fill-mask"), "fill-mask"),
    "missing weight": (
        lambda folder: drop_weight(folder / "5_Dense/model.safetensors", "linear.bias"), r"classifier\.5\.linear\.bias"
    ),
    "pickle": (
        lambda folder: (folder / "5_Dense/model.safetensors").rename(folder / "5_Dense/pytorch_model.bin"),
        r"no 5_Dense/model\.safetensors.*CrossEncoder\(NAME\)\.save",
    ),
    "damaged": (lambda folder: (folder / "5_Dense/model.safetensors").write_bytes(b"x" * 30), "safetensors format"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_is_refused(fault: str, modular: Path) -> None:
    change, message = FAULTS[fault]
    change(modular)
    with pytest.raises(ModelError, match=message):
        load_ranker(modular)


def test_weights_of_a_wrong_shape(modular: Path) -> None:
    path = modular / "5_Dense" / "model.safetensors"
    state = load_file(path)
    save_file({**state, "linear.weight": torch.zeros(1, WIDE + 1), "more": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"unexpected_keys: \['classifier.5.more'\].*mismatched_keys"):
        load_model(str(modular))


def test_several_scores(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    source = write_modular(tmp_path / "source", tokenizer, "bert", head("cls", bias=True, norm=False, labels=3))
    assert load_config(str(source)).num_labels == 3
    with pytest.raises(ModelError, match="num_labels=3"):
        load_ranker(source)


def test_modules_alone_decide(modular: Path, tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    """A config does not make a model modular where modules.json names the transformer alone."""
    save_checkpoint(tmp_path / "plain", make_pico(), tokenizer, IDENTITY, 32)
    record = load_config(str(modular)).hfcompress_modules
    edit(tmp_path / "plain" / "config.json", hfcompress_modules=record)
    assert not is_modular(load_model(str(tmp_path / "plain")))
