"""Length groups in training: the same loss and gradient as the whole batch, with less padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FAMILIES, WORDS, make_pico, uneven_plan
from datasets import Dataset
from torch import Tensor, nn
from transformers import BertTokenizerFast

from hfcompress.data.lists import RankingCollator
from hfcompress.models.surgery import apply_plan
from hfcompress.recipe import FeatureLoss
from hfcompress.training.arguments import RankingTrainingArguments
from hfcompress.training.fit import set_dropout
from hfcompress.training.length_groups import can_split, length_groups, select_pairs
from hfcompress.training.trainer import RankingDistillationTrainer

LISTS, DOCUMENTS = 4, 10
WITH_SEGMENTS = ("bert", "electra")


@pytest.fixture(scope="module")
def lists() -> Dataset:
    """Lists whose documents have from one word to twenty."""
    return Dataset.from_list(
        [
            {
                "query": " ".join(WORDS[number : number + 2]),
                "documents": [" ".join(WORDS[: 1 + (7 * number + 13 * index) % 20]) for index in range(DOCUMENTS)],
                "labels": [1.0] + [0.0] * (DOCUMENTS - 1),
                "teacher_scores": [float((3 * number + 5 * index) % 7) for index in range(DOCUMENTS)],
            }
            for number in range(LISTS)
        ]
    )


def step(
    family: str, lists: Dataset, tokenizer: BertTokenizerFast, folder: Path, **options: Any
) -> tuple[list[tuple[int, int]], Tensor, dict[str, Tensor]]:
    """One step: the sizes of what the student read, its loss, and its gradients."""
    model = apply_plan(make_pico(family), uneven_plan()).double()
    set_dropout(model, 0.1 if options.get("r_drop") else 0.0)
    if options.get("feature_loss"):
        options["teacher"] = make_pico(family, seed=5).double()
    made = RankingDistillationTrainer(
        model=model,
        args=RankingTrainingArguments(output_dir=str(folder), report_to=[], bf16=False),
        train_dataset=lists,
        data_collator=RankingCollator(tokenizer, 32),
        **options,
    )
    if options.get("r_drop"):
        set_dropout(model, 0.0)
    batch = made.data_collator(list(lists))
    if family not in WITH_SEGMENTS:
        del batch["token_type_ids"]
    made.state.max_steps = 10
    read: list[tuple[int, int]] = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _module, given: read.append(tuple(given[0].shape))  # type: ignore[arg-type]
    )
    loss = made.training_step(model, batch)
    return read, loss, {name: part.grad for name, part in model.named_parameters() if part.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [{}, {"feature_loss": FeatureLoss(hidden=1.0)}, {"adversarial": 0.3}, {"r_drop": 1.0}],
    ids=["scores", "features", "adversarial", "r_drop"],
)
def test_groups_give_the_loss_and_gradient_of_the_whole_batch(
    family: str,
    options: dict[str, Any],
    lists: Dataset,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hfcompress.training.length_groups.PAD_TO_MULTIPLE", 1)
    parts, loss, gradients = step(family, lists, tokenizer, tmp_path, **options)
    monkeypatch.setattr("hfcompress.training.length_groups.MAX_GROUPS", 1)
    whole, expected, wanted = step(family, lists, tokenizer, tmp_path, **options)
    passes = 2 if "adversarial" in options else 1
    assert len(whole) == passes and len(parts) == passes * (4 if "r_drop" in options else 2)
    assert sum(pairs * tokens for pairs, tokens in parts) < 0.85 * sum(pairs * tokens for pairs, tokens in whole)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)
    assert gradients.keys() == wanted.keys() and any(gradient.abs().max() > 1e-3 for gradient in wanted.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, atol=3e-6, rtol=1e-4)


def test_groups_are_of_similar_size_and_length() -> None:
    lengths = torch.tensor([5, 30, 7, 6] * 20)
    parts = length_groups(lengths)
    assert [len(part) for part in parts] == [20] * 4
    assert sorted(torch.cat(parts).tolist()) == list(range(80))
    assert [sorted(set(lengths[part].tolist())) for part in parts] == [[5], [6], [7], [30]]
    assert len(length_groups(lengths[:40])) == 2 and len(length_groups(lengths[:31])) == 1
    assert [part.tolist() for part in length_groups(lengths[:1])] == [[0]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_group_loses_only_padding(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    ids = torch.arange(15).view(3, 5)
    if side == "left":
        mask, ids = mask.flip(1), ids.flip(1)
    monkeypatch.setattr("hfcompress.training.length_groups.PAD_TO_MULTIPLE", 1)
    found = select_pairs({"input_ids": ids, "attention_mask": mask}, torch.tensor([1, 0]))
    kept = slice(0, 3) if side == "right" else slice(2, 5)
    assert torch.equal(found["input_ids"], ids[[1, 0], kept]) and torch.equal(
        found["attention_mask"], mask[[1, 0], kept]
    )


def test_groups_have_few_lengths() -> None:
    mask = torch.zeros(2, 100, dtype=torch.long)
    widths = []
    for length in range(1, 101):
        mask[0, :length] = 1
        widths.append(select_pairs({"attention_mask": mask}, torch.tensor([1, 0]))["attention_mask"].shape[1])
        assert widths[-1] >= length
    assert sorted(set(widths)) == [16, 32, 48, 64, 80, 96, 100]


def test_copies_on_several_devices_pass_once() -> None:
    assert can_split(make_pico())
    assert not can_split(nn.DataParallel(make_pico()))
