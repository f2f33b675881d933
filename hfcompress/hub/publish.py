"""Publish a finished run in one commit."""

from __future__ import annotations

import logging

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, ModelCard

from hfcompress.errors import HubError, HubUnavailableError
from hfcompress.hub.client import CONFLICT, WAITS, Hub, pause
from hfcompress.hub.remote import MAIN, Remote, Target, changes, check_remote, files_at, look, pending, require_user
from hfcompress.hub.repository import Repository
from hfcompress.models.layout import CARD_FILE

logger = logging.getLogger(__name__)


def push(hub: Hub, repository: Repository, target: Target) -> str | None:
    """Push a finished run in one commit; the repository and the branch are created if they do not exist.

    An interrupted push can be repeated: uploaded files are not sent again. No file is visible before the commit, which
    is atomic.

    Args:
        hub: Client of the Hub.
        repository: The checked folder.
        target: Repository id, branch and options.

    Returns:
        URL of the commit or pull request; None if the repository is already up to date.

    Raises:
        HubError: The Hub rejected a request, or the repository changed during the push.
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
    # The Hub validates the card before anything is created there.
    hub.ask("validate the card", ModelCard(repository.path(CARD_FILE).read_text(encoding="utf-8")).validate)
    if remote.head is None:
        remote = _create(hub, target, remote)
    todo = pending(changes(repository, remote))
    additions = [
        CommitOperationAdd(change.path, repository.path(change.path)) for change in todo if change.kind != "removed"
    ]
    removals = [CommitOperationDelete(change.path, is_folder=False) for change in todo if change.kind == "removed"]
    hub.once(  # the client retries it itself
        "upload the files",
        lambda: hub.api.preupload_lfs_files(
            target.repo_id, additions, revision=target.revision, create_pr=target.create_pr, free_memory=False
        ),
    )
    logger.info(f"uploaded {len(additions)} files, not yet committed")
    return _commit(hub, repository, target, [*additions, *removals], remote.head, message)


def _create(hub: Hub, target: Target, remote: Remote) -> Remote:
    """Create the repository and the branch if they do not exist; both calls are idempotent."""
    if not remote.exists:
        hub.ask(
            "create the repository",
            lambda: hub.api.create_repo(target.repo_id, private=not target.public, exist_ok=True),
        )
        logger.info(f"created the {'public' if target.public else 'private'} repository {target.repo_id}")
    if target.revision != MAIN:
        hub.ask(
            "create the branch", lambda: hub.api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)
        )
        logger.info(f"created the branch {target.revision}")
    created = look(hub, target)
    if created.head is None:
        raise HubUnavailableError(
            "The repository was created but is not visible yet",
            value=target.repo_id,
            expected=f"the branch {target.revision}",
            remedy="run the same command again",
        )
    check_remote(target, created)
    return created


def _commit(
    hub: Hub,
    repository: Repository,
    target: Target,
    operations: list[CommitOperationAdd | CommitOperationDelete],
    parent: str | None,
    message: str,
) -> str:
    """Commit on top of `parent`, exactly once.

    A commit may have arrived although its response was lost, so the repository is checked before a retry. The commit
    names its parent: the Hub rejects it if there was another commit in between.
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
    raise AssertionError("unreachable: the last attempt returns or raises")


def _arrived(hub: Hub, repository: Repository, target: Target, parent: str | None, message: str) -> str | None:
    """URL of the commit if it arrived in spite of an error.

    Raises:
        HubError: The branch has another commit.
    """
    if target.create_pr:
        return _proposed(hub, repository, target, message)
    now = look(hub, target)
    if not pending(changes(repository, now)):
        return f"{hub.api.endpoint}/{target.repo_id}/commit/{now.head}"
    if now.head != parent:
        raise HubError(
            f"{target.repo_id} changed during the push",
            value=now.head,
            expected=f"{target.revision} at {parent}",
            remedy="check the changes with a dry run, then run the same command again",
        )
    return None


def _proposed(hub: Hub, repository: Repository, target: Target, message: str) -> str | None:
    """URL of an open pull request with this message and these files."""
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
