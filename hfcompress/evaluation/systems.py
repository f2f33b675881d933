"""Systems that can be evaluated: models by name, single files of a folder, and run files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from hfcompress.data.ranking import Split
from hfcompress.data.trec_run import Scores, read_run
from hfcompress.errors import DataError, DeviceError, ModelError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.models.layout import ONNX_FP32, ONNX_INT8, OPENVINO_FP32, OPENVINO_INT8
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import FILE_RUNTIMES, Runtime, default_graph, placed
from hfcompress.utils.device import CPU, DTYPES, torch_device

GPU_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "MIGraphXExecutionProvider")


@dataclass(frozen=True)
class RunFile:
    """A run file, with the rankings of another program.

    Attributes:
        name: Name in the result.
        path: The file.
        scores: Its scores.
    """

    name: str
    path: str
    scores: Scores


System = Candidate | RunFile


def resolve_system(name: str, label: str, runtime: Runtime | None = None) -> System:
    """Resolve a name to a model or a run file.

    Args:
        name: A folder, a Hub id, an `.onnx`, `.xml` or `.safetensors` file in a folder, or a run file (any other file).
        label: Name in the result.
        runtime: Runtime of a folder's model; by default that of its fastest file.

    Raises:
        DataError: A run file is malformed, or `runtime` is given with a file.
        ModelError: A graph is not in the folder of a model.
    """
    path = Path(name)
    if not path.is_file():
        return _folder(name, label, runtime)
    if runtime is not None:
        raise DataError(
            "The file determines the runtime",
            value=f"{runtime} for {name}",
            expected="a folder or a Hub id with a runtime, or a file without one",
            remedy="leave --runtime out, or name the folder",
        )
    if path.suffix not in FILE_RUNTIMES:
        return RunFile(label, name, read_run(path))
    folder = next((parent for parent in (path.parent, path.parent.parent) if (parent / "config.json").is_file()), None)
    if folder is None:
        raise ModelError(
            f"{path} is not in the folder of a model",
            expected="config.json next to the file or in the folder above",
            remedy="name a file inside the folder that hfcompress wrote",
        )
    inside = path.relative_to(folder).as_posix()
    exact = path.suffix == ".safetensors" or inside in (ONNX_FP32, OPENVINO_FP32)
    return Candidate(label, str(folder), inside, FILE_RUNTIMES[path.suffix], "fp32" if exact else "int8")


def resolve_model(
    name: str,
    label: str,
    runtime: Runtime | None = None,
    device: str = "auto",
    dtype: str = "float32",
    providers: Sequence[str] = (),
) -> Candidate:
    """Resolve a name to a model that can score any texts, on its device.

    Args:
        name: As for `resolve_system`.
        label: Name in messages.
        runtime: As for `resolve_system`.
        device: Name of the device.
        dtype: Precision of a model in PyTorch.
        providers: Execution providers of ONNX Runtime; by default those for the CPU.

    Raises:
        DataError: It is a run file, or `runtime` is given with a file.
        DeviceError: There is no such device, or the model cannot run so.
        ModelError: A graph is not in the folder of a model.
    """
    subject = resolve_system(name, label, runtime)
    if not isinstance(subject, Candidate):
        raise DataError(
            "A run file cannot rank new documents",
            value=name,
            expected="a model: a folder, a Hub id, or an .onnx, .xml or .safetensors file in a folder",
            remedy="name a model",
        )
    (placed,) = placed_systems([subject], device, dtype, providers)
    return cast(Candidate, placed)


def placed_systems(
    systems: Sequence[System], device: str = "auto", dtype: str = "float32", providers: Sequence[str] = ()
) -> list[System]:
    """Systems on the devices that they run and are timed on.

    Models in PyTorch are on the device if all models are in PyTorch, or ONNX Runtime's provider runs there. Otherwise
    all are on the CPU, since speeds of two devices are not compared.

    Args:
        systems: The systems; precision and providers are those of the last, which is the one to evaluate.
        device: Name of the device.
        dtype: Precision of a model in PyTorch.
        providers: Execution providers of ONNX Runtime; by default those for the CPU.

    Raises:
        DeviceError: There is no such device, or the last system cannot run so.
    """
    *others, last = systems
    chosen = str(torch_device(device))
    if isinstance(last, Candidate):
        wanted = RankerOptions(providers=tuple(providers) or RankerOptions().providers)
        if providers and last.runtime != "onnxruntime":
            raise DeviceError(
                f"{last.runtime} has no execution providers",
                value=", ".join(providers),
                expected="a model for ONNX Runtime: --runtime onnxruntime, or an .onnx file",
                remedy="leave out --provider, or choose the runtime",
            )
        explicit = None if device == "auto" and last.runtime != "torch" else device
        only = last.runtime == "openvino" and len(systems) > 1  # the device is that of the other
        options = placed(wanted, last.runtime, None if only or providers else explicit, dtype)
        place = chosen if providers and providers[0] in GPU_PROVIDERS else options.device
        if last.runtime == "torch" and any(isinstance(each, Candidate) and each.runtime != "torch" for each in others):
            place = CPU
        precision = DTYPES[dtype] if last.runtime == "torch" and last.precision == "fp32" else last.precision
        last = replace(last, device=place, dtype=dtype, precision=precision, providers=options.providers)
        chosen = place
    return [
        *(
            replace(each, device=chosen) if isinstance(each, Candidate) and each.runtime == "torch" else each
            for each in others
        ),
        last,
    ]


def check_same_documents(runs: Mapping[str, Mapping[str, Mapping[str, float]]], split: Split | None) -> None:
    """Check that runs can be compared: they rank the same documents of the same queries.

    Args:
        runs: Runs by name, of the queries of the split.
        split: Split whose candidates they must rank; None if they need only match each other.

    Raises:
        DataError: They rank different documents.
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
                f"{name} ranks other documents than {other}",
                value=f"{len(differing)} of {len({**expected, **found})} queries, such as {query!r}: "
                f"{sorted(ours - theirs)[:3]} too many, {sorted(theirs - ours)[:3]} missing",
                expected="the same candidates in all runs that are compared",
                remedy="write the run with `hfcompress evaluate MODEL --run FILE` and the same --data, --split, "
                "--candidates and --max-queries",
            )


def run_of_split(run: RunFile, split: Split) -> Scores:
    """The scores of a run file for the queries of a split.

    Raises:
        DataError: It ranks none of them.
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
    return Candidate(label, model, fallback, cast(Runtime, runtime), "int8")  # loading reports that it is missing
