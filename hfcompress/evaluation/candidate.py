"""What can be measured: a checkpoint, packed weights or a graph in a folder, by name, path and runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from transformers.utils import cached_file

from hfcompress.layout import COMMON_FILES, PACKED_FOLDER
from hfcompress.models import resolve
from hfcompress.quantization.artifacts import graph_file
from hfcompress.quantization.config import QuantizationConfig
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.load import Runtime, load_ranker
from hfcompress.recipe import ScoreText


@dataclass(frozen=True)
class Candidate:
    """Something to measure.

    Attributes:
        name: Name in the report.
        folder: Folder or name of the model.
        path: Path in the output folder, or the model's name.
        runtime: Where it runs.
        precision: Its precision.
        made_from: Name of the candidate in fp32 that was quantized; None for what is in fp32 itself.
        score_text: How it reads BM25 scores in its texts, where that may differ from candidate to candidate; None where
            it reads texts as the data makes them.
    """

    name: str
    folder: str
    path: str
    runtime: Runtime
    precision: str
    made_from: str | None = None
    score_text: ScoreText | None = None

    @classmethod
    def teacher(cls, model: str, path: str) -> Candidate:
        """The teacher in fp32 PyTorch."""
        return cls("teacher", model, path, "torch", "fp32")

    @classmethod
    def student(cls, folder: Path) -> Candidate:
        """The student in fp32 PyTorch."""
        return cls("student-torch", str(folder), "model.safetensors", "torch", "fp32")

    @classmethod
    def graph(cls, folder: Path, config: QuantizationConfig, made_from: str) -> Candidate:
        """An int8 graph of the student, or its packed weights; `made_from` names the candidate in fp32."""
        return cls(
            f"student-{config.runtime}-{config.precision}",
            str(folder),
            graph_file(config),
            cast(Runtime, config.runtime),
            config.precision,
            made_from,
        )

    def ranker(self, max_length: int | None, options: RankerOptions) -> BatchedRanker:
        """Load it."""
        return load_ranker(self.folder, self.runtime, self.file, max_length, options)

    @property
    def file(self) -> str | None:
        """File in the folder that is loaded; None for the checkpoint's own weights."""
        return None if self.runtime == "torch" and not self.is_packed else self.path

    @property
    def is_packed(self) -> bool:
        """Whether it has weights of few bits, in a file that stands for the checkpoint's own."""
        return self.path.startswith(f"{PACKED_FOLDER}/")

    def files(self) -> list[Path]:
        """What a deployment needs."""
        folder = Path(resolve(self.folder))
        if not folder.is_dir():  # a model on the Hub: what was downloaded of it
            folder = Path(str(cached_file(self.folder, "config.json"))).parent
        if self.is_packed:
            weights = [folder / self.path]
        elif self.runtime == "torch":
            weights = [*folder.glob("*.safetensors"), *folder.glob("modeling_*.py")]
        else:
            graph = folder / self.path
            weights = [graph, graph.with_suffix(".bin")] if self.runtime == "openvino" else [graph]
        return [*weights, *(folder / name for name in COMMON_FILES if (folder / name).is_file())]
