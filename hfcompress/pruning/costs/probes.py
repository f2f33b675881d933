"""Probes: small models that are timed to find the cost of attention and FFN sublayers of every size.

Probes have the family and hidden size of the model to be pruned, random weights, few layers and a small vocabulary. The
costs of sublayers are solved from the times of whole probes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.models.architectures import architecture_of
from hfcompress.models.modeling_hfcompress import CONFIG_KEY
from hfcompress.models.modular import class_for
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.prompts import prompts_of, set_prompts
from hfcompress.models.surgery import apply_plan, plan_of_config
from hfcompress.pruning.costs.table import CostTable, Points

LayerSizes = list[tuple[int, int]]
"""(heads, FFN neurons) of each layer of a model, from the first to the last."""

VOCABULARY = 1024  # token lookup costs almost nothing, and large embeddings make exports slow
INNER_LAYERS = 2  # identical layers below the last one


@dataclass(frozen=True)
class Grid:
    """Sizes at which costs are measured, ascending from 0; between them costs are interpolated.

    Attributes:
        heads: Heads of a layer.
        ffn: FFN neurons of a layer.
        last_heads: Heads of the last layer, if it has costs of its own; otherwise empty.
        last_ffn: FFN neurons of the last layer, if it has costs of its own; otherwise empty.
    """

    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    last_heads: tuple[int, ...] = ()
    last_ffn: tuple[int, ...] = ()

    @classmethod
    def of(cls, heads: int, ffn: int, multiple: int, last_differs: bool) -> Grid:
        """The grid for layers with up to `heads` heads and `ffn` FFN neurons."""
        quarter = multiple * round(ffn / 4 / multiple)
        widths = {min(width, ffn) for width in (0, multiple, quarter, ffn)}
        inner = {0, 1, heads // 2, heads}, widths
        last = ({0, 1, heads}, {0, ffn}) if last_differs else ()
        return cls(*(tuple(sorted(sizes)) for sizes in (*inner, *last)))


def solve_costs(grid: Grid, time_models: Callable[[list[LayerSizes]], Sequence[float]]) -> CostTable:
    """Time probes and solve for the costs of their parts.

    Non-negative least squares over all probes, with relative errors. The steps from one size to the next are not
    negative, so noise never makes a larger sublayer cheaper than a smaller one.

    Args:
        grid: Sizes at which to measure.
        time_models: Returns seconds per document for models of the given sizes.
    """
    probes = _probes(grid)
    seconds = np.array(time_models(probes))
    parts = np.array([_parts(grid, sizes) for sizes in probes])
    solution, _ = nnls(parts / seconds[:, None], np.ones(len(probes)))
    fixed, empty, *steps = solution.tolist()
    rest = iter(steps)
    attention, ffn = (_points(points, rest, empty / 2) for points in (grid.heads, grid.ffn))
    last = [_points(points, rest, 0.0) for points in (grid.last_heads, grid.last_ffn) if points]
    return CostTable("seconds per document", fixed, attention, ffn, *(last or (attention, ffn)))


def _probes(grid: Grid) -> list[LayerSizes]:
    """Sizes of the probes: every size of each sublayer, combined with a middle size of the other sublayer."""
    heads, ffn = (points[len(points) // 2] for points in (grid.heads, grid.ffn))
    inner = [(0, 0), *((size, ffn) for size in grid.heads), *((heads, size) for size in grid.ffn if size != ffn)]
    least = 1, 0  # a model needs at least one head
    last = [*((size, 0) for size in grid.last_heads if size != 1), *((1, size) for size in grid.last_ffn if size)]
    return [
        [least],
        *([layer] * INNER_LAYERS + [least] for layer in inner),
        *([(heads, ffn)] * INNER_LAYERS + [layer] for layer in last),
    ]


def _parts(grid: Grid, sizes: LayerSizes) -> list[int]:
    """Count of each part in a model: the fixed part, empty layers, and every step of the grid."""
    inner, last = (sizes[:-1], sizes[-1:]) if grid.last_heads else (sizes, [])
    counted = [1, len(inner)]
    for layers, heads, ffn in ((inner, grid.heads, grid.ffn), (last, grid.last_heads, grid.last_ffn)):
        counted += [sum(layer[0] >= point for layer in layers) for point in heads[1:]]
        counted += [sum(layer[1] >= point for layer in layers) for point in ffn[1:]]
    return counted


def _points(points: Sequence[int], steps: Iterator[float], empty: float) -> Points:
    """Cost at each point of the grid: the cost of size 0, then cumulative steps."""
    return dict(zip(points, accumulate(islice(steps, len(points) - 1), initial=empty), strict=True))


def probe_model(config: PretrainedConfig, sizes: LayerSizes) -> PreTrainedModel:
    """A model with the family and hidden size of `config`, layers of the given sizes and random weights."""
    full = plan_of_config(config)
    config = copy.deepcopy(config)
    vars(config).pop(CONFIG_KEY, None)
    setattr(config, architecture_of(config).ffn_size, full.ffn_of)
    config.num_hidden_layers, config.vocab_size, config.num_labels = len(sizes), VOCABULARY, 1
    for name, value in vars(config).items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, value % VOCABULARY)
    model = class_for(config, pruned=False)._from_config(config, dtype=torch.float32).eval()
    layers = (LayerPlan(number, tuple(range(heads)), tuple(range(ffn))) for number, (heads, ffn) in enumerate(sizes))
    return apply_plan(model, PruningPlan(len(sizes), full.heads_of, full.ffn_of, tuple(layers)))


class SmallVocabulary:
    """A tokenizer whose token ids are taken modulo the size of the probes' vocabulary."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.model_input_names = tokenizer.model_input_names
        self.model_max_length = tokenizer.model_max_length
        self.pad_token_id = tokenizer.pad_token_id % VOCABULARY
        self.truncation_side = tokenizer.truncation_side
        self.split_special_tokens = tokenizer.split_special_tokens
        self.backend_tokenizer = _SmallBackend(tokenizer.backend_tokenizer)
        set_prompts(self, prompts_of(tokenizer))

    def __call__(self, *texts: list[str], **settings: Any) -> dict[str, Any]:
        """Encode texts like the tokenizer, with ids in the small vocabulary."""
        encoded = dict(self.tokenizer(*texts, **settings))
        encoded["input_ids"] = [[token % VOCABULARY for token in row] for row in encoded["input_ids"]]
        return encoded


