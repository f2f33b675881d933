"""Feature distillation: losses on hidden states and self-attention relations of student and teacher."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfcompress.errors import ModelError
from hfcompress.losses import hidden_mse, relation_kl
from hfcompress.models.architectures import Architecture, architecture_of, encoder_layers, require_one_score
from hfcompress.models.hooks import hooks
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import current_plan
from hfcompress.models.tokenizer_agreement import difference
from hfcompress.models.wrappers import unwrapped
from hfcompress.recipe import FeatureLoss

Outputs = dict[tuple[int, str], Tensor]
"""Outputs of modules, by the index of their layer and their path in it; the path of the layer itself is empty."""


class FeatureDistillation:
    """Losses on hidden states and self-attention relations of matching layers.

    Queries, keys and values are outputs of the linear layers, before rotary embeddings (ModernBERT) or relative
    positions (DeBERTa, MPNet) are applied.

    Args:
        loss: Weights and layers.
        student: The student, pruned or not.
        teacher: A model with the same tokenizer; it is set to eval mode and moved to the student's device.

    Raises:
        ModelError: `loss` or `teacher` is None; the teacher has not exactly one score, shares weights with the student
            or has another vocabulary size; a family is not supported; hidden states are compared and hidden sizes
            differ; or no matching layers both have heads.
    """

    def __init__(self, loss: FeatureLoss | None, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        if loss is None or teacher is None:
            raise ModelError(
                "Feature distillation needs both its weights and the teacher",
                value=f"feature_loss={loss}, teacher={type(teacher).__name__}",
                expected="both of feature_loss and teacher, or neither",
                remedy="pass feature_loss=FeatureLoss() and teacher=hfcompress.load_model(name), or leave both out",
            )
        teacher = unwrapped(teacher)
        require_one_score(teacher.config)
        ours, theirs = current_plan(student), current_plan(teacher)
        _check_pair(student, teacher)
        self.loss, self.teacher = loss, teacher.eval()
        nn.Module.to(teacher, student.device)
        matched = list(enumerate(matching_layers(ours, theirs)))
        self.hidden: list[tuple[int, int]] = []
        self.relations: list[tuple[int, int]] = []
        if loss.hidden:
            _check_hidden_size(student, teacher)
            self.hidden = matched if loss.hidden_layers == "all" else matched[-1:]
        if loss.relation:
            self.relations = [_relation_layer(ours, theirs, matched, loss.relation_layer)]
        self._rows = architecture_of(student.config), architecture_of(teacher.config)
        self._arguments = inspect.signature(teacher.forward).parameters

    def share(self, step: int, steps: int) -> float:
        """Remaining share of the decaying weights at an optimizer step; the first step is 0."""
        return max(0.0, 1 - step / (self.loss.decay * max(steps, 1)))

    @contextmanager
    def collect(self, student: PreTrainedModel) -> Iterator[Outputs]:
        """Collect the features of the student's forward pass in the block.

        Raises:
            ModelError: Reentrant activation checkpointing would detach the features from the gradient.
        """
        _check_checkpointing(student)
        with _outputs(student, [ours for ours, _ in self.hidden], [ours for ours, _ in self.relations]) as outputs:
            yield outputs

    def pair_losses(self, outputs: Outputs, inputs: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the losses of each pair, `(pairs,)`.

        Args:
            outputs: Features of the student, from `collect`.
            inputs: Inputs of the student, a row for each pair.
        """
        targets = self._teacher_outputs(inputs)
        tokens = inputs["attention_mask"].bool()
        losses = torch.zeros(len(tokens), device=tokens.device)
        for ours, theirs in self.hidden:
            weight = self.loss.hidden / len(self.hidden)
            losses = losses + weight * hidden_mse(outputs[ours, ""], targets[theirs, ""], tokens)
        for ours, theirs in self.relations:
            student = _queries_keys_values(outputs, ours, self._rows[0])
            teacher = _queries_keys_values(targets, theirs, self._rows[1])
            for found, target in zip(student, teacher, strict=True):
                heads = relation_heads(found.shape[2], target.shape[2], self.loss.relation_heads)
                losses = losses + self.loss.relation * relation_kl(found, target, tokens, heads)
        return losses

    @torch.no_grad()
    def _teacher_outputs(self, inputs: dict[str, Tensor]) -> Outputs:
        accepted = {name: value for name, value in inputs.items() if name in self._arguments}
        layers = [theirs for _, theirs in self.hidden], [theirs for _, theirs in self.relations]
        with _outputs(self.teacher, *layers) as outputs:
            self.teacher(**accepted)
        return outputs


def matching_layers(student: PruningPlan, teacher: PruningPlan) -> list[int]:
    """Index of the teacher's layer that matches each layer of the student.

    If both come from models with the same number of layers, and the teacher has all layers of the student, layers with
    equal numbers match. Otherwise the last layers match, and the others are spaced evenly, as in TinyBERT (Jiao et al.,
    2020).
    """
    numbers = [layer.layer for layer in student.layers]
    indices = {layer.layer: index for index, layer in enumerate(teacher.layers)}
    if student.layers_of == teacher.layers_of and set(numbers) <= set(indices):
        return [indices[number] for number in numbers]
    return [math.ceil(count * len(indices) / len(numbers)) - 1 for count in range(1, len(numbers) + 1)]


