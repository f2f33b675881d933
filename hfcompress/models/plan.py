"""PruningPlan: which heads, FFN neurons and layers to keep, in the numbering of the original model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfcompress.errors import PlanError
from hfcompress.utils.files import write_text
from hfcompress.utils.settings import refuse_unknown

FORMAT = 1
PLAN_KEYS = ("format", "layers_of", "heads_of", "ffn_of", "layers")
LAYER_KEYS = ("layer", "heads", "ffn")


@dataclass(frozen=True)
class LayerPlan:
    """Heads and FFN neurons to keep in a layer.

    Attributes:
        layer: Index of the layer in the original model.
        heads: Indices of the heads to keep, ascending.
        ffn: Indices of the FFN neurons to keep, ascending.
    """

    layer: int
    heads: tuple[int, ...]
    ffn: tuple[int, ...]


@dataclass(frozen=True)
class PruningPlan:
    """Layers, heads and FFN neurons to keep in an encoder.

    All indices are those of the original model, also after repeated pruning, so the plan of a checkpoint always
    describes what remains of the original model.

    Attributes:
        layers_of: Number of layers of the original model.
        heads_of: Number of heads per layer of the original model.
        ffn_of: Number of FFN neurons per layer of the original model.
        layers: Layers to keep, ascending.

    Raises:
        PlanError: An index is out of range or repeated, or the plan keeps no head.
    """

    layers_of: int
    heads_of: int
    ffn_of: int
    layers: tuple[LayerPlan, ...]

    def __post_init__(self) -> None:
        """Check indices and order."""
        _check("layers", [layer.layer for layer in self.layers], self.layers_of)
        for layer in self.layers:
            _check(f"heads of layer {layer.layer}", layer.heads, self.heads_of)
            _check(f"FFN neurons of layer {layer.layer}", layer.ffn, self.ffn_of)
        if not any(layer.heads for layer in self.layers):
            raise PlanError(
                "The plan keeps no attention head, so query and document tokens never interact",
                value=f"{len(self.layers)} layers, {sum(len(layer.ffn) for layer in self.layers)} FFN neurons",
                expected="at least one head in at least one layer",
                remedy="increase the budget of heads, or keep more layers",
            )

    @classmethod
    def full(cls, layers: int, heads: int, ffn: int) -> PruningPlan:
        """The plan that keeps everything."""
        kept = (LayerPlan(layer, tuple(range(heads)), tuple(range(ffn))) for layer in range(layers))
        return cls(layers, heads, ffn, tuple(kept))

    @property
    def is_full(self) -> bool:
        """Whether nothing is pruned."""
        return self == PruningPlan.full(self.layers_of, self.heads_of, self.ffn_of)

    @property
    def is_stock(self) -> bool:
        """Whether all kept layers have all heads and the same FFN width above zero, as a stock config describes."""
        widths = {len(layer.ffn) for layer in self.layers}
        return len(widths) == 1 and 0 not in widths and all(len(layer.heads) == self.heads_of for layer in self.layers)

    def local(self, current: PruningPlan) -> list[tuple[int, list[int], list[int]]]:
        """This plan in the indices of a model that is already pruned by `current`.

        Returns:
            For each layer to keep its index, the indices of its heads, and those of its FFN neurons.

        Raises:
            PlanError: The plan is for another original model, or keeps something that `current` has pruned.
        """
        ours, theirs = ((plan.layers_of, plan.heads_of, plan.ffn_of) for plan in (self, current))
        if ours != theirs:
            raise PlanError(
                "The plan was made for a model of another shape",
                value=f"{ours[0]} layers, {ours[1]} heads, {ours[2]} FFN neurons",
                expected=f"{theirs[0]} layers, {theirs[1]} heads, {theirs[2]} FFN neurons",
                remedy="make a plan for this model",
            )
        old, new = ([layer.layer for layer in plan.layers] for plan in (current, self))
        result = []
        for layer, index in zip(self.layers, _local_indices(old, new, "layer {}"), strict=True):
            kept = current.layers[index]
            heads = _local_indices(kept.heads, layer.heads, f"a head of layer {layer.layer} ({{}})")
            ffn = _local_indices(kept.ffn, layer.ffn, f"an FFN neuron of layer {layer.layer} ({{}})")
            result.append((index, heads, ffn))
        return result

    def subset(self, local: Iterable[tuple[int, Iterable[int], Iterable[int]]]) -> PruningPlan:
        """A plan that keeps a part of this one; the inverse of `local`.

        Args:
            local: For each layer to keep its index in this plan, and the indices of its heads and FFN neurons to keep.
        """
        layers = []
        for index, heads, ffn in local:
            layer = self.layers[index]
            kept = tuple(layer.heads[head] for head in heads), tuple(layer.ffn[neuron] for neuron in ffn)
            layers.append(LayerPlan(layer.layer, *kept))
        return PruningPlan(self.layers_of, self.heads_of, self.ffn_of, tuple(layers))

    def to_dict(self) -> dict[str, Any]:
        """Plain data with consecutive indices written as ranges, e.g. `0-3,7`."""
        return {
            "format": FORMAT,
            "layers_of": self.layers_of,
            "heads_of": self.heads_of,
            "ffn_of": self.ffn_of,
            "layers": [
                {"layer": layer.layer, "heads": format_ranges(layer.heads), "ffn": format_ranges(layer.ffn)}
                for layer in self.layers
            ],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PruningPlan:
        """Read a plan from plain data, as `to_dict` returns it.

        Raises:
            PlanError: The data has another format, or keys are missing or unknown.
        """
        try:
            if data["format"] != FORMAT:
                raise PlanError(
                    "The pruning plan has another format",
                    value=data["format"],
                    expected=f"format {FORMAT}",
                    remedy="use the version of hfcompress that wrote it",
                )
            refuse_unknown("The pruning plan", data, PLAN_KEYS, PlanError)
            for layer in data["layers"]:
                refuse_unknown("A layer of the pruning plan", layer, LAYER_KEYS, PlanError)
            layers = tuple(
                LayerPlan(layer["layer"], parse_ranges(layer["heads"]), parse_ranges(layer["ffn"]))
                for layer in data["layers"]
            )
            return cls(data["layers_of"], data["heads_of"], data["ffn_of"], layers)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PlanError(
                "The pruning plan cannot be read",
                value=f"{type(error).__name__}: {error}",
                expected="the keys format, layers_of, heads_of, ffn_of and layers",
                remedy="make the plan again",
            ) from error

    def save(self, path: Path) -> Path:
        """Write the plan as JSON."""
        return write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> PruningPlan:
        """Read a plan from JSON.

        Raises:
            PlanError: The file cannot be read, is not JSON, or has no plan of this format.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PlanError(
                f"The pruning plan {path} cannot be read",
                value=f"{type(error).__name__}: {error}",
                expected="a JSON file written by PruningPlan.save",
                remedy="check the path, or make the plan again",
            ) from error
        return cls.from_dict(data)


