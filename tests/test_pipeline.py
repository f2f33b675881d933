"""A whole run on a pico model: what it writes, what resuming keeps, what an interruption leaves."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import SIGMOID, make_pico
from report_samples import example_report
from run_samples import FinishedRun, recipe_for
from safetensors import safe_open
from transformers import BertTokenizerFast

import hfcompress
from hfcompress import pipeline
from hfcompress.cli import main
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model
from hfcompress.models.plan import PruningPlan
from hfcompress.models.sparsity import zero_share
from hfcompress.optimum_config import RankerCompressionConfig
from hfcompress.quantization.openvino import is_available
from hfcompress.rankers.load import default_graph
from hfcompress.recipe import Recipe
from hfcompress.report.report import RunReport


def test_a_run_prints_its_plan_its_steps_and_its_verdict_and_nothing_of_other_libraries(
    finished_run: FinishedRun,
) -> None:
    out, printed, errors = finished_run
    steps = ["teacher", "prune", "scores", "recover", "int8", "calibrate", "sequence", "evaluate"]
    # stderr: nothing but lines of bars, which appear where a step takes long
    assert [line for line in errors if not re.match(r"[a-z0-9 ]+: \d+% \(\d+ of \d+\), ", line)] == []
    data, title, *rest = printed
    assert data == "data: 40 train, 8 dev, 12 test queries of words" and title == f"plan for {out}: 8 steps"
    plan, power, rest = rest[:8], rest[8], rest[9:]
    assert [line.split()[:2] for line in plan] == [[f"{number}.", name] for number, name in enumerate(steps, 1)]
    assert not any(" took " in line for line in plan)  # nothing has been measured yet
    assert power.startswith("verdict: 12 test queries show with a power of 80% that a model which loses nothing is")
    others = ["importance", "costs", "search", "verdict", r"scores of [\w-]+"]
    of_steps = re.compile(rf"({'|'.join([*steps, *others])}): \S")
    table = next(number for number, line in enumerate(rest) if not of_steps.match(line))
    done = [line for line in rest[:table] if re.fullmatch(rf"({'|'.join(steps)}): done in [\d.]+ \w+( \d+ s)?", line)]
    assert [line.split(":")[0] for line in done] == steps
    assert rest[table].startswith(f"card: {out / 'README.md'}, finished in ")
    assert rest[table + 1].startswith("pico: 12 test queries of words")
    last = " ".join(line for line in rest[table + 2 :] if not re.match("[┏┃┡│└]", line))
    assert "teacher" in last and "95% interval" in last and "times as fast" in last


def test_repository_layout(finished_run: FinishedRun) -> None:
    out, *_ = finished_run
    expected = {
        "README.md", "config.json", "config_sentence_transformers.json", "figures/pareto.png", "figures/structure.png",
        "hfcompress_config.json", "model.safetensors", "modeling_hfcompress.py", "modules.json", "onnx/model.onnx",
        "onnx/model_qint8_static.onnx", "onnx/model_quantized.onnx", "report.json", "sentence_bert_config.json",
        "packed/model_int6.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
        "figures/reliability.png",
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


def test_report(finished_run: FinishedRun) -> None:
    report = RunReport.load(finished_run.out)
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
    assert [step.name for step in report.steps] == [
        "teacher",
        "prune",
        "scores",
        "recover",
        "int8",
        "calibrate",
        "sequence",
        "evaluate",
    ]
    assert report.pruning is not None and report.pruning.custom_code
    # The card is about the artifact that was tested first, an int8 graph.
    assert sorted(report.sequence) == sorted(names) and "int8" in report.sequence[0]
    opening = (finished_run.out / "README.md").read_text(encoding="utf-8").partition("## Results")[0]
    assert f"**`{report.sequence[0]}` is " in opening
    assert report.data.queries == {"train": 40, "dev": 8, "test": 12}
    assert Recipe.from_yaml(report.recipe).name == "pico"
    assert report.first_stage.name == "BM25" and 0 < report.first_stage.quality["ndcg@10"] < 1
    # Metrics that the recipe asks for have a table of their own.
    card = (finished_run.out / "README.md").read_text(encoding="utf-8")
    table = card[card.index("### Other metrics") :].split("\n\n")[1].splitlines()
    assert table[0] == "|  | AUC | nDCG@5 |" and len(table) == 2 + 2 + len(names)
    assert f"{report.teacher.quality['auc']:.4f} | {report.teacher.quality['ndcg@5']:.4f}" in table[3]


def test_zeros_are_held_to_the_end_and_reported(finished_run: FinishedRun) -> None:
    out, *_ = finished_run
    report = RunReport.load(out)
    weights = report.pruning.weights
    assert (weights.pattern, weights.sparsity) == ("unstructured", 0.3)
    assert weights.zero_share == zero_share(load_model(str(out))) == pytest.approx(0.3, abs=0.01)
    for artifact in (report.teacher, *report.artifacts):
        assert 0 < artifact.deflated_bytes < artifact.size_bytes
    card = (out / "README.md").read_text()
    assert "| MB deflated |" in card and "30.0% are zero (the smallest of each matrix)" in card


def test_packed_weights_are_an_artifact_like_the_others(finished_run: FinishedRun) -> None:
    out, *_ = finished_run
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
    assert "`student-torch-int6-weights`: low-bit weight-only quantization" in card
    assert "time and memory are those of the model in fp32 PyTorch" in card and "of a quantized artifact" in card


def test_stability_is_in_the_report_and_the_card(finished_run: FinishedRun) -> None:
    report = RunReport.load(finished_run.out)
    assert report.teacher.stability is None
    for artifact in report.artifacts:
        stability = artifact.stability
        assert stability is not None and stability.pairs == 8 * 6
        assert 0 <= stability.batched.mean <= stability.batched.largest < 1
        assert (stability.rank_correlation is None) == (artifact.precision == "fp32")
    exact, dynamic = report.artifacts[0].stability, report.artifacts[1].stability
    assert exact.padded.largest < 1e-3 < dynamic.padded.largest and 0.9 <= dynamic.rank_correlation <= 1
    assert "## Score stability" in (finished_run.out / "README.md").read_text()


def test_the_artifact_that_speaks_for_the_run_is_explained(finished_run: FinishedRun) -> None:
    report = RunReport.load(finished_run.out)
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
    run_inputs: Path,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make_pico(num_hidden_layers=2)
    for layer in model.bert.encoder.layer:  # inputs of 10,000 that no weight reads: int8 has no steps left for others
        for before, after in (
            (layer.attention.self.value, layer.attention.output.dense), (layer.intermediate.dense, layer.output.dense)
        ):  # fmt: skip
            before.weight.data[0], before.bias.data[0], after.weight.data[:, 0] = 0, 1e4, 0
    save_checkpoint(tmp_path / "outliers", model, tokenizer, "torch.nn.modules.activation.Sigmoid", 32)
    settings = recipe_for(run_inputs)
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


def test_all_forms_of_the_checkpoint_agree(finished_run: FinishedRun) -> None:
    out, *_ = finished_run
    pairs = [("ba de fi", "sun ba de"), ("ba", "go"), ("gu lan", "pe pi po pu")]
    scores = hfcompress.load_ranker(out, "torch").score(pairs)
    graphs = [("onnxruntime", "onnx/model.onnx")] + [("openvino", "openvino/openvino_model.xml")] * is_available()
    for runtime, file in graphs:
        np.testing.assert_allclose(hfcompress.load_ranker(out, runtime, file).score(pairs), scores, atol=1e-4)
    assert hfcompress.load_ranker(out).score(pairs).shape == (3,)


def test_the_fastest_graph_of_the_report_is_the_default(finished_run: FinishedRun, tmp_path: Path) -> None:
    out, *_ = finished_run
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


def test_every_block_of_the_card_runs(finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    out, *_ = finished_run
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


def test_compression_config_is_saved_in_optimums_manner(finished_run: FinishedRun) -> None:
    config = RankerCompressionConfig.from_pretrained(finished_run.out)
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


def test_without_pruning_the_teacher_itself_is_quantized(
    run_inputs: Path, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "one-layer", make_pico(num_hidden_layers=1), tokenizer, SIGMOID, 32)
    settings = recipe_for(run_inputs)
    del settings["recover"], settings["prune"]
    settings["teacher"] = {"model": str(tmp_path / "one-layer"), "max_length": 32}
    settings["quantize"]["artifacts"] = settings["quantize"]["artifacts"][:1]
    report = pipeline.run(Recipe.model_validate(settings), tmp_path / "out", progress=False)
    assert [artifact.name for artifact in report.artifacts] == ["student-onnxruntime-int8-dynamic"]
    assert not (tmp_path / "out" / "modeling_hfcompress.py").exists()
    # The activation of a cross-encoder that was given stays.
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["sentence_transformers"]["activation_fn"].endswith("Sigmoid")
