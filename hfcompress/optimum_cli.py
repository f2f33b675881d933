"""`optimum-cli compress`: the verbs of `hfcompress`, with the same arguments, output and exit codes.

`optimum-cli` imports this module whatever it is asked for, so nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

PROGRAM = "optimum-cli compress"


class CompressCommand(BaseOptimumCLICommand):
    """Hands everything behind `optimum-cli compress` to the command line of hfcompress."""

    COMMAND = CommandInfo(
        name="compress",
        help="Make rerankers faster and smaller with hfcompress, and measure whether they still rank as well.",
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Take all arguments as they are, `--help` too: `hfcompress` knows them."""

        def take_all(arguments: Sequence[str], namespace: Namespace | None = None) -> tuple[Namespace, list[str]]:
            return Namespace(func=parser.get_default("func"), arguments=list(arguments)), []

        setattr(parser, "parse_known_args", take_all)  # noqa: B010

    def run(self) -> None:
        """Run `hfcompress`; ends with its exit code."""
        from hfcompress.cli import main

        main(self.args.arguments, PROGRAM)
