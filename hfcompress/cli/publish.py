"""`hfcompress publish`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hfcompress.cli import options
from hfcompress.cli.terminal import out, step_lines

if TYPE_CHECKING:
    from hfcompress.hub.remote import Change
    from hfcompress.hub.repository import Repository


def publish(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    repo_id: Annotated[str, typer.Option("--repo-id", help="ORG/NAME on the Hub; created if it does not exist.")],
    execute: Annotated[bool, typer.Option("--execute", help="Push. Without this option nothing is sent.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Create a public repository; private by default.")] = False,
    revision: Annotated[str, typer.Option(help="Branch; created from main if it does not exist.")] = "main",
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")] = False,
    message: Annotated[str | None, typer.Option(help="Commit message; names the run by default.")] = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Publish a finished run on the Hub in one commit. Without --execute it is a dry run.

    The folder is checked first: model card, licence, unexpected files, secrets, and paths of this machine. The token
    comes from HF_TOKEN or from `hf auth login`. The exit code is 1 if the Hub cannot be reached or is busy: the same
    command continues where it stopped.

    Example: hfcompress publish out/quickstart --repo-id my-org/my-reranker

    Example: hfcompress publish out/quickstart --repo-id my-org/my-reranker --execute

    Example: hfcompress publish out/quickstart --repo-id my-org/my-reranker --revision v1.1 --execute

    Example: hfcompress publish out/quickstart --repo-id other-org/reranker --create-pr --execute
    """
    from huggingface_hub.utils import disable_progress_bars, logging

    from hfcompress.hub.client import Hub
    from hfcompress.hub.publish import push
    from hfcompress.hub.remote import Remote, Target, changes, preview
    from hfcompress.hub.repository import read_repository
    from hfcompress.utils.quiet import debugging

    if quiet:
        disable_progress_bars()
    if not debugging():
        logging.set_verbosity_error()
    target = Target(repo_id, revision, public, create_pr, message)
    target.check()
    hub = Hub()
    repository = read_repository(folder, hub.token)
    if execute:
        with step_lines(out, quiet):
            address = push(hub, repository, target)
        out.print(address or f"nothing to do: {repo_id} already has these files", soft_wrap=True)
        return
    remote, line = preview(hub, target)
    _show(repository, changes(repository, remote or Remote()), compared=remote is not None)
    _say(line)
    _say("dry run: nothing was sent. Add --execute to publish.")


def _say(line: str) -> None:
    out.print(escape(line), soft_wrap=True)


def _show(repository: Repository, found: list[Change], compared: bool) -> None:
    table = Table(title=f"{repository.folder}: {repository.report.name}", title_justify="left")
    for name in ("file", "MB", "on the Hub"):
        table.add_column(name, justify="right" if name == "MB" else "left", no_wrap=True)
    for change in found:
        table.add_row(change.path, f"{change.size / 1e6:.2f}", change.kind if compared else "")
    out.print(table)
    sent = [change for change in found if change.kind in ("new", "changed")]
    _say(f"{len(sent)} files to send, {sum(change.size for change in sent) / 1e6:.1f} MB")
    as_rendered = "as rendered from report.json" if repository.rendered else "differs from what report.json renders"
    _say(f"card: valid, licence {repository.license}, {as_rendered}")