def format_ranges(numbers: Iterable[int]) -> str:
    """Format ascending numbers as ranges: `(0, 1, 2, 3, 7)` -> `0-3,7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def parse_ranges(text: str) -> tuple[int, ...]:
    """Parse ranges as formatted by `format_ranges`; `modeling_hfcompress.py` has a copy, to be self-contained."""
    ends = [part.split("-") for part in text.split(",") if part]
    return tuple(number for end in ends for number in range(int(end[0]), int(end[-1]) + 1))


def _check(what: str, numbers: Iterable[int], size: int) -> None:
    listed = list(numbers)
    if listed != sorted(set(listed)) or (listed and not 0 <= listed[0] <= listed[-1] < size):
        raise PlanError(
            f"The plan's {what} are not valid",
            value=listed,
            expected=f"different numbers from 0 to {size - 1}, ascending",
            remedy="correct the plan",
        )


def _local_indices(kept: Sequence[int], wanted: Sequence[int], what: str) -> list[int]:
    """Indices in `kept` of the numbers in `wanted`; `what` describes a missing number."""
    index_of = {number: index for index, number in enumerate(kept)}
    if missing := [number for number in wanted if number not in index_of]:
        raise PlanError(
            f"The plan keeps {what.format(missing[0])}, which this model no longer has",
            expected="a plan that keeps only what the model still has",
            remedy="make the plan from this model, or apply it to the original model",
        )
    return [index_of[number] for number in wanted]
