"""OpenVINO's core, one for the process."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino


@cache
def openvino_core() -> openvino.Core:
    """The core that compiles every model of this process, made at the first call and never deleted.

    On CPUs with AMX, the CPU plug-in of each core gives the thread that loads it a stack for signal handlers, and takes
    it back when it is deleted (openvinotoolkit/openvino#11894). Of two, the one deleted last puts back the stack of the
    other, which is gone by then: the next signal that Python handles, such as Ctrl-C, ends the process with a
    segmentation fault (2026.4.1).

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    return openvino.Core()