class _SmallEncoding(NamedTuple):
    """What a `PairEncoder` reads of an encoding, with token ids in the small vocabulary."""

    ids: list[int]
    type_ids: list[int]
    sequence_ids: list[int | None]
    offsets: list[tuple[int, int]]

    @classmethod
    def of(cls, encoding: Any) -> _SmallEncoding:
        """The encoding with ids in the small vocabulary."""
        ids = [token % VOCABULARY for token in encoding.ids]
        return cls(ids, encoding.type_ids, encoding.sequence_ids, encoding.offsets)


class _SmallBackend:
    """What a `PairEncoder` uses of a backend tokenizer, with token ids in the small vocabulary."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    @property
    def encode_special_tokens(self) -> bool:
        return self._backend.encode_special_tokens

    @encode_special_tokens.setter
    def encode_special_tokens(self, value: bool) -> None:
        self._backend.encode_special_tokens = value

    def no_truncation(self) -> None:
        self._backend.no_truncation()

    def no_padding(self) -> None:
        self._backend.no_padding()

    def get_vocab(self) -> dict[str, int]:
        return self._backend.get_vocab()

    def encode(self, *texts: str, **settings: Any) -> _SmallEncoding:
        return _SmallEncoding.of(self._backend.encode(*texts, **settings))

    def encode_batch(self, texts: list[str], **settings: Any) -> list[_SmallEncoding]:
        return list(map(_SmallEncoding.of, self._backend.encode_batch(texts, **settings)))

    def encode_batch_fast(self, texts: list[str], **settings: Any) -> list[_SmallEncoding]:
        return list(map(_SmallEncoding.of, self._backend.encode_batch_fast(texts, **settings)))
