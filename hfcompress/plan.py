"""PruningPlan: which heads, FFN neurons and layers survive, in the numbering of the first teacher."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfcompress.errors import PlanError
from hfcompress.files import write_text

FORMAT = 1


@dataclass(frozen=True)
class LayerPlan:
    """What survives of one layer.

    Attributes:
        layer: Number of the layer in the teacher.
        heads: Numbers of its surviving heads, ascending.
        ffn: Numbers of its surviving FFN neurons, ascending.
    """

    layer: int
    heads: tuple[int, ...]
    ffn: tuple[int, ...]


@dataclass(frozen=True)
class PruningPlan:
    """What survives of a whole encoder.

    All numbers are those of the first teacher, also for a model that is pruned a second time, so that the plan of a
    checkpoint always says what is left of the original.

    Attributes:
        layers_of: Layers of the teacher.
        heads_of: Heads a layer of the teacher.
        ffn_of: FFN neurons a layer of the teacher.
        layers: Surviving layers, ascending.

    Raises:
        PlanError: A number is out of range or repeated, or nothing is left.
    """

    layers_of: int
    heads_of: int
    ffn_of: int
    layers: tuple[LayerPlan, ...]

    def __post_init__(self) -> None:
        """Check numbers and order."""
        _check("layers", [layer.layer for layer in self.layers], self.layers_of)
        for layer in self.layers:
            _check(f"heads of layer {layer.layer}", layer.heads, self.heads_of)
            _check(f"FFN neurons of layer {layer.layer}", layer.ffn, self.ffn_of)
        if not any(layer.heads for layer in self.layers):
            raise PlanError(
                "The plan leaves no attention head, so the query never meets the document",
                value=f"{len(self.layers)} layers, {sum(len(layer.ffn) for layer in self.layers)} FFN neurons",
                expected="at least one head in at least one layer",
                remedy="raise the heads budget, or keep more layers",
            )

    @classmethod
    def full(cls, layers: int, heads: int, ffn: int) -> PruningPlan:
        """The plan that keeps everything."""
        kept = (LayerPlan(layer, tuple(range(heads)), tuple(range(ffn))) for layer in range(layers))
        return cls(layers, heads, ffn, tuple(kept))

    @property
    def is_full(self) -> bool:
        """Whether nothing is removed."""
        return self == PruningPlan.full(self.layers_of, self.heads_of, self.ffn_of)

    @property
    def is_stock(self) -> bool:
        """Whether a stock config can describe the result: all heads, and one FFN width above zero for all layers."""
        widths = {len(layer.ffn) for layer in self.layers}
        return len(widths) == 1 and 0 not in widths and all(len(layer.heads) == self.heads_of for layer in self.layers)

    def local(self, current: PruningPlan) -> list[tuple[int, list[int], list[int]]]:
        """This plan in the positions of a model that `current` has already pruned.

        Returns:
            For each surviving layer its position, and the positions of its heads and of its FFN neurons.

        Raises:
            PlanError: The plan is for another teacher, or keeps something that `current` has removed.
        """
        ours, theirs = ((plan.layers_of, plan.heads_of, plan.ffn_of) for plan in (self, current))
        if ours != theirs:
            raise PlanError(
                "The plan was made for a model of another shape",
                value=f"{ours[0]} layers, {ours[1]} heads, {ours[2]} FFN neurons",
                expected=f"{theirs[0]} layers, {theirs[1]} heads, {theirs[2]} FFN neurons",
                remedy="make a plan for this model",
            )
        position = {layer.layer: index for index, layer in enumerate(current.layers)}
        result = []
        for layer in self.layers:
            if layer.layer not in position:
                raise _already_removed(f"layer {layer.layer}")
            kept = current.layers[position[layer.layer]]
            heads = _positions(kept.heads, layer.heads, f"a head of layer {layer.layer}")
            ffn = _positions(kept.ffn, layer.ffn, f"an FFN neuron of layer {layer.layer}")
            result.append((position[layer.layer], heads, ffn))
        return result

    def to_dict(self) -> dict[str, Any]:
        """Plain data with runs of numbers written as ranges, e.g. `0-3,7`."""
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
        """Read what `to_dict` wrote.

        Raises:
            PlanError: Another format, or missing keys.
        """
        try:
            if data["format"] != FORMAT:
                raise PlanError(
                    "The pruning plan has another format",
                    value=data["format"],
                    expected=f"format {FORMAT}",
                    remedy="use the version of hfcompress that wrote it",
                )
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
            PlanError: The file cannot be read, is not JSON, or holds no plan of this format.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PlanError(
                f"The pruning plan {path} cannot be read",
                value=f"{type(error).__name__}: {error}",
                expected="a JSON file that PruningPlan.save wrote",
                remedy="check the path, or make the plan again",
            ) from error
        return cls.from_dict(data)


def format_ranges(numbers: Iterable[int]) -> str:
    """Write ascending numbers as ranges: `(0, 1, 2, 3, 7)` -> `0-3,7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def parse_ranges(text: str) -> tuple[int, ...]:
    """Read what `format_ranges` wrote."""
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


def _already_removed(what: str) -> PlanError:
    return PlanError(
        f"The plan keeps {what}, which this model no longer has",
        expected="a plan that keeps only what the model still has",
        remedy="make the plan from this model, or apply it to the teacher",
    )


def _positions(kept: tuple[int, ...], wanted: tuple[int, ...], what: str) -> list[int]:
    position = {number: index for index, number in enumerate(kept)}
    missing = [number for number in wanted if number not in position]
    if missing:
        raise _already_removed(f"{what} ({missing[0]})")
    return [position[number] for number in wanted]
