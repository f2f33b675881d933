"""Candidates of an evaluation: a checkpoint, packed weights or a graph, each by name, path and runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from transformers.utils import cached_file

from hfcompress.models.graph_files import graph_files
from hfcompress.models.head_files import head_files
from hfcompress.models.layout import COMMON_FILES, PACKED_FOLDER
from hfcompress.models.load import resolve
from hfcompress.quantization.artifacts import graph_file
from hfcompress.quantization.config import QuantizationConfig
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.rankers.load import Runtime, load_ranker
from hfcompress.recipe import ScoreText
from hfcompress.utils.device import CPU, DTYPES


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    Attributes:
        name: Name in the report.
        folder: Folder or name of the model.
        path: Path in the output folder, or the model's name.
        runtime: Its runtime.
        precision: Its precision.
        made_from: Name of the fp32 candidate that it was quantized from; None for fp32.
        score_text: Format of the BM25 scores in its texts, if candidates may differ in it; None for the texts of the
            data as they are.
        device: Device that it runs and is timed on, as PyTorch names it.
        dtype: Precision of a model in PyTorch.
        providers: Execution providers of ONNX Runtime.
    """

    name: str
    folder: str
    path: str
    runtime: Runtime
    precision: str
    made_from: str | None = None
    score_text: ScoreText | None = None
    device: str = CPU
    dtype: str = "float32"
    providers: tuple[str, ...] = RankerOptions().providers

    @classmethod
    def teacher(cls, model: str, path: str, device: str = CPU) -> Candidate:
        """The teacher in fp32 PyTorch."""
        return cls("teacher", model, path, "torch", "fp32", device=device)

    @classmethod
    def student(cls, folder: Path, device: str = CPU) -> Candidate:
        """The student in fp32 PyTorch."""
        return cls("student-torch", str(folder), "model.safetensors", "torch", "fp32", device=device)

    def in_precision(self, dtype: str, device: str) -> Candidate:
        """This model, in fp32 PyTorch, on a device in 16 bits."""
        precision = DTYPES[dtype]
        name = f"{self.name}-{precision}" if self.name.endswith("-torch") else f"{self.name}-torch-{precision}"
        return replace(self, name=name, precision=precision, made_from=self.name, device=device, dtype=dtype)

    @classmethod
    def graph(cls, folder: Path, config: QuantizationConfig, made_from: str) -> Candidate:
        """An int8 graph of the student, or its packed weights; `made_from` names the fp32 candidate."""
        return cls(
            f"student-{config.runtime}-{config.precision}",
            str(folder),
            graph_file(config),
            cast(Runtime, config.runtime),
            config.precision,
            made_from,
        )

    def ranker(self, max_length: int | None, options: RankerOptions) -> BatchedRanker:
        """Load the model, on its own device."""
        options = replace(options, device=self.device, providers=self.providers)
        return load_ranker(self.folder, self.runtime, self.file, max_length, options, dtype=self.dtype)

    @property
    def is_exact(self) -> bool:
        """Whether it computes in fp32 PyTorch, with its own weights or packed ones."""
        return self.runtime == "torch" and self.dtype == "float32"

    @property
    def file(self) -> str | None:
        """File to load from the folder; None for the checkpoint's own weights."""
        return None if self.runtime == "torch" and not self.is_packed else self.path

    @property
    def is_packed(self) -> bool:
        """Whether it has low-bit weights, in a file that replaces the checkpoint's own."""
        return self.path.startswith(f"{PACKED_FOLDER}/")

    def files(self) -> list[Path]:
        """All files that a deployment needs."""
        folder = Path(resolve(self.folder))
        if not folder.is_dir():  # a model on the Hub: its files in the cache
            folder = Path(str(cached_file(self.folder, "config.json"))).parent
        if self.is_packed:
            weights = [folder / self.path]
        elif self.runtime == "torch":
            weights = [*folder.glob("*.safetensors"), *folder.glob("modeling_*.py"), *head_files(folder)]
        else:
            weights = graph_files(folder / self.path)
        return [*weights, *(folder / name for name in COMMON_FILES if (folder / name).is_file())]
