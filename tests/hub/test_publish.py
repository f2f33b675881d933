"""Publishing with the real client over loopback: one commit or none, whatever the Hub does meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import random_inputs
from hub_server import ENDPOINTS, TOKEN, Fault, HubServer
from stub_graphs import stub_graph

from hfcompress.errors import HfCompressError, HubError, HubUnavailableError
from hfcompress.hub.client import Hub
from hfcompress.hub.publish import push
from hfcompress.hub.remote import Target, changes, look
from hfcompress.hub.repository import Repository, read_repository
from hfcompress.models.load import load_model

NAME = "org/reranker"
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def repository(stub_run: Path) -> Repository:
    return read_repository(stub_run)


def publish(repository: Repository, **settings: object) -> str | None:
    return push(Hub(), repository, Target(NAME, **settings))  # type: ignore[arg-type]


def contents(repository: Repository) -> dict[str, bytes]:
    return {file: repository.path(file).read_bytes() for file in repository.files}


def published(server: HubServer, revision: str = "main") -> dict[str, bytes]:
    tree = dict(server.repos[NAME].files(revision))
    del tree[".gitattributes"]
    return tree


def test_one_private_commit_holds_everything(server: HubServer, repository: Repository) -> None:
    address = publish(repository)
    repo = server.repos[NAME]
    assert repo.private and len(repo.history["main"]) == 2
    assert address == f"{server.url}/{NAME}/commit/{repo.history['main'][-1]}"
    assert published(server) == contents(repository)
    assert not [path for path in repo.files() if path.startswith(".hfcompress")]
    assert server.requests.count("commit") == 1 and server.requests.count("upload") == 4


def test_what_is_there_already_is_not_sent_again(server: HubServer, repository: Repository) -> None:
    publish(repository)
    before = len(server.uploads)
    assert publish(repository) is None
    assert len(server.repos[NAME].history["main"]) == 2 and len(server.uploads) == before


def test_a_dry_run_sends_nothing(server: HubServer, stub_run: Path, command: Command) -> None:
    code, text = command(stub_run, "--repo-id", NAME)
    assert code == 0 and not server.repos
    assert set(server.requests) == {"whoami", "info"}
    assert "as tester: org/reranker does not exist; it would be private" in text
    assert "card: valid, licence apache-2.0, as rendered from report.json" in text
    assert "model.safetensors" in text and "new" in text and "dry run: nothing was sent" in text
    assert ".hfcompress" not in text and TOKEN not in text
    server.add(NAME, {"onnx/model_qint8_static.onnx": b"old", "notes.txt": b"mine"})
    code, text = command(stub_run, "--repo-id", NAME)
    assert code == 0 and set(server.requests) == {"whoami", "info", "refs", "tree"}
    assert "removed" in text and "notes.txt" not in text and f"{NAME} is private; main is at " in text


def test_files_of_an_earlier_run_are_removed_and_others_stay(
    server: HubServer, repository: Repository, run_folder: Path
) -> None:
    old = {"onnx/model_qint8_static.onnx": b"old", "notes.txt": b"mine", "LICENSE": b"text", "config.json": b"{}"}
    server.add(NAME, old)
    found = {change.path: change.kind for change in changes(repository, look(Hub(), Target(NAME)))}
    assert found["config.json"] == "changed" and found["onnx/model_qint8_static.onnx"] == "removed"
    assert "LICENSE" not in found and found["README.md"] == "new"
    publish(repository)
    assert published(server) == {**contents(repository), "notes.txt": b"mine", "LICENSE": b"text"}
    (run_folder / "onnx" / "model_quantized.onnx").write_bytes(stub_graph("GRAPH"))  # as long as the one before
    publish(read_repository(run_folder))
    assert published(server)["onnx/model_quantized.onnx"] == stub_graph("GRAPH")
    assert len(server.uploads) == 5 and len(server.repos[NAME].history["main"]) == 3


def test_public_only_where_asked(server: HubServer, repository: Repository) -> None:
    publish(repository, public=True)
    assert not server.repos[NAME].private
    with pytest.raises(HubError, match=r"is public.*add --public"):
        publish(repository)
    server.repos[NAME].private = True
    with pytest.raises(HubError, match=r"is private.*leave out --public"):
        publish(repository, public=True)
    assert len(server.repos[NAME].history["main"]) == 2


def test_a_branch_is_made_if_it_is_missing(server: HubServer, repository: Repository) -> None:
    publish(repository, revision="v1.1/rc", message="Release")
    repo = server.repos[NAME]
    assert published(server, "v1.1/rc") == contents(repository)
    assert set(repo.files()) == {".gitattributes"} and len(repo.history["v1.1/rc"]) == 2
    assert publish(repository, revision="v1.1/rc") is None
    repo.tags["v1"] = repo.history["main"][0]
    with pytest.raises(HubError, match="is a tag"):
        publish(repository, revision="v1")


def test_a_pull_request_leaves_main_alone(server: HubServer, repository: Repository) -> None:
    with pytest.raises(HubError, match="pull request needs an existing repository"):
        publish(repository, create_pr=True)
    repo = server.add(NAME, private=False)
    address = publish(repository, create_pr=True, message="A reranker")
    assert address == f"{server.url}/{NAME}/discussions/1"
    assert repo.proposals[1][0] == "A reranker" and len(repo.history["main"]) == 1
    assert published(server, "refs/pr/1") == contents(repository)
    assert publish(repository, create_pr=True, message="A reranker") == address  # and no second one
    assert len(repo.proposals) == 1


def test_the_hub_checks_the_card_before_anything_is_made(server: HubServer, run_folder: Path) -> None:
    card = run_folder / "README.md"
    card.write_text(card.read_text().replace("pipeline_tag: text-ranking", "pipeline_tag: nonsense"))
    with pytest.raises(HubError, match=r'HTTP 400.*"pipeline_tag" must be valid'):
        publish(read_repository(run_folder))
    assert not server.repos and not server.uploads


# Faults

REFUSED = (401, 403, 404, 409)
REPEATED = ("whoami", "info", "refs", "tree", "create", "validate", "preupload", "batch", "upload", "verify", "commit")


@pytest.mark.parametrize("kind", [503, "torn", "lost"])
@pytest.mark.parametrize("endpoint", REPEATED)
def test_a_fault_that_passes_is_lived_through(
    server: HubServer, repository: Repository, endpoint: str, kind: int | str
) -> None:
    if endpoint in ("refs", "tree"):
        server.add(NAME)
    server.faults[endpoint] = [Fault(kind), Fault(kind)]
    assert publish(repository) is not None
    assert not server.faults[endpoint] or (endpoint, kind) == ("commit", "lost")
    assert published(server) == contents(repository)
    assert len(server.repos[NAME].history["main"]) == 2


@pytest.mark.parametrize("kind", [*REFUSED, 500, "cut"])
@pytest.mark.parametrize("endpoint", REPEATED)
def test_a_fault_that_stays_stops_it_and_the_next_try_completes(
    server: HubServer, repository: Repository, endpoint: str, kind: int | str
) -> None:
    if endpoint in ("refs", "tree"):
        server.add(NAME)
    passes = (endpoint, kind) in {("info", 404), ("create", 409)}
    server.faults[endpoint] = [Fault(kind, message=f"no, {TOKEN}")] * 40
    if not passes:
        with pytest.raises(HubError) as caught:
            publish(repository)
        shown = "".join(traceback.format_exception(caught.value))
        assert TOKEN not in shown and "secret-of-the-store" not in shown and "Remedy: " in shown
        assert isinstance(caught.value, HubUnavailableError) is (kind not in REFUSED)
        assert caught.value.exit_code == (2 if kind in REFUSED else 1)
        repo = server.repos.get(NAME)
        assert repo is None or set(repo.files()) == {".gitattributes"}
    server.faults.clear()
    publish(repository)
    assert published(server) == contents(repository)


@pytest.mark.slow
def test_100_of_100_random_schedules_end_in_one_commit(server: HubServer, repository: Repository) -> None:
    wanted = contents(repository)
    stopped = 0
    for seed in range(100):
        rng = random.Random(seed)
        server.reset()
        settings: dict[str, object] = {"revision": "v2"} if rng.random() < 0.2 else {}
        if proposes := not settings and rng.random() < 0.2:
            settings = {"create_pr": True, "message": "A reranker"}
        if proposes or rng.random() < 0.3:
            server.add(NAME)
        for endpoint in rng.sample(ENDPOINTS, rng.randint(1, 6)):
            kinds = rng.choices([500, 502, 503, 429, "cut", "torn", "lost", *REFUSED], k=rng.randint(1, 9))
            server.faults[endpoint] = [Fault(kind) for kind in kinds]
        try:
            publish(repository, **settings)
        except HubError:
            stopped += 1
            if repo := server.repos.get(NAME):
                trees = [repo.files(branch) for branch in repo.history] + [
                    repo.trees[oid] for _, oid in repo.proposals.values()
                ]
                for tree in trees:  # all or nothing
                    assert set(tree) in ({".gitattributes"}, {".gitattributes", *wanted}), seed
        server.faults.clear()
        arrived = set(server.uploads)
        server.uploads.clear()
        publish(repository, **settings)
        repo = server.repos[NAME]
        revision = "refs/pr/1" if proposes else str(settings.get("revision", "main"))
        assert published(server, revision) == wanted, seed
        assert len(repo.trees) == 2 and len(repo.proposals) == proposes, seed  # the Hub's first commit, and one
        assert not arrived & set(server.uploads), seed  # nothing is sent again
    assert 20 < stopped < 100  # the schedules do stop it, and do not always


def test_retry_after_is_honoured(server: HubServer, repository: Repository, slept: list[float]) -> None:
    server.faults["whoami"] = [Fault(429, {"Retry-After": "37"}), Fault(503, {"Retry-After": "11"}), Fault(500)]
    server.faults["commit"] = [Fault(429, {"Retry-After": "23"})]
    publish(repository)
    assert slept == [37.0, 11.0, 4.0, 23.0]
    server.faults["info"] = [Fault(429, {"Retry-After": "3600"})]
    with pytest.raises(HubUnavailableError, match="busy") as caught:
        publish(repository)
    assert caught.value.retry_after == 3600 and len(slept) == 4


def test_a_commit_of_somebody_else_is_not_overwritten(
    server: HubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = server.add(NAME)
    upload = huggingface_hub.HfApi.preupload_lfs_files

    def meanwhile(*arguments: object, **settings: object) -> None:
        upload(*arguments, **settings)  # type: ignore[arg-type]
        if "config.json" not in repo.files():
            repo.commit("main", {**repo.files(), "config.json": b"theirs"})

    monkeypatch.setattr(huggingface_hub.HfApi, "preupload_lfs_files", meanwhile)
    with pytest.raises(HubError, match=f"{NAME} changed during the push"):
        publish(repository)
    assert repo.files()["config.json"] == b"theirs" and len(repo.history["main"]) == 2


# Tokens and input


def test_no_token_and_a_wrong_token(
    server: HubServer, stub_run: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = "hf_" + "wrong1" * 6
    monkeypatch.setenv("HF_TOKEN", wrong)
    code, text = command(stub_run, "--repo-id", NAME, "--execute")
    assert code == 2 and "HTTP 401" in text and "hf auth login" in text and wrong not in text
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    code, text = command(stub_run, "--repo-id", NAME, "--execute")
    assert code == 2 and "There is no token" in text and server.requests == ["whoami"]
    code, text = command(stub_run, "--repo-id", NAME)
    assert code == 0 and "without a token, which --execute needs" in text


def test_a_busy_hub_ends_with_1_and_a_dry_run_goes_without(server: HubServer, stub_run: Path, command: Command) -> None:
    server.faults["whoami"] = [Fault(503)] * 20
    code, text = command(stub_run, "--repo-id", NAME, "--execute", "-q")
    assert code == 1 and "the Hub is busy" in text and "same command again" in text
    code, text = command(stub_run, "--repo-id", NAME)
    assert code == 0 and "not compared with the Hub: Cannot check the token: the Hub is busy" in text


def test_offline_mode_is_named(
    server: HubServer, stub_run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    code, text = command(stub_run, "--repo-id", NAME, "--execute")
    assert code == 2 and "offline mode" in text and "unset HF_HUB_OFFLINE" in text and not server.requests
    code, text = command(stub_run, "--repo-id", NAME)
    assert code == 0 and "not compared with the Hub: Cannot check the token in offline mode" in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--repo-id", "reranker"], "the namespace is missing"),
        (["--repo-id", "org/a--b"], "Cannot have -- or .."),
        (["--repo-id", "org/team/name"], "Repo id must be in the form"),
        (["--repo-id", "org/name.git"], "cannot end by '.git'"),
        (["--repo-id", ""], "repository id is not valid"),
        (["--repo-id", NAME, "--revision", "a b"], "not a valid branch name"),
        (["--repo-id", NAME, "--revision", "refs/pr/1"], "not a valid branch name"),
        (["--repo-id", NAME, "--revision", "v1", "--create-pr"], "A pull request always goes to main"),
        (["--repo-id", NAME, "--message", " "], "commit message is empty"),
        (["--repo-id", NAME, "--message", f"with {TOKEN}"], "or contains a secret"),
    ],
)
def test_what_the_hub_would_refuse_is_refused_here(
    server: HubServer, stub_run: Path, command: Command, settings: list[str], words: str
) -> None:
    code, text = command(stub_run, *settings, "--execute")
    assert code == 2 and words in text and "Remedy: " in text and TOKEN not in text
    assert not server.requests


def test_unknown_errors_of_the_client_are_shown_without_secrets() -> None:
    hub = Hub()
    hub.token = "known-secret"

    def breaks() -> None:
        raise RuntimeError("no known-secret, no https://store.example/x?X-Amz-Signature=abc")

    with pytest.raises(HubError, match="RuntimeError: no ") as caught:
        hub.ask("do it", breaks)
    shown = "".join(traceback.format_exception(caught.value))
    assert "known-secret" not in shown and "abc" not in shown and "store.example" in shown

    def refuses() -> None:
        raise HfCompressError("Ours", expected="x", remedy="y")

    with pytest.raises(HfCompressError, match="Ours"):
        hub.ask("do it", refuses)


LOADED = """
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from hfcompress import load_model
inputs = torch.load("inputs.pt", weights_only=True)
models = [
    AutoModelForSequenceClassification.from_pretrained("org/reranker", trust_remote_code=True),
    load_model("org/reranker"),
]
print(type(models[0]).__name__, len(AutoTokenizer.from_pretrained("org/reranker")("ba de", "fi")["input_ids"]))
torch.save([model.eval()(**inputs).logits for model in models], "logits.pt")
"""


@pytest.mark.slow
def test_what_was_published_loads_from_the_hub(server: HubServer, repository: Repository, tmp_path: Path) -> None:
    publish(repository)
    inputs = random_inputs(3, 9)
    torch.save(inputs, tmp_path / "inputs.pt")
    settings = {
        "HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN,
        "PYTHONPATH": str(Path(__file__).parents[2]), "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={**environment, **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["PrunedBertForSequenceClassification", "6"]
    with torch.inference_mode():
        expected = load_model(str(repository.folder)).eval()(**inputs).logits
    for logits in torch.load(tmp_path / "logits.pt", weights_only=True):
        assert torch.equal(logits, expected)
