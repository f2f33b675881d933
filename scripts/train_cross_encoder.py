"""Train a reranker with sentence-transformers' CrossEncoderTrainer, and prune it gradually, by three callbacks.

pip install 'hfcompress[sentence-transformers]'
python scripts/train_cross_encoder.py MODEL --data DATA --out out/trained
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

import hfcompress
from hfcompress.data.lists import training_lists
from hfcompress.data.load import load_data
from hfcompress.models.surgery import current_plan
from hfcompress.pruning.importance.scores import magnitude
from hfcompress.pruning.search.explicit import plan_for_shares
from hfcompress.recipe import DataStep, PruneStep
from hfcompress.training.callbacks import transformer_of


def main() -> None:
    """Train, prune, and save the checkpoint that is best on dev."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a cross-encoder, or an encoder of a supported family")
    parser.add_argument("--data", required=True, help="a folder in BEIR's layout, or api-search")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=float, default=0.5, help="share of heads and FFN neurons to keep")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--report-to", default="none")
    options = parser.parse_args()

    data = load_data(DataStep(sets=[options.data]))
    model = CrossEncoder(options.model, num_labels=1, max_length=options.max_length)
    inner = transformer_of(model)
    pairs = Dataset.from_list(
        [
            {"query": row["query"], "document": document, "label": float(label > 0)}
            for row in training_lists(data, documents=8, random_negatives=2, seed=0)
            for document, label in zip(row["documents"], row["labels"], strict=True)
        ]
    )
    plan = plan_for_shares(magnitude(inner), current_plan(inner), PruneStep(heads=options.keep, ffn=options.keep))
    gradual = hfcompress.GradualPruningCallback(plan, end=0.4)
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(
            output_dir=str(options.out / "checkpoints"),
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            per_device_train_batch_size=32,
            eval_strategy="epoch",
            eval_delay=options.epochs / 2,  # not before all gates are closed
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_ndcg@10",
            report_to=options.report_to,
            use_cpu=not torch.accelerator.is_available(),
        ),
        train_dataset=pairs,
        eval_dataset=pairs.select(range(min(len(pairs), 64))),
        loss=BinaryCrossEntropyLoss(model),
        callbacks=[
            gradual,
            hfcompress.RankingEvalCallback(data, model.tokenizer),
            hfcompress.CompressionReportCallback(gradual),
        ],
    )
    trainer.train()
    trainer.state.save_to_json(str(options.out / "trainer_state.json"))
    model.save_pretrained(str(options.out / "model"))


if __name__ == "__main__":
    main()
