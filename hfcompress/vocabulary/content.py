"""A fast tokenizer as data: the content of its `tokenizer.json`, and the removal of tokens from it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.models.tokenizer_agreement import probe_texts
from hfcompress.utils.progress import progress_bar

KINDS = ("BPE", "Unigram", "WordLevel", "WordPiece")
BATCH = 1000


@dataclass(frozen=True)
class TokenizerContent:
    """Vocabulary and rules of a fast tokenizer.

    Attributes:
        state: The content of its `tokenizer.json`.
        ids: `{token: id}` of every token, including those added after the model's vocabulary.
    """

    state: Mapping[str, Any]
    ids: Mapping[str, int]

    @property
    def model(self) -> Mapping[str, Any]:
        """The tokenizer model, which splits words into tokens."""
        return self.state["model"]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all tokens with their ids, and the ids of probe texts, which show normalization and rules."""
        encoder = Tokenizer.from_str(json.dumps({**self.state, "truncation": None, "padding": None}))
        probed = [each.ids for each in encoder.encode_batch_fast(probe_texts(self.ids))]
        return hashlib.sha256(json.dumps([sorted(self.ids.items()), probed]).encode()).hexdigest()

    @property
    def unknown(self) -> int | None:
        """Id of the unknown token; None if the tokenizer represents every text."""
        if self.model["type"] == "Unigram":
            return self.model["unk_id"]
        return self.ids.get(self.model["unk_token"])

    def count_unknown(self, ids: list[int]) -> int:
        """Number of unknown tokens among `ids`."""
        return 0 if self.unknown is None else ids.count(self.unknown)

    def pinned(self) -> set[int]:
        """Ids that have to be kept.

        These are special and other added tokens, tokens inserted by post-processing and padding, the unknown token, the
        byte tokens, and in a Unigram model one token with the lowest score: the score of an unknown character is 10
        below it, so texts with unknown characters would be split differently without it.
        """
        pinned = {token["id"] for token in self.state["added_tokens"]}
        pinned |= {values[index] for values, index in _id_slots(self.state["post_processor"])}
        if self.state["padding"]:
            pinned.add(self.state["padding"]["pad_id"])
        if self.unknown is not None:
            pinned.add(self.unknown)
        pinned |= {self.ids[token] for token in self._byte_tokens() if token in self.ids}
        if self.model["type"] == "Unigram":
            vocabulary = self.model["vocab"]
            pinned.add(min(range(len(vocabulary)), key=lambda piece: vocabulary[piece][1]))
        return pinned

    def characters(self) -> dict[int, str]:
        """Tokens of a single character, at the start of a word or inside it: `{id: character}`."""
        prefix = self.model.get("continuing_subword_prefix") or ""
        suffix = self.model.get("end_of_word_suffix") or ""
        bare = {id_: token.removeprefix(prefix).removesuffix(suffix) for token, id_ in self.ids.items()}
        return {id_: text for id_, text in bare.items() if len(text) == 1}

    def closure(self, kept: Collection[int]) -> set[int]:
        """Return `kept` and every token from which merges build one of `kept`.

        BPE splits a text as before if all merges applied to it are kept in their order, since the next applicable merge
        is then always the same. Each of them builds a final token or a part of one, so all belong to this closure.
        WordPiece takes the longest matching token and Unigram the best path; neither changes when other tokens are
        removed.
        """
        if self.model["type"] != "BPE":
            return set(kept)
        parts: defaultdict[str, set[int]] = defaultdict(set)
        for left, right in self.model["merges"]:
            parts[self._merged(left, right)].update((self.ids[left], self.ids[right]))
        tokens = {id_: token for token, id_ in self.ids.items()}
        closed, waiting = set(kept), list(kept)
        while waiting:
            new = parts.get(tokens[waiting.pop()], set()) - closed
            closed |= new
            waiting.extend(new)
        return closed

    def pruned(self, new_ids: Mapping[int, int]) -> dict[str, Any]:
        """The content of `tokenizer.json` with only the tokens of `new_ids`.

        Args:
            new_ids: `{old id: new id}` of the tokens to keep, in their old order.
        """
        post_processor = copy.deepcopy(self.state["post_processor"])
        for values, index in _id_slots(post_processor):
            values[index] = new_ids[values[index]]
        padding = self.state["padding"]
        return {
            **self.state,
            "added_tokens": [{**token, "id": new_ids[token["id"]]} for token in self.state["added_tokens"]],
            "post_processor": post_processor,
            "padding": padding and {**padding, "pad_id": new_ids[padding["pad_id"]]},
            "model": self._pruned_model(new_ids),
        }

    def _pruned_model(self, new_ids: Mapping[int, int]) -> dict[str, Any]:
        model = dict(self.model)
        if model["type"] == "Unigram":
            model["vocab"] = [piece for id_, piece in enumerate(model["vocab"]) if id_ in new_ids]
            model["unk_id"] = None if model["unk_id"] is None else new_ids[model["unk_id"]]
            return model
        kept = {token: new_ids[id_] for token, id_ in model["vocab"].items() if id_ in new_ids}
        model["vocab"] = kept
        if model["type"] == "BPE":
            model["merges"] = [
                [left, right]
                for left, right in model["merges"]
                if left in kept and right in kept and self._merged(left, right) in kept
            ]
        return model

    def _merged(self, left: str, right: str) -> str:
        return left + right.removeprefix(self.model["continuing_subword_prefix"] or "")

    def _byte_tokens(self) -> list[str]:
        """Tokens of the 256 bytes, if the tokenizer has byte fallback or is byte-level."""
        tokens = [f"<0x{byte:02X}>" for byte in range(256)] if self.model.get("byte_fallback") else []
        if '"ByteLevel"' in json.dumps([self.state["normalizer"], self.state["pre_tokenizer"]]):
            tokens += pre_tokenizers.ByteLevel.alphabet()
        return tokens


