"""Module names of heads, FFN neurons and layers in each supported model family: one row per family, no code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hfcompress.errors import ModelError
from hfcompress.models.modeling_hfcompress import head_rows
from hfcompress.models.modeling_hfcompress import head_size as head_size  # part of this module too
from hfcompress.recipe.teacher import ScoreLabel


@dataclass(frozen=True)
class Architecture:
    """Module names of a model family.

    Paths start at the model (`layers`) or at an encoder layer (all others).

    Attributes:
        model_type: `model_type` of the family's config.
        model_class: Sequence-classification class of transformers.
        layers: The list of encoder layers.
        attention: Module that computes the context of all heads; replaced if all heads of a layer are pruned.
        query: Linear layer of the queries.
        key: Linear layer of the keys.
        value: Linear layer of the values. The same path for all three is a fused layer with their rows in this order.
        attention_output: Linear layer W_O, whose input columns belong to heads.
        ffn_in: Linear layer W_1, whose output rows are FFN neurons.
        ffn_out: Linear layer W_2, whose input columns are FFN neurons.
        ffn_size: Name of the FFN width in the config.
        ffn_blocks: Rows of W_1 per neuron: 2 in a gated FFN, where all gates follow all inputs.
        position_key: Linear layer for the keys of relative positions, present if the config asks for it.
        position_query: Linear layer for the queries of relative positions, present if the config asks for it.
        head_bias: Argument of `attention` with a bias per head that the encoder computes once for all layers.
        attention_norm: Norm before the attention in pre-norm families; the first layer has none. An empty sublayer
            needs no norm.
        ffn_norm: Norm before the FFN in pre-norm families.
        positions_after_padding: Whether positions are numbered from `pad_token_id + 1`.
    """

    model_type: str
    model_class: str
    layers: str
    attention: str = "attention.self"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    ffn_in: str = "intermediate.dense"
    ffn_out: str = "output.dense"
    ffn_size: str = "intermediate_size"
    ffn_blocks: int = 1
    position_key: str = ""
    position_query: str = ""
    head_bias: str = ""
    attention_norm: str = ""
    ffn_norm: str = ""
    positions_after_padding: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data, as stored in the config of a pruned checkpoint."""
        return asdict(self)

    @property
    def head_rows(self) -> dict[str, int]:
        """Linear layers whose output rows belong to heads, with the number of blocks of heads in each."""
        return head_rows(self.to_dict())


_FAMILIES = (
    Architecture("bert", "BertForSequenceClassification", "bert.encoder.layer"),
    Architecture("roberta", "RobertaForSequenceClassification", "roberta.encoder.layer", positions_after_padding=True),
    Architecture(
        "xlm-roberta", "XLMRobertaForSequenceClassification", "roberta.encoder.layer", positions_after_padding=True
    ),
    Architecture(
        "camembert", "CamembertForSequenceClassification", "roberta.encoder.layer", positions_after_padding=True
    ),
    Architecture("electra", "ElectraForSequenceClassification", "electra.encoder.layer"),
    Architecture(
        "distilbert",
        "DistilBertForSequenceClassification",
        "distilbert.transformer.layer",
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        ffn_in="ffn.lin1",
        ffn_out="ffn.lin2",
        ffn_size="hidden_dim",
    ),
    Architecture(
        "mpnet",
        "MPNetForSequenceClassification",
        "mpnet.encoder.layer",
        attention="attention.attn",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        head_bias="position_bias",
        positions_after_padding=True,
    ),
    Architecture(
        "deberta-v2",
        "DebertaV2ForSequenceClassification",
        "deberta.encoder.layer",
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        position_key="attention.self.pos_key_proj",
        position_query="attention.self.pos_query_proj",
    ),
    Architecture(
        "modernbert",
        "ModernBertForSequenceClassification",
        "model.layers",
        attention="attn",
        query="attn.Wqkv",
        key="attn.Wqkv",
        value="attn.Wqkv",
        attention_output="attn.Wo",
        ffn_in="mlp.Wi",
        ffn_out="mlp.Wo",
        ffn_blocks=2,
        attention_norm="attn_norm",
        ffn_norm="mlp_norm",
    ),
)

ARCHITECTURES: dict[str, Architecture] = {row.model_type: row for row in _FAMILIES}