def relation_heads(student: int, teacher: int, wanted: int) -> int:
    """Number of relation heads for two widths: the largest up to `wanted` that divides both.

    Both widths are multiples of the head size. With the usual sizes there are therefore several relation heads even if
    the remaining numbers of attention heads have no common divisor.
    """
    common = math.gcd(student, teacher)
    return next(heads for heads in range(min(wanted, common), 0, -1) if common % heads == 0)


def check_tokenizers(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]] = ()
) -> None:
    """Check that two tokenizers give the same token ids.

    Args:
        student: Tokenizer of the student, whose ids the teacher gets.
        teacher: The tokenizer that the teacher was trained with.
        pairs: Pairs of query and document from the training data, on which both are compared beside probe texts.

    Raises:
        ModelError: A token or a text has different ids.
    """
    if found := difference(student, teacher, pairs):
        raise _other_ids(f"{found}, for student and teacher")


def check_relation_layer(number: int | None, available: list[int]) -> None:
    """Check that relations can be compared in the requested layer, or in any.

    Args:
        number: `FeatureLoss.relation_layer`.
        available: Numbers of the teacher's layers that have heads and match a layer of the student with heads.

    Raises:
        ModelError: The layer is not among these, or there are none.
    """
    if not available or number not in (None, *available):
        raise ModelError(
            "There is no such layer with heads in both student and teacher to compare relations in",
            value="any" if number is None else f"relation_layer={number}",
            expected=f"a number among {sorted(set(available))}",
            remedy="leave relation_layer out for the last of these, or set relation to 0",
        )


def _check_pair(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    ours, theirs = student.config.vocab_size, teacher.config.vocab_size
    if ours != theirs:
        raise _other_ids(f"{ours} tokens of the student, {theirs} of the teacher")
    addresses = {parameter.data_ptr() for parameter in student.parameters()}
    shared = [name for name, parameter in teacher.named_parameters() if parameter.data_ptr() in addresses]
    if shared:
        raise ModelError(
            "The teacher shares weights with the student, so training would change it",
            value=shared[:3],
            expected="two models without shared weights",
            remedy="pass copy.deepcopy(teacher), or load the teacher again",
        )


def _other_ids(found: str) -> ModelError:
    return ModelError(
        # Not as the value, which is shortened.
        f"Student and teacher do not use the same token ids, which feature distillation needs: {found}",
        expected="the same tokenizer, with the same normalization and prompt, and an unpruned vocabulary",
        remedy="train with the teacher's tokenizer, leave feature distillation out, or prune the vocabulary later",
    )


def _check_hidden_size(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    ours, theirs = student.config.hidden_size, teacher.config.hidden_size
    if ours != theirs:
        raise ModelError(
            "Hidden states of student and teacher cannot be compared",
            value=f"{ours} elements of the student, {theirs} of the teacher",
            expected="equal hidden sizes",
            remedy="set hidden to 0 and use relation, which supports any sizes",
        )


def _check_checkpointing(model: PreTrainedModel) -> None:
    for layer in encoder_layers(model):
        checkpoint = getattr(layer, "_gradient_checkpointing_func", None)
        options = getattr(checkpoint, "keywords", {})
        if getattr(layer, "gradient_checkpointing", False) and options.get("use_reentrant", True):
            raise ModelError(
                "Reentrant activation checkpointing detaches the student's features from the gradient",
                value="use_reentrant=True",
                expected="use_reentrant=False, the default of transformers",
                remedy="leave use_reentrant out of activation_checkpointing_kwargs",
            )


def _relation_layer(
    student: PruningPlan, teacher: PruningPlan, matched: list[tuple[int, int]], number: int | None
) -> tuple[int, int]:
    """Indices of the layers whose relations are compared: the last with heads, or that with the teacher's number."""
    found = [
        (teacher.layers[theirs].layer, (ours, theirs))
        for ours, theirs in matched
        if student.layers[ours].heads and teacher.layers[theirs].heads
    ]
    check_relation_layer(number, [layer for layer, _ in found])
    return [indices for layer, indices in found if number in (None, layer)][-1]


def _queries_keys_values(outputs: Outputs, layer: int, row: Architecture) -> tuple[Tensor, ...]:
    """Queries, keys and values of all heads, each `(pairs, tokens, width)`, from one fused linear layer or three."""
    return torch.cat([outputs[layer, path] for path in _projections(row)], 2).chunk(3, 2)


def _projections(row: Architecture) -> list[str]:
    return list(dict.fromkeys((row.query, row.key, row.value)))


@contextmanager
def _outputs(model: PreTrainedModel, hidden: list[int], relations: list[int]) -> Iterator[Outputs]:
    """Collect outputs of whole layers, and of the query, key and value layers within others, of the forward pass."""
    row, layers = architecture_of(model.config), encoder_layers(model)
    modules = {(number, ""): layers[number] for number in hidden}
    for number in relations:
        modules |= {(number, path): layers[number].get_submodule(path) for path in _projections(row)}
    outputs: Outputs = {}

    def recorder(name: tuple[int, str]) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            # DeBERTa calls its query and key layers again for positions; the first output counts.
            outputs.setdefault(name, output[0] if isinstance(output, tuple) else output)

        return hook

    with hooks(module.register_forward_hook(recorder(name)) for name, module in modules.items()):
        yield outputs
