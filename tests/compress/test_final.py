"""The last choice on dev, before the test split is seen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from report_samples import example_artifact, example_delta

from hfcompress.compress.budget import RecoverySize
from hfcompress.compress.choose import DeploymentForm
from hfcompress.compress.context import CompressContext
from hfcompress.compress.family import FamilyMember
from hfcompress.compress.final import confirmed
from hfcompress.compress.goal import Goal
from hfcompress.compress.rounds import Choice
from hfcompress.recipe import Recipe
from hfcompress.report.report import Artifact
from hfcompress.utils.log import lines_to


def artifact(speedup: float, loss: float, needed: int) -> Artifact:
    delta = example_delta(-loss, "inconclusive").model_copy(update={"queries": 400, "queries_needed": needed})
    return example_artifact("int8", "openvino", speedup, delta)


@pytest.mark.parametrize(
    ("unpruned", "pruned", "goal", "kept", "reason"),
    [
        # Both are expected to pass: the faster one, whichever that is.
        (artifact(4.0, 0.0, 100), artifact(8.0, 0.001, 100), Goal(), True, "the fastest that is"),
        (artifact(4.0, 0.0, 100), artifact(3.0, 0.001, 100), Goal(), False, "the fastest that is"),
        # Only int8 alone is.
        (artifact(4.0, 0.0, 100), artifact(8.0, 0.009, 100), Goal(), False, "the fastest that is"),
        # Neither is: the more probable one.
        (artifact(4.0, 0.009, 100), artifact(8.0, 0.008, 100), Goal(), True, "none is, by 80%"),
        (artifact(4.0, 0.008, 100), artifact(8.0, 0.009, 100), Goal(), False, "none is, by 80%"),
        # Where a speed was asked for, a slower model is no alternative.
        (artifact(4.0, 0.0, 100), artifact(8.0, 0.009, 100), Goal(target_speedup=8.0), True, ""),
        # Nor is one that is too large.
        (artifact(4.0, 0.0, 100), artifact(8.0, 0.009, 100), Goal(max_size_mb=1e-3), True, ""),
    ],
)
def test_int8_alone_is_deployed_where_it_is_likelier_to_pass(
    unpruned: Artifact, pruned: Artifact, goal: Goal, kept: bool, reason: str
) -> None:
    context = cast(CompressContext, SimpleNamespace(goal=goal, test_queries=1000))
    member = FamilyMember(2.0, Path(), pruned, 0.4, 0.01, False, 1.0)
    choice, said = Choice(member, RecoverySize(0, 0)), cast(list[str], [])
    with lines_to(said.append):
        found = confirmed(context, DeploymentForm(None, unpruned, 0.0, Path()), choice, cast(Recipe, cast(Any, None)))
    assert found is (choice if kept else None)
    assert [reason in line for line in said] == ([True] if reason else [])
