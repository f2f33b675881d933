"""What must not be published is refused before the Hub is asked, and said which file it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import TOKEN
from run_reports import run_report
from stub_graphs import stub_graph

from hfcompress.card import render, write_card
from hfcompress.errors import HfCompressError, OutputError, PlanError
from hfcompress.hub.leaks import (
    is_absolute_path,
    machine_paths_in,
    machine_paths_in_file,
    redact,
    secrets_in,
)
from hfcompress.hub.repository import read_repository

Change = Callable[[Path], object]
AWS = "AKIA" + "Q7" * 8


def replace(file: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return change


def write(file: str, content: str | bytes) -> Change:
    def change(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def with_report(**changes: object) -> Change:
    """The same run with another report, and its card."""

    def change(folder: Path) -> None:
        report = run_report(**changes)
        report.save(folder)
        write_card(folder, report)

    return change


def test_a_stub_run_can_be_published(stub_run: Path) -> None:
    repository = read_repository(stub_run, TOKEN)  # the token is in .hfcompress, which stays here
    assert repository.rendered and repository.license == "apache-2.0"
    assert list(repository.files) == sorted(repository.files)
    assert {"README.md", "model.safetensors", "onnx/model_quantized.onnx", "report.json"} <= set(repository.files)
    assert not [file for file in repository.files if file.startswith(".")]
    assert repository.size("onnx/model_quantized.onnx") == len(stub_graph("graph"))


def test_a_card_may_be_added_to_and_a_licence_file_put_beside_it(run_folder: Path) -> None:
    card = run_folder / "README.md"
    card.write_text(card.read_text() + "\nNone of this is an unset value: `None`, and infinity is no `inf`.\n")
    (run_folder / "LICENSE").write_text("Apache-2.0")
    (run_folder / "openvino").mkdir()  # git knows no empty folders
    write("packed/model_int4.safetensors", b"weights")(run_folder)
    repository = read_repository(run_folder)
    assert not repository.rendered and {"LICENSE", "packed/model_int4.safetensors"} <= set(repository.files)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # strangers
        (write("notes.txt", "mine"), ["1 unexpected files", "notes.txt", "move them elsewhere"]),
        (write("onnx/deep.bin", b"x"), ["onnx/deep.bin"]),
        (write(".env", "A=1"), [".env"]),
        (write("pytorch_model.bin", b"x"), ["pytorch_model.bin"]),
        (lambda folder: (folder / "figures" / "link.png").symlink_to(folder / "README.md"), ["figures/link.png"]),
        # what is missing
        (lambda folder: (folder / "README.md").unlink(), ["is not complete", "README.md"]),
        (lambda folder: (folder / "onnx" / "model_quantized.onnx").unlink(), ["model_quantized.onnx", "--resume"]),
        (write("openvino/openvino_model.xml", "<net/>"), ["openvino/openvino_model.bin"]),
        (write("model.safetensors", b""), ["is not complete", "model.safetensors"]),
        (lambda folder: (folder / "figures" / "pareto.png").unlink(), ["figures/pareto.png"]),
        (lambda folder: (folder / "modeling_hfcompress.py").unlink(), ["modeling_hfcompress.py"]),
        (lambda folder: (folder / "report.json").unlink(), ["no report.json", "hfcompress run"]),
        (write("special_tokens_map.json", "{"), ["special_tokens_map.json cannot be read", "JSON"]),
        (write("special_tokens_map.json", b"\xff"), ["special_tokens_map.json cannot be read", "UTF-8"]),
        # other versions
        (replace("report.json", '"schema_version": 1', '"schema_version": 2'), ["not a report of schema version 1"]),
        (replace("report.json", '"speedup": 2.0', '"speedup": NaN'), ["not a report of schema version 1"]),
        # the card
        (with_report(license=""), ["names no licence", "publish.license"]),
        (replace("README.md", "license: apache-2.0\n", ""), ["names no licence"]),
        (replace("README.md", "license: apache-2.0\n", "license: other\n"), ["licence `other` without its name"]),
        (replace("README.md", "license: apache-2.0\n", "license:\n"), ["names no licence"]),
        (replace("README.md", "---\nbase_model", "base_model"), ["front matter of the card is missing"]),
        (replace("README.md", "language: en", "language: [en"), ["front matter of the card cannot be read"]),
        (replace("README.md", "language: en", "language: English"), ["something else than two or three letters"]),
        (replace("README.md", "base_model: sent", "base_model: /sent"), ["base model that cannot be on the Hub"]),
        (replace("README.md", "model-index:\n", "model-index: 3\nolder:\n"), ["cannot be read", "model_index"]),
        (replace("README.md", "value: 0.5684", "value: .nan"), ["fields that are not set", "metrics[0].value"]),
        (replace("README.md", "pipeline_tag: text-ranking", "pipeline_tag: None"), ["not set", "pipeline_tag"]),
        (replace("README.md", "pipeline_tag: text-ranking", "pipeline_tag:"), ["not set", "pipeline_tag"]),
        (replace("README.md", "- hfcompress\n", "- 7\n"), ["something else than texts in `tags`"]),
        (replace("README.md", "| teacher, fp32 PyTorch | 0.5674", "| teacher, fp32 PyTorch | nan"), ["not set", "nan"]),
        (replace("README.md", "| teacher, fp32 PyTorch |", "| None |"), ["not set", "None"]),
        (replace("README.md", "# quickstart", "# {{ name }}"), ["not set", "{{ name }}"]),
        # secrets
        (with_report(recipe=f"name: x\ntoken: {TOKEN}\n"), ["possible secrets", "a Hugging Face token", "revoke"]),
        (replace("config.json", '"gelu"', f'"{AWS}"'), ["config.json: an AWS key (AKIA...)"]),
        (replace("README.md", "# quickstart", "# x\n-----BEGIN RSA PRIVATE KEY-----"), ["README.md: a private key"]),
        (
            replace("hfcompress_config.json", '"quickstart"', '"Authorization: Bearer abcdefghij0123456789"'),
            ["hfcompress_config.json: a bearer token"],
        ),
        (replace("tokenizer.json", '"ba"', f'"{TOKEN}"'), ["tokenizer.json: the token of this machine"]),
        (write("recipe.yaml", f"name: x\ntoken: {AWS}\n"), ["recipe.yaml: an AWS key (AKIA...)"]),
        # paths
        (with_report(recipe="data: {sets: [/home/ada/data]}\n"), ["README.md: /home/ada/data", "relative paths"]),
        (write("recipe.yaml", "data: {sets: [/home/ada/data]}"), ["recipe.yaml: /home/ada/data"]),
        (with_report(base_model="/models/mine/encoder"), ["report.json: /models/mine/encoder"]),
        (replace("hfcompress_config.json", '"quickstart"', '"C:\\\\Users\\\\ada\\\\data"'), ["Users"]),
        (write("onnx/model_quantized.onnx", stub_graph('"/opt/python/site-packages/torch/x.py"')), ["site-packages"]),
    ],
)  # fmt: skip
def test_refused(run_folder: Path, change: Change, words: list[str]) -> None:
    change(run_folder)
    with pytest.raises(OutputError) as caught:
        read_repository(run_folder, TOKEN)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert TOKEN not in str(caught.value) and AWS not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_path_of_this_machine_is_found_wherever_it_is(run_folder: Path) -> None:
    replace("config.json", '"gelu"', json.dumps(f"made in {run_folder}"))(run_folder)
    with pytest.raises(OutputError, match=r"config\.json: /"):
        read_repository(run_folder)


def test_another_format_of_pruning_is_refused(run_folder: Path) -> None:
    path = run_folder / "config.json"
    config = json.loads(path.read_text())
    config["hfcompress"]["format"] = 99
    path.write_text(json.dumps(config))
    with pytest.raises(PlanError, match="another format"):
        read_repository(run_folder)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(HfCompressError, match=r"no report\.json"):
            read_repository(folder)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"token={TOKEN}", "Hugging Face"),
        (f"aws_secret_access_key = {'abCD12+/' * 5}", "AWS secret"),
        (f"{AWS}", "AWS key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("authorization: bearer eyJhbGciOiJIUzI1NiJ9.e30", "bearer"),
        ("ghp_" + "a1B2" * 9, "GitHub"),
        ("github_pat_" + "a1B2" * 11, "GitHub"),
        ("xoxb-1234567890-abc", "Slack"),
        ("AIza" + "a1B2c" * 7, "Google"),
        ("sk-proj-" + "a1B2" * 9, "OpenAI"),
        ("https://me:secret@example.org/x", "password in a URL"),
    ],
)
def test_secrets(text: str, kind: str) -> None:
    (found,) = secrets_in(text)
    assert kind in found
    assert not secrets_in(redact(text)) and "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "hf_hub, hf_compress and hf_xet",
        "a bearer of considerations-and-internationalisation",
        "AAAA" + AWS + "AAAA" + "/+==",  # within base64
        "https://huggingface.co:443/org/name@main",
        "task-0123456789abcdefghijklmnopqrstuvwxyz",
    ],
)
def test_no_secrets(text: str) -> None:
    assert not secrets_in(text) and redact(text) == text


def test_known_secrets_and_signed_addresses_are_hidden() -> None:
    assert redact("GET https://store.org/a?X-Amz-Signature=1&b=2 with pass", "pass") == (
        "GET https://store.org/a?*** with ***"
    )


def test_paths_of_a_machine(tmp_path: Path) -> None:
    assert machine_paths_in("sets: [/home/ada/data, ../data]") == ["/home/ada/data"]
    assert machine_paths_in("file:///Users/ada/x.") == ["/Users/ada/x"]
    assert machine_paths_in(f"see {tmp_path}/x") == [f"{tmp_path}/x"]
    assert machine_paths_in(r"C:\Users\ada\x") == [r"C:\Users\ada"]
    plain = (
        "https://huggingface.co/home/x and/or /bert/encoder/layer.0/Add ../home/x text/ranking 1/2/3 ~/x ${HOME}/a/b"
    )
    assert not machine_paths_in(plain)
    assert is_absolute_path("/a/b") and is_absolute_path("D:\\data") and not is_absolute_path("/a")
    assert not is_absolute_path("a/b/c") and not is_absolute_path("/a/b\nc")
    graph = tmp_path / "graph"
    graph.write_bytes(b"\x00\xff")
    assert not machine_paths_in_file(graph)
    graph.write_bytes(b"\x00" + str(Path(__file__).parents[2] / "hfcompress" / "x.py").encode())
    assert machine_paths_in_file(graph) == [f"{Path(__file__).parents[2]}/"]
    graph.write_bytes(b"")
    assert not machine_paths_in_file(graph)


def test_the_card_of_the_run_is_what_its_report_renders(stub_run: Path) -> None:
    assert (stub_run / "README.md").read_text(encoding="utf-8") == render(run_report())
