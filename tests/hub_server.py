"""A small Hub on the loopback interface: what huggingface_hub calls to publish and to load, with faults on demand.

It keeps repositories in memory. A fault is taken from `faults[endpoint]`, one for each request: a status (with
headers), or a connection that is cut before the request is read (`cut`), in the middle of its body (`torn`), or after
the work was done, so that its answer is lost (`lost`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_" + "x1Y2" * 9
USER = "tester"
LFS_ENDINGS = (".safetensors", ".onnx", ".bin", ".png")


@dataclass
class Fault:
    """What a request meets instead of an answer."""

    kind: int | str
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "injected"


@dataclass
class Repo:
    """A repository: commits by id with their whole tree, branches, tags and pull requests."""

    private: bool
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    history: dict[str, list[str]] = field(default_factory=lambda: {"main": []})
    tags: dict[str, str] = field(default_factory=dict)
    proposals: dict[int, tuple[str, str]] = field(default_factory=dict)  # number -> title, commit

    def commit(self, branch: str | None, tree: dict[str, bytes]) -> str:
        content = repr((len(self.trees), sorted(tree)))
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.trees[oid] = tree
        if branch is not None:
            self.history[branch].append(oid)
        return oid

    def resolve(self, revision: str) -> str | None:
        if revision in self.history:
            return self.history[revision][-1]
        if match := re.fullmatch(r"refs/pr/(\d+)", revision):
            return self.proposals.get(int(match.group(1)), ("", None))[1]
        return self.tags.get(revision) or (revision if revision in self.trees else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """The tree at a revision."""
        return self.trees[self.resolve(revision) or ""]


class HubServer:
    """Runs in a thread for the length of a `with` block."""

    def __init__(self) -> None:
        self.reset()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def reset(self) -> None:
        """Forget everything."""
        self.lock = threading.RLock()
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.requests: list[str] = []
        self.token = TOKEN

    def add(self, repo_id: str, files: dict[str, bytes] | None = None, private: bool = True) -> Repo:
        """A repository as the Hub makes it, with `.gitattributes` in its first commit."""
        repo = self.repos[repo_id] = Repo(private)
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n", **(files or {})})
        return repo

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Answer(Exception):
    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None):
        self.status, self.body, self.headers = status, body, headers or {}


def _missing(what: str) -> _Answer:
    return _Answer(404, {"error": f"{what} not found"}, {"X-Error-Code": what})


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        fitting = [
            (name, work, match)
            for methods, name, pattern, work in _ROUTES
            if self.command in methods and (match := re.fullmatch(pattern, url.path))
        ]
        if not fitting:
            return self._send(_Answer(404, {"error": f"no endpoint {self.command} {url.path}"}))
        name, work, match = fitting[0]
        arguments = [unquote(value) for value in match.groups()]
        with self.hub.lock:
            self.hub.requests.append(name)
            queue = self.hub.faults.get(name)
            fault = queue.pop(0) if queue else None
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.kind in ("cut", "torn"):
            self.rfile.read(length // 2 if fault.kind == "torn" else 0)
            return self._hang_up()
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        self.body = b"".join(self._chunks()) if chunked else self.rfile.read(length)
        if fault and isinstance(fault.kind, int):
            return self._send(_Answer(fault.kind, {"error": fault.message}, fault.headers))
        try:
            with self.hub.lock:
                answer = work(self, *arguments)
        except _Answer as refusal:
            answer = refusal
        if fault and fault.kind == "lost":
            return self._hang_up()
        return self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _chunks(self):
        while size := int(self.rfile.readline().strip(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, answer: _Answer) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
            self.send_header(name, value)
        if not isinstance(answer.body, bytes):
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # What the endpoints do

    def _authorised(self) -> bool:
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {self.hub.token}"):
            raise _Answer(401, {"error": f"Invalid credentials: {given}"})  # a careless server, which echoes them
        return given is not None

    def _require(self) -> None:
        if not self._authorised():
            raise _Answer(401, {"error": "Please log in"})

    def _repo(self, repo_id: str) -> Repo:
        allowed = self._authorised()
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and not allowed):
            raise _missing("RepoNotFound") if allowed else _Answer(401, {"error": "Invalid username or password."})
        return repo

    def _tree(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repo = self._repo(repo_id)
        oid = repo.resolve(revision)
        if oid is None:
            raise _missing("RevisionNotFound")
        return oid, repo.trees[oid]

    def whoami(self) -> _Answer:
        self._require()
        return _Answer(200, {"name": USER, "type": "user", "orgs": [{"name": "org"}]})

    def create(self) -> _Answer:
        self._require()
        wanted = json.loads(self.body)
        repo_id = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id, "id": repo_id}
        if wanted["organization"] not in ("org", USER):
            return _Answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        if repo_id in self.hub.repos:
            return _Answer(409, {"error": "You already created this model repo", **url})
        self.hub.add(repo_id, private=wanted.get("visibility") == "private")
        return _Answer(200, url)

    def validate(self) -> _Answer:
        content = json.loads(self.body)["content"]
        fields = yaml.safe_load(content.split("---\n")[1])
        errors = [] if fields.get("pipeline_tag") == "text-ranking" else [{"message": '"pipeline_tag" must be valid'}]
        return _Answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def info(self, repo_id: str, revision: str = "main") -> _Answer:
        oid, files = self._tree(repo_id, revision)
        siblings = [{"rfilename": path} for path in files]
        private = self.hub.repos[repo_id].private
        return _Answer(200, {"id": repo_id, "sha": oid, "private": private, "siblings": siblings, "tags": []})

    def refs(self, repo_id: str) -> _Answer:
        repo = self._repo(repo_id)
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commits[-1]}
            for name, commits in repo.history.items()
        ]
        tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid} for name, oid in repo.tags.items()]
        return _Answer(200, {"branches": branches, "tags": tags, "converts": []})

    def tree(self, repo_id: str, revision: str, folder: str = "") -> _Answer:
        _, files = self._tree(repo_id, revision)
        if folder and not any(path.startswith(f"{folder}/") for path in files):
            raise _missing("EntryNotFound")
        entries = []
        for path, content in files.items():
            if path.startswith(f"{folder}/" if folder else ""):
                entry = {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
                if path.endswith(LFS_ENDINGS):
                    entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 127}
                entries.append(entry)
        return _Answer(200, entries)

    def branch(self, repo_id: str, name: str) -> _Answer:
        self._require()
        repo = self._repo(repo_id)
        if name in repo.history:
            return _Answer(409, {"error": "Reference already exists"})
        repo.history[name] = list(repo.history["main"])
        return _Answer(200, {})

    def preupload(self, repo_id: str, revision: str) -> _Answer:
        self._require()
        _, files = self._tree(repo_id, revision)
        answers = []
        for wanted in json.loads(self.body)["files"]:
            path, old = wanted["path"], files.get(wanted["path"])
            lfs = path.endswith(LFS_ENDINGS)
            oid = None if old is None else _sha256(old) if lfs else _blob(old)
            mode = "lfs" if lfs else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return _Answer(200, {"files": answers})

    def batch(self, repo_id: str) -> _Answer:
        self._require()
        self._repo(repo_id)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}?X-Amz-Signature=secret-of-the-store"},
                "verify": {"href": f"{self.hub.url}/verify/{repo_id}"},
            }
            objects.append(wanted if wanted["oid"] in self.hub.objects else {**wanted, "actions": actions})
        return _Answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> _Answer:
        if "Authorization" in self.headers:
            return _Answer(400, {"error": "a token for the Hub was sent to the store"})
        if _sha256(self.body) != oid:
            return _Answer(400, {"error": "content does not have this hash"})
        self.hub.objects[oid] = self.body
        self.hub.uploads.append(oid)
        return _Answer(200, b"")

    def verify(self, repo_id: str) -> _Answer:
        self._require()
        wanted = json.loads(self.body)
        found = self.hub.objects.get(wanted["oid"])
        return _Answer(200 if found is not None and len(found) == wanted["size"] else 404, {})

    def commit(self, repo_id: str, revision: str) -> _Answer:
        self._require()
        repo = self._repo(repo_id)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if revision not in repo.history:
            raise _missing("RevisionNotFound")
        if header.get("parentCommit") not in (None, repo.resolve(revision)) and "create_pr" not in self.query:
            return _Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        tree = dict(repo.files(revision))
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return _Answer(400, {"error": f"LFS object {value['oid']} is not there"})
                tree[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del tree[value["path"]]
        if "create_pr" not in self.query:
            oid = repo.commit(revision, tree)
            return _Answer(200, {"commitUrl": f"{self.hub.url}/{repo_id}/commit/{oid}", "commitOid": oid})
        oid, number = repo.commit(None, tree), len(repo.proposals) + 1
        repo.proposals[number] = (header["summary"], oid)
        url = f"{self.hub.url}/{repo_id}/discussions/{number}"
        return _Answer(200, {"commitUrl": url, "commitOid": oid, "pullRequestUrl": url})

    def discussions(self, repo_id: str) -> _Answer:
        repo = self._repo(repo_id)
        found = [
            {
                "title": title,
                "num": number,
                "author": {"name": USER},
                "createdAt": "2026-01-01T00:00:00.000Z",
                "status": "open",
                "repo": {"name": repo_id, "type": "model"},
                "isPullRequest": True,
            }
            for number, (title, _) in repo.proposals.items()
        ]
        return _Answer(200, {"count": len(found), "start": 0, "discussions": found})

    def resolve(self, repo_id: str, revision: str, path: str) -> _Answer:
        oid, files = self._tree(repo_id, revision)
        if path not in files:
            raise _Answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid})
        content = files[path]
        etag = _sha256(content) if path.endswith(LFS_ENDINGS) else _blob(content)
        return _Answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Accept-Ranges": "none"})


_REPO, _PART = r"([^/]+/[^/]+)", r"([^/]+)"
_MODEL = rf"/api/models/{_REPO}"
_ROUTES: list[tuple[tuple[str, ...], str, str, Callable[..., _Answer]]] = [
    (("GET",), "whoami", r"/api/whoami-v2", _Handler.whoami),
    (("POST",), "create", r"/api/repos/create", _Handler.create),
    (("POST",), "validate", r"/api/validate-yaml", _Handler.validate),
    (("GET",), "info", rf"{_MODEL}", _Handler.info),
    (("GET",), "info", rf"{_MODEL}/revision/{_PART}", _Handler.info),
    (("GET",), "refs", rf"{_MODEL}/refs", _Handler.refs),
    (("GET",), "tree", rf"{_MODEL}/tree/{_PART}", _Handler.tree),
    (("GET",), "tree", rf"{_MODEL}/tree/{_PART}/(.+)", _Handler.tree),
    (("POST",), "branch", rf"{_MODEL}/branch/{_PART}", _Handler.branch),
    (("POST",), "preupload", rf"{_MODEL}/preupload/{_PART}", _Handler.preupload),
    (("POST",), "batch", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (("PUT",), "upload", rf"/lfs/{_PART}", _Handler.upload),
    (("POST",), "verify", rf"/verify/{_REPO}", _Handler.verify),
    (("POST",), "commit", rf"{_MODEL}/commit/{_PART}", _Handler.commit),
    (("GET",), "discussions", rf"{_MODEL}/discussions", _Handler.discussions),
    (("GET", "HEAD"), "resolve", rf"/{_REPO}/resolve/{_PART}/(.+)", _Handler.resolve),
]
ENDPOINTS = tuple(dict.fromkeys(name for _, name, _, _ in _ROUTES))
