"""`hfcompress doctor`."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from hfcompress.cli.terminal import Debug, Json, console_for, write_json


def doctor(
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Show the machine, and try every runtime and extra: what works, what is missing, and the pip command for it.

    Ends with 1 where something that hfcompress cannot do without does not work.

    Example: hfcompress doctor
    """
    from hfcompress.doctor import diagnose
    from hfcompress.quiet import silence_libraries

    silence_libraries()
    console = console_for(json_file)
    found = diagnose()
    write_json(json_file, found.model_dump_json(indent=2))
    console.print(
        f"{escape(found.cpu)} ({found.target}), {found.cores} cores, {found.memory_gb:.1f} GB of memory "
        f"({found.free_gb:.1f} free), {found.platform}",
        soft_wrap=True,
    )
    answers = {"VNNI": found.vnni, "AMX": found.amx, "bf16": found.bf16}
    console.print(
        f"{', '.join(f'{name}: {_yes(value)}' for name, value in answers.items())}; instruction sets: "
        f"{', '.join(found.flags) or 'none that matter'}",
        soft_wrap=True,
    )
    console.print(", ".join(f"{name} {version}" for name, version in found.versions.items()), soft_wrap=True)
    table = Table()
    for name in ("", "package", "version", "works", "what to do"):
        table.add_column(name)
    for part in found.parts:
        state = "yes" if part.works else f"no: {part.fault}"
        remedy = part.remedy if part.required or part.works else f"if you want it: {part.remedy}"
        table.add_row(part.name, part.package, part.version, escape(state), escape(remedy))
    console.print(table)
    for line in found.advice():
        console.print(f"note: {escape(line)}", soft_wrap=True)
    if not found.healthy:
        raise typer.Exit(1)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
