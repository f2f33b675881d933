"""prune, from a checkpoint to checkpoints: what is written, that it loads and scores the same, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FFN, HEADS, LAYERS, SIGMOID, make_pico, stock_plan
from matplotlib.image import imread
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertTokenizerFast

import hfcompress
from hfcompress.cli import main
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError, HfCompressError, ModelError, OutputError, PlanError, RecipeError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_config, load_model, load_tokenizer
from hfcompress.models.sparsity import zero_share
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.pruning import prune as prune_module
from hfcompress.pruning.costs.table import CostTable
from hfcompress.pruning.prune import PrunedModel, prune_checkpoint
from hfcompress.recipe import PruneStep, Target
from hfcompress.report.structure import PruningSummary
from hfcompress.utils.log import lines_to

QUICK: dict[str, Any] = {
    "importance": "magnitude", "calibration_queries": 10, "search_steps": 2, "ffn_multiple": 16,
}  # fmt: skip
SECONDS = CostTable(
    "seconds per document", 1e-3, {0: 0.0, 4: 4e-3}, {0: 0.0, 64: 8e-3}, {0: 0.0, 4: 1e-3}, {0: 0.0, 64: 2e-3}
)
PAIRS = [("ba de fi go", "sun ba de"), ("ba", "gan"), ("gu lan", "pe pi po pu sun")]
FIRST, SECOND = ("target_macs", 0.5), ("target_macs", 0.25)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast) -> Path:
    """A pico cross-encoder that all tests read and none changes."""
    folder = tmp_path_factory.mktemp("models") / "encoder"
    save_checkpoint(folder, make_pico(), tokenizer, SIGMOID, 32)
    return folder


@pytest.fixture
def without_weights(encoder: Path, tmp_path: Path) -> Path:
    """The same without its weights: for faults that must be found before they are loaded."""
    folder = tmp_path / "without-weights"
    shutil.copytree(encoder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture
def drawn() -> None:
    """For tests that look at figures; all others are spared the drawing."""


@pytest.fixture(autouse=True)
def _data_and_caches(
    word_data: RankingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(prune_module, "load_data", lambda step, progress: word_data)
    monkeypatch.setenv("HFCOMPRESS_CACHE", str(tmp_path / "cache"))
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(prune_module, "structure", lambda summary: b"a figure")


@pytest.fixture
def prune(encoder: Path, tmp_path: Path) -> Callable[..., list[PrunedModel]]:
    """Prunes the pico model into `tmp_path/out`."""

    def run(*targets: Target, model: Path = encoder, out: Path | None = None, **given: Any) -> list[PrunedModel]:
        options = ("max_length", "candidates", "threads", "seed", "measured")
        settings = {name: value for name, value in given.items() if name not in options}
        rest = {"measured": False} | {k: v for k, v in given.items() if k in options}
        step = PruneStep.of({**QUICK, **dict(targets[:1]), **settings})
        return prune_checkpoint(str(model), ["words"], out or tmp_path / "out", step, targets, progress=False, **rest)

    return run


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


CHECKPOINT = {
    "config.json", "config_sentence_transformers.json", "model.safetensors", "modeling_hfcompress.py", "modules.json",
    "sentence_bert_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    "pruning.json", "figures/structure.png",
}  # fmt: skip


def check_checkpoint(folder: Path, pruned: PrunedModel) -> PruningSummary:
    """The checkpoint opens by every way there is, with the same scores; returns what its `pruning.json` says."""
    modes = {(folder / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1  # whoever may read the one may read the other
    model = load_model(str(folder))
    assert sum(parameter.numel() for parameter in model.parameters()) == pruned.parameters
    plan = current_plan(model)
    scores = hfcompress.load_ranker(folder, "torch").score(PAIRS)
    assert np.isfinite(scores).all()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer([query for query, _ in PAIRS], [text for _, text in PAIRS], padding=True, return_tensors="pt")
    other = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.inference_mode():
        for each in (model, other):
            np.testing.assert_allclose(each(**inputs).logits[:, 0].numpy(), scores, atol=1e-5)
    summary = PruningSummary.model_validate_json((folder / "pruning.json").read_text(encoding="utf-8"))
    assert [(layer.layer, tuple(layer.heads), layer.ffn) for layer in summary.layers] == [
        (layer.layer, layer.heads, len(layer.ffn)) for layer in plan.layers
    ]
    assert (summary.target, summary.calibration_loss) == (pruned.target, pruned.calibration_loss)
    assert summary.encoder_macs_kept == pruned.encoder_macs_kept
    assert summary.custom_code is (folder / "modeling_hfcompress.py").is_file()
    assert [len(row) for row in summary.head_importance] == [HEADS] * LAYERS
    return summary


# What is written


@pytest.mark.usefixtures("drawn")
def test_one_target_makes_one_checkpoint(
    prune: Callable[..., list[PrunedModel]], encoder: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in encoder.rglob("*") if path.is_file()}
    lines: list[str] = []
    with lines_to(lines.append):
        (pruned,) = prune(FIRST, importance="obs")
    out = tmp_path / "out"
    assert files(out) == {*CHECKPOINT, "family.json"}
    assert json.loads((out / "family.json").read_text()) == [pruned.model_dump()]
    assert (pruned.folder, pruned.target) == (".", "macs 0.5")
    assert pruned.encoder_macs_kept <= 0.5 and pruned.calibration_loss > 0
    assert (pruned.predicted_speedup, pruned.measured_speedup) == (None, None)
    summary = check_checkpoint(out, pruned)
    assert summary.importance == "obs" and summary.vocabulary is None
    config = json.loads((out / "config.json").read_text())
    assert config["sentence_transformers"]["activation_fn"] == SIGMOID
    assert len([line for line in lines if line.startswith("macs 0.5: keeps ")]) == 1
    assert {path: path.read_bytes() for path in encoder.rglob("*") if path.is_file()} == before
    assert imread(out / "figures" / "structure.png").shape[0] > 100
    # Importance is that of everything there was, also of what is gone.
    assert all(value > 0 for row in summary.head_importance for value in row)


def test_several_targets_make_a_family(prune: Callable[..., list[PrunedModel]], tmp_path: Path) -> None:
    models = prune(FIRST, SECOND, importance="obs")
    out = tmp_path / "out"
    assert [pruned.folder for pruned in models] == ["macs-0.5", "macs-0.25"]
    assert json.loads((out / "family.json").read_text()) == [pruned.model_dump() for pruned in models]
    assert files(out) == {"family.json", *(f"{pruned.folder}/{name}" for pruned in models for name in CHECKPOINT)}
    for pruned, share in zip(models, (0.5, 0.25), strict=True):
        assert pruned.encoder_macs_kept <= share
        check_checkpoint(out / pruned.folder, pruned)
    assert models[1].parameters < models[0].parameters
    # One after the other they come out the same: the dense model is not worn down by the first of them.
    (alone,) = prune(FIRST, out=tmp_path / "alone", importance="obs")
    assert alone.model_copy(update={"folder": "macs-0.5"}) == models[0]
    assert (tmp_path / "alone" / "model.safetensors").read_bytes() == (
        out / "macs-0.5" / "model.safetensors"
    ).read_bytes()


def test_parameters(prune: Callable[..., list[PrunedModel]], tmp_path: Path) -> None:
    (pruned,) = prune(("target_parameters", 0.6))
    assert 0.5 < pruned.parameters / make_pico().num_parameters() <= 0.6
    assert pruned.target == "parameters 0.6"
    check_checkpoint(tmp_path / "out", pruned)


def test_explicit_shares(prune: Callable[..., list[PrunedModel]], tmp_path: Path) -> None:
    (pruned,) = prune(heads=0.5, ffn=0.5, spread="uniform")
    assert (pruned.target, pruned.folder, pruned.encoder_macs_kept) == ("explicit", ".", 0.5)
    summary = check_checkpoint(tmp_path / "out", pruned)
    assert [(len(layer.heads), layer.ffn) for layer in summary.layers] == [(HEADS // 2, FFN // 2)] * LAYERS


def test_stock_structure_needs_no_code(prune: Callable[..., list[PrunedModel]], tmp_path: Path) -> None:
    (pruned,) = prune(FIRST, structure="stock")
    out = tmp_path / "out"
    assert files(out) == {*CHECKPOINT, "family.json"} - {"modeling_hfcompress.py"}
    assert not check_checkpoint(out, pruned).custom_code
    model = AutoModelForSequenceClassification.from_pretrained(out)  # no trust in remote code
    assert type(model).__name__ == "BertForSequenceClassification"
    assert pruned.encoder_macs_kept <= 0.5


def test_a_smaller_vocabulary(prune: Callable[..., list[PrunedModel]], encoder: Path, tmp_path: Path) -> None:
    (pruned,) = prune(FIRST, vocabulary={"min_count": 8, "keep": ["gan"], "characters": "corpus"})
    out = tmp_path / "out"
    summary = check_checkpoint(out, pruned)
    before, after = load_tokenizer(str(encoder)), load_tokenizer(str(out))
    assert summary.vocabulary is not None
    assert (summary.vocabulary.tokens_before, summary.vocabulary.tokens_after) == (len(before), len(after))
    assert 10 < len(after) < len(before)
    assert load_config(str(out)).vocab_size == len(after)
    assert "gan" in after.get_vocab() and "[MASK]" in after.get_vocab()
    assert summary.vocabulary.min_count == 8 and summary.vocabulary.held_out_pairs == 8 * 6  # all of dev
    # Pairs whose tokens are all there score as with all tokens.
    (whole,) = prune(FIRST, out=tmp_path / "whole")
    assert whole.calibration_loss == pruned.calibration_loss
    kept = [pair for pair in PAIRS if all(word in after.get_vocab() for text in pair for word in text.split())]
    lost = [pair for pair in PAIRS if pair not in kept]
    scores, others = (hfcompress.load_ranker(tmp_path / name, "torch") for name in ("out", "whole"))
    assert kept and lost
    np.testing.assert_allclose(scores.score(kept), others.score(kept), atol=1e-6)
    assert not np.allclose(scores.score(lost), others.score(lost), atol=1e-6)


def test_only_the_vocabulary(prune: Callable[..., list[PrunedModel]], encoder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    with lines_to(lines.append):
        (pruned,) = prune(vocabulary={"min_count": 8, "characters": "corpus"}, measured=True)
    out = tmp_path / "out"
    assert lines[:3] == [
        f"plan for {out}: prune {encoder} in 2 steps", "  1. data        read words",
        "  2. writing     a checkpoint without training, with vocabulary cut",
    ]  # fmt: skip
    summary = PruningSummary.model_validate_json((out / "pruning.json").read_text())
    assert summary.vocabulary is not None
    assert f"explicit: {summary.vocabulary.in_words()}" in lines
    assert not [line for line in lines if line.startswith(("importance", "costs", "search", "timing"))]
    assert pruned.encoder_macs_kept == 1 and pruned.calibration_loss == 0
    assert pruned.measured_speedup is None
    assert not (out / "modeling_hfcompress.py").exists()
    assert current_plan(load_model(str(out))).is_full
    check_checkpoint(out, pruned)


def test_targets_of_time_are_predicted_and_measured(
    prune: Callable[..., list[PrunedModel]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.pruning.find_plans.measure_costs", lambda *given, **settings: SECONDS)
    monkeypatch.setattr("hfcompress.pruning.costs.latency.ROUNDS", 1)
    monkeypatch.setattr(prune_module, "LATENCY_PAIRS", 12)
    targets = ("target_speedup", 2.0), ("target_speedup", 3.0)
    models = prune(*targets, runtime="torch", threads=1, measured=True)
    for pruned, (_, speedup) in zip(models, targets, strict=True):
        assert pruned.predicted_speedup is not None and pruned.predicted_speedup >= speedup * (1 - 1e-9)
        assert pruned.measured_speedup is not None and pruned.measured_speedup > 0
        summary = check_checkpoint(tmp_path / "out" / pruned.folder, pruned)
        assert summary.predicted_speedup == pruned.predicted_speedup
    assert [pruned.folder for pruned in models] == ["speedup-2", "speedup-3"]
    (pruned,) = prune(targets[0], runtime="torch", threads=1, out=tmp_path / "unmeasured")
    assert pruned.measured_speedup is None and pruned.predicted_speedup == models[0].predicted_speedup


@pytest.mark.parametrize("requests", [True, False])
def test_each_ranker_is_timed_as_it_will_be_used(
    prune: Callable[..., list[PrunedModel]], monkeypatch: pytest.MonkeyPatch, requests: bool
) -> None:
    timed: list[Any] = []

    def times(rankers: Any, pairs: Any, _rounds: int, documents: int | None, _progress: bool) -> list[float]:
        timed.append((len(rankers), documents, {ranker.name for ranker in rankers}))
        return [6.0, 3.0, 2.0][: len(rankers)]

    monkeypatch.setattr("hfcompress.pruning.find_plans.measure_costs", lambda *given, **settings: SECONDS)
    monkeypatch.setattr("hfcompress.pruning.costs.latency.time_rankers", times)
    kind, values = ("target_latency_ms", (120.0, 80.0)) if requests else ("target_speedup", (2.0, 3.0))
    models = prune(*((kind, value) for value in values), runtime="torch", candidates=6, measured=True)
    assert [pruned.measured_speedup for pruned in models] == [2.0, 3.0]
    ((rankers, documents, _),) = timed
    assert (rankers, documents) == (3, 6 if requests else None)


def test_a_latency_table_measured_here(
    prune: Callable[..., list[PrunedModel]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfcompress.pruning.costs.latency.ROUNDS", 1)
    monkeypatch.setattr("hfcompress.pruning.costs.latency.SAMPLE_TOKENS", 200)
    (pruned,) = prune(("target_latency_ms", 1000.0), runtime="torch", threads=1, candidates=6)
    (cached,) = (tmp_path / "cache" / "latency").glob("*.json")
    conditions = json.loads(cached.read_text())["conditions"]
    assert (conditions["runtime"], conditions["documents_per_request"], conditions["threads"]) == ("torch", 6, 1)
    assert pruned.predicted_speedup == pytest.approx(1.0, abs=0.05)  # a second is more than enough for all of it
    written = cached.stat().st_mtime_ns
    prune(("target_latency_ms", 1000.0), runtime="torch", threads=1, candidates=6, out=tmp_path / "again")
    assert cached.stat().st_mtime_ns == written


def test_a_pruned_checkpoint_is_pruned_further(
    prune: Callable[..., list[PrunedModel]], tmp_path: Path, tokenizer: BertTokenizerFast
) -> None:
    first = tmp_path / "first"
    save_checkpoint(first, apply_plan(make_pico(), stock_plan()), tokenizer, SIGMOID, 32)
    (pruned,) = prune(FIRST, model=first)
    summary = check_checkpoint(tmp_path / "out", pruned)
    assert {layer.layer for layer in summary.layers} <= {0, 3} and summary.layers_of == LAYERS
    assert not any(summary.head_importance[1]) and any(summary.head_importance[0])


def test_the_longest_input_is_written_down(prune: Callable[..., list[PrunedModel]], tmp_path: Path) -> None:
    prune(FIRST, max_length=24)
    out = tmp_path / "out"
    assert json.loads((out / "tokenizer_config.json").read_text())["model_max_length"] == 24
    prune(FIRST, out=tmp_path / "other")  # what the tokenizer says
    assert json.loads((tmp_path / "other" / "sentence_bert_config.json").read_text())["max_seq_length"] == 32


def test_an_earlier_prune_is_replaced(prune: Callable[..., list[PrunedModel]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    prune(FIRST, SECOND)
    (pruned,) = prune(FIRST, structure="stock")
    assert files(out) == {*CHECKPOINT, "family.json"} - {"modeling_hfcompress.py"}
    check_checkpoint(out, pruned)


# What is refused


def refused(run: Callable[[], object], kind: type[HfCompressError], words: str, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(kind, match=words):
        run()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("targets", "kind", "words"),
    [
        ((FIRST, ("target_parameters", 0.5)), DataError, r"different kinds.*target_macs.*target_parameters"),
        ((FIRST, SECOND, FIRST), DataError, "given twice"),
        ((FIRST, ("target_macs", 0.50000001)), DataError, "given twice"),  # both would be called macs-0.5
        ((FIRST, ("target_macs", 1.5)), RecipeError, r"target_macs.*less than 1"),
        ((("target_speedup", 2.0), ("target_speedup", 0.0)), RecipeError, r"target_speedup.*greater than 1"),
        ((FIRST, ("target_memory", 0.5)), RecipeError, "target_memory"),
    ],
)
def test_targets_that_do_not_fit(
    prune: Callable[..., list[PrunedModel]],
    tmp_path: Path,
    targets: tuple[Target, ...],
    kind: type[HfCompressError],
    words: str,
    without_weights: Path,
) -> None:
    refused(lambda: prune(*targets, model=without_weights), kind, words, tmp_path)


def test_folders_in_use(prune: Callable[..., list[PrunedModel]], tmp_path: Path, without_weights: Path) -> None:
    mine, file = tmp_path / "mine", tmp_path / "file"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    file.write_text("a file")
    for out in (mine, file):
        refused(
            lambda out=out: prune(FIRST, out=out, model=without_weights),
            OutputError,
            "holds something else.*--out",
            tmp_path,
        )


def test_the_model_itself_is_not_replaced(prune: Callable[..., list[PrunedModel]], tmp_path: Path) -> None:
    family = tmp_path / "family"
    model = family / prune(FIRST, SECOND, out=family)[0].folder
    (model / "model.safetensors").unlink()  # found before the weights are loaded
    for out in (family, family / "." / "macs-0.5"):
        refused(lambda out=out: prune(FIRST, model=model, out=out), OutputError, "holds", tmp_path)


def test_inputs_longer_than_the_positions(prune: Callable[..., list[PrunedModel]], tmp_path: Path) -> None:
    refused(lambda: prune(FIRST, max_length=515), ModelError, r"max_length is longer.*515.*at most 514", tmp_path)


def test_models_that_cannot_rank(
    prune: Callable[..., list[PrunedModel]], tmp_path: Path, tokenizer: BertTokenizerFast
) -> None:
    make_pico(num_labels=2).save_pretrained(tmp_path / "two")
    refused(lambda: prune(FIRST, model=tmp_path / "two"), ModelError, "num_labels=2", tmp_path)
    refused(lambda: prune(FIRST, model=tmp_path / "nowhere"), ModelError, "cannot be opened", tmp_path)


def test_data_that_cannot_calibrate(
    prune: Callable[..., list[PrunedModel]], tmp_path: Path, word_data: RankingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_only = replace(word_data, splits={"test": word_data.splits["test"]})
    monkeypatch.setattr(prune_module, "load_data", lambda step, progress: test_only)
    refused(lambda: prune(FIRST), DataError, "no 'train' split", tmp_path)
    monkeypatch.setattr(prune_module, "load_data", lambda step, progress: word_data)
    refused(lambda: prune(FIRST, calibration_queries=1), DataError, "too few calibration queries", tmp_path)


def test_a_target_out_of_reach(prune: Callable[..., list[PrunedModel]], tmp_path: Path) -> None:
    refused(lambda: prune(FIRST, ("target_macs", 0.001)), PlanError, r"beyond reach.*32\.00 times less", tmp_path)


def test_an_error_while_writing_leaves_nothing(
    prune: Callable[..., list[PrunedModel]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_summary: PruningSummary) -> bytes:
        raise OSError("no space left")

    monkeypatch.setattr(prune_module, "structure", broken)
    with pytest.raises(OSError, match="no space"):
        prune(FIRST, out=tmp_path / "deep" / "out")
    assert files(tmp_path) == set()


# The command line


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["hfcompress", *map(str, arguments)])
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_prune_and_inspect(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hfcompress.card.figures.structure", lambda pruning: pruning.model_dump_json().encode())
    out = tmp_path / "out"
    options = ["--calibration-queries", 10, "--search-steps", 2, "--no-measure", "--runtime", "torch"]
    targets = ["--target-macs", 0.5, "--target-macs", 0.25, "--vocabulary", "corpus", "--min-count", 8]
    targets += ["--characters", "corpus", "--weight-pattern", "2:4"]
    code, printed, _ = command(
        monkeypatch, capsys, "prune", encoder, "--data", "words", "--out", out, *targets, *options
    )
    assert code == 0
    models = [PrunedModel.model_validate(pruned) for pruned in json.loads((out / "family.json").read_text())]
    for pruned in models:
        (line,) = [line for line in printed.splitlines() if f" {pruned.folder} " in line]
        assert f"{pruned.encoder_macs_kept:.0%}" in line and f"{pruned.calibration_loss:.3g}" in line
        assert f"macs {pruned.folder.removeprefix('macs-')}: keeps" in printed
        summary = check_checkpoint(out / pruned.folder, pruned)
        assert summary.vocabulary is not None and summary.importance == "obs"
        assert summary.weights is not None and (summary.weights.pattern, summary.weights.sparsity) == ("2:4", 0.5)
        assert summary.weights.zero_share == zero_share(load_model(str(out / pruned.folder))) >= 0.49
    assert "hfcompress evaluate" in printed and str(out / "macs-0.5") in "".join(printed.split())

    folder = out / "macs-0.5"
    code, printed, _ = command(monkeypatch, capsys, "inspect", folder)
    assert code == 0 and "kept heads" in printed and "structure.png" in printed
    plan = current_plan(load_model(str(folder)))
    for layer in plan.layers:
        assert f"{len(layer.heads)}/{HEADS}" in printed and f"{len(layer.ffn)}/{FFN}" in printed
    drawn = PruningSummary.model_validate_json((folder / "figures" / "structure.png").read_bytes())
    assert drawn == PruningSummary.model_validate_json((folder / "pruning.json").read_bytes())
    # Nothing is drawn into a folder that cannot be written.
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode, **_: mode != os.W_OK)
        code, printed, _ = command(patch, capsys, "inspect", folder)
    assert code == 0 and "is read-only" in printed
    # Without what the command wrote down, the plan in config.json is drawn, with an importance that is not known.
    (folder / "pruning.json").unlink()
    code, *_ = command(monkeypatch, capsys, "inspect", folder, "--png", tmp_path / "plan.png")
    again = PruningSummary.model_validate_json((tmp_path / "plan.png").read_bytes())
    assert code == 0 and again.importance == "unknown" and not any(map(any, again.head_importance))
    assert (again.layers, again.layers_of, again.custom_code) == (drawn.layers, drawn.layers_of, drawn.custom_code)
    assert again.encoder_macs_kept == drawn.encoder_macs_kept


def test_inspect_draws_any_model(
    cross_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(cross_encoder)
    code, printed, _ = command(monkeypatch, capsys, "inspect", cross_encoder, "--png", tmp_path / "plan.png")
    assert code == 0 and "4 of 4 layers" in printed and f"{FFN}/{FFN}" in printed
    assert imread(tmp_path / "plan.png").shape[0] > 100
    code, printed, _ = command(monkeypatch, capsys, "inspect", cross_encoder)
    assert code == 0 and "heat map: not drawn" in printed and "--png" in printed
    assert files(cross_encoder) == before


def test_the_runtime_is_one_that_is_installed(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[PruneStep, list[Target]]] = []

    def noted(*given: Any, **_: Any) -> list[PrunedModel]:
        asked.append((given[3], given[4]))
        pruned = PrunedModel(
            folder=".", target="speedup 2", calibration_loss=0.1, encoder_macs_kept=0.5, parameters=1,
            predicted_speedup=2.0, measured_speedup=None,
        )  # fmt: skip
        return [pruned]

    monkeypatch.setattr(prune_module, "prune_checkpoint", noted)
    for installed, runtime in ((True, "openvino"), (False, "onnxruntime")):
        monkeypatch.setattr("hfcompress.quantization.openvino.is_available", lambda installed=installed: installed)
        code, printed, _ = command(
            monkeypatch, capsys, "prune", encoder, "--data", "words", "--out", tmp_path, "--target-speedup", 2,
            "--target-speedup", 3,
        )  # fmt: skip
        assert code == 0 and f"on {runtime}" in " ".join(printed.split())
        step, targets = asked.pop()
        assert (step.runtime, step.target) == (runtime, ("target_speedup", 2.0))
        assert targets == [("target_speedup", 2.0), ("target_speedup", 3.0)]
