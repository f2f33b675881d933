"""`hfcompress doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from hfcompress.cli import options
from hfcompress.cli.terminal import console_for, write_json
from hfcompress.utils.text import count

if TYPE_CHECKING:
    from hfcompress.doctor import Diagnosis


def doctor(
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Show the hardware, and test every runtime and optional package; missing ones are listed with their pip command.

    The exit code is 1 if a required package does not work.

    Example: hfcompress doctor
    """
    from hfcompress.doctor import diagnose

    console = console_for(json_file)  # not `start`, which imports packages that may be broken
    found = diagnose()
    write_json(json_file, found.model_dump_json(indent=2))
    console.print(
        f"{escape(found.cpu)} ({found.target}), {count(found.cores, 'core')}{_of_cores(found)}, "
        f"{found.memory_gb:.1f} GB of memory ({found.free_gb:.1f} free{_of_memory(found)}), {found.platform}",
        soft_wrap=True,
    )
    answers = {"VNNI": found.vnni, "AMX": found.amx, "bf16 training": found.bf16}
    console.print(
        f"{', '.join(f'{name}: {_yes(value)}' for name, value in answers.items())}; instruction sets: "
        f"{', '.join(found.flags) or 'none that are relevant'}",
        soft_wrap=True,
    )
    for line in found.placement():
        console.print(escape(line), soft_wrap=True)
    console.print(", ".join(f"{name} {version}" for name, version in found.versions.items()), soft_wrap=True)
    table = Table("", "package", "version", "works")
    for part in found.parts:
        table.add_row(part.name, part.package, part.version, escape("yes" if part.works else f"no: {part.fault}"))
    console.print(table)
    for part in found.parts:  # below the table, where a command stays in one piece
        if not part.works:
            wanted = "" if part.required else ", if you want it"
            console.print(f"{escape(part.name)}{wanted}: {escape(part.remedy)}", soft_wrap=True)
    console.print(
        f"cache: {escape(found.cache_folder)} ({found.cache_mb:,.1f} MB of measurements and scores, which are made "
        "again if they are deleted)",
        soft_wrap=True,
    )
    for line in found.advice():
        console.print(f"note: {escape(line)}", soft_wrap=True)
    if not found.healthy:
        raise typer.Exit(1)


def _of_cores(found: Diagnosis) -> str:
    """What keeps this process from using all cores of the machine, if anything does."""
    limit = found.cores_limited_by
    return "" if limit == "machine" else f" of {found.machine_cores} (limited by {limit})"


def _of_memory(found: Diagnosis) -> str:
    """What keeps this process from using all memory of the machine, if anything does."""
    limit = found.memory_limited_by
    return "" if limit == "machine" else f"; {limit} of the container, the machine has {found.machine_memory_gb:.1f}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
