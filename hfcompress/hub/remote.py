"""The state of a repository on the Hub, and the changes that publishing would make."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from huggingface_hub.errors import HFValidationError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import sha, validate_repo_id

from hfcompress.errors import HubError, HubUnavailableError
from hfcompress.hub.client import Hub
from hfcompress.hub.leaks import secrets_in
from hfcompress.hub.repository import Repository
from hfcompress.models.layout import GENERATED, matches

MAIN = "main"
Kind = Literal["new", "changed", "same", "removed"]


@dataclass(frozen=True)
class Target:
    """Destination and options of a push.

    Attributes:
        repo_id: `ORG/NAME`.
        revision: Branch; created from main if it does not exist.
        public: Create the repository as a public one; private by default.
        create_pr: Open a pull request to main instead of committing.
        message: Commit message; names the run by default.
    """

    repo_id: str
    revision: str = MAIN
    public: bool = False
    create_pr: bool = False
    message: str | None = None

    def check(self) -> None:
        """Validate the target without the Hub.

        Raises:
            HubError: The Hub would reject it.
        """
        try:
            validate_repo_id(self.repo_id)
            reason = None if "/" in self.repo_id else "the namespace is missing"
        except HFValidationError as error:
            reason = str(error)
        if reason:
            raise HubError(
                "The repository id is not valid",
                value=f"{self.repo_id} ({reason})",
                expected="ORG/NAME of letters, digits, '-', '_' and '.', at most 96 of them",
                remedy="correct --repo-id",
            )
        if not _is_branch(self.revision):
            raise HubError(
                "The revision is not a valid branch name",
                value=self.revision,
                expected="a branch name for git, such as main or v1.1",
                remedy="correct --revision",
            )
        if self.create_pr and self.revision != MAIN:
            raise HubError(
                "A pull request always goes to main",
                value=f"--create-pr --revision {self.revision}",
                expected="one of the two",
                remedy="leave out --revision or --create-pr",
            )
        if self.message is not None and (not self.message.strip() or secrets_in(self.message)):
            raise HubError(
                "The commit message is empty or contains a secret",
                expected="a text that can be public",
                remedy="correct --message, or leave it out",
            )


@dataclass(frozen=True)
class Remote:
    """The state of a repository on the Hub.

    Attributes:
        exists: Whether it exists and the token can access it.
        private: Whether it is private.
        head: Commit of the branch; None if the branch does not exist.
        files: Size and hash of every file on the branch, or on main if the branch does not exist.
    """

    exists: bool = False
    private: bool = False
    head: str | None = None
    files: dict[str, RepoFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """The change that publishing makes to one file.

    Attributes:
        path: Path in the repository.
        size: Size in bytes; for a removed file, its size on the Hub.
        kind: `new`, `changed`, `same`, or `removed` (a file of an earlier run that this run did not write).
    """

    path: str
    size: int
    kind: Kind


def look(hub: Hub, target: Target) -> Remote:
    """Query the current state of a repository.

    Raises:
        HubError: The request failed.
    """
    try:
        info = hub.ask("look at the repository", lambda: hub.api.model_info(target.repo_id))
    except HubError as error:
        if error.status == 404 or (error.status == 401 and hub.token is None):
            return Remote()
        raise
    refs = hub.ask("list the branches", lambda: hub.api.list_repo_refs(target.repo_id))
    branches = {branch.name: branch.target_commit for branch in refs.branches}
    if target.revision in {tag.name for tag in refs.tags} - set(branches):
        raise HubError(
            "The revision is a tag",
            value=target.revision,
            expected="a branch, or an unused name",
            remedy="correct --revision",
        )
    head = branches.get(target.revision)
    return Remote(True, bool(info.private), head, files_at(hub, target.repo_id, head or branches.get(MAIN)))


def files_at(hub: Hub, repo_id: str, revision: str | None) -> dict[str, RepoFile]:
    """Size and hash of every file at a revision.

    Raises:
        HubError: The request failed.
    """

    def listing() -> dict[str, RepoFile]:
        entries = hub.api.list_repo_tree(repo_id, recursive=True, revision=revision)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    return hub.once("list the files", listing)  # the client retries it itself


def changes(repository: Repository, remote: Remote) -> list[Change]:
    """The changes that publishing would make, by path.

    Files that were added on the Hub are kept. Files that an earlier run wrote and this run did not are removed.
    """
    found = [Change(file, repository.size(file), _kind(repository, file, remote)) for file in repository.files]
    unknown = sorted(set(remote.files) - set(repository.files))
    return found + [Change(file, remote.files[file].size, "removed") for file in unknown if matches(file, GENERATED)]


def _kind(repository: Repository, file: str, remote: Remote) -> Kind:
    entry = remote.files.get(file)
    if entry is None:
        return "new"
    if entry.size != repository.size(file):
        return "changed"
    with repository.path(file).open("rb") as stream:
        if entry.lfs:
            same = entry.lfs.sha256 == sha.sha_fileobj(stream).hex()
        else:
            same = entry.blob_id == sha.git_hash(stream.read())
    return "same" if same else "changed"


def pending(found: Iterable[Change]) -> list[Change]:
    """The changes that remain to be made."""
    return [change for change in found if change.kind != "same"]


def check_remote(target: Target, remote: Remote) -> None:
    """Check that the state of the repository allows the push.

    Raises:
        HubError: The repository has another visibility, or a pull request was requested but there is no repository.
    """
    if target.create_pr and not remote.exists:
        raise HubError(
            "A pull request needs an existing repository",
            value=target.repo_id,
            expected="an existing repository that the token can access",
            remedy="correct --repo-id, or leave out --create-pr to create it",
        )
    if remote.exists and remote.private == target.public and not target.create_pr:
        is_now, option = ("private", "--public") if remote.private else ("public", "no --public")
        raise HubError(
            f"The repository is {is_now}, and publishing does not change that",
            value=f"{target.repo_id}, {option}",
            expected="--public for a public repository, and no --public for a private one",
            remedy=f"{'leave out' if target.public else 'add'} --public, or change the repository's settings first",
        )


def preview(hub: Hub, target: Target) -> tuple[Remote | None, str]:
    """Query the Hub for a dry run, which also works without a connection.

    Returns:
        The state of the repository, or None if the Hub cannot be reached; and a line about it for the user.

    Raises:
        HubError: The Hub does not accept the token, or the push would be rejected.
    """
    target.check()
    try:
        user = require_user(hub) if hub.token else None
        remote = look(hub, target)
    except HubError as error:
        if error.status is not None and not isinstance(error, HubUnavailableError):
            raise
        return None, f"not compared with the Hub: {error.problem}"
    check_remote(target, remote)
    as_user = f"as {user}" if user else "without a token, which --execute needs"
    if not remote.exists:
        missing = "does not exist" if user else "does not exist, or is not visible"
        return remote, f"{as_user}: {target.repo_id} {missing}; it would be {_visibility(not target.public)}"
    branch = f"at {remote.head[:8]}" if remote.head else "to be created from main"
    return remote, f"{as_user}: {target.repo_id} is {_visibility(remote.private)}; {target.revision} is {branch}"


def require_user(hub: Hub) -> str:
    """Name of the user or organisation that owns the token.

    Raises:
        HubError: There is no token, or the Hub does not accept it.
    """
    if not hub.token:
        raise HubError(
            "There is no token for the Hub",
            expected="a token with write access in HF_TOKEN or in the store of huggingface_hub",
            remedy="set HF_TOKEN (https://huggingface.co/settings/tokens), or run: hf auth login",
        )
    return str(hub.ask("check the token", hub.api.whoami)["name"])


def _visibility(private: bool) -> str:
    return "private" if private else "public"


def _is_branch(name: str) -> bool:
    """Whether git accepts the name for a branch, and the Hub does not read it as a commit or a pull request."""
    forbidden = r"^[-./]|\.\.|//|@\{|[\x00-\x20\x7f~^:?*\[\\]|\.lock$|[./]$|^@$|^refs/|^[0-9a-f]{40}$"
    return bool(name) and re.search(forbidden, name) is None
