"""Vocabulary pruning: kept text is scored as before, in every family and after every reload."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, SIGMOID, make_pico, uneven_plan
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast
from vocabulary_samples import (
    CORPUS,
    KINDS,
    LEXICON,
    PAIRS,
    bert,
    model_for,
    numbered,
    scores,
    small_plan,
    tokenizer_for,
    tokenizer_of,
    unigram_pieces,
)

from hfcompress.errors import ModelError, PlanError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.vocabulary.plan import plan_vocabulary
from hfcompress.vocabulary.prune import prune_vocabulary


def test_order_and_special_tokens_are_kept() -> None:
    tokenizer = tokenizer_of("mpnet")
    assert (tokenizer.unk_token_id, tokenizer.mask_token_id) == (104, len(tokenizer) - 1)
    plan = small_plan(tokenizer)
    _, pruned = prune_vocabulary(make_pico("mpnet", vocab_size=len(tokenizer)), tokenizer, plan)
    assert list(plan.kept) == sorted(set(plan.kept)) and len(plan.kept) == len(pruned) < len(tokenizer)
    assert [pruned.bos_token_id, pruned.pad_token_id, pruned.eos_token_id] == [0, 1, 2]
    assert 3 < pruned.unk_token_id == plan.kept.index(104) < 104
    assert pruned.mask_token_id == len(pruned) - 1
    assert pruned.get_vocab() == {
        token: plan.kept.index(id_) for token, id_ in tokenizer.get_vocab().items() if id_ in plan.kept
    }
    for text in ("walking", "walking <mask> nations", "☃"):
        ids = tokenizer(text, "nations")["input_ids"]
        assert [plan.kept[id_] for id_ in pruned(text, "nations")["input_ids"]] == ids


def test_unknown_and_padding_tokens_get_new_ids() -> None:
    pieces = [*unigram_pieces(), ("<unk>", 0.0), ("<pad>", 0.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=len(pieces) - 2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.enable_padding(pad_id=len(pieces) - 1, pad_token="<pad>", length=12)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>")
    plan = small_plan(tokenizer)
    model, pruned = prune_vocabulary(make_pico(vocab_size=len(tokenizer)), tokenizer, plan)
    after = pruned.backend_tokenizer.encode("walking 龘")
    assert [plan.kept[id_] for id_ in after.ids] == backend.encode("walking 龘").ids
    assert after.ids.count(pruned.unk_token_id) == 1 and after.ids[-1] == pruned.pad_token_id
    assert (pruned.unk_token_id, pruned.pad_token_id) == (len(plan.kept) - 2, len(plan.kept) - 1)
    assert model.get_input_embeddings().padding_idx == model.config.pad_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_text_scores_the_same(family: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_for(family)
    model = model_for(family, tokenizer, spare_rows=9)
    expected = scores(model, tokenizer)
    assert len(expected.unique()) == len(PAIRS)
    size, padding = model.num_parameters(), model.get_input_embeddings().padding_idx
    plan = small_plan(tokenizer)
    returned, pruned = prune_vocabulary(model, tokenizer, plan)
    assert returned is model
    assert torch.equal(scores(model, pruned), expected)
    rows, width = model.get_input_embeddings().weight.shape
    assert rows == model.get_input_embeddings().num_embeddings
    assert size - model.num_parameters() == (len(tokenizer) + 9 - len(plan.kept)) * width
    assert model.config.vocab_size == rows == len(plan.kept) == len(pruned)
    assert padding is not None and model.get_input_embeddings().padding_idx == model.config.pad_token_id
    for name in ("pad", "cls", "sep"):
        assert getattr(model.config, f"{name}_token_id", None) in (None, getattr(pruned, f"{name}_token_id")), name
    save_checkpoint(tmp_path, model, pruned, SIGMOID, 64)
    assert torch.equal(scores(load_model(str(tmp_path)), load_tokenizer(str(tmp_path))), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_tokenizer_opens_as_it_was(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind)
    before = tokenizer.backend_tokenizer.to_str()
    plan = small_plan(tokenizer)
    model, pruned = prune_vocabulary(make_pico(vocab_size=len(tokenizer)), tokenizer, plan)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert type(pruned) is type(tokenizer) and pruned.name_or_path == tokenizer.name_or_path
    save_checkpoint(tmp_path, model, pruned, SIGMOID, 64)
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & {"vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spm.model"}
    assert names >= {"tokenizer.json", "tokenizer_config.json"}
    for reloaded in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))):
        assert reloaded.get_vocab() == pruned.get_vocab()
        assert reloaded.special_tokens_map == tokenizer.special_tokens_map
        for text in [*CORPUS, "walkings 龘 [MASK] <mask>"]:
            assert reloaded(text, "walk")["input_ids"] == pruned(text, "walk")["input_ids"]
    for text in CORPUS:
        assert [plan.kept[id_] for id_ in reloaded(text, text)["input_ids"]] == tokenizer(text, text)["input_ids"]


def test_other_vocabulary_files_of_the_checkpoint_are_not_used(tmp_path: Path) -> None:
    source = tmp_path / "source"
    bert().save_pretrained(source)
    (source / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "wrong"]), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(source)
    _, pruned = prune_vocabulary(make_pico(vocab_size=len(tokenizer)), tokenizer, small_plan(tokenizer))
    pruned.save_pretrained(tmp_path / "target")
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert str(tmp_path) not in (tmp_path / "target" / "tokenizer_config.json").read_text()


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_layers_and_vocabulary_are_pruned_in_any_order(family: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_for(family)
    model = apply_plan(model_for(family, tokenizer), uneven_plan())
    expected = scores(model, tokenizer)
    model, pruned = prune_vocabulary(model, tokenizer, small_plan(tokenizer))
    assert current_plan(model) == uneven_plan()
    save_checkpoint(tmp_path, model, pruned, SIGMOID, 64)
    assert torch.equal(scores(load_model(str(tmp_path)), load_tokenizer(str(tmp_path))), expected)
    other, pruned = prune_vocabulary(model_for(family, tokenizer), tokenizer, small_plan(tokenizer))
    assert torch.equal(scores(apply_plan(other, uneven_plan()), pruned), expected)


def test_pruning_twice_equals_pruning_once() -> None:
    tokenizer = tokenizer_of("roberta")
    larger = plan_vocabulary(tokenizer, CORPUS + LEXICON[:60], progress=False)
    first, half = prune_vocabulary(model_for("roberta", tokenizer), tokenizer, larger)
    twice, small = prune_vocabulary(first, half, small_plan(half))
    once, pruned = prune_vocabulary(model_for("roberta", tokenizer), tokenizer, small_plan(tokenizer))
    assert len(half) > len(small) and small.get_vocab() == pruned.get_vocab()
    assert torch.equal(twice.get_input_embeddings().weight, once.get_input_embeddings().weight)


def test_padding_truncation_and_frozen_weights_are_kept() -> None:
    tokenizer = bert()
    tokenizer.backend_tokenizer.enable_padding(pad_id=tokenizer.pad_token_id, pad_token="[PAD]", length=20)
    tokenizer.backend_tokenizer.enable_truncation(4)
    model = model_for("bert", tokenizer).to(torch.bfloat16)
    model.get_input_embeddings().weight.requires_grad_(False)
    plan = small_plan(tokenizer)
    assert plan.occurrences == small_plan(bert()).occurrences  # neither padding nor truncation enters the counts
    model, pruned = prune_vocabulary(model, tokenizer, plan)
    assert pruned.backend_tokenizer.padding["length"] == 20
    assert pruned.backend_tokenizer.truncation["max_length"] == 4
    weight = model.get_input_embeddings().weight
    assert weight.dtype == torch.bfloat16 and not weight.requires_grad and weight.is_contiguous()


def test_compiled_models_are_unwrapped_and_learn() -> None:
    tokenizer = tokenizer_of("bert")
    model, pruned = prune_vocabulary(torch.compile(model_for("bert", tokenizer)), tokenizer, small_plan(tokenizer))
    assert not any("_orig_mod" in name for name in model.state_dict())
    batch = pruned("walking nations", return_tensors="pt")
    model(**batch).logits.sum().backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient.shape == (len(pruned), 32) and gradient[batch["input_ids"]].abs().sum() > 0


def test_token_ids_of_the_config_follow_their_tokens() -> None:
    tokenizer = tokenizer_of("bert")
    removed, unused = tokenizer.convert_tokens_to_ids("[unused3]"), len(tokenizer) + 50
    model = make_pico(vocab_size=len(tokenizer), bos_token_id=removed, eos_token_id=unused)
    model.config.sep_token_id = tokenizer.sep_token_id
    model, pruned = prune_vocabulary(model, tokenizer, small_plan(tokenizer))
    assert pruned.sep_token_id < tokenizer.sep_token_id
    assert model.config.sep_token_id == pruned.sep_token_id
    assert model.config.pad_token_id == 0
    assert model.config.bos_token_id is None and model.config.eos_token_id is None


def test_plans_and_models_of_another_tokenizer_are_refused() -> None:
    tokenizer = tokenizer_of("bert")
    with pytest.raises(PlanError, match="another tokenizer"):
        prune_vocabulary(model_for("bert", tokenizer), tokenizer, small_plan(tokenizer_of("mpnet")))
    model = make_pico(vocab_size=len(tokenizer) - 1)
    with pytest.raises(ModelError, match=f"{len(tokenizer)} tokens, {len(tokenizer) - 1} rows"):
        prune_vocabulary(model, tokenizer, small_plan(tokenizer))
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) - 1


def test_models_that_predict_tokens_are_refused() -> None:
    tokenizer = tokenizer_of("bert")
    config = model_for("bert", tokenizer).config
    with pytest.raises(ModelError, match="predicts tokens"):
        prune_vocabulary(AutoModelForMaskedLM.from_config(config), tokenizer, small_plan(tokenizer))


def test_a_padding_token_from_which_positions_are_numbered_may_not_change() -> None:
    tokens = ["<s>", "rare", "<pad>", "</s>", "<unk>", "walk"]
    backend = Tokenizer(models.WordLevel(numbered(tokens), unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    model = model_for("roberta", tokenizer)
    with pytest.raises(ModelError, match="2, then 1") as raised:
        prune_vocabulary(model, tokenizer, plan_vocabulary(tokenizer, ["walk"], progress=False))
    assert "keep=['<s>', 'rare', '<pad>']" in raised.value.remedy
    assert model.config.vocab_size == len(tokenizer)
    plan = plan_vocabulary(tokenizer, ["walk"], keep=["<s>", "rare", "<pad>"], progress=False)
    prune_vocabulary(model, tokenizer, plan)
    plan = plan_vocabulary(tokenizer, ["walk"], progress=False)
    model, pruned = prune_vocabulary(model_for("bert", tokenizer), tokenizer, plan)
    assert model.config.pad_token_id == pruned.pad_token_id == model.get_input_embeddings().padding_idx == 1


def test_tokenizers_that_their_class_would_change_are_refused() -> None:
    tokenizer = bert()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()  # overridden by the class on loading
    model = model_for("bert", tokenizer)
    with pytest.raises(ModelError, match=r"BertTokenizer.*normalizer.*PreTrainedTokenizerFast"):
        prune_vocabulary(model, tokenizer, small_plan(tokenizer))
    assert model.config.vocab_size == len(tokenizer)
