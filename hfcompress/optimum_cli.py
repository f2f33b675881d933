"""`optimum-cli compress`: the verbs of `hfcompress`, with the same arguments, output and exit codes.

`optimum-cli` imports this module for every command, so heavy imports wait until a verb runs.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

PROGRAM = "optimum-cli compress"


class CompressCommand(BaseOptimumCLICommand):
    """Passes the arguments of `optimum-cli compress` to the command line of hfcompress."""

    COMMAND = CommandInfo(
        name="compress",
        help="Make rerankers faster and smaller with hfcompress, and measure whether they still rank as well.",
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Accept all arguments unparsed, including `--help`: the command line of hfcompress parses them."""

        def take_all(arguments: Sequence[str], namespace: Namespace | None = None) -> tuple[Namespace, list[str]]:
            return Namespace(func=parser.get_default("func"), arguments=list(arguments)), []

        setattr(parser, "parse_known_args", take_all)  # noqa: B010

    def run(self) -> None:
        """Run `hfcompress`. The process exits with its exit code."""
        from hfcompress.cli import main

        main(self.args.arguments, PROGRAM)
