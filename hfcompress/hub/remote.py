"""What is on the Hub already, and what publishing would change there."""

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
from hfcompress.layout import GENERATED, matches

MAIN = "main"
Kind = Literal["new", "changed", "same", "removed"]


@dataclass(frozen=True)
class Target:
    """Where to publish, and how.

    Attributes:
        repo_id: `ORG/NAME`.
        revision: Branch; made from main if it is missing.
        public: Make the repository public if it is made here; else it is private.
        create_pr: Propose the commit as a pull request to main.
        message: Message of the commit; one that names the run by default.
    """

    repo_id: str
    revision: str = MAIN
    public: bool = False
    create_pr: bool = False
    message: str | None = None

    def check(self) -> None:
        """Check what can be checked without the Hub.

        Raises:
            HubError: The Hub would refuse it.
        """
        try:
            validate_repo_id(self.repo_id)
            reason = None if "/" in self.repo_id else "the namespace is missing"
        except HFValidationError as error:
            reason = str(error)
        if reason:
            raise HubError(
                "The Hub has no repositories with such a name",
                value=f"{self.repo_id} ({reason})",
                expected="ORG/NAME of letters, digits, '-', '_' and '.', at most 96 of them",
                remedy="correct --repo-id",
            )
        if not _is_branch(self.revision):
            raise HubError(
                "The revision cannot be a branch",
                value=self.revision,
                expected="a name that git takes for a branch, such as main or v1.1",
                remedy="correct --revision",
            )
        if self.create_pr and self.revision != MAIN:
            raise HubError(
                "A pull request goes to main",
                value=f"--create-pr --revision {self.revision}",
                expected="one of the two",
                remedy="leave out --revision or --create-pr",
            )
        if self.message is not None and (not self.message.strip() or secrets_in(self.message)):
            raise HubError(
                "The message of the commit is empty, or holds a secret",
                expected="a text that anyone may read",
                remedy="correct --message, or leave it out",
            )


@dataclass(frozen=True)
class Remote:
    """A repository as it is on the Hub.

    Attributes:
        exists: Whether it is there, and the token may see it.
        private: Whether it is private.
        head: Commit that the revision points to; None if there is no such branch.
        files: Size and hash of every file at the revision (at main if there is no such branch).
    """

    exists: bool = False
    private: bool = False
    head: str | None = None
    files: dict[str, RepoFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What publishing does to one file.

    Attributes:
        path: Path in the repository.
        size: Bytes; of the file on the Hub where it is removed.
        kind: `new`, `changed`, `same`, or `removed`: a file of an earlier run that this one did not write.
    """

    path: str
    size: int
    kind: Kind


def look(hub: Hub, target: Target) -> Remote:
    """See what is on the Hub at present.

    Raises:
        HubError: The Hub does not tell.
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
            expected="a branch, or a name that is free",
            remedy="correct --revision",
        )
    head = branches.get(target.revision)
    return Remote(True, bool(info.private), head, files_at(hub, target.repo_id, head or branches.get(MAIN)))


def files_at(hub: Hub, repo_id: str, revision: str | None) -> dict[str, RepoFile]:
    """Size and hash of every file at a revision.

    Raises:
        HubError: The Hub does not tell.
    """

    def listing() -> dict[str, RepoFile]:
        entries = hub.api.list_repo_tree(repo_id, recursive=True, revision=revision)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    return hub.once("list the files", listing)  # the client repeats it itself


def changes(repository: Repository, remote: Remote) -> list[Change]:
    """What publishing would do, by path.

    Files that somebody added on the Hub stay; those that an earlier run made and this one did not are removed.
    """
    found = [Change(file, repository.size(file), _kind(repository, file, remote)) for file in repository.files]
    gone = sorted(set(remote.files) - set(repository.files))
    return found + [Change(file, remote.files[file].size, "removed") for file in gone if matches(file, GENERATED)]


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
    """The changes that are left to make."""
    return [change for change in found if change.kind != "same"]


def check_remote(target: Target, remote: Remote) -> None:
    """Check that what is on the Hub allows what is asked for.

    Raises:
        HubError: The repository has the other visibility, or there is nothing that a pull request could go to.
    """
    if target.create_pr and not remote.exists:
        raise HubError(
            "There is no repository that a pull request could go to",
            value=target.repo_id,
            expected="a repository that is there, and that the token may see",
            remedy="correct --repo-id, or leave out --create-pr to make it",
        )
    if remote.exists and remote.private == target.public and not target.create_pr:
        is_now, option = ("private", "--public") if remote.private else ("public", "no --public")
        raise HubError(
            f"The repository is {is_now}, which publishing does not change",
            value=f"{target.repo_id}, {option}",
            expected="--public for a public repository, and no --public for a private one",
            remedy=f"{'leave out' if target.public else 'add'} --public, or change the repository's settings first",
        )


def preview(hub: Hub, target: Target) -> tuple[Remote | None, str]:
    """Look at the Hub for a dry run, which goes without one if need be.

    Returns:
        The repository, or None if the Hub cannot be asked, with the reason; and a line for the user.

    Raises:
        HubError: The Hub does not accept the token, or publishing would be refused.
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
        where = "is not there, or not to be seen" if not user else "is not there"
        return remote, f"{as_user}: {target.repo_id} {where}; it would be {_visibility(not target.public)}"
    branch = f"at {remote.head[:8]}" if remote.head else "to be made from main"
    return remote, f"{as_user}: {target.repo_id} is {_visibility(remote.private)}; {target.revision} is {branch}"


def require_user(hub: Hub) -> str:
    """Name of the user or organisation that the token belongs to.

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
    """Whether git takes it for a branch, and the Hub for no commit and no pull request."""
    forbidden = r"^[-./]|\.\.|//|@\{|[\x00-\x20\x7f~^:?*\[\\]|\.lock$|[./]$|^@$|^refs/|^[0-9a-f]{40}$"
    return bool(name) and re.search(forbidden, name) is None
