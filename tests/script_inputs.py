"""What users' own training scripts hold: labelled pairs, tokenized or not, and a `CrossEncoder`."""

from __future__ import annotations

from pathlib import Path

from conftest import make_pico
from datasets import Dataset
from sentence_transformers import CrossEncoder
from transformers import BertTokenizerFast, PreTrainedModel

from hfcompress.data.lists import training_lists
from hfcompress.data.ranking import RankingData
from hfcompress.evaluation.metrics import split_quality
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.training.callbacks import without_autocast

IDENTITY = "torch.nn.modules.linear.Identity"


def dev_quality(model: PreTrainedModel, tokenizer: BertTokenizerFast, data: RankingData) -> dict[str, float]:
    with without_autocast(model):  # which a training in bf16 leaves behind
        return split_quality(TorchRanker(model, tokenizer), data, "dev")


def labelled_pairs(data: RankingData) -> Dataset:
    """Columns that a plain script has: texts, and 1 or 0."""
    rows = [
        {"query": query, "document": document, "label": float(label > 0)}
        for row in training_lists(data, 4, 1, seed=0)
        for query, document, label in zip([row["query"]] * 4, row["documents"], row["labels"], strict=True)
    ]
    return Dataset.from_list(rows)


def tokenized(pairs: Dataset, tokenizer: BertTokenizerFast) -> Dataset:
    return pairs.map(
        lambda row: tokenizer(row["query"], row["document"], padding="max_length", truncation=True),
        remove_columns=["query", "document"],
    )


def pico_cross_encoder(folder: Path, tokenizer: BertTokenizerFast) -> CrossEncoder:
    """A pico model as sentence-transformers opens it."""
    save_checkpoint(folder, make_pico(), tokenizer, IDENTITY, 32)
    return CrossEncoder(str(folder), device="cpu")
