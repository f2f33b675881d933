"""The output folder of a run: its state, its steps, and what a resumed run can keep."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfcompress.errors import OutputError
from hfcompress.evaluation.report import Step
from hfcompress.files import replaced_folder, write_text
from hfcompress.layout import WORK_FOLDER
from hfcompress.machine import versions

STATE_FORMAT = 1


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

    def step(self, name: str, inputs: Any, work: Callable[[Path, Path], None]) -> tuple[Path, str]:
        """Do a step, or keep what an earlier run made of the same inputs.

        Args:
            name: Name of the step.
            inputs: Everything that its result depends on, as JSON data.
            work: Does the work; gets an empty folder for the result, which counts only when it returns, and a path for
                partial work, which stays for a resumed run.

        Returns:
            The folder with the result, and a fingerprint of it for the inputs of later steps.
        """
        text = json.dumps([name, inputs, versions().get("transformers")], sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        result = self.folder / name
        record = self._done.get(name)
        if record and record["fingerprint"] == fingerprint and result.is_dir():
            self.steps.append(Step(name=name, seconds=record["seconds"], reused=True))
            self.say(f"{name}: kept from an earlier run ({record['seconds']:.0f} s then)")
            return result, fingerprint
        partial = self.folder / f"{name}-{fingerprint[:12]}"
        start = time.perf_counter()
        with replaced_folder(result) as folder:
            work(folder, partial)
        seconds = time.perf_counter() - start
        for path in self.folder.glob(f"{name}-*"):
            shutil.rmtree(path)
        self._done[name] = {"fingerprint": fingerprint, "seconds": round(seconds, 2)}
        self._write_state()
        self.steps.append(Step(name=name, seconds=round(seconds, 2), reused=False))
        self.say(f"{name}: done in {seconds:.0f} s")
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
