"""Recipe section `prune`: invalid values and budgets, targets, stages, and deprecated names."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import yaml
from recipe_samples import MINIMAL, assert_named, changed, fault, read

from hfcompress.errors import RecipeError
from hfcompress.recipe import TARGETS, PruneStep


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("prune.heads", 1.5, "less than or equal to 1"),
        ("prune.heads", -0.1, "greater than or equal to 0"),
        ("prune.ffn", float("nan"), "finite"),
        ("prune.layers", [-1], "greater than or equal to 0"),
        ("prune.layers", "all", "valid list"),
        ("prune.importance", "random", "'fisher' or 'magnitude'"),
        ("prune.ffn_multiple", 0, "greater than 0"),
        ("prune.target_speedup", 1, "greater than 1"),
        ("prune.target_speedup", "fast", "valid number"),
        ("prune.target_latency_ms", 0, "greater than 0"),
        ("prune.target_parameters", 1, "less than 1"),
        ("prune.target_macs", 0, "greater than 0"),
        ("prune.target_macs", float("inf"), "finite"),
        ("prune.structure", "even", "'free' or 'stock'"),
        ("prune.runtime", "tensorrt", "'torch', 'onnxruntime' or 'openvino'"),
        ("prune.search_steps", 0, "greater than 0"),
        ("prune.calibration_queries", 0, "greater than 0"),
        ("prune.vocabulary.min_count", 0, "greater than 0"),
        ("prune.vocabulary.characters", "some", "'all' or 'corpus'"),
        ("prune.vocabulary.keep", "word", "valid list"),
        ("prune.weights.pattern", 124, 'write "2:4" in quotes'),  # what YAML makes of 2:4
        ("prune.weights.sparsity", 0.6, "2:4 has a sparsity of 0.5"),
        ("prune.weights.gradual", 1, "less than 1"),
    ],
)
def test_invalid_values_are_named(path: str, value: Any, words: str) -> None:
    assert_named(path, value, words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({}, ["give one of target_speedup", "target_macs", "vocabulary"], id="nothing"),
        pytest.param({"importance": "fisher"}, ["give one of target_speedup"], id="no budget"),
        pytest.param({"target_speedup": None}, ["give one of target_speedup"], id="an empty target"),
        pytest.param({"target_speedup": 2, "target_macs": 0.5}, ["not target_speedup, target_macs"], id="two targets"),
        *(
            pytest.param({"target_macs": 0.5, name: value}, [f"not target_macs, {name}"], id=f"target and {name}")
            for name, value in (("heads", 1.0), ("ffn", 0.5), ("layers", [0]))
        ),
        *(
            pytest.param({**budget, "speed": "latency"}, ["speed: latency", "target_speedup"], id=f"latency of {name}")
            for name, budget in (
                ("macs", {"target_macs": 0.5}),
                ("heads", {"heads": 0.5}),
                ("none", {"vocabulary": {}}),
            )
        ),
        pytest.param({"heads": 0.5, "spread": "uniform", "structure": "stock"}, ["leave out heads"], id="stock heads"),
        pytest.param({"ffn": 0.5, "structure": "stock"}, ["set spread: uniform"], id="stock of uneven widths"),
    ],
)
def test_budgets_that_contradict_themselves(settings: dict[str, Any], words: list[str]) -> None:
    message = fault(changed(MINIMAL, "prune", settings))
    assert all(word in message for word in words), message
    with pytest.raises(RecipeError) as caught:
        PruneStep.of(settings)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(("name", "value"), list(zip(TARGETS, (2.0, 10.0, 0.5, 0.25), strict=True)))
def test_a_target_is_named(name: str, value: float) -> None:
    assert PruneStep.of({name: value}).target == (name, value)
    assert PruneStep.of({name: value, "structure": "stock"}).target == (name, value)


@pytest.mark.parametrize(
    "settings", [{"heads": 0.5}, {"ffn": 0.0}, {"layers": [0]}, {"vocabulary": {}}, {"weights": {}}]
)
def test_shares_and_a_vocabulary_alone_are_no_target(settings: dict[str, Any]) -> None:
    step = PruneStep.of(settings)
    assert step.target is None
    assert [step.heads, step.ffn, step.layers] == [settings.get(name) for name in ("heads", "ffn", "layers")]


def test_single_weights_are_pruned_in_the_last_stage() -> None:
    step = PruneStep.of({"target_macs": 0.25, "stages": 2, "weights": {"pattern": "2:4"}})
    assert [each.weights for each in step.by_stage()] == [None, step.weights]


def test_2_to_4_without_quotes_is_a_number_in_yaml() -> None:
    assert yaml.safe_load("2:4") == 124


@pytest.mark.parametrize("of", [PruneStep.of, lambda prune: read(changed(MINIMAL, "prune", prune)).prune])
def test_the_old_name_of_target_macs_is_accepted_with_one_warning(of: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hfcompress"):
        assert of({"target_macs": 0.5}).target == ("target_macs", 0.5)
        assert not caplog.records
        assert of({"target_flops": 0.5, "sequential": False}) == of({"target_macs": 0.5, "sequential": False})
    (message,) = [record.getMessage() for record in caplog.records]
    assert "target_flops is deprecated" in message and "use target_macs" in message


def test_the_old_name_of_target_macs_as_an_override(caplog: pytest.LogCaptureFixture) -> None:
    prune = read(MINIMAL, "prune.target_flops=0.25").prune
    assert prune is not None and prune.target == ("target_macs", 0.25)
    assert len(caplog.records) == 1
    assert "prune.target_macs: Input should be less than 1" in fault(changed(MINIMAL, "prune.target_flops", 2))


@pytest.mark.parametrize("value", [0.5, None])
def test_the_old_name_beside_the_new_one(value: float | None) -> None:
    with pytest.raises(RecipeError, match="target_flops is the deprecated name of target_macs: give target_macs only"):
        PruneStep.of({"target_flops": 0.5, "target_macs": value})
