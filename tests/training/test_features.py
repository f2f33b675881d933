"""Feature distillation: values by hand, matching layers, every family, exact accumulation, decay, and refusals."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    FAMILIES_AND_VARIANTS,
    FFN,
    HEADS,
    HIDDEN,
    LAYERS,
    VOCABULARY,
    front_plan,
    make_pico,
    random_inputs,
    stock_plan,
    uneven_plan,
)
from datasets import Dataset
from pydantic import ValidationError
from torch import Tensor
from transformers import BertTokenizerFast, PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

from hfcompress import GradualPruningCallback
from hfcompress.data.lists import RankingCollator, model_inputs
from hfcompress.errors import ModelError
from hfcompress.losses import by_list, hidden_mse, relation_kl
from hfcompress.models.architectures import encoder_layers
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan, pruned_copy
from hfcompress.recipe import DistillationLoss, FeatureLoss
from hfcompress.training.features import FeatureDistillation, matching_layers, relation_heads
from hfcompress.training.trainer import RankingDistillationTrainer

BOTH = FeatureLoss(hidden=1.0, relation=1.0)
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FULL = PruningPlan.full(LAYERS, HEADS, FFN)
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "hidden_mse": hidden_mse,
    "relation_kl": partial(relation_kl, heads=1),
    "relation_kl of 2 heads": partial(relation_kl, heads=2),
}


def vectors(seed: int, width: int = 4) -> Tensor:
    return torch.randn(3, 5, width, generator=torch.Generator().manual_seed(seed))


def tokens() -> Tensor:
    return torch.arange(5) < torch.tensor([5, 3, 1])[:, None]


# The losses


def test_hidden_mse_is_the_mean_over_real_tokens_and_elements() -> None:
    student = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [9.0, 9.0]]])
    teacher = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [0.0, 0.0]]])
    assert hidden_mse(student, teacher, torch.tensor([[True, True, False]])).tolist() == [(1 + 4 + 9 + 0) / 4]


def relation_by_hand(values: list[list[float]]) -> list[list[float]]:
    rows = []
    for one in values:
        products = [math.exp(sum(a * b for a, b in zip(one, other, strict=True)) / len(one) ** 0.5) for other in values]
        rows.append([product / sum(products) for product in products])
    return rows


def test_relation_kl_is_the_mean_over_heads_and_tokens() -> None:
    """Two relation heads, of one element in the student and two in the teacher; the third token is padding."""
    student = [[0.5, -1.0], [2.0, 0.3], [7.0, 7.0]]
    teacher = [[1.0, 0.2, 0.4, -0.6], [-0.3, 0.8, 1.1, 0.9], [5.0, 5.0, 5.0, 5.0]]
    expected = 0.0
    for head in range(2):
        ours = relation_by_hand([[row[head]] for row in student[:2]])
        theirs = relation_by_hand([row[2 * head : 2 * head + 2] for row in teacher[:2]])
        for p_row, q_row in zip(theirs, ours, strict=True):
            expected += sum(p * math.log(p / q) for p, q in zip(p_row, q_row, strict=True)) / 4
    mask = torch.tensor([[True, True, False]])
    found = relation_kl(torch.tensor([student]), torch.tensor([teacher]), mask, heads=2)
    assert found.tolist() == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_agree_with_finite_differences(name: str) -> None:
    student, teacher = vectors(0).double().requires_grad_(), vectors(1).double()
    assert torch.autograd.gradcheck(lambda values: LOSSES[name](values, teacher, tokens()), student)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_one_value_a_pair_of_its_real_tokens_alone(name: str) -> None:
    student, teacher, mask = vectors(0).requires_grad_(), vectors(1), tokens()
    losses = LOSSES[name](student, teacher, mask)
    assert losses.shape == (3,) and (losses >= 0).all() and losses[0] > 0
    losses.sum().backward()
    assert student.grad is not None and (student.grad[~mask] == 0).all() and (student.grad[0] != 0).all()
    for row, length in enumerate((5, 3, 1)):
        cut = (student[row : row + 1, :length], teacher[row : row + 1, :length], mask[row : row + 1, :length])
        assert LOSSES[name](*cut).item() == pytest.approx(losses[row].item(), rel=1e-5, abs=1e-7)
    other = torch.where(mask[:, :, None], student, torch.full_like(student, 50.0))
    torch.testing.assert_close(LOSSES[name](other, teacher, mask), losses)
    assert LOSSES[name](student, student, mask).tolist() == pytest.approx([0.0] * 3, abs=1e-7)
    assert LOSSES[name](student, teacher, torch.zeros_like(mask)).tolist() == [0.0] * 3


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_computed_in_single_precision(name: str) -> None:
    student, teacher, mask = vectors(0).bfloat16(), vectors(1).bfloat16(), tokens()
    expected = LOSSES[name](student.float(), teacher.float(), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = LOSSES[name](student, teacher, mask)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@pytest.mark.parametrize(
    ("student", "teacher", "wanted", "heads"),
    [(384, 384, 12, 12), (160, 384, 12, 8), (32, 384, 12, 8), (32, 384, 48, 32), (24, 16, 3, 2), (7, 9, 12, 1)],
)
def test_relation_heads_divide_both_widths(student: int, teacher: int, wanted: int, heads: int) -> None:
    assert relation_heads(student, teacher, wanted) == heads


# Matching layers


def stacked(layers_of: int, numbers: list[int]) -> PruningPlan:
    return PruningPlan(layers_of, 2, 4, tuple(LayerPlan(number, (0,), (0,)) for number in numbers))


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (stacked(4, [0, 2, 3]), stacked(4, [0, 1, 2, 3]), [0, 2, 3]),
        (stacked(4, [1, 2]), stacked(4, [1, 2, 3]), [0, 1]),  # the teacher is pruned too: by number
        (stacked(4, [0, 1, 2]), stacked(4, [1, 3]), [0, 1, 1]),  # its layer is gone: evenly
        (stacked(6, list(range(6))), stacked(12, list(range(12))), [1, 3, 5, 7, 9, 11]),
        (stacked(2, [0, 1]), stacked(5, list(range(5))), [2, 4]),
        (stacked(3, [0, 1, 2]), stacked(2, [0, 1]), [0, 1, 1]),
    ],
)
def test_layers_go_with_those_from_which_they_stem_or_evenly(
    student: PruningPlan, teacher: PruningPlan, expected: list[int]
) -> None:
    assert matching_layers(student, teacher) == expected


def test_which_layers_count() -> None:
    student, teacher = apply_plan(make_pico(), uneven_plan()), make_pico()

    def chosen(**settings: Any) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        made = FeatureDistillation(FeatureLoss(**settings), student, teacher)
        return made.hidden, made.relations

    assert chosen() == ([], [(2, 3)])
    assert chosen(hidden=1.0) == ([(0, 0), (1, 2), (2, 3)], [(2, 3)])
    assert chosen(hidden=1.0, hidden_layers="last", relation=0.0) == ([(2, 3)], [])
    assert chosen(relation_layer=0) == ([], [(0, 0)])
    for gone in (1, 2, 4):  # dropped, without heads, never there
        with pytest.raises(ModelError, match=rf"relation_layer={gone}.*\[0, 3\]"):
            chosen(relation_layer=gone)
    headless = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (0,), (0,)), LayerPlan(3, (), (0,))))
    student = apply_plan(make_pico(), headless)
    assert chosen() == ([], [(0, 0)])  # the last with heads
    beginning = PruningPlan(LAYERS, HEADS, FFN, (LayerPlan(0, (), (0,)), LayerPlan(3, (0,), (0,))))
    teacher = apply_plan(make_pico(seed=1), beginning)
    with pytest.raises(ModelError, match="no such layer with heads"):
        chosen()


# Every family


def pair_losses(
    student: PreTrainedModel, teacher: PreTrainedModel, loss: FeatureLoss = BOTH, **inputs: Tensor
) -> Tensor:
    """Loss of each of 4 pairs."""
    inputs = inputs or random_inputs(4, 12)
    made = FeatureDistillation(loss, student, teacher)
    with made.collect(student) as seen:
        student(**inputs)
    return made.pair_losses(seen, inputs)


@pytest.mark.parametrize(("family", "changes"), FAMILIES_AND_VARIANTS)
def test_hidden_states_and_relations_of_every_family(family: str, changes: dict[str, Any]) -> None:
    teacher = make_pico(family, **changes)
    same = pair_losses(make_pico(family, **changes), teacher)
    assert same.tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    inputs = random_inputs(4, 12)
    for plan in (uneven_plan(), front_plan(), stock_plan()):
        student = pruned_copy(make_pico(family, **changes), plan)
        losses = pair_losses(student, teacher)
        assert (losses > 1e-3).all()
        for weights in (FeatureLoss(), FeatureLoss(hidden=1.0, relation=0.0)):
            student.zero_grad()
            pair_losses(student, teacher, weights).sum().backward()
            reached = {name for name, part in student.named_parameters() if part.grad is not None and part.grad.any()}
            assert any("embeddings" in name for name in reached)
            assert not any(name.startswith("classifier") for name in reached)
        # Longer padding and another order of pairs change nothing.
        order = torch.tensor([2, 0, 1, 3])
        longer = {"input_ids": 1, "attention_mask": 0}
        moved = {n: torch.cat([value, torch.full((4, 3), longer[n])], 1)[order] for n, value in inputs.items()}
        torch.testing.assert_close(pair_losses(student, teacher, **moved), losses[order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "changes"), FAMILIES_AND_VARIANTS)
def test_what_is_gathered(family: str, changes: dict[str, Any]) -> None:
    """Against the hidden states that the model returns, and the linear layers run on what the attention reads."""
    model = apply_plan(make_pico(family, **changes), uneven_plan())
    made = FeatureDistillation(BOTH, model, make_pico(family, seed=1, **changes))
    inputs, read = random_inputs(3, 9), []
    layer = encoder_layers(model)[-1]
    module = layer.get_submodule({"modernbert": "attn.Wqkv"}.get(family, made._rows[0].query))
    hook = module.register_forward_pre_hook(lambda _module, given: read.append(given[0]))
    with torch.no_grad(), made.collect(model) as seen:
        states = model(**inputs, output_hidden_states=True).hidden_states
    hook.remove()
    for place, number in enumerate((1, 2, 3) if family != "modernbert" else (1, 2)):  # ModernBERT's last is normed
        if not (place == 0 and changes.get("conv_kernel_size")):  # a convolution follows the first layer
            torch.testing.assert_close(seen[place, ""], states[number])
    query, key, value = (
        seen[2, path] if family != "modernbert" else seen[2, "attn.Wqkv"].chunk(3, 2)[block]
        for block, path in enumerate((made._rows[0].query, made._rows[0].key, made._rows[0].value))
    )
    width = 3 * HIDDEN // HEADS  # three heads are left in the last layer
    assert query.shape == key.shape == value.shape == (3, 9, width)
    torch.testing.assert_close(query, module(read[0])[..., :width])
    assert not torch.allclose(query, key) and not torch.allclose(key, value)


def test_a_student_of_another_size_and_number_of_heads() -> None:
    student = make_pico(hidden_size=24, num_attention_heads=3, num_hidden_layers=2)
    teacher = make_pico("electra")
    losses = pair_losses(student, teacher, FeatureLoss())
    assert (losses > 1e-3).all()
    losses.sum().backward()
    assert encoder_layers(student)[-1].attention.self.value.weight.grad.any()
    with pytest.raises(ModelError, match=r"24 elements of the student, 32 of the teacher.*relation"):
        pair_losses(student, teacher)


def test_a_pair_counts_by_the_mean_over_layers_and_tokens() -> None:
    student, teacher = make_pico(), make_pico(seed=1)
    inputs, expected = random_inputs(4, 12), []
    states = [model(**inputs, output_hidden_states=True).hidden_states[1:] for model in (student, teacher)]
    for pair in range(4):
        real = inputs["attention_mask"][pair].bool()
        terms = [(a[pair][real] - b[pair][real]).square().mean() for a, b in zip(*states, strict=True)]
        expected.append(2 * sum(terms) / len(terms))
    found = pair_losses(student, teacher, FeatureLoss(hidden=2.0, relation=0.0))
    torch.testing.assert_close(found, torch.stack(expected))
    relations = [pair_losses(student, teacher, FeatureLoss(relation=weight)) for weight in (1.0, 3.0)]
    torch.testing.assert_close(3 * relations[0], relations[1])
    both = pair_losses(student, teacher, FeatureLoss(hidden=2.0, relation=3.0))
    torch.testing.assert_close(both, found + relations[1])


def test_inputs_that_the_teacher_does_not_take() -> None:
    inputs = {**random_inputs(4, 12), "token_type_ids": torch.zeros(4, 12, dtype=torch.long)}
    assert (pair_losses(make_pico(), make_pico("distilbert"), **inputs) > 0).all()


# In the trainer


def trainer(
    lists: Dataset,
    tokenizer: BertTokenizerFast,
    folder: Path,
    model: PreTrainedModel | None = None,
    options: dict[str, Any] | None = None,
    callbacks: list[Any] | None = None,
    **settings: Any,
) -> RankingDistillationTrainer:
    fixed = {"max_grad_norm": 0.0, "save_strategy": "no", "per_device_train_batch_size": 4}
    arguments = TrainingArguments(
        output_dir=str(folder), remove_unused_columns=False, report_to=[], disable_tqdm=True, use_cpu=True,
        **{**fixed, **settings},
    )  # fmt: skip
    return RankingDistillationTrainer(
        model=model or apply_plan(make_pico(**NO_DROPOUT), uneven_plan()),
        args=arguments,
        train_dataset=lists,
        data_collator=RankingCollator(tokenizer, 32),
        callbacks=callbacks,
        **({"feature_loss": BOTH, "teacher": make_pico(seed=3)} if options is None else options),
    )


def gradient(made: RankingDistillationTrainer) -> dict[str, Tensor]:
    """Of one optimizer step, by a step of plain descent at rate 1."""
    before = copy.deepcopy(made.model.state_dict())
    made.train()
    return {name: before[name] - tensor for name, tensor in made.model.state_dict().items()}


ONE_STEP = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant"}


def test_accumulation_gives_the_gradient_of_one_large_batch(
    lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    def of(batch: int, parts: int, **options: Any) -> dict[str, Tensor]:
        made = trainer(
            lists.select(range(4)), tokenizer, tmp_path, **ONE_STEP, **options,
            per_device_train_batch_size=batch, gradient_accumulation_steps=parts,
        )  # fmt: skip
        return gradient(made)

    whole, parts, without = of(4, 1), of(2, 2), of(4, 1, options={})
    assert any((whole[name] - without[name]).abs().gt(1e-3).any() for name in whole)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bf16", [False, True])
def test_weights_decay_and_then_the_teacher_does_not_run(
    bf16: bool, lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    loss, teacher, calls = FeatureLoss(hidden=1.0, decay=0.5), make_pico(seed=3), []
    before = copy.deepcopy(teacher.state_dict())
    made = trainer(
        lists, tokenizer, tmp_path, options={"feature_loss": loss, "teacher": teacher}, max_steps=8, bf16=bf16,
        gradient_accumulation_steps=2,
    )  # fmt: skip
    assert made.features is not None
    assert [made.features.share(step, 8) for step in range(8)] == [1.0, 0.75, 0.5, 0.25, 0, 0, 0, 0]
    teacher.register_forward_hook(lambda *_: calls.append((torch.is_grad_enabled(), teacher.training)))
    made.train()
    assert calls == [(False, False)] * 8  # two parts of each of four steps
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_student_and_teacher_are_compared_in_one_precision(
    lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    options, losses = {"feature_loss": BOTH, "teacher": make_pico(seed=3)}, []
    made = trainer(lists, tokenizer, tmp_path, make_pico(seed=3, **NO_DROPOUT), options, max_steps=1, bf16=True)
    assert made.features is not None
    inner = made.features.pair_losses

    def spy(*given: Any) -> Tensor:
        losses.append(inner(*given))
        return losses[-1]

    made.features.pair_losses = spy  # type: ignore[method-assign]
    made.train()
    assert losses[0].dtype == torch.float32 and losses[0].tolist() == [0.0] * 16


def test_the_share_scales_what_is_added(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    batch = RankingCollator(tokenizer, 32)([lists[index] for index in range(3)])
    with_features, without = (trainer(lists, tokenizer, tmp_path, options=options) for options in (None, {}))
    plain = without.compute_loss(without.model.train(), dict(batch))
    values = []
    for step in (0, 2, 4):
        with_features.state.global_step, with_features.state.max_steps = step, 8
        values.append(with_features.compute_loss(with_features.model.train(), dict(batch)) - plain)
    assert values[0] > 0.01 and values[2] == 0
    torch.testing.assert_close(values[1], values[0] / 2, atol=1e-6, rtol=1e-5)
    with_features.state.global_step = 0
    evaluated = with_features.compute_loss(with_features.model.eval(), dict(batch))
    assert evaluated == without.compute_loss(without.model.eval(), dict(batch))  # comparable over the whole training


def test_features_alone_bring_the_student_towards_its_teacher(
    lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    teacher = make_pico(seed=3)
    student = apply_plan(make_pico(seed=3, **NO_DROPOUT), uneven_plan())
    batch = RankingCollator(tokenizer, 32)([lists[index] for index in range(8)])
    inputs = model_inputs(batch)

    def loss() -> Tensor:
        made = FeatureDistillation(BOTH, student, teacher)
        with torch.no_grad(), made.collect(student) as seen:
            student(**inputs)
        return made.pair_losses(seen, inputs).mean()

    before = loss()
    trainer(
        lists, tokenizer, tmp_path, student, {"feature_loss": FeatureLoss(hidden=1.0, decay=1.0), "teacher": teacher},
        num_train_epochs=5, learning_rate=2e-3,
    ).train()  # fmt: skip
    assert loss() < 0.7 * before


def test_with_gradual_pruning(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    model, teacher = make_pico(seed=3, **NO_DROPOUT), make_pico(seed=3)
    options = {"distillation_loss": DistillationLoss(hard=0), "feature_loss": BOTH, "teacher": teacher}
    made = trainer(
        lists, tokenizer, tmp_path, model, options, [GradualPruningCallback(uneven_plan())], num_train_epochs=2,
        logging_steps=1,
    )  # fmt: skip
    made.train()
    assert current_plan(model) == uneven_plan()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert (
        losses[0] < 1e-6 and losses[5] > 0.1
    )  # no gate is closed in the first step, and student and teacher are the same


def test_what_is_gathered_is_what_gates_leave(tmp_path: Path) -> None:
    model, inputs = make_pico(), random_inputs(3, 9)
    callback = GradualPruningCallback(uneven_plan())
    callback.on_train_begin(TrainingArguments(str(tmp_path)), TrainerState(), TrainerControl(), model=model)
    made = FeatureDistillation(BOTH, model, make_pico())
    for share, faded in ((0.0, False), (1.0, True)):
        callback.close(share)
        with made.collect(model) as seen:
            model(**inputs)
        assert torch.equal(seen[1, ""], seen[0, ""]) == faded  # the plan drops layer 1


def test_activation_checkpointing(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    plain = gradient(trainer(lists, tokenizer, tmp_path, **ONE_STEP))
    again = gradient(trainer(lists, tokenizer, tmp_path, **ONE_STEP, activation_checkpointing=True))
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, atol=1e-6, rtol=1e-5)
    reentrant = trainer(
        lists, tokenizer, tmp_path, **ONE_STEP, activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": True},
    )  # fmt: skip
    with pytest.raises(ModelError, match="use_reentrant"):
        reentrant.train()


# Refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"feature_loss": BOTH}, "both of feature_loss and teacher"),
        ({"teacher": make_pico()}, "both of feature_loss and teacher"),
        ({"feature_loss": BOTH, "teacher": make_pico(num_labels=2)}, "num_labels=2"),
        ({"feature_loss": BOTH, "teacher": make_pico(vocab_size=130)}, "120 tokens of the student, 130 of the teacher"),
        ({"feature_loss": BOTH, "teacher": make_pico(hidden_size=16)}, "32 elements of the student, 16 of the teacher"),
    ],
)
def test_teachers_that_do_not_do(
    options: dict[str, Any], words: str, lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=words):
        trainer(lists, tokenizer, tmp_path, options=options)


def test_a_teacher_that_would_be_trained_too(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    teacher = make_pico()
    student = pruned_copy(teacher, stock_plan())
    with pytest.raises(ModelError, match=r"shares weights.*deepcopy"):
        trainer(lists, tokenizer, tmp_path, student, {"feature_loss": BOTH, "teacher": teacher})


def test_another_tokenizer_of_as_many_tokens(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    words[-1], words[-2] = words[-2], words[-1]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    options = {"feature_loss": BOTH, "teacher": make_pico(seed=3)}
    trainer(lists, tokenizer, tmp_path, options={**options, "teacher_tokenizer": tokenizer})
    other = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    assert len(other) == len(tokenizer) <= VOCABULARY
    with pytest.raises(ModelError, match="do not use the same token ids"):
        trainer(lists, tokenizer, tmp_path, options={**options, "teacher_tokenizer": other})


def test_a_compiled_model(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"feature_loss needs hooks.*torch_compile=True"):
        trainer(lists, tokenizer, tmp_path, torch_compile=True)


@pytest.mark.parametrize("settings", [{"relation": 0.0}, {"decay": 0.0}, {"decay": 1.5}, {"hidden": -1.0}, {"k": 1}])
def test_weights_that_make_no_sense(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        FeatureLoss(**settings)


def test_by_list() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert by_list(torch.tensor([[1.0], [2.0], [3.0]]), mask).tolist() == [[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]
