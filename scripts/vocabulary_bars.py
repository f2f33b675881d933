"""Vocabulary pruning measured: tokens saved, and changes for held-out pairs.

The vocabulary is chosen from all documents and the train queries, as by `hfcompress prune --vocabulary corpus`, and
evaluated on the pairs of the test queries: how many are split into other tokens, and how much scores change (fp32
PyTorch) for pairs with the same tokens and for the others.

    python scripts/vocabulary_bars.py out/teacher/.hfcompress/teacher --data ../shared/data/selqa
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from typing import Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DataStep
from hfcompress.utils.quiet import silence_libraries
from hfcompress.vocabulary.coverage import coverage
from hfcompress.vocabulary.plan import plan_vocabulary
from hfcompress.vocabulary.prune import prune_vocabulary

Pair = tuple[str, str]
CHOICES: tuple[tuple[int, Literal["all", "corpus"]], ...] = ((1, "all"), (1, "corpus"), (2, "corpus"))


def scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: list[Pair]) -> np.ndarray:
    """Logits in fp32 PyTorch."""
    return TorchRanker(model, tokenizer).score(pairs)


def split_alike(before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast, pairs: list[Pair]) -> list[bool]:
    """Which pairs both tokenizers split into the same tokens."""
    queries, documents = map(list, zip(*pairs, strict=True))
    found = [tokenizer(queries, documents, truncation=True).encodings for tokenizer in (before, after)]
    return [old.tokens == new.tokens for old, new in zip(*found, strict=True)]


def largest_change(
    models: list[tuple[PreTrainedModel, PreTrainedTokenizerFast]], pairs: list[Pair], members: list[bool]
) -> float:
    """Largest absolute change of a score among the selected pairs."""
    chosen = [pair for pair, member in zip(pairs, members, strict=True) if member]
    if not chosen:
        return 0.0
    before, after = (scores(model, tokenizer, chosen) for model, tokenizer in models)
    return float(np.abs(before - after).max())


def row(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: RankingData,
    min_count: int,
    characters: Literal["all", "corpus"],
) -> str:
    """Prune the vocabulary with these settings, and format the figures as a row."""
    texts = [document.content for document in data.corpus.values()]
    texts += [data.queries[query] for query in data.split("train").candidates]
    plan = plan_vocabulary(tokenizer, texts, min_count, characters=characters)
    small, pruned = prune_vocabulary(deepcopy(model), tokenizer, plan)
    pairs = [pair for query, listed in data.split("test").candidates.items() for pair in data.pairs(query, listed)]
    held_out = coverage(tokenizer, pruned, pairs)
    alike = split_alike(tokenizer, pruned, pairs)
    models = [(model, tokenizer), (small, pruned)]
    same = largest_change(models, pairs, alike)
    other = largest_change(models, pairs, [not each for each in alike])
    return (
        f"{min_count:9} {characters:>10} {len(plan.kept):8,} {1 - len(plan.kept) / plan.size:8.1%} "
        f"{held_out.changed:8.2%} {same:20.1e} {other:8.2g}"
    )


def main() -> None:
    """Measure all settings, and print the figures at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="a cross-encoder")
    parser.add_argument("--data", action="append", required=True, help="a BEIR folder; repeatable")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--test", type=int, default=100, help="test queries of each set")
    options = parser.parse_args()
    silence_libraries()
    data = load_data(DataStep(sets=options.data, candidates=15, max_queries={"test": options.test}))
    model, tokenizer = load_model(options.teacher, dtype="float32"), load_tokenizer(options.teacher, options.max_length)
    rows = [row(model, tokenizer, data, min_count, characters) for min_count, characters in CHOICES]
    print(f"\n{len(tokenizer):,} tokens before; {options.test} test queries of each set")
    print("min_count characters   tokens  smaller  changed  score, split alike   others")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