def content_of(tokenizer: PreTrainedTokenizerFast) -> TokenizerContent:
    """Read the content of a fast tokenizer.

    Raises:
        ModelError: The tokenizer is not fast, or its model is of an unknown kind.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(
            "The vocabulary of this tokenizer cannot be pruned",
            value=type(tokenizer).__name__,
            expected="a fast tokenizer, with tokenizer.json",
            remedy="load it with AutoTokenizer, or convert it with transformers",
        )
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"].get("type") not in KINDS:
        raise ModelError(
            "The vocabulary of this tokenizer cannot be pruned",
            value=state["model"].get("type"),
            expected=f"a tokenizer model among {', '.join(KINDS)}",
            remedy="do not prune the vocabulary of this model",
        )
    return TokenizerContent(state, tokenizer.get_vocab())


def encoder_of(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy of the tokenizer's backend without truncation and padding; the tokenizer is not changed."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def token_ids(
    encoder: Tokenizer, texts: Iterable[str] | Iterable[tuple[str, str]], special: bool, label: str, progress: bool
) -> Iterator[list[int]]:
    """Token ids of each text or pair, encoded in batches.

    Args:
        encoder: A copy made by `encoder_of`.
        texts: Texts, or pairs of them.
        special: Whether to add special tokens.
        label: Label of the progress bar.
        progress: Whether to show a progress bar.
    """
    remaining = iter(texts)
    total = len(texts) if isinstance(texts, Collection) else None
    with progress_bar(total=total, desc=label, unit="text", disable=not progress, leave=False) as bar:
        while batch := list(islice(remaining, BATCH)):
            for encoding in encoder.encode_batch_fast(batch, add_special_tokens=special):
                yield encoding.ids
            bar.update(len(batch))


def _id_slots(processor: Mapping[str, Any] | None) -> Iterator[tuple[list[Any], int]]:
    """Every token id in a post-processor, as (list, index in it)."""
    if processor is None:
        return
    for inner in processor.get("processors", ()):
        yield from _id_slots(inner)
    if processor["type"] == "TemplateProcessing":
        for special in processor["special_tokens"].values():
            yield from ((special["ids"], index) for index in range(len(special["ids"])))
    for name in ("cls", "sep"):  # BertProcessing and RobertaProcessing: [token, id]
        if name in processor:
            yield processor[name], 1
