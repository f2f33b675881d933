"""Distill a teacher into a pruned student with hfcompress's trainer, in one process or several.

    hfcompress prune TEACHER --data DATA --out student --target-macs 0.5
    python scripts/distill.py TEACHER student --data DATA --out out/distilled
    accelerate launch --num_processes 2 scripts/distill.py TEACHER student --data DATA --out out/distilled

Several processes share each batch: except for dropout, the loss is that of a single process.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import hfcompress
from hfcompress.data.lists import RankingCollator, training_lists, with_scores
from hfcompress.data.load import load_data
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_tokenizer, model_fingerprint
from hfcompress.rankers.load import activation_name
from hfcompress.recipe import DataStep
from hfcompress.utils.device import process_state


def main() -> None:
    """Score the lists, train, and save the checkpoint that is best on dev."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="a cross-encoder")
    parser.add_argument("student", help="the output folder of `hfcompress prune`")
    parser.add_argument("--data", required=True, help="a folder in BEIR's layout, or api-search")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="queries in an optimizer step, over all processes")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--fp32", action="store_true", help="no bf16, even if the device supports it")
    options = parser.parse_args()
    processes = process_state()
    if options.batch < 1 or options.batch % processes.num_processes:
        parser.error(f"--batch {options.batch}: expected a multiple of the {processes.num_processes} processes")

    data = load_data(DataStep(sets=[options.data]), progress=processes.is_main_process)
    lists = training_lists(data, documents=8, random_negatives=2, seed=0)
    teacher = hfcompress.load_ranker(options.teacher, "torch", device="auto")
    fingerprint = f"{model_fingerprint(options.teacher)} at {teacher.tokenizer.model_max_length} tokens"
    lists = with_scores(  # which the processes share
        lists, teacher, progress=processes.is_main_process, cache=options.out / "scores", fingerprint=fingerprint
    )
    model, tokenizer = hfcompress.load_model(options.student), load_tokenizer(options.student, options.max_length)
    trainer = hfcompress.RankingDistillationTrainer(
        model=model,
        args=hfcompress.RankingTrainingArguments(
            output_dir=str(options.out / "checkpoints"),
            per_device_train_batch_size=options.batch // processes.num_processes,
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            logging_steps=1,
            bf16=False if options.fp32 else None,  # None: if the device supports it
        ),
        train_dataset=lists,
        eval_dataset=lists.select(range(min(len(lists), 4 * options.batch))),
        data_collator=RankingCollator(tokenizer, options.max_length),
        callbacks=[hfcompress.RankingEvalCallback(data, tokenizer)],
    )
    trainer.train()
    if processes.is_main_process:
        trainer.state.save_to_json(str(options.out / "trainer_state.json"))
        save_checkpoint(options.out / "model", model, tokenizer, activation_name(model.config), options.max_length)
    processes.destroy_process_group()


if __name__ == "__main__":
    main()
