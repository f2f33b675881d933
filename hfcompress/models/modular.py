"""Modular cross-encoders of sentence-transformers as models of transformers: an encoder, and its modules as the head.

To the rest of hfcompress such a model is a sequence-classification model of its family: its encoder has the same name
in it, and its output has logits. Its config has the settings of the modules under `MODULES_KEY`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import MODEL_MAPPING, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

from hfcompress.errors import ModelError
from hfcompress.models import modules as settings
from hfcompress.models.architectures import architecture_of
from hfcompress.models.modeling_hfcompress import PREFIX, pruned_class
from hfcompress.models.modules import DENSE_ACTIVATIONS, POOLED, SCORES, TOKENS, HeadModule, pools_first_token

MODULES_KEY = "hfcompress_modules"  # in the config of a model in memory, and of a checkpoint within a training
HEAD = "classifier"
_MASK = "attention_mask"
Features = dict[str, Tensor]


class _Pooling(nn.Module):
    """Pooling over the tokens that the attention mask has; `cls` is the first, so padding is on the right."""

    def __init__(self, module: settings.Pooling) -> None:
        super().__init__()
        self.modes = module.modes

    def forward(self, features: Features) -> None:
        tokens, mask = features[TOKENS], features[_MASK].unsqueeze(-1)
        features[POOLED] = torch.cat([self._pooled(mode, tokens, mask) for mode in self.modes], dim=-1)

    @staticmethod
    def _pooled(mode: str, tokens: Tensor, mask: Tensor) -> Tensor:
        if mode == "cls":
            return tokens[:, 0]
        if mode == "max":  # the least finite number, since -inf cannot be quantized
            return tokens.masked_fill(mask == 0, torch.finfo(tokens.dtype).min).max(dim=1).values
        total = (tokens * mask.to(tokens.dtype)).sum(dim=1, dtype=torch.float32)
        return (total / mask.sum(dim=1, dtype=torch.float32).clamp(min=1e-9)).to(tokens.dtype)


class _Dense(nn.Module):
    """Linear layer and activation; names of parameters are those of sentence-transformers."""

    def __init__(self, module: settings.Dense) -> None:
        super().__init__()
        self.read, self.written = module.module_input_name, module.output_name
        self.linear = nn.Linear(module.in_features, module.out_features, bias=module.bias)
        self.activation_function = DENSE_ACTIVATIONS[module.activation_function]()
        self.use_residual = module.use_residual
        if module.use_residual and module.in_features != module.out_features:
            self.residual = nn.Linear(module.in_features, module.out_features, bias=False)

    def forward(self, features: Features) -> None:
        read = features[self.read]
        written = self.activation_function(self.linear(read))
        if self.use_residual:
            written = written + (self.residual(read) if hasattr(self, "residual") else read)
        features[self.written] = written


class _LayerNorm(nn.Module):
    def __init__(self, module: settings.LayerNorm) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(module.dimension)

    def forward(self, features: Features) -> None:
        features[POOLED] = self.norm(features[POOLED])


class _Dropout(nn.Module):
    def __init__(self, module: settings.Dropout) -> None:
        super().__init__()
        self.dropout_layer = nn.Dropout(module.dropout)

    def forward(self, features: Features) -> None:
        features[POOLED] = self.dropout_layer(features[POOLED])


_LAYERS: dict[str, Any] = {"Pooling": _Pooling, "Dense": _Dense, "LayerNorm": _LayerNorm, "Dropout": _Dropout}


class Head(nn.ModuleDict):
    """The modules behind the transformer, under their numbers in `modules.json`.

    Args:
        modules: Their settings.
    """

    def __init__(self, modules: Iterable[HeadModule]) -> None:
        super().__init__({str(number): _LAYERS[module.type](module) for number, module in enumerate(modules, 1)})

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Compute the scores of pairs.

        Args:
            tokens: Token embeddings, (pairs, length, hidden size).
            mask: Attention mask, (pairs, length); None for no padding.

        Returns:
            Scores, (pairs, number of scores).
        """
        mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device) if mask is None else mask
        features = {TOKENS: tokens, _MASK: mask}
        for module in self.values():
            module(features)
        return features[SCORES]


