"""A whole run on a pico model: what it writes, what resuming keeps, what an interruption leaves."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import make_pico, write_beir
from datasets import Dataset, load_from_disk
from report_samples import example_report
from safetensors import safe_open
from transformers import BertTokenizerFast

import hfcompress
from hfcompress import pipeline, run_data
from hfcompress.checkpoint import save_checkpoint
from hfcompress.checks import check_data
from hfcompress.cli import main
from hfcompress.data.pseudo import has_pseudo_queries
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError
from hfcompress.evaluation.report import RunReport
from hfcompress.layout import ONNX_INT8
from hfcompress.models import load_model, load_tokenizer
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.plan import PruningPlan
from hfcompress.quantization.onnxruntime import export_onnx, save_onnx
from hfcompress.quantization.openvino import is_available
from hfcompress.rankers.bm25 import Bm25Ranker
from hfcompress.rankers.load import default_graph
from hfcompress.recipe import Recipe, ScoreSource
from hfcompress.run_data import load_run_data, ranking_pairs, source_fingerprint
from hfcompress.sparsity import zero_share
from hfcompress.steps.base import Run, stages
from hfcompress.surgery import current_plan, encoder_flops
from hfcompress.workspace import Workspace

Finished = tuple[Path, list[str], list[str]]
PACKED = {"runtime": "torch", "bits": 6, "group_size": 16, "scope": "all"}
QUICK = {"epochs": 2, "learning_rate": 1e-3, "queries_per_batch": 8}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, word_data: RankingData, tokenizer: BertTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_beir(folder / "words", word_data)
    save_checkpoint(folder / "encoder", make_pico(), tokenizer, "torch.nn.modules.activation.Sigmoid", 32)
    return folder


def recipe_for(inputs: Path) -> dict:
    artifacts: list[dict] = [{"runtime": "onnxruntime", "mode": mode} for mode in ("dynamic", "static")]
    return {
        "name": "pico",
        "data": {"sets": [str(inputs / "words")], "candidates": 6},
        "teacher": {"model": str(inputs / "encoder"), "max_length": 32, "train": {"optimization": QUICK}},
        "prune": {
            "target_flops": 0.5, "ffn_multiple": 8, "calibration_queries": 12, "search_steps": 3,
            "vocabulary": {"min_count": 8, "characters": "corpus"}, "weights": {"sparsity": 0.3},
        },
        "recover": {"documents": 4, "random_negatives": 1, "optimization": QUICK},
        "quantize": {
            "artifacts": [*artifacts, {"runtime": "openvino", "optional": True}, PACKED], "calibration_pairs": 16,
        },
        "evaluate": {
            "latency_queries": 2, "rounds": 2, "threads": 1, "cold_start": False, "metrics": ["auc", "ndcg@5"],
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run as a user starts it; the folder, and what stood on stdout and stderr."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_for(inputs)))
    command = [sys.executable, "-m", "hfcompress", "run", str(folder / "recipe.yaml"), "--out", str(folder / "out")]
    told = {name: value for name, value in os.environ.items() if name not in ("HFCOMPRESS_DEBUG", "PYTHONWARNINGS")}
    done = subprocess.run(command, env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout.splitlines(), done.stderr.splitlines()


def test_a_run_prints_its_plan_its_steps_and_its_verdict_and_nothing_of_other_libraries(finished: Finished) -> None:
    out, printed, errors = finished
    steps = ["teacher", "prune", "scores", "recover", "int8", "evaluate"]
    # stderr: nothing but lines of bars, which appear where a step takes long
    assert [line for line in errors if not re.match(r"[a-z0-9 ]+: \d+% \(\d+ of \d+\), ", line)] == []
    data, title, *rest = printed
    assert data == "data: 40 train, 8 dev, 12 test queries of words" and title == f"plan for {out}: 6 steps"
    plan, rest = rest[:6], rest[6:]
    assert [line.split()[:2] for line in plan] == [[f"{number}.", name] for number, name in enumerate(steps, 1)]
    assert not any(" took " in line for line in plan)  # nothing has been measured yet
    of_steps = re.compile(rf"({'|'.join([*steps, 'importance', 'costs', 'search'])}): \S")
    table = next(number for number, line in enumerate(rest) if not of_steps.match(line))
    done = [line for line in rest[:table] if re.fullmatch(rf"({'|'.join(steps)}): done in [\d.]+ \w+( \d+ s)?", line)]
    assert [line.split(":")[0] for line in done] == steps
    assert rest[table].startswith(f"card: {out / 'README.md'}, finished in ")
    assert rest[table + 1].startswith("pico: 12 test queries of words")
    last = " ".join(line for line in rest[table + 2 :] if not re.match("[┏┃┡│└]", line))
    assert "teacher" in last and "95% interval" in last and "times as fast" in last


def test_repository_layout(finished: Finished) -> None:
    out, *_ = finished
    expected = {
        "README.md", "config.json", "config_sentence_transformers.json", "figures/pareto.png", "figures/structure.png",
        "hfcompress_config.json", "model.safetensors", "modeling_hfcompress.py", "modules.json", "onnx/model.onnx",
        "onnx/model_qint8_static.onnx", "onnx/model_quantized.onnx", "report.json", "sentence_bert_config.json",
        "packed/model_int6.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    if is_available():
        stems = ("openvino_model", "openvino_model_qint8_quantized")
        expected |= {f"openvino/{stem}.{ending}" for stem in stems for ending in ("xml", "bin")}
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {path for path in found if not path.startswith(".hfcompress/")} == expected
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 32
    assert json.loads((out / "sentence_bert_config.json").read_text())["max_seq_length"] == 32
    assert json.loads((out / "config.json").read_text())["sentence_transformers"]["activation_fn"].startswith("torch.")
    for path in ("config.json", "tokenizer_config.json", "README.md", "report.json"):
        assert str(out.parent) not in (out / path).read_text()
    with safe_open(out / "model.safetensors", "pt") as weights:
        assert weights.metadata() == {"format": "pt"}


def test_report(finished: Finished) -> None:
    report = RunReport.load(finished[0])
    names = [artifact.name for artifact in report.artifacts]
    assert names[:3] == ["student-torch", "student-onnxruntime-int8-dynamic", "student-onnxruntime-int8-static"]
    assert len(names) == 4 + is_available() and names[-1] == "student-torch-int6-weights"
    for artifact in (report.teacher, *report.artifacts):
        assert len(artifact.per_query) == 12
        assert artifact.quality["ndcg@10"] == pytest.approx(np.mean(list(artifact.per_query.values())))
        assert artifact.latency.docs_per_second > 0 and artifact.latency.p95_ms >= artifact.latency.p50_ms > 0
        assert artifact.latency.threads == 1 and artifact.size_bytes > 0
    for artifact in report.artifacts:
        expected = artifact.quality["ndcg@10"] - report.teacher.quality["ndcg@10"]
        assert artifact.delta is not None and artifact.delta.mean == pytest.approx(expected, abs=1e-9)
        assert artifact.parameters < report.teacher.parameters
    assert report.teacher.speedup == 1 and report.teacher.delta is None
    assert [step.name for step in report.steps] == ["teacher", "prune", "scores", "recover", "int8", "evaluate"]
    assert report.pruning is not None and report.pruning.custom_code
    assert report.data.queries == {"train": 40, "dev": 8, "test": 12}
    assert Recipe.from_yaml(report.recipe).name == "pico"
    assert report.first_stage.name == "BM25" and 0 < report.first_stage.quality["ndcg@10"] < 1
    # Metrics that the recipe asks for have a table of their own.
    card = (finished[0] / "README.md").read_text(encoding="utf-8")
    table = card[card.index("### Other metrics") :].split("\n\n")[1].splitlines()
    assert table[0] == "|  | AUC | nDCG@5 |" and len(table) == 2 + 2 + len(names)
    assert f"{report.teacher.quality['auc']:.4f} | {report.teacher.quality['ndcg@5']:.4f}" in table[3]


def test_zeros_are_held_to_the_end_and_reported(finished: Finished) -> None:
    out, *_ = finished
    report = RunReport.load(out)
    weights = report.pruning.weights
    assert (weights.pattern, weights.sparsity) == ("unstructured", 0.3)
    assert weights.zero_share == zero_share(load_model(str(out))) == pytest.approx(0.3, abs=0.01)
    for artifact in (report.teacher, *report.artifacts):
        assert 0 < artifact.deflated_bytes < artifact.size_bytes
    card = (out / "README.md").read_text()
    assert "| MB deflated |" in card and "30.0% are zero (the smallest of each matrix)" in card


def test_packed_weights_are_an_artefact_like_the_others(finished: Finished) -> None:
    out, *_ = finished
    report = RunReport.load(out)
    exact, packed = report.artifacts[0], report.artifacts[-1]
    assert (packed.path, packed.runtime, packed.precision) == (
        "packed/model_int6.safetensors", "torch", "int6-weights",
    )  # fmt: skip
    common = sum((out / name).stat().st_size for name in ("config.json", "tokenizer.json", "tokenizer_config.json"))
    assert packed.size_bytes == (out / packed.path).stat().st_size + common < exact.size_bytes
    assert packed.parameters == exact.parameters and packed.stability.rank_correlation > 0.9
    ranker = hfcompress.load_ranker(out, file=packed.path)
    assert ranker.score([("ba", "de")]) != hfcompress.load_ranker(out, "torch").score([("ba", "de")])
    config = RankerCompressionConfig.from_pretrained(out)
    assert config.quantization[packed.path]["group_size"] == 16
    card = (out / "README.md").read_text()
    assert "`student-torch-int6-weights`: weights stored in few bits" in card
    assert "time and memory are those of the model in fp32 PyTorch" in card and "of a quantized artefact" in card


def test_stability_is_in_the_report_and_the_card(finished: Finished) -> None:
    report = RunReport.load(finished[0])
    assert report.teacher.stability is None
    for artifact in report.artifacts:
        stability = artifact.stability
        assert stability is not None and stability.pairs == 8 * 6
        assert 0 <= stability.batched.mean <= stability.batched.largest < 1
        assert (stability.rank_correlation is None) == (artifact.precision == "fp32")
    exact, dynamic = report.artifacts[0].stability, report.artifacts[1].stability
    assert exact.padded.largest < 1e-3 < dynamic.padded.largest and 0.9 <= dynamic.rank_correlation <= 1
    assert "## Score stability" in (finished[0] / "README.md").read_text()


def test_the_artefact_that_speaks_for_the_run_is_explained(finished: tuple[Path, list[str]]) -> None:
    report = RunReport.load(finished[0])
    explanation = report.explanation
    assert explanation is not None
    (subject,) = (each for each in report.artifacts if each.name == explanation.artifact)
    assert sum(group.queries for group in explanation.by_query_length) == 12
    assert [(group.least, group.queries) for group in explanation.by_relevant] == [(1, 12)]
    for query in explanation.moved:
        assert query.artifact - query.teacher == subject.per_query[query.query] - report.teacher.per_query[query.query]
        assert query.documents[0].teacher_rank != query.documents[0].artifact_rank
        assert query.saliency is not None and -1 <= query.saliency.correlation <= 1
        assert query.text is None  # the data set does not say that its texts may be shown


def test_a_collapse_ends_the_run_and_names_the_parts(
    inputs: Path,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make_pico()
    for layer in model.bert.encoder.layer:  # inputs of 10,000 that no weight reads: int8 has no steps left for others
        for before, after in (
            (layer.attention.self.value, layer.attention.output.dense), (layer.intermediate.dense, layer.output.dense)
        ):  # fmt: skip
            before.weight.data[0], before.bias.data[0], after.weight.data[:, 0] = 0, 1e4, 0
    save_checkpoint(tmp_path / "outliers", model, tokenizer, "torch.nn.modules.activation.Sigmoid", 32)
    settings = recipe_for(inputs)
    del settings["recover"], settings["prune"]
    settings["teacher"] = {"model": str(tmp_path / "outliers"), "max_length": 32}
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["hfcompress", "run", str(path), "--out", str(out), "--quiet"])
    with pytest.raises(SystemExit) as ended:
        main()
    message = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2 and not (out / "report.json").exists()
    assert "student-onnxruntime-int8-dynamic (onnx/model_quantized.onnx) has collapsed" in message
    assert re.search(r"alone quantized it is lowest for (attention|FFN) of layer \d \(0\.\d{3}\)", message)


def test_all_forms_of_the_checkpoint_agree(finished: Finished) -> None:
    out, *_ = finished
    pairs = [("ba de fi", "sun ba de"), ("ba", "go"), ("gu lan", "pe pi po pu")]
    scores = hfcompress.load_ranker(out, "torch").score(pairs)
    graphs = [("onnxruntime", "onnx/model.onnx")] + [("openvino", "openvino/openvino_model.xml")] * is_available()
    for runtime, file in graphs:
        np.testing.assert_allclose(hfcompress.load_ranker(out, runtime, file).score(pairs), scores, atol=1e-4)
    assert hfcompress.load_ranker(out).score(pairs).shape == (3,)


def test_the_fastest_graph_of_the_report_is_the_default(finished: Finished, tmp_path: Path) -> None:
    out, *_ = finished
    shutil.copytree(out / "onnx", tmp_path / "onnx")
    assert default_graph(tmp_path) == ("onnxruntime", "onnx/model_quantized.onnx")
    report = RunReport.load(out)
    for fastest in ("onnx/model_quantized.onnx", "onnx/model_qint8_static.onnx"):
        artifacts = [
            artifact.model_copy(update={"speedup": 9.0 if artifact.path == fastest else 1.0})
            for artifact in report.artifacts
        ]
        report.model_copy(update={"artifacts": artifacts}).save(tmp_path)
        assert default_graph(tmp_path) == ("onnxruntime", fastest)
    assert default_graph(tmp_path, "openvino") is None
    (tmp_path / "onnx" / "model_quantized.onnx").unlink()
    assert default_graph(tmp_path, "onnxruntime") == ("onnxruntime", "onnx/model_qint8_static.onnx")


def test_every_block_of_the_card_runs(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    out, *_ = finished
    monkeypatch.chdir(out)
    query, documents = "ba de fi", ["sun ba de", "go lu", "pe pi po pu fi", "ba de fi sun", "lan"]
    scores = []
    for block in re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S):
        names: dict[str, object] = {}
        block = re.sub(r"query = .*", f"query = {query!r}", block)
        exec(re.sub(r"documents = .*", f"documents = {documents!r}", block), names)
        scores.append(np.asarray(names["scores"], dtype=np.float64))
    assert len(scores) == 5 + is_available()
    default, exact, cross_encoder, *others = scores
    np.testing.assert_allclose(cross_encoder, exact, atol=1e-5)  # the teacher was trained with identity
    for other in (default, *others):  # graphs, and packed weights
        assert other.shape == (5,) and np.corrcoef(other, exact)[0, 1] > 0.9


def test_compression_config_is_saved_in_optimums_manner(finished: Finished) -> None:
    config = RankerCompressionConfig.from_pretrained(finished[0])
    assert Recipe.model_validate(config.recipe).name == "pico"
    assert PruningPlan.from_dict(config.plan).heads_of == 4
    assert config.quantization["onnx/model_quantized.onnx"]["per_channel"] in (True, None)


def test_what_is_published_goes_with_the_report_of_the_day(tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "out", tmp_path / "int8"
    settings: dict[str, Any] = {"name": "pico", "data": {"sets": ["words"]}, "teacher": {"model": "encoder"}}
    before = Recipe.model_validate({**settings, "prune": {"heads": 0.5}})
    RankerCompressionConfig(recipe=before.model_dump(mode="json"), versions={"a": "1"}).save_pretrained(checkpoint)
    pipeline.publish_locally(out, checkpoint, example_report(recipe=before.text))
    written = (out / "hfcompress_config.json").read_bytes()
    assert written == (checkpoint / "hfcompress_config.json").read_bytes()
    assert (out / "figures" / "structure.png").is_file()

    after = Recipe.model_validate({**settings, "evaluate": {"margin": 0.02}, "publish": {"license": "mit"}})
    pipeline.publish_locally(out, checkpoint, example_report(recipe=after.text, pruning=None))
    config = RankerCompressionConfig.from_pretrained(out)
    assert config.recipe == after.model_dump(mode="json") and config.versions == {"a": "1"}
    assert [path.name for path in (out / "figures").iterdir()] == ["pareto.png"]


def test_resuming_keeps_finished_steps_and_redoes_what_changed(inputs: Path, tmp_path: Path) -> None:
    settings = recipe_for(inputs)
    del settings["recover"]
    settings["prune"] = {"heads": 0.5, "ffn": 0.5, "ffn_multiple": 8, "calibration_queries": 8}
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    out = tmp_path / "out"
    first = pipeline.run(Recipe.model_validate(settings), out, progress=False, say=lambda line: None)
    said: list[str] = []
    again = pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False, say=said.append)
    assert all(step.reused for step in again.steps)
    assert said[1] == f"plan for {out}: 4 steps, 4 of them kept"
    assert all(re.search(r" \(kept, took [\d.]+ \w+( \d+ s)?\)$", line) for line in said[2:6])
    assert sum("kept from an earlier run" in line for line in said) == len(again.steps)
    assert again.teacher.per_query == first.teacher.per_query
    assert again.license == "" and "license: unknown" in (out / "README.md").read_text()
    settings["publish"] = {"license": "mit"}
    licensed = pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False, say=lambda line: None)
    assert all(step.reused for step in licensed.steps) and "license: mit" in (out / "README.md").read_text()
    settings["prune"]["heads"] = 0.25
    said.clear()
    changed = pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False, say=said.append)
    assert said[1] == f"plan for {out}: 4 steps, 1 of them kept"
    assert ["kept, took" in line for line in said[2:6]] == [True, False, False, False]
    assert all("(last took " in line for line in said[3:6]) and said[6].startswith("what is to be done took ")
    assert {step.name: step.reused for step in changed.steps} == {
        "teacher": True,
        "prune": False,
        "int8": False,
        "evaluate": False,
    }
    assert sum(len(layer.heads) for layer in changed.pruning.layers) == 4


def test_a_searched_plan_and_a_smaller_vocabulary_go_through_all_steps(inputs: Path, finished: Finished) -> None:
    out, said, _ = finished
    pruning = RunReport.load(out).pruning
    assert pruning is not None and pruning.vocabulary is not None
    assert (pruning.importance, pruning.target) == ("obs", "flops 0.5")
    assert pruning.encoder_flops_kept <= 0.5 and pruning.calibration_loss is not None
    assert any(line.startswith("prune: keeps ") for line in said)
    before, after = load_tokenizer(str(inputs / "encoder")), load_tokenizer(str(out))
    assert (pruning.vocabulary.tokens_before, pruning.vocabulary.tokens_after) == (len(before), len(after))
    assert len(after) < len(before)
    for folder in (out, *(out / ".hfcompress" / step for step in ("prune", "recover", "int8"))):
        assert load_tokenizer(str(folder)).get_vocab() == after.get_vocab()
        model = load_model(str(folder))
        assert model.get_input_embeddings().num_embeddings == model.config.vocab_size == len(after)
        assert [(layer.layer, list(layer.heads), len(layer.ffn)) for layer in current_plan(model).layers] == [
            (layer.layer, layer.heads, layer.ffn) for layer in pruning.layers
        ]
    # The teacher keeps all of its tokens.
    assert len(load_tokenizer(str(out / ".hfcompress" / "teacher"))) == len(before)
    assert f"{len(after)} of {len(before)} tokens are left in the vocabulary" in (out / "README.md").read_text()


def test_pruning_in_stages(inputs: Path, tmp_path: Path) -> None:
    settings = recipe_for(inputs)
    settings["prune"] = {"target_flops": 0.36, "stages": 2, "calibration_queries": 6, "search_steps": 2}
    settings["prune"] |= {"ffn_multiple": 4, "vocabulary": {}}
    out, said = tmp_path / "out", []
    report = pipeline.run(Recipe.model_validate(settings), out, progress=False, say=said.append)
    assert [step.name for step in report.steps] == [
        "teacher", "prune-1", "scores", "recover-1", "prune-2", "recover-2", "int8", "evaluate",
    ]  # fmt: skip
    assert report.pruning is not None and report.pruning.target == "flops 0.36"
    teacher, first, last = (load_model(str(out / ".hfcompress" / name)) for name in ("teacher", "prune-1", "recover-2"))
    full, half, least = (encoder_flops(each.config, current_plan(each)) for each in (teacher, first, last))
    assert report.pruning.encoder_flops_kept == pytest.approx(least / full) and least <= 0.36 * full
    assert 0.36 * full < half <= 0.6 * full
    assert first.config.vocab_size == teacher.config.vocab_size > last.config.vocab_size
    assert (
        pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False, say=said.append).steps[4].reused
    )
    last_stage = {**settings, "prune": {**settings["prune"], "vocabulary": {"min_count": 2}}}
    again = pipeline.run(Recipe.model_validate(last_stage), out, resume=True, progress=False, say=said.append)
    assert [step.name for step in again.steps if not step.reused] == ["prune-2", "recover-2", "int8", "evaluate"]


def test_a_searched_plan_is_kept_until_something_that_it_depends_on_changes(
    inputs: Path, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    monkeypatch.setattr("hfcompress.steps.recover.fit", interrupted)
    monkeypatch.setattr(pipeline, "publish_locally", interrupted)  # where recover is kept too

    def kept(settings: dict) -> bool:
        said: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False, say=said.append)
        assert any(line.startswith("teacher: kept") for line in said)
        return any(line.startswith("prune: kept") for line in said)

    settings = recipe_for(inputs)
    assert kept(settings)
    settings["prune"]["vocabulary"]["min_count"] = 4
    assert not kept(settings) and kept(settings)
    settings["prune"]["target_flops"] = 0.6
    assert not kept(settings) and kept(settings)


def test_a_plan_for_a_target_of_time_depends_on_how_time_is_measured(inputs: Path, tmp_path: Path) -> None:
    class Recorder:
        def step(self, name: str, depends_on: list, work: object, what: str) -> tuple[Path, str]:
            seen.append(json.dumps(depends_on, sort_keys=True))
            return tmp_path, ""

    seen: list[str] = []
    for budget in ({"target_speedup": 2.0}, {"heads": 0.5}):
        seen.clear()
        for changes in (
            {}, {"threads": 2}, {"batch_tokens": 512}, {"artifacts": [{"runtime": "openvino"}]}, {"margin": 0.5}
        ):  # fmt: skip
            settings = {**recipe_for(inputs), "prune": budget}
            section = "quantize" if "artifacts" in changes else "evaluate"
            settings[section] = {**settings[section], **changes}
            current = Run(Recipe.model_validate(settings), None, Recorder(), False)  # type: ignore[arg-type]
            pipeline.prune(current, "teacher", "made of", stages(current.recipe)[0])
        same, *others = (text == seen[0] for text in seen)
        assert same and others == ([False, False, False, True] if "target_speedup" in budget else [True] * 4)


def test_an_interrupted_run_is_completed_by_resume(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = recipe_for(inputs)
    settings["teacher"].pop("train")
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    command = ["hfcompress", "run", str(path), "--out", str(tmp_path / "out"), "--resume", "--quiet"]
    monkeypatch.setattr("sys.argv", command)
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr("hfcompress.steps.quantize.write_quantized", interrupted)
        main()
    assert ended.value.code == 130
    (told,) = capsys.readouterr().err.splitlines()[-1:]
    assert shlex.split(told)[1:] == command[1:]
    assert not (tmp_path / "out" / "report.json").exists()
    main([*command[1:], "--json", "-"])
    printed = capsys.readouterr()
    assert RunReport.model_validate_json(printed.out) == (report := RunReport.load(tmp_path / "out"))
    assert "student-torch" in printed.err and "95% interval" in printed.err
    assert {step.name: step.reused for step in report.steps} == {
        "prune": True,
        "scores": True,
        "recover": True,
        "int8": False,
        "evaluate": False,
    }


def interrupted(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_recovery_on_features_and_with_regularization(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, out, weights = recipe_for(inputs), tmp_path / "out", []
    settings["teacher"].pop("train")
    settings["prune"] = {"heads": 0.5, "ffn": 0.5, "layers": [0, 3], "calibration_queries": 8, "ffn_multiple": 8}
    monkeypatch.setattr("hfcompress.steps.quantize.write_quantized", interrupted)
    regularization = {"dropout": 0.1, "r_drop": 1.0, "adversarial": 0.5}
    recovery = settings["recover"]
    for features, optimization in (
        (None, QUICK),
        ({"hidden": 1.0, "relation_layer": 3, "decay": 1.0}, QUICK),
        (None, QUICK | regularization),
    ):
        said: list[str] = []
        settings["recover"] = {**recovery, "features": features, "optimization": optimization}
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(Recipe.model_validate(settings), out, resume=True, progress=False, say=said.append)
        assert any(line.startswith("recover: steps") for line in said)
        assert any(line.startswith("scores: kept") for line in said) == bool(weights)
        weights.append(load_model(str(out / ".hfcompress" / "recover")).state_dict())
    for first, second in ((0, 1), (0, 2)):
        assert any((weights[first][name] != weights[second][name]).any() for name in weights[0])


def test_without_pruning_the_teacher_itself_is_quantized(inputs: Path, tmp_path: Path) -> None:
    settings = recipe_for(inputs)
    del settings["recover"], settings["prune"]
    settings["teacher"].pop("train")
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    report = pipeline.run(Recipe.model_validate(settings), tmp_path / "out", progress=False, say=lambda line: None)
    assert [artifact.name for artifact in report.artifacts] == ["student-onnxruntime-int8-dynamic"]
    assert not (tmp_path / "out" / "modeling_hfcompress.py").exists()
    # The activation of a cross-encoder that was given stays.
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["sentence_transformers"]["activation_fn"].endswith("Sigmoid")


@pytest.mark.parametrize("verb", ["inspect", "card", "rank", "rank a graph", "evaluate"])
def test_verbs_on_a_finished_run(
    verb: str,
    finished: Finished,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, *_ = finished
    documents = tmp_path / "documents.txt"
    documents.write_text("ba de\nsun ba de fi\n")
    result = tmp_path / "result.json"
    options = {
        "inspect": [],
        "card": [],
        "rank": ["--query", "ba de fi", "--docs", str(documents)],
        "rank a graph": ["--query", "ba de fi", "--docs", str(documents)],
        "evaluate": ["--data", str(inputs / "words"), "--baseline", str(inputs / "encoder"), "--json", str(result)],
    }[verb]
    before, model = (out / "README.md").read_bytes(), out / ONNX_INT8 if verb == "rank a graph" else out
    monkeypatch.setattr("sys.argv", ["hfcompress", verb.split()[0], str(model), *options])
    main()
    printed = capsys.readouterr().out
    if verb == "inspect":
        assert "kept heads" in printed and "student-torch" in printed
    elif verb == "card":
        assert (out / "README.md").read_bytes() == before
    elif verb.startswith("rank"):
        assert [line.split("\t")[1] for line in printed.splitlines()] in (["1", "2"], ["2", "1"])
    else:
        assert "BM25" in printed
        evaluation = json.loads(result.read_text())
        assert [artifact["name"] for artifact in evaluation["artifacts"]] == ["baseline", "model"]
        assert evaluation["artifacts"][1]["delta"]["verdict"] in ("inferior", "non-inferior", "inconclusive")


def interrupt(*_args: object) -> None:
    raise KeyboardInterrupt


def recovery(inputs: Path, folder: Path, **changes: object) -> tuple[Run, Callable[[], Dataset]]:
    """A run whose teacher is a cross-encoder, and a function that recovers it and returns the scored lists."""
    settings = recipe_for(inputs)
    settings["teacher"] = {"model": str(inputs / "encoder"), "max_length": 32}
    settings["prune"] = {"heads": 0.5, "importance": "magnitude", "calibration_queries": 8}
    settings["recover"] = {**settings["recover"], "optimization": {"epochs": 1}, **changes}
    recipe = Recipe.model_validate(settings)
    workspace = Workspace(folder, resume=True, say=lambda _: None)
    workspace.begin()
    run = Run(recipe, load_run_data(recipe, False), workspace, False)

    def recover() -> Dataset:
        teacher, teacher_of = pipeline.train_teacher(run)
        lists = pipeline.score(run, teacher, teacher_of)
        pipeline.recover(run, teacher, lists, teacher, teacher_of, stages(run.recipe)[0])
        return load_from_disk(str(folder / ".hfcompress" / "scores"))

    return run, recover


def test_several_teachers_unlabelled_and_made_queries(
    inputs: Path, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "other", make_pico(seed=5), tokenizer, "torch.nn.modules.activation.Sigmoid", 32)
    plain = recovery(inputs, tmp_path / "plain")[1]()
    folder = shutil.copytree(inputs / "words", tmp_path / "words")
    lines = (folder / "qrels" / "train.tsv").read_text().splitlines()
    (folder / "qrels" / "train.tsv").write_text("\n".join(lines[:31]))  # ten of forty train queries lose their labels
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "words").symlink_to(folder)
    (tmp_path / "again" / "encoder").symlink_to(inputs / "encoder")
    teachers = [{"weight": 2}, {"model": str(tmp_path / "other"), "max_length": 16}, {"bm25": True, "weight": 0.5}]
    more = {"teachers": teachers, "unlabelled": True, "pseudo_queries": 6}
    run, recover = recovery(tmp_path / "again", tmp_path / "more", **more)
    assert not has_pseudo_queries(run.data)  # its train queries do for pruning
    joined = recover()
    assert len(plain) == 40 and len(joined) == 46
    kinds = [("pseudo" if row["query_id"].startswith("pseudo") else max(row["labels"])) for row in joined]
    assert kinds.count("pseudo") == 6 and kinds.count(1.0) == 30 and kinds.count(0.0) == 10
    alone = {row["query_id"]: row["teacher_scores"] for row in plain}
    labelled = [row for row in joined if max(row["labels"]) and row["query_id"] in alone]
    assert len(labelled) == 30
    for row in labelled:  # on the level of the first teacher, in another order
        assert np.mean(row["teacher_scores"]) == pytest.approx(np.mean(alone[row["query_id"]]), abs=1e-4)
        assert row["teacher_scores"] != pytest.approx(alone[row["query_id"]], abs=1e-3)


def test_a_graph_scores_as_a_teacher(inputs: Path, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_checkpoint(other, make_pico(seed=5), tokenizer, "torch.nn.modules.linear.Identity", 32)
    save_onnx(export_onnx(make_pico(seed=6), tokenizer), other / ONNX_INT8)  # of another model than the checkpoint
    run, recover = recovery(inputs, tmp_path / "out", teachers=[{"model": str(other), "file": ONNX_INT8}])
    ranker = hfcompress.load_ranker(other, file=ONNX_INT8, max_length=run.recipe.teacher.max_length)
    lists = recover()
    assert len(lists) == 40
    for row in lists.select(range(5)):
        pairs = [(row["query"], document) for document in row["documents"]]
        assert row["teacher_scores"] == pytest.approx(ranker.score(pairs).tolist(), abs=1e-4)
    source = ScoreSource(model=str(other), file=ONNX_INT8)
    before = source_fingerprint(source)
    save_onnx(export_onnx(make_pico(seed=7), tokenizer), other / ONNX_INT8)
    assert source_fingerprint(source) != before


def test_an_interruption_at_the_second_teacher_loses_no_score_of_the_first(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recover = recovery(inputs, tmp_path / "out", teachers=[{}, {"bm25": True}])[1]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Bm25Ranker, "score", interrupt)
        recover()
    monkeypatch.setattr(run_data, "TorchRanker", lambda *_: SimpleNamespace(score=interrupt))
    assert len(recover()) == 40


def test_without_labelled_train_queries_a_run_goes_on_made_ones(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs / "words", tmp_path / "words")
    (tmp_path / "words" / "qrels" / "train.tsv").unlink()
    (tmp_path / "encoder").symlink_to(inputs / "encoder")
    run, recover = recovery(tmp_path, tmp_path / "out", pseudo_queries=12)
    assert len(run.data.splits["train"]) == 12 and has_pseudo_queries(run.data)
    check_data(run.recipe, run.data)
    assert len(recover()) == 12


def test_without_any_label_pruning_and_recovery_go_by_the_teacher(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs / "words", tmp_path / "words")
    (tmp_path / "words" / "qrels" / "train.tsv").unlink()
    (tmp_path / "encoder").symlink_to(inputs / "encoder")
    run, recover = recovery(tmp_path, tmp_path / "out", unlabelled=True)
    assert len(run.data.splits["train"]) == 40 and not run.data.splits["train"].labelled
    check_data(run.recipe, run.data)
    folder, *_ = pipeline.prune(run, *pipeline.train_teacher(run), stages(run.recipe)[0])
    assert not current_plan(load_model(folder)).is_full
    assert {label for row in recover() for label in row["labels"]} == {0.0}


def test_without_any_judgement_the_teachers_order_is_what_counts(inputs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(inputs / "words", tmp_path / "words")
    shutil.rmtree(folder / "qrels")
    settings = recipe_for(inputs)
    settings["data"]["sets"] = [str(folder)]
    settings["teacher"] = {"model": str(inputs / "encoder"), "max_length": 32}
    settings["prune"] = {"heads": 0.75, "importance": "magnitude", "calibration_queries": 8}
    settings["recover"] |= {"unlabelled": True}
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    settings["evaluate"]["min_rank_correlation"] = 0
    with pytest.raises(DataError, match="no judgements"):
        load_run_data(Recipe.model_validate({**settings, "recover": None}), False)
    train = {**settings, "teacher": {**settings["teacher"], "train": {}}}
    with pytest.raises(DataError, match="relevant document"):
        pipeline.run(Recipe.model_validate(train), tmp_path / "refused", progress=False, say=lambda line: None)
    report = pipeline.run(Recipe.model_validate(settings), tmp_path / "out", progress=False, say=lambda line: None)
    assert report.teacher.quality["ndcg@10"] == 1.0
    assert all(0 < artifact.quality["ndcg@10"] < 1 for artifact in report.artifacts)
    assert any("how far its order is kept" in note for note in report.data.notes)
    assert "judge" in {step.name for step in report.steps}


def test_mixed_precision_is_chosen_on_lists(word_data: RankingData) -> None:
    pairs = ranking_pairs(word_data)
    by_query = {query: [document for other, document in pairs if other == query] for query, _ in pairs}
    assert len(by_query) == run_data.RANKING_QUERIES
    assert all(1 < len(documents) <= run_data.RANKING_DOCUMENTS for documents in by_query.values())
    queries = {word_data.queries[key] for key in word_data.splits["train"].candidates}
    assert set(by_query) <= queries
