"""Detect secrets and paths of this machine in text that will be published or shown."""

from __future__ import annotations

import mmap
import os
import re
import sys
from pathlib import Path

_SECRETS = {
    "a Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}",
    "an AWS key": r"(?<![A-Za-z0-9+/])(?:AKIA|ASIA)[0-9A-Z]{16}(?![A-Za-z0-9+/=])",
    "an AWS secret key": r"(?i:aws_secret_access_key)\W{1,6}[A-Za-z0-9/+]{40}",
    "a private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY",
    "a bearer token": r"\b(?i:bearer)\s+(?=\S*\d)[A-Za-z0-9._~+/-]{20,}=*",
    "a GitHub token": r"\b(?:gh[opsru]_[A-Za-z0-9]{36,}|github_pat_\w{40,})",
    "a Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}",
    "an OpenAI key": r"\bsk-(?:proj-)?[A-Za-z0-9]{32,}",
    "a password in a URL": r"(?<=://)[^/\s:@]+:[^/\s:@]+(?=@)",
}
_PATH_END = r"""[^\s"'`<>|:*?,;()\[\]{}\\]"""
# Not after a letter or a slash: that would be part of a URL, of a relative path or of a name in a graph.
_ABSOLUTE = re.compile(rf"(?:(?<=file://)|(?<![\w.:/~$%}}-]))/{_PATH_END}+/{_PATH_END}+")
_WINDOWS = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]:[\\/]+(?:Users|Documents and Settings)[\\/]+[^\\/\s\"']+", re.IGNORECASE
)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]\S")
_USER_ROOTS = ("home", "Users", "Volumes", "root", "tmp", "mnt", "media", "scratch", "workspace")
HIDDEN = "***"


def secrets_in(text: str, *known: str) -> list[str]:
    """Find possible secrets. The result contains only their kinds and first letters.

    Args:
        text: Text to search.
        known: Known secrets, such as the token in use.
    """
    found = ["the token of this machine"] if any(secret in text for secret in known if secret) else []
    for kind, pattern in _SECRETS.items():
        found += [f"{kind} ({match.group()[:4]}...)" for match in re.finditer(pattern, text)]
    return list(dict.fromkeys(found))


def redact(text: str, *known: str) -> str:
    """Mask secrets in a text: known ones, possible ones, and the query strings of (signed) URLs."""
    for secret in known:
        text = text.replace(secret, HIDDEN) if secret else text
    for pattern in _SECRETS.values():
        text = re.sub(pattern, HIDDEN, text)
    return re.sub(r"(https?://[^\s?'\"]+\?)[^\s'\"]+", rf"\1{HIDDEN}", text)


def machine_paths_in(text: str) -> list[str]:
    """Find absolute paths that reveal a machine: below typical user folders, or existing on this machine."""
    absolute = (match.group().rstrip(".") for match in _ABSOLUTE.finditer(text))
    found = [path for path in absolute if path.split("/")[1] in _USER_ROOTS or _exists(path)]
    return list(dict.fromkeys([*found, *(match.group() for match in _WINDOWS.finditer(text))]))


def is_absolute_path(text: str) -> bool:
    """Whether a text as a whole is an absolute path, of this machine or of another."""
    return "\n" not in text and ((text.startswith("/") and text.count("/") > 1) or _DRIVE.match(text) is not None)


def machine_paths_in_file(path: Path) -> list[str]:
    """Find folders of this user and this Python in a binary file; a looser search would match random bytes."""
    folders = {str(Path.home()), os.getcwd(), sys.prefix, str(Path(__file__).parents[2])}
    wanted = [folder + os.sep for folder in folders if len(Path(folder).parts) > 2] + ["/site-packages/"]
    if not path.stat().st_size:
        return []
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return sorted(folder for folder in wanted if content.find(os.fsencode(folder)) >= 0)


def _exists(path: str) -> bool:
    """Whether the first two parts of the path exist."""
    return os.path.exists("/".join(path.split("/")[:3]))
