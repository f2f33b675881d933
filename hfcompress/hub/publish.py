"""Publish a finished run in one commit."""

from __future__ import annotations

from collections.abc import Callable

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, ModelCard

from hfcompress.errors import HubError, HubUnavailableError
from hfcompress.hub.client import CONFLICT, WAITS, Hub, pause
from hfcompress.hub.remote import MAIN, Remote, Target, changes, check_remote, files_at, look, pending, require_user
from hfcompress.hub.repository import Repository
from hfcompress.layout import CARD_FILE


def push(hub: Hub, repository: Repository, target: Target, say: Callable[[str], None]) -> str | None:
    """Make the repository and the branch where they are missing, upload, and commit once.

    It may be stopped anywhere and called again: files that have arrived are not sent again, and until the commit, which
    the Hub makes as a whole or not at all, nothing of them is seen.

    Args:
        hub: The Hub.
        repository: What to publish.
        target: Where to.
        say: Called with a line for the user.

    Returns:
        Address of the commit or pull request; None if the Hub has everything already.

    Raises:
        HubError: The Hub refused something, or the repository changed meanwhile.
        HubUnavailableError: The Hub cannot be reached or stays busy.
    """
    target.check()
    require_user(hub)
    remote = look(hub, target)
    check_remote(target, remote)
    message = target.message or f"{repository.report.name}: published with hfcompress"
    if remote.head and not pending(changes(repository, remote)):
        return None
    if target.create_pr and (proposed := _proposed(hub, repository, target, message)):
        return proposed
    _validate_card(hub, repository)
    if remote.head is None:
        remote = _make(hub, target, remote, say)
    todo = pending(changes(repository, remote))
    additions = [
        CommitOperationAdd(change.path, repository.path(change.path)) for change in todo if change.kind != "removed"
    ]
    removals = [CommitOperationDelete(change.path, is_folder=False) for change in todo if change.kind == "removed"]
    hub.once(  # the client repeats it itself
        "upload the files",
        lambda: hub.api.preupload_lfs_files(
            target.repo_id, additions, revision=target.revision, create_pr=target.create_pr, free_memory=False
        ),
    )
    say(f"uploaded {len(additions)} files, not yet to be seen")
    return _commit(hub, repository, target, [*additions, *removals], remote.head, message)


def _validate_card(hub: Hub, repository: Repository) -> None:
    """Have the Hub check the card before anything is made there."""
    card = ModelCard(repository.path(CARD_FILE).read_text(encoding="utf-8"))
    hub.ask("have the card checked", card.validate)


def _make(hub: Hub, target: Target, remote: Remote, say: Callable[[str], None]) -> Remote:
    """Make the repository and the branch, as far as they are missing; both calls may be repeated."""
    if not remote.exists:
        hub.ask(
            "make the repository",
            lambda: hub.api.create_repo(target.repo_id, private=not target.public, exist_ok=True),
        )
        say(f"made the {'public' if target.public else 'private'} repository {target.repo_id}")
    if target.revision != MAIN:
        hub.ask("make the branch", lambda: hub.api.create_branch(target.repo_id, branch=target.revision, exist_ok=True))
        say(f"made the branch {target.revision}")
    made = look(hub, target)
    if made.head is None:
        raise HubUnavailableError(
            "The repository was made but is not to be seen yet",
            value=target.repo_id,
            expected=f"the branch {target.revision}",
            remedy="run the same command again",
        )
    check_remote(target, made)
    return made


def _commit(
    hub: Hub,
    repository: Repository,
    target: Target,
    operations: list[CommitOperationAdd | CommitOperationDelete],
    parent: str | None,
    message: str,
) -> str:
    """Commit on top of `parent`, exactly once.

    A commit whose answer was lost may have arrived. So before another try the repository is looked at, and the commit
    names its parent: the Hub refuses it where something else came between.
    """
    for wait in (*WAITS, None):
        try:
            info = hub.once(
                "commit",
                lambda: hub.api.create_commit(
                    target.repo_id,
                    operations,
                    commit_message=message,
                    revision=target.revision,
                    create_pr=target.create_pr,
                    parent_commit=parent,
                ),
            )
        except HubError as error:
            fault = error
        else:
            return str(info.pr_url or info.commit_url)
        if arrived := _arrived(hub, repository, target, parent, message):
            return arrived
        if wait is None or not (isinstance(fault, HubUnavailableError) or fault.status in CONFLICT):
            raise fault
        busy = fault if isinstance(fault, HubUnavailableError) else None
        pause(busy or HubUnavailableError("", expected="", remedy=""), wait)
    raise AssertionError("unreachable: the last turn returns or raises")


def _arrived(hub: Hub, repository: Repository, target: Target, parent: str | None, message: str) -> str | None:
    """Address of the commit if it is there in spite of an error.

    Raises:
        HubError: The branch has another commit instead.
    """
    if target.create_pr:
        return _proposed(hub, repository, target, message)
    now = look(hub, target)
    if not pending(changes(repository, now)):
        return f"{hub.api.endpoint}/{target.repo_id}/commit/{now.head}"
    if now.head != parent:
        raise HubError(
            f"{target.repo_id} changed meanwhile",
            value=now.head,
            expected=f"{target.revision} at {parent}",
            remedy="look at what changed with a dry run, then run the same command again",
        )
    return None


def _proposed(hub: Hub, repository: Repository, target: Target, message: str) -> str | None:
    """Address of an open pull request with this message and these files."""
    requests = hub.ask(
        "list the pull requests",
        lambda: list(
            hub.api.get_repo_discussions(target.repo_id, discussion_type="pull_request", discussion_status="open")
        ),
    )
    for request in requests:
        if request.title == message:
            files = files_at(hub, target.repo_id, f"refs/pr/{request.num}")
            if not pending(changes(repository, Remote(True, False, None, files))):
                return str(request.url)
    return None
