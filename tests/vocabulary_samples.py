"""Tokenizers of every kind, trained on a few words, with a corpus and models for them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import cache

import torch
from conftest import make_pico
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizerFast,
    CamembertTokenizerFast,
    DebertaV2TokenizerFast,
    MPNetTokenizerFast,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

from hfcompress.vocabulary.content import content_of
from hfcompress.vocabulary.plan import VocabularyPlan, plan_vocabulary

STEMS = ["walk", "learn", "überraschen", "naïve", "nation", "act", "transform", "quick", "read", "inter", "high"]
ENDINGS = ["", "s", "ing", "ed", "er", "ation", "al", "ly", "ible", "ität", "ment"]
LEXICON = [stem + ending for stem in STEMS for ending in ENDINGS]
LEXICON += ["東京大學", "漢字", "字典", "語言學", "東方語言", "привет", "мир", "🙂", "🙂🚀", "2024", "x=y", "e.g."]
STRANGE = "aeiouxyzßéж東龘字🦊🙂\u200d0-_'#▁"  # with characters that no tokenizer was trained on


def training_texts() -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(LEXICON, k=8)) for _ in range(400)]


def numbered(tokens: Sequence[str]) -> dict[str, int]:
    """A vocabulary in which each token has its index as id."""
    return {token: index for index, token in enumerate(tokens)}


def trained(backend: Tokenizer, trainer: trainers.Trainer) -> dict[str, object]:
    """The model part of tokenizer.json, trained on these texts."""
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
    return BertTokenizerFast(vocab=numbered(tokens), model_max_length=64)


def mpnet() -> PreTrainedTokenizerFast:
    """Like the published one: the unknown token far from the other special tokens, the mask at the end."""
    tokens = ["<s>", "<pad>", "</s>", *wordpiece_vocabulary()]
    tokens = [*tokens[:104], "[UNK]", *tokens[104:], "<mask>"]
    return MPNetTokenizerFast(vocab=numbered(tokens), model_max_length=64)


def roberta() -> PreTrainedTokenizerFast:
    model = byte_bpe_model()
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *model["vocab"], "<mask>"]
    return RobertaTokenizerFast(
        vocab=numbered(tokens),
        merges=[tuple(merge) for merge in model["merges"]],
        model_max_length=64,
    )


def modernbert() -> PreTrainedTokenizerFast:
    """Byte-level BPE with no unknown token, and special tokens after the vocabulary of the model."""
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
    """Like the published one: unused tokens before the used ones, one of them with the lowest score."""
    low = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0), ("<unk>NOTUSED", -100.0)]
    pieces = [*low, ("<s>", 0.0), ("</s>", 0.0), *unigram_pieces(), ("<mask>", 0.0)]
    return CamembertTokenizerFast(vocab=pieces, model_max_length=64)


def deberta() -> PreTrainedTokenizerFast:
    """Like that of DeBERTa-v3: the mask after the vocabulary of the model."""
    special = [(token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    return DebertaV2TokenizerFast(vocab=[*special, *unigram_pieces()], model_max_length=64)


def byte_unigram() -> PreTrainedTokenizerFast:
    pieces = [("<unk>", 0.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256)), *unigram_pieces()]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<unk>")


def byte_fallback_bpe() -> PreTrainedTokenizerFast:
    """BPE of SentencePiece: no splitting at spaces, and byte fallback for unknown characters."""
    backend = Tokenizer(models.BPE(fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    model = trained(backend, trainers.BpeTrainer(vocab_size=400, max_token_length=9, show_progress=False))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    backend.model = models.BPE(
        vocab=numbered(tokens),
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
    backend = Tokenizer(models.WordLevel(numbered(tokens), unk_token="[UNK]"))
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


def pruned_backend(tokenizer: PreTrainedTokenizerFast, plan: VocabularyPlan) -> Tokenizer:
    new_ids = {old: new for new, old in enumerate(plan.kept)}
    return Tokenizer.from_str(json.dumps(content_of(tokenizer).pruned(new_ids)))
