"""What can be evaluated: models by name, single files of a folder, and run files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hfcompress.data.ranking import Split
from hfcompress.data.trec_run import Scores, read_run
from hfcompress.errors import DataError, ModelError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.layout import ONNX_FP32, ONNX_INT8, OPENVINO_FP32, OPENVINO_INT8
from hfcompress.rankers.load import FILE_RUNTIMES, Runtime, default_graph


@dataclass(frozen=True)
class RunFile:
    """A ranking that another program made.

    Attributes:
        name: Name in the result.
        path: The file.
        scores: What it holds.
    """

    name: str
    path: str
    scores: Scores


Subject = Candidate | RunFile


def subject_of(name: str, label: str, runtime: Runtime | None = None) -> Subject:
    """Find out what a name stands for.

    Args:
        name: A folder, a Hub id, an `.onnx`, `.xml` or `.safetensors` file in a folder, or any other file: a run file.
        label: Name in the result.
        runtime: Where a folder's model runs; its fastest file by default.

    Raises:
        DataError: A run file is malformed, or `runtime` is given with a file.
        ModelError: A graph lies in no folder of a model.
    """
    path = Path(name)
    if not path.is_file():
        return _folder(name, label, runtime)
    if runtime is not None:
        raise DataError(
            "A file leaves no choice of a runtime",
            value=f"{runtime} for {name}",
            expected="a folder or a Hub id with a runtime, or a file without",
            remedy="leave --runtime out, or name the folder",
        )
    if path.suffix not in FILE_RUNTIMES:
        return RunFile(label, name, read_run(path))
    folder = next((parent for parent in (path.parent, path.parent.parent) if (parent / "config.json").is_file()), None)
    if folder is None:
        raise ModelError(
            f"{path} lies in no folder of a model",
            expected="config.json beside the file or in the folder above",
            remedy="name a file inside the folder that hfcompress wrote",
        )
    inside = path.relative_to(folder).as_posix()
    exact = path.suffix == ".safetensors" or inside in (ONNX_FP32, OPENVINO_FP32)
    return Candidate(label, str(folder), inside, FILE_RUNTIMES[path.suffix], "fp32" if exact else "int8")


def same_documents(runs: Mapping[str, Mapping[str, Mapping[str, float]]], split: Split | None) -> None:
    """Check that rankings can be compared: the same documents of the same queries.

    Args:
        runs: Rankings by name, of the queries of the split.
        split: Whose candidates they must be; None if they need only agree with each other.

    Raises:
        DataError: They rank other documents.
    """
    names = list(runs)
    if split is not None:
        other, expected = "the candidates of --data", {key: set(row) for key, row in split.candidates.items() if row}
    else:
        other, expected = names[0], {query: set(scores) for query, scores in runs[names[0]].items()}
    for name in names:
        found = {query: set(scores) for query, scores in runs[name].items()}
        differing = [query for query in {**expected, **found} if expected.get(query) != found.get(query)]
        if differing:
            query = differing[0]
            ours, theirs = found.get(query, set()), expected.get(query, set())
            raise DataError(
                f"{name} was scored on other documents than {other}",
                value=f"{len(differing)} of {len({**expected, **found})} queries, such as {query!r}: "
                f"{sorted(ours - theirs)[:3]} too many, {sorted(theirs - ours)[:3]} missing",
                expected="the same candidates for all that is compared",
                remedy="write the run with `hfcompress evaluate MODEL --run FILE` and the same --data, --split, "
                "--candidates and --max-queries",
            )


def restricted(run: RunFile, split: Split) -> Scores:
    """The queries of a run file that a split has.

    Raises:
        DataError: It has none of them.
    """
    found = {query: run.scores[query] for query in split.candidates if query in run.scores}
    if not found:
        raise DataError(
            f"{run.path} ranks no query of this split",
            value=f"queries such as {list(run.scores)[:3]}",
            expected=f"queries such as {list(split.candidates)[:3]}",
            remedy="check --data and --split; with several --data the ids begin with the name of the set and /",
        )
    return found


def _folder(model: str, label: str, runtime: Runtime | None) -> Candidate:
    graph = None if runtime == "torch" else default_graph(Path(model), runtime)
    if graph:
        return Candidate(label, model, graph[1], graph[0], "int8")
    if runtime in (None, "torch"):
        return Candidate(label, model, model, "torch", "fp32")
    fallback = ONNX_INT8 if runtime == "onnxruntime" else OPENVINO_INT8
    return Candidate(label, model, fallback, cast(Runtime, runtime), "int8")  # the ranker says that it is missing
