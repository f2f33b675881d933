"""Score fidelity: drift, thresholds, their intervals and corresponding thresholds, against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hfcompress.errors import DataError
from hfcompress.evaluation.fidelity import ScoreScale, best_threshold, score_fidelity
from hfcompress.models.sentence_transformers import ACTIVATIONS
from hfcompress.report.fidelity import ScoreFidelity, ScoreMap

SIGMOID, IDENTITY = (f"torch.nn.modules.{name}" for name in ("activation.Sigmoid", "linear.Identity"))
TEACHER = {"a": {"1": 2.0, "2": -1.0, "3": -2.0}, "b": {"4": 1.0, "5": 0.5}, "c": {"6": 3.0}}
STUDENT = {"a": {"1": 2.0, "2": 1.0, "3": -2.0}, "b": {"4": -1.0, "5": 0.5}, "c": {"6": 3.0}}
QRELS = {"a": {"1": 1, "9": 1}, "b": {"5": 2, "4": 1}}


def measured(**settings: object) -> ScoreFidelity:
    return score_fidelity(TEACHER, {"student": STUDENT}, QRELS, ScoreScale(SIGMOID), **settings)


def test_drift_of_logits_and_of_scores() -> None:
    found = measured(others=[0.0])
    (student,) = found.artifacts
    assert (found.queries, found.pairs, found.judged_queries, found.activation) == (3, 6, 2, "Sigmoid")
    assert student.logits.rms == pytest.approx(math.sqrt((2**2 + 2**2) / 6))
    assert student.logits.p95 == pytest.approx(2.0)
    moved = 1 / (1 + math.exp(-1)) - 1 / (1 + math.exp(1))
    assert student.activated.rms == pytest.approx(moved * math.sqrt(2 / 6))
    assert student.query_shift == pytest.approx(np.std([2 / 3, -1, 0]))


def test_what_a_threshold_lets_through() -> None:
    found = measured(best=0.0, others=[1.5])
    assert [(each.best, each.logit) for each in found.thresholds] == [(True, 0.0), (False, 1.5)]
    assert found.thresholds[0].score == pytest.approx(0.5)
    teacher = found.thresholds[0].teacher
    assert teacher.accepted == pytest.approx(4 / 6)  # 1, 4, 5 and 6, which has no judgements
    assert teacher.precision.value == 1.0 and teacher.recall.value == 1.0  # document 9 is no candidate
    (student,) = found.artifacts
    first, second = student.thresholds
    assert first.changed.value == pytest.approx(2 / 6) and first.changed.low <= 2 / 6 <= first.changed.high
    assert first.artifact.precision.value == pytest.approx(2 / 3) and second.changed.value == 0
    assert first.corresponding is None


def test_relevant_grades_and_queries_without_judgements() -> None:
    found = measured(others=[0.0, 5.0], relevant_from=2).thresholds
    assert found[0].teacher.precision.value == pytest.approx(1 / 3) and found[0].teacher.recall.value == 1.0
    assert found[1].teacher.precision is None and found[1].teacher.recall.value == 0.0 == found[1].teacher.accepted


def test_intervals_draw_whole_queries() -> None:
    rng = np.random.default_rng(0)
    teacher = {f"q{n}": {f"d{m}": float(score) for m, score in enumerate(rng.normal(0, 1, 10))} for n in range(200)}
    student = {q: {d: -s if int(q[1:]) % 10 == 0 else s for d, s in row.items()} for q, row in teacher.items()}
    qrels = {query: {"d0": 1} for query in teacher}
    found = score_fidelity(teacher, {"student": student}, qrels, ScoreScale(IDENTITY), others=[0.0])
    changed = found.artifacts[0].thresholds[0].changed
    assert changed.value == pytest.approx(0.1)
    # One query in ten changes all of its ten pairs: an interval over pairs would be three times as narrow.
    assert changed.high - changed.low == pytest.approx(2 * 1.96 * math.sqrt(0.1 * 0.9 / 200), rel=0.2)
    again = score_fidelity(teacher, {"student": student}, qrels, ScoreScale(IDENTITY), others=[0.0])
    assert again == found


def test_thresholds_of_an_artifact_without_calibration() -> None:
    found_map = ScoreMap(scale=2.0, shift=1.0, split="dev", queries=2, pairs=40, before=1.0, after=0.1)
    (student,) = measured(others=[0.0, 3.0], maps={"student": found_map}).artifacts
    assert student.map == found_map
    own = [1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-1.0))]
    assert [each.corresponding for each in student.thresholds] == [pytest.approx(score) for score in own]
    folded = found_map.model_copy(update={"folded": True})
    (student,) = measured(others=[0.0], maps={"student": folded}).artifacts
    assert student.thresholds[0].corresponding is None


def test_reliability_has_all_pairs_of_judged_queries() -> None:
    found = measured(others=[0.0])
    assert (
        sum(each.pairs for each in found.reliability) == 5 == sum(each.pairs for each in found.artifacts[0].reliability)
    )
    last = found.reliability[-1]
    assert (last.score, last.relevant, last.pairs) == (pytest.approx(1 / (1 + math.exp(-2))), 1.0, 1)


def test_the_best_threshold_has_the_highest_f1() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 1, 300).round(1)  # with ties
    labels = rng.random(300) < 1 / (1 + np.exp(-3 * scores))
    run = {f"q{n}": {"d": float(score)} for n, score in enumerate(scores)}
    qrels = {f"q{n}": {"d": int(label)} for n, label in enumerate(labels)}
    found = best_threshold(qrels, run)

    def f1(level: float) -> float:
        accepted = scores >= level
        return 2 * (accepted & labels).sum() / (accepted.sum() + labels.sum())

    assert f1(found) == max(f1(level) for level in [*scores[scores > scores.min()]]) and found not in scores
    assert best_threshold({"q0": {"d": 0}}, run) is None
    assert best_threshold({"q0": {"d": 1}}, {"q0": {"d": 1.0, "e": 1.0}}) is None


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_score_has_its_logit(name: str) -> None:
    scale = ScoreScale(name)
    for logit in (0.3, 1.7):
        assert scale.logit(float(scale.activated(np.array([logit]))[0])) == pytest.approx(logit)


def test_fixed_thresholds_are_scores_or_of_the_sigmoid() -> None:
    assert ScoreScale(IDENTITY).fixed_thresholds() == ScoreScale(SIGMOID).fixed_thresholds()
    assert ScoreScale(SIGMOID).fixed_thresholds()[0] == pytest.approx(math.log(0.3 / 0.7))
    assert ScoreScale("torch.nn.modules.activation.LogSigmoid").fixed_thresholds() == []
    with pytest.raises(DataError, match=r"1\.2.*between 0 and 1.*Sigmoid"):
        ScoreScale(SIGMOID).logit(1.2)
