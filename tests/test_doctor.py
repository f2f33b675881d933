"""The doctor tries every part, and says what to do about those that fail."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from hfcompress import doctor
from hfcompress.cli import main
from hfcompress.doctor import PROBES, Diagnosis, diagnose

QUICK = tuple(probe for probe in PROBES if probe.package in ("torch", "onnxruntime", "openvino", "bm25s"))


def broken() -> None:
    raise OSError("libgomp.so.1: cannot open shared object file\nmore")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROBES", QUICK)


def diagnosis_with(monkeypatch: pytest.MonkeyPatch, package: str, **changes: object) -> Diagnosis:
    monkeypatch.setattr(
        doctor, "PROBES", tuple(replace(each, **changes) if each.package == package else each for each in QUICK)
    )
    return diagnose()


def test_what_is_installed_works() -> None:
    found = diagnose()
    assert found.healthy and found.cores >= 1 and found.memory_gb >= found.free_gb > 0
    installed = [part for part in found.parts if part.version]
    assert len(installed) >= 3 and all(part.works and not part.remedy for part in installed)


def test_every_probe_is_a_declared_dependency_and_every_extra_has_one() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = " ".join(project["dependencies"])
    extras = project["optional-dependencies"]
    for probe in PROBES:
        assert probe.package in (required if probe.extra is None else " ".join(extras[probe.extra]))
    assert {probe.extra for probe in PROBES} >= set(extras) - {"all", "dev", "docs"}


def test_a_broken_part_is_reported_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    found = diagnosis_with(monkeypatch, "onnxruntime", attempt=broken)
    (part,) = [part for part in found.parts if part.package == "onnxruntime"]
    assert not part.works and part.fault == "OSError: libgomp.so.1: cannot open shared object file"
    assert part.remedy == "pip install --force-reinstall --no-deps onnxruntime" and not found.healthy


def test_a_part_that_computes_the_wrong_thing_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession.run", lambda *_: [[4.0]])
    (part,) = [part for part in diagnose().parts if part.package == "onnxruntime"]
    assert "computed 4.0 instead of 3.0" in part.fault


def test_missing_parts_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("openvino", "bm25s"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = {part.package: part for part in diagnose().parts}
    assert found["openvino"].remedy == "pip install 'hfcompress[openvino]'" and not found["openvino"].required
    assert found["bm25s"].remedy == "pip install --upgrade bm25s" and found["bm25s"].fault == "not installed"


def test_advice_is_about_what_the_machine_lacks() -> None:
    found = diagnose().model_copy(
        update={"vnni": False, "bf16": False, "target": "avx2", "cores": 8, "thread_settings": {"OMP_NUM_THREADS": "2"}}
    )
    text = " ".join(found.advice())
    assert "no VNNI" in text and "bf16" in text and "leaves 6 of 8 cores unused" in text
    good = {"vnni": True, "bf16": True, "thread_settings": {}}
    assert found.model_copy(update=good).advice() == []


def test_the_verb_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    printed = capsys.readouterr().out
    assert "ONNX Runtime" in printed and "VNNI: " in printed
    main(["doctor", "--json", "-"])
    assert Diagnosis.model_validate(json.loads(capsys.readouterr().out)).healthy


def test_the_verb_works_without_the_packages_that_other_verbs_import(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    main(["doctor"])
    assert "ONNX Runtime" in capsys.readouterr().out


def test_the_verb_ends_with_1_where_something_required_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diagnosis_with(monkeypatch, "bm25s", attempt=broken)
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 1 and "--force-reinstall" in "".join(capsys.readouterr().out.split())
    diagnosis_with(monkeypatch, "openvino", attempt=broken)
    main(["doctor", "--json", "-"])
