"""What would pass where the deployed model did not."""

from __future__ import annotations

from pathlib import Path

from conftest import IDENTITY, make_pico
from report_samples import example_artifact, example_delta
from transformers import BertTokenizerFast

from hfcompress.card.opening import would_pass
from hfcompress.compress.alternative import find_alternative, offer
from hfcompress.compress.goal import Goal
from hfcompress.compress.trials import Stage, Trial
from hfcompress.evaluation.candidate import Candidate
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model
from hfcompress.report.report import Alternative

DELTA = example_delta(-0.001, "inconclusive").model_copy(update={"queries": 100, "queries_needed": 900})


def trial(
    name: str, stage: Stage, pruning_speedup: float, speedup: float | None, probability: float | None = 0.9
) -> Trial:
    return Trial(
        name=name,
        stage=stage,
        pruning_speedup=pruning_speedup,
        ndcg=0.5,
        difference=-0.001,
        speedup=speedup,
        p50_ms=None,
        megabytes=10 * speedup if speedup else None,
        seconds=1.0,
        delta=DELTA,
        probability=probability,
    )


TRIALS = [
    trial("teacher", "teacher", 1, 1.0, None),
    trial("unpruned, openvino int8", "int8", 1, 3.8),
    trial("unpruned, onnxruntime int8", "int8", 1, 2.5, 0.95),
    trial("pruned 1.5x", "one-shot", 1.5, 5.0, 0.1),
    trial("pruned 2x", "one-shot", 2, 6.6, 0.0),
    trial("pruned 1.5x, 48 lists", "short recovery", 1.5, None, 0.85),
    trial("pruned 2x, 48 lists", "short recovery", 2, None, 0.99),
    trial("pruned 2x, on test", "full recovery", 2, 6.7, None),
]
DEPLOYED = example_artifact("student", "openvino", 6.7, None)


def test_the_fastest_that_is_expected_to_pass_and_slower_than_what_did_not() -> None:
    found = find_alternative(TRIALS, Goal(), DEPLOYED, "unpruned, openvino int8", 2)
    # A short recovery has the speed of its model; that of the deployed plan is none, whatever it had on dev.
    assert found is not None and (found.name, found.speedup) == ("pruned 1.5x, 48 lists", 5.0)
    assert (found.delta, found.probability) == (DELTA, 0.85)
    without = [each for each in TRIALS if each.stage != "short recovery"]
    found = find_alternative(without, Goal(), DEPLOYED, "unpruned, openvino int8", 2)
    assert found is not None and found.name == "unpruned, openvino int8"
    # What is larger than asked for is none, nor is a short recovery of it.
    found = find_alternative(TRIALS, Goal(max_size_mb=40), DEPLOYED, "unpruned, openvino int8", 2)
    assert found is not None and found.name == "unpruned, openvino int8"
    # Where that form is what did not pass, another one is left.
    unpruned = example_artifact("student", "openvino", 3.9, None)
    found = find_alternative(TRIALS, Goal(), unpruned, "unpruned, openvino int8", None)
    assert found is not None and found.name == "unpruned, onnxruntime int8"
    assert find_alternative(TRIALS[:1] + TRIALS[3:5], Goal(), DEPLOYED, "unpruned, openvino int8", 2) is None


def test_without_one_that_is_expected_to_pass_the_most_probable_if_it_is_likely() -> None:
    trials = [
        trial("unpruned, openvino int8", "int8", 1, 3.8, 0.7),
        trial("unpruned, onnxruntime int8", "int8", 1, 2.5, 0.6),
        trial("pruned 1.5x", "one-shot", 1.5, 5.0, 0.1),
    ]
    found = find_alternative(trials, Goal(), DEPLOYED, "", 2)
    assert found is not None and (found.name, found.probability) == ("unpruned, openvino int8", 0.7)
    assert "**3.8x is the most likely to pass:**" in would_pass(found) and "probability of 70%" in would_pass(found)
    assert find_alternative(trials[2:], Goal(), DEPLOYED, "", 2) is None


def test_it_is_offered_with_what_a_deployment_needs(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    save_checkpoint(source, make_pico(), tokenizer, IDENTITY, 32)
    (source / "onnx").mkdir()
    (source / "onnx" / "model_quantized.onnx").write_bytes(b"another graph")
    alternative = Alternative(name="pruned 1.5x", speedup=5.0, delta=DELTA, probability=0.85)
    folder = offer(out, alternative, Candidate.student(source))
    assert folder == out / "alternative" and not (folder / "onnx").exists()
    assert load_model(str(folder)).num_parameters() == make_pico().num_parameters()
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "**5.0x would pass:** pruned 1.5x" in text and "not tested on test queries" in text
    # Of another call, with another result, nothing stays.
    assert offer(out, None, None) is None and not folder.exists()


def test_what_was_not_measured_as_it_is_deployed_is_not_offered(tmp_path: Path) -> None:
    alternative = Alternative(name="pruned 1.5x, 48 lists", speedup=5.0, delta=DELTA, probability=0.85)
    assert offer(tmp_path, alternative, None) is None and not list(tmp_path.iterdir())
