"""The output folder of a run: its state, its steps, and which of their results a resumed run keeps."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hfcompress.errors import OutputError
from hfcompress.models.layout import WORK_FOLDER
from hfcompress.recipe.base import with_legacy_names
from hfcompress.report.report import Step
from hfcompress.utils.device import require_one_process
from hfcompress.utils.files import replaced_folder, write_text
from hfcompress.utils.machine import versions
from hfcompress.utils.text import duration

logger = logging.getLogger(__name__)

STATE_FORMAT = 1
_PARTIAL = re.compile(r"-[0-9a-f]{12}")  # suffix of a folder for partial work, after the name of its step
StepFunction = Callable[[Path, Path], None]


class StepModel(NamedTuple):
    """A model that a step takes or makes.

    Attributes:
        name: Name by which it is loaded: a folder, a Hub id, or `package:NAME/FOLDER`.
        fingerprint: Fingerprint of everything that it was made from.
    """

    name: str
    fingerprint: str


class StepFolder(NamedTuple):
    """A folder that a step has written.

    Attributes:
        path: The folder.
        fingerprint: Fingerprint of everything that it was made from.
    """

    path: Path
    fingerprint: str

    @property
    def model(self) -> StepModel:
        """The checkpoint in the folder."""
        return StepModel(str(self.path), self.fingerprint)


@dataclass(frozen=True)
class PlannedStep:
    """A step of the plan that a run logs before it starts.

    Attributes:
        name: Name of the step.
        what: Short description.
        seconds: Duration when the step last ran in this folder; None if it never did.
        kept: Whether the result of that run is still valid, so that the step need not run again.
    """

    name: str
    what: str
    seconds: float | None
    kept: bool


class Preview:
    """Takes the place of a workspace to list the steps of a run without running them.

    Attributes:
        steps: The steps, in order.
    """

    def __init__(self, folder: Path, done: dict[str, dict[str, Any]]):
        self.steps: list[PlannedStep] = []
        self._folder, self._done = folder, done

    def step(self, name: str, inputs: Any, work: StepFunction, what: str = "") -> StepFolder:
        """Record the step; the folder returned holds a result only if the step is kept."""
        fingerprint, record, result = _fingerprint(name, inputs), self._done.get(name), self._folder / name
        kept = record is not None and record["fingerprint"] == fingerprint and result.is_dir()
        self.steps.append(PlannedStep(name, what, record["seconds"] if record else None, kept))
        return StepFolder(result, fingerprint)

    def lines(self, out: Path) -> list[str]:
        """The plan as lines of the log; its durations are those that were measured in this folder."""
        kept = sum(step.kept for step in self.steps)
        lines = [f"plan for {out}: {len(self.steps)} steps{f', {kept} of them kept' if kept else ''}"]
        width = max((len(step.name) for step in self.steps), default=0)
        for number, step in enumerate(self.steps, 1):
            note = ""
            if step.seconds is not None:
                note = f" ({'kept, took' if step.kept else 'last took'} {duration(step.seconds)})"
            lines.append(f"  {number}. {step.name:<{width}}  {step.what}{note}")
        seconds = [step.seconds for step in self.steps if not step.kept and step.seconds is not None]
        if seconds and len(seconds) == len(self.steps) - kept:
            lines.append(f"the steps to do took {duration(sum(seconds))} when they were last done in this folder")
        return lines


class Workspace:
    """Runs the steps of a run and records which of them are done.

    Args:
        out: The output folder.
        resume: Keep finished steps whose inputs are the same.

    Raises:
        OutputError: The folder holds something else, or a run and `resume` is off; or this is one of several processes
            that were launched together.
    """

    def __init__(self, out: Path, resume: bool):
        self.out = out
        self.folder = out / WORK_FOLDER
        self.steps: list[Step] = []
        self._state_file = self.folder / "state.json"
        self._check(resume)
        self._done: dict[str, dict[str, Any]] = self._read_state() if self._state_file.is_file() else {}

    def begin(self) -> None:
        """Create the folder, once everything that can be checked beforehand has been."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._state_file.is_file():
            self._write_state()

    def preview(self) -> Preview:
        """A workspace that lists steps instead of running them, and knows which of them would be kept."""
        return Preview(self.folder, self._done)

    def step(self, name: str, inputs: Any, work: StepFunction, what: str | None = "") -> StepFolder:
        """Run a step, or keep the result of an earlier run with the same inputs.

        Args:
            name: Name of the step.
            inputs: Everything that the result depends on, as JSON data.
            work: Runs the step. Its first argument is an empty folder for the result, which counts only once `work`
                returns; its second is a path for partial work, which is kept for a resumed run.
            what: Short description for the log; None logs nothing about the step.
        """
        fingerprint = _fingerprint(name, inputs)
        result = self.folder / name
        record = self._done.get(name)
        if record and record["fingerprint"] == fingerprint and result.is_dir():
            self.steps.append(Step(name=name, seconds=record["seconds"], reused=True))
            if what is not None:
                logger.info(f"{name}: kept from an earlier run ({duration(record['seconds'])} then)")
            return StepFolder(result, fingerprint)
        partial = self.folder / f"{name}-{fingerprint[:12]}"  # see _PARTIAL
        if what:
            logger.info(f"{name}: {what}")
        start = time.perf_counter()
        with replaced_folder(result) as folder:
            work(folder, partial)
            if self._done.pop(name, None):  # from here on the folder may hold either result
                self._write_state()
        seconds = time.perf_counter() - start
        self._done[name] = {"fingerprint": fingerprint, "seconds": round(seconds, 2)}
        self._write_state()
        for path in self.folder.iterdir():
            if _PARTIAL.fullmatch(path.name.removeprefix(name)):  # not `recover-1`, a step of its own
                shutil.rmtree(path)
        self.steps.append(Step(name=name, seconds=round(seconds, 2), reused=False))
        if what is not None:
            logger.info(f"{name}: done in {duration(seconds)}")
        return StepFolder(result, fingerprint)

    def take_over(self, step: StepFolder, write: Callable[[Path], None], seconds: float) -> None:
        """Record a result that exists already as that of a step, which is then kept when it is to be run.

        Args:
            step: The step, as a preview of it returns it.
            write: Writes the result into an empty folder.
            seconds: What the result took.
        """
        name = step.path.name
        if self._done.get(name, {}).get("fingerprint") == step.fingerprint and step.path.is_dir():
            return
        with replaced_folder(step.path) as folder:
            write(folder)
            if self._done.pop(name, None):
                self._write_state()
        self._done[name] = {"fingerprint": step.fingerprint, "seconds": round(seconds, 2)}
        self._write_state()

    def _check(self, resume: bool) -> None:
        require_one_process()
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(
                "The output folder is a file",
                value=str(self.out),
                expected="a new or empty folder, or one of an earlier run",
                remedy="name another folder with --out",
            )
        if not self.out.is_dir() or not any(self.out.iterdir()):
            return
        if not self._state_file.is_file():
            raise OutputError(
                "The output folder holds something else",
                value=f"{self.out} ({', '.join(sorted(path.name for path in self.out.iterdir())[:5])})",
                expected="a new or empty folder, or one of an earlier run",
                remedy="name another folder with --out",
            )
        if not resume:
            raise OutputError(
                "The output folder holds an earlier run",
                value=str(self.out),
                expected="a new or empty folder",
                remedy="add --resume to keep its finished steps, or name another folder with --out",
            )

    def _read_state(self) -> dict[str, dict[str, Any]]:
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OutputError(
                f"{self._state_file} cannot be read",
                value=str(error),
                expected="the state of an earlier run",
                remedy="name another folder with --out",
            ) from error
        if state.get("format") != STATE_FORMAT:
            raise OutputError(
                "The output folder was written by another version of hfcompress",
                value=f"state format {state.get('format')}",
                expected=f"state format {STATE_FORMAT}",
                remedy="name another folder with --out",
            )
        return state["steps"]

    def _write_state(self) -> None:
        write_text(self._state_file, json.dumps({"format": STATE_FORMAT, "steps": self._done}, indent=2) + "\n")


def _fingerprint(name: str, inputs: Any) -> str:
    # Another version of either package may produce another result from the same inputs.
    releases = map(versions().get, ("hfcompress", "transformers"))
    text = json.dumps([name, with_legacy_names(inputs), *releases], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
