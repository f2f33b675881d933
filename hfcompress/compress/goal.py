"""The goal of `hfcompress compress` and its time budget."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from hfcompress.errors import RecipeError
from hfcompress.quantization.openvino import is_available, require_openvino
from hfcompress.recipe import ArtifactStep, OnnxRuntimeInt8, OpenVinoInt8, Speed

RuntimeChoice = Literal["auto", "openvino", "onnxruntime", "torch"]
VocabularyChoice = Literal["whole", "corpus"]
VOCABULARIES: tuple[VocabularyChoice, ...] = ("whole", "corpus")
RUNTIMES: tuple[RuntimeChoice, ...] = ("auto", "openvino", "onnxruntime", "torch")
MAX_LOSS = 0.01
SMALLEST_MARGIN = 1e-4  # of `keep`
SHORTEST = 60.0  # seconds in which anything at all can be done

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


@dataclass(frozen=True)
class Goal:
    """The goal of `compress`.

    Attributes:
        target_speedup: Times faster than the teacher in fp32 PyTorch, many queries scored together; None for as fast as
            the ranking quality allows.
        target_latency_ms: Milliseconds of one query with all its candidates, at the median; None for no bound.
        max_loss: Largest loss in mean nDCG@10 that counts as ranking as well: the margin of the verdict.
        runtime: Runtime to deploy on; `auto` takes the fastest one here.
        seconds: Time budget.
        vocabulary: Tokens to keep: the `whole` vocabulary, or those of the `corpus`, its documents and train queries.
            A smaller vocabulary makes files smaller and nothing faster, and splits other texts into more tokens.
        max_size_mb: Largest size of a deployment in 10^6 bytes, for which the vocabulary is cut to the corpus where
            that is needed; None for no bound.
        keep: Share of the teacher's nDCG@10 on dev to keep, in place of `max_loss`, which `with_margin` then sets.

    Raises:
        RecipeError: A value does not fit.
        MissingExtraError: OpenVINO is asked for and not installed.
    """

    target_speedup: float | None = None
    target_latency_ms: float | None = None
    max_loss: float = MAX_LOSS
    runtime: RuntimeChoice = "auto"
    seconds: float = 3600.0
    vocabulary: VocabularyChoice = "whole"
    max_size_mb: float | None = None
    keep: float | None = None

    def __post_init__(self) -> None:
        if self.target_speedup is not None and self.target_latency_ms is not None:
            raise RecipeError(
                "Two targets are given",
                value=f"--target-speedup {self.target_speedup:g} and --target-latency-ms {self.target_latency_ms:g}",
                expected="one of them, or none",
                remedy="leave one out",
            )
        check_one_margin(None if self.max_loss == MAX_LOSS else self.max_loss, self.keep)
        for name, value, least in (
            ("target-speedup", self.target_speedup, 1.0),
            ("target-latency-ms", self.target_latency_ms, 0.0),
            ("max-loss", self.max_loss, 0.0),
            ("max-size-mb", self.max_size_mb, 0.0),
        ):
            if value is not None and not least < value < float("inf"):
                raise RecipeError(
                    f"--{name} does not fit", value=value, expected=f"a number above {least:g}", remedy="correct it"
                )
        if self.runtime not in RUNTIMES:
            raise RecipeError(
                "There is no such runtime", value=self.runtime, expected=", ".join(RUNTIMES), remedy="correct --runtime"
            )
        if self.vocabulary not in VOCABULARIES:
            raise RecipeError(
                "There is no such choice of a vocabulary",
                value=self.vocabulary,
                expected=", ".join(VOCABULARIES),
                remedy="correct --vocabulary",
            )
        if self.runtime == "openvino":
            require_openvino()
        if self.seconds < SHORTEST:
            raise RecipeError(
                "The time budget is too short",
                value=f"{self.seconds:g} s",
                expected=f"at least {SHORTEST:g} s; 30 to 60 minutes do well for a small model on a few cores",
                remedy="raise --time-budget",
            )

    def with_margin(self, teacher: float) -> Goal:
        """The goal with the margin that `keep` stands for: `max_loss` = (1 - keep) * nDCG@10 of the teacher on dev.

        It is rounded to 4 decimals, and is 0.0001 at least. The goal is unchanged without `keep`.

        Args:
            teacher: nDCG@10 of the teacher on dev.
        """
        if self.keep is None:
            return self
        return replace(self, max_loss=max(SMALLEST_MARGIN, round((1 - self.keep) * teacher, 4)), keep=None)

    @property
    def has_target(self) -> bool:
        """Whether a speed was asked for."""
        return self.target_speedup is not None or self.target_latency_ms is not None

    @property
    def speed(self) -> Speed:
        """The speed that pruning has to improve: latency if it is bounded, else throughput."""
        return "throughput" if self.target_latency_ms is None else "latency"

    def fits(self, size_bytes: int) -> bool:
        """Whether a deployment of this size is small enough."""
        return self.max_size_mb is None or size_bytes <= self.max_size_mb * 1e6

    def cuts_vocabulary(self, size_bytes: int) -> bool:
        """Whether a model that has this size with the whole vocabulary gets that of the corpus."""
        return self.vocabulary == "corpus" or not self.fits(size_bytes)

    def artifacts(self) -> list[ArtifactStep]:
        """The int8 artifacts to choose from, each of which is tried on the unpruned model."""
        found: list[ArtifactStep] = []
        if self.runtime in ("auto", "onnxruntime"):
            found += [OnnxRuntimeInt8(mode="dynamic"), OnnxRuntimeInt8(mode="static")]
        if self.runtime == "openvino" or (self.runtime == "auto" and is_available()):
            found.append(OpenVinoInt8())
        return found


def check_one_margin(max_loss: float | None, keep: float | None) -> None:
    """Check that the margin is given in one way, and that the share to keep is one.

    Args:
        max_loss: Largest loss, None where it was not given.
        keep: Share of the teacher's quality to keep, None where it was not given.

    Raises:
        RecipeError: Both are given, or `keep` is not between 0 and 1.
    """
    if keep is not None and not 0 < keep < 1:
        raise RecipeError(
            "--keep does not fit",
            value=keep,
            expected="a share of the teacher's nDCG@10 between 0 and 1, such as 0.99",
            remedy="correct it",
        )
    if keep is not None and max_loss is not None:
        raise RecipeError(
            "The margin is given in two ways",
            value=f"--max-loss {max_loss:g} and --keep {keep:g}",
            expected="one of them, or none",
            remedy="leave one out",
        )


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `60m`, `1h30m` or `90s`.

    Raises:
        RecipeError: The text is no duration.
    """
    found = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise RecipeError(
            "The time budget is no duration",
            value=text,
            expected="hours, minutes and seconds such as 60m, 1h30m or 90s",
            remedy="correct --time-budget",
        )
    return sum(float(number) * _UNITS[unit] for number, unit in found)
