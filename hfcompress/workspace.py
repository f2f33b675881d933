"""The output folder of a run: its state, its steps, and what a resumed run can keep."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfcompress.errors import OutputError
from hfcompress.evaluation.report import Step
from hfcompress.files import replaced_folder, write_text
from hfcompress.layout import WORK_FOLDER
from hfcompress.machine import versions
from hfcompress.markdown import duration

STATE_FORMAT = 1
_PARTIAL = re.compile(r"-[0-9a-f]{12}")  # what a folder for partial work adds to the name of its step
Work = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Planned:
    """A step that is ahead.

    Attributes:
        name: Name of the step.
        what: What it does, in a few words.
        seconds: How long it took when it was last done in this folder; None if it never was.
        kept: Whether what it made then is still what it would make, so that nothing is to be done.
    """

    name: str
    what: str
    seconds: float | None
    kept: bool


class Preview:
    """Stands in for a workspace to find out what is ahead: its steps do no work.

    Attributes:
        steps: The steps that were asked for, in their order.
    """

    def __init__(self, folder: Path, done: dict[str, dict[str, Any]]):
        self.steps: list[Planned] = []
        self._folder, self._done = folder, done

    def say(self, line: str) -> None:
        """Say nothing: the run itself will."""

    def step(self, name: str, inputs: Any, work: Work, what: str = "") -> tuple[Path, str]:
        """Note the step; the folder returned holds a result only if the step is kept."""
        fingerprint, record, result = _fingerprint(name, inputs), self._done.get(name), self._folder / name
        kept = record is not None and record["fingerprint"] == fingerprint and result.is_dir()
        self.steps.append(Planned(name, what, record["seconds"] if record else None, kept))
        return result, fingerprint

    def lines(self, out: Path) -> list[str]:
        """The plan, for the user; the only times in it are those that were measured in this folder."""
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
            lines.append(f"what is to be done took {duration(sum(seconds))} when it was last done in this folder")
        return lines


class Workspace:
    """Runs the steps of one run and remembers which of them are done.

    Args:
        out: The output folder.
        resume: Keep finished steps whose inputs are the same.
        say: Called with a line for the user.

    Raises:
        OutputError: The folder holds something else, or a run and `resume` is off.
    """

    def __init__(self, out: Path, resume: bool, say: Callable[[str], None]):
        self.out = out
        self.folder = out / WORK_FOLDER
        self.say = say
        self.steps: list[Step] = []
        self._state_file = self.folder / "state.json"
        self._check(resume)
        self._done: dict[str, dict[str, Any]] = self._read_state() if self._state_file.is_file() else {}

    def begin(self) -> None:
        """Make the folder; called once everything that can be wrong beforehand has been checked."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._state_file.is_file():
            self._write_state()

    def preview(self) -> Preview:
        """A stand-in that notes steps instead of doing them, and knows which of them would be kept."""
        return Preview(self.folder, self._done)

    def step(self, name: str, inputs: Any, work: Work, what: str | None = "") -> tuple[Path, str]:
        """Do a step, or keep what an earlier run made of the same inputs.

        Args:
            name: Name of the step.
            inputs: Everything that its result depends on, as JSON data.
            work: Does the work; gets an empty folder for the result, which counts only when it returns, and a path for
                partial work, which stays for a resumed run.
            what: What the step does, in a few words for the user; None says nothing at all about the step.

        Returns:
            The folder with the result, and a fingerprint of it for the inputs of later steps.
        """
        fingerprint = _fingerprint(name, inputs)
        result = self.folder / name
        record = self._done.get(name)
        if record and record["fingerprint"] == fingerprint and result.is_dir():
            self.steps.append(Step(name=name, seconds=record["seconds"], reused=True))
            if what is not None:
                self.say(f"{name}: kept from an earlier run ({duration(record['seconds'])} then)")
            return result, fingerprint
        partial = self.folder / f"{name}-{fingerprint[:12]}"  # see _PARTIAL
        if what:
            self.say(f"{name}: {what}")
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
            self.say(f"{name}: done in {duration(seconds)}")
        return result, fingerprint

    def _check(self, resume: bool) -> None:
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
    # Another version of either may make something else of the same inputs.
    text = json.dumps([name, inputs, *map(versions().get, ("hfcompress", "transformers"))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