def architecture_of(config: PretrainedConfig) -> Architecture:
    """Return the row for the family of `config`.

    Raises:
        ModelError: The family is not supported, or the model is a decoder.
    """
    row = ARCHITECTURES.get(config.model_type)
    if row is None:
        raise ModelError(
            "This model is not an encoder of a family that hfcompress can compress",
            value=config.model_type,
            expected=f"a model_type among {', '.join(sorted(ARCHITECTURES))}",
            remedy="choose a cross-encoder or encoder of one of these families",
        )
    if getattr(config, "is_decoder", False):
        raise ModelError(
            "This model is configured as a decoder",
            value="is_decoder=True",
            expected="a bidirectional encoder",
            remedy="load an encoder checkpoint, or set is_decoder to false in its config.json if it is one",
        )
    return row


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder layers of a model, pruned or not.

    Raises:
        ModelError: The family is not supported.
    """
    layers = model.get_submodule(architecture_of(model.config).layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def encoder_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers of the encoder, by their names in the model."""
    prefix = architecture_of(model.config).layers
    modules = encoder_layers(model).named_modules()
    return {f"{prefix}.{name}": module for name, module in modules if isinstance(module, nn.Linear)}


def input_embedding(model: PreTrainedModel) -> nn.Embedding:
    """The token embedding of a model."""
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding


def projection(layer: nn.Module, path: str) -> nn.Linear | None:
    """The linear layer at `path` of an encoder layer; None if it was pruned."""
    module = layer.get_submodule(path)
    return module if isinstance(module, nn.Linear) else None


def labels_of(config: PretrainedConfig) -> list[str]:
    """Names of a model's labels, by their numbers."""
    names = getattr(config, "id2label", None) or {}
    return [str(names.get(number, number)) for number in range(config.num_labels or 0)]


def is_linear(config: PretrainedConfig, score: ScoreLabel) -> bool:
    """Whether a score is a weighted sum of a classifier's logits: so are log-odds, but not against several labels."""
    return not score.log_odds or len(labels_of(config)) < 3


def score_weights(config: PretrainedConfig, score: ScoreLabel) -> list[float]:
    """Weight of each logit of a classifier in its score.

    Args:
        config: Config of the classifier.
        score: The label that is the score, or the two labels whose log-odds are.

    Raises:
        ModelError: The classifier has one output, or it has no such label, or the score is no weighted sum.
    """
    if not is_linear(config, score):
        raise ModelError(
            "Log-odds against several labels are no weighted sum of the logits, so no model with one output has them",
            value=f"score: {score.model_dump(exclude_none=True)}, labels {', '.join(labels_of(config))}",
            expected="a logit, or the log-odds of two labels: a student is pruned from a model with this one output",
            remedy="name the other label with against, and the classifier with log_odds in recover.teachers: the "
            "student then learns these scores",
        )
    label = label_number(config, score, score.label)
    weights = [-1.0 if score.log_odds else 0.0] * len(labels_of(config))
    weights[label] = 1.0
    if score.against is not None:
        weights[label_number(config, score, score.against)] = -1.0
    return weights


def label_number(config: PretrainedConfig, score: ScoreLabel, label: str | int) -> int:
    """Number of a label of a classifier.

    Args:
        config: Config of the classifier.
        score: The score that names the label.
        label: Name or number of the label.

    Raises:
        ModelError: The classifier has one output, or it has no such label.
    """
    labels = labels_of(config)
    if len(labels) < 2:
        raise ModelError(
            "The model has one score already",
            value=f"score: {score.model_dump(exclude_none=True)}, num_labels={len(labels)}",
            expected="a classifier with 2 or more labels",
            remedy="leave out score",
        )
    found = [label] if isinstance(label, int) else [n for n, name in enumerate(labels) if name == label]
    if len(found) != 1 or found[0] >= len(labels):
        raise ModelError(
            "The classifier has no such label",
            value=label,
            expected=f"one of {', '.join(labels)}, or a number from 0 to {len(labels) - 1}",
            remedy="correct score; id2label in the model's config.json names its labels",
        )
    return found[0]


def require_one_score(config: PretrainedConfig) -> None:
    """Check that a sequence-classification model gives exactly one score per pair.

    Raises:
        ModelError: `num_labels` is not 1.
    """
    labels = labels_of(config)
    if config.num_labels != 1:
        raise ModelError(
            "A reranker gives one score for a pair",
            value=f"num_labels={config.num_labels}",
            expected="num_labels=1",
            remedy="use a cross-encoder with one output; of a classifier with several labels, a recipe can name the "
            f"score, teacher.score: {{label: {labels[-1] if labels else 'NAME'}}}",
        )