@cache
def modular_class(stock: str) -> type[PreTrainedModel]:
    """The class of modular cross-encoders in a family.

    Args:
        stock: Name of the family's sequence-classification class in transformers.
    """
    family: Any = getattr(transformers, stock).__bases__[0]

    class Modular(family):
        """An encoder with its modules of sentence-transformers as the head."""

        def __init__(self, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            encoder_class: Any = MODEL_MAPPING[type(config)]
            setattr(self, self.base_model_prefix, encoder_class(config))
            self.classifier = Head(settings.read_record(getattr(config, MODULES_KEY)))
            self.post_init()

        @can_return_tuple
        def forward(
            self,
            input_ids: Tensor | None = None,
            attention_mask: Tensor | None = None,
            token_type_ids: Tensor | None = None,
            position_ids: Tensor | None = None,
            inputs_embeds: Tensor | None = None,
            labels: Tensor | None = None,
            **kwargs: Any,
        ) -> SequenceClassifierOutput:
            """Compute logits, (pairs, number of scores); arguments are those of the stock class."""
            inputs = {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "token_type_ids": token_type_ids,
                "position_ids": position_ids,
                "inputs_embeds": inputs_embeds,
            }
            given = {name: value for name, value in inputs.items() if value is not None}
            outputs = self.base_model(**given, **kwargs)
            logits = self.classifier(outputs.last_hidden_state, attention_mask)
            loss = None
            if labels is not None:
                loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
            return SequenceClassifierOutput(
                loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
            )

    Modular.__name__ = Modular.__qualname__ = f"Modular{stock}"
    Modular.__module__ = __name__
    return Modular


def class_for(config: PretrainedConfig, pruned: bool) -> Any:
    """The class of a cross-encoder: stock or modular, and as it is or pruned to uneven layers.

    Args:
        config: Its config.
        pruned: Whether its layers have the sizes of a pruning record.

    Raises:
        ModelError: The family is not supported.
    """
    stock = architecture_of(config).model_class
    plain: Any = modular_class(stock) if modules_of(config) else getattr(transformers, stock)
    return pruned_class(f"{PREFIX}{stock}", plain) if pruned else plain


def modules_of(config: PretrainedConfig) -> tuple[HeadModule, ...]:
    """The modules in the config of a model; none for a model with the head of its family.

    Raises:
        ModelError: The record in the config is damaged.
    """
    record = getattr(config, MODULES_KEY, None)
    return settings.read_record(record) if record else ()


def is_modular(model: nn.Module) -> bool:
    """Whether a model is a modular cross-encoder."""
    return isinstance(getattr(model, HEAD, None), Head)


def reads_first_token(config: PretrainedConfig) -> bool:
    """Whether the head of a modular cross-encoder reads the last hidden state of the first token only."""
    return pools_first_token(modules_of(config))


def freeze_unused_(model: PreTrainedModel) -> None:
    """Freeze, in place, the pooler that the encoder of a modular cross-encoder has in its family, and no head reads.

    It stays in the model so that sentence-transformers finds all weights of the encoder's class.
    """
    pooler = getattr(model.base_model, "pooler", None)
    if is_modular(model) and pooler is not None:
        pooler.requires_grad_(False)


class LogOdds(nn.Module):
    """Log-odds of a label against all others, `log p - log(1 - p)`, in place of the layer that computes the logits.

    Args:
        logits: That layer.
        label: Number of the label.
    """

    def __init__(self, logits: nn.Module, label: int) -> None:
        super().__init__()
        self.logits, self.label = logits, label

    def forward(self, features: Tensor) -> Tensor:
        """Log-odds, shape `(..., 1)`."""
        logits = self.logits(features)
        before, label, after = logits.tensor_split([self.label, self.label + 1], dim=-1)
        return label - torch.cat([before, after], -1).logsumexp(-1, keepdim=True)


def score_layer(model: PreTrainedModel) -> str:
    """Path of the linear layer that computes the logits of a classifier, modular or not.

    The record of a modular one is set to a single score, which is what the layer is replaced for.

    Raises:
        ModelError: The logits of a modular classifier are no linear function.
    """
    head = model.get_submodule(HEAD)
    if not isinstance(head, Head):
        return [f"{HEAD}.{name}".rstrip(".") for name, module in head.named_modules() if isinstance(module, nn.Linear)][
            -1
        ]
    modules = list(modules_of(model.config))
    last = max(n for n, each in enumerate(modules) if isinstance(each, settings.Dense) and each.output_name == SCORES)
    dense = modules[last]
    assert isinstance(dense, settings.Dense)
    if dense.use_residual or DENSE_ACTIVATIONS[dense.activation_function] is not nn.Identity:
        raise ModelError(
            "The labels' logits of the classifier are no linear function, so no score can be made of them",
            value=f"{last + 1}_Dense: {dense.activation_function}, use_residual={dense.use_residual}",
            expected="a last Dense with the activation torch.nn.Identity and no residual connection",
            remedy="use another classifier, or a cross-encoder with one output",
        )
    modules[last] = dense.model_copy(update={"out_features": 1})
    setattr(model.config, MODULES_KEY, settings.to_record(modules))
    return f"{HEAD}.{last + 1}.linear"


def encoder_alone(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of a modular cross-encoder as its own model, which `AutoModel` opens once it is saved.

    It shares its weights with `model`, and has a config of its own without the modules.
    """
    encoder: Any = copy.copy(model.base_model)
    encoder.config = copy.deepcopy(model.config)
    for name in (MODULES_KEY, "auto_map"):
        vars(encoder.config).pop(name, None)
    if type(model).__name__.startswith(PREFIX):
        kind: Any = type(encoder)
        encoder.__class__ = pruned_class(f"{PREFIX}{kind.__name__}", kind)
    return encoder


def head_weights(model: PreTrainedModel, names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """State dict of each module behind the encoder that has weights, by the name of the module.

    Args:
        model: A model; one that is not modular has none.
        names: Names of its modules, in their order.
    """
    head = getattr(model, HEAD, None)
    parts = head.values() if isinstance(head, Head) else ()
    states = {name: part.state_dict() for name, part in zip(names, parts, strict=True)}
    whole = {name: {key: weight.contiguous() for key, weight in state.items()} for name, state in states.items()}
    return {name: state for name, state in whole.items() if state}
