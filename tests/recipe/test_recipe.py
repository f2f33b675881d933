"""Recipes: those in configs/ load, all of them round-trip, and unknown keys and invalid values are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from recipe_samples import FULL, MINIMAL, assert_named, changed, fault, read, same

from hfcompress.errors import RecipeError
from hfcompress.recipe import OnnxRuntimeInt8, OpenVinoInt8, Recipe

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


# Recipes that load


def test_there_are_recipes() -> None:
    assert {path.stem for path in CONFIGS} >= {"quickstart", "selqa-googleq", "drcd", "recommend", "unlabelled"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipes_in_configs_load_and_round_trip(path: Path) -> None:
    recipe = Recipe.load(path)
    assert same(Recipe.from_yaml(recipe.to_yaml()), recipe)


def test_what_the_recipes_in_configs_are_there_to_show() -> None:
    recipes = {path.stem: Recipe.load(path) for path in CONFIGS}
    assert recipes["drcd"].prune.vocabulary is not None
    assert recipes["recommend"].data.sets == ["recommend"]
    unlabelled = recipes["unlabelled"]
    assert unlabelled.recover.unlabelled and unlabelled.teacher.train is None and not unlabelled.recover.loss.hard


def test_defaults() -> None:
    recipe = read(MINIMAL)
    assert recipe.prune is None and recipe.recover is None and recipe.teacher.train is None
    assert recipe.quantize.artifacts == [OnnxRuntimeInt8(mode="dynamic")]
    assert (recipe.seed, recipe.data.candidates, recipe.evaluate.margin) == (0, 20, 0.01)
    assert recipe.data.max_queries.test is None


def test_sections_left_empty_take_no_defaults_by_accident() -> None:
    assert read(changed(MINIMAL, "prune", None)).prune is None
    assert "target_speedup, target_latency_ms" in fault(changed(MINIMAL, "prune", {}))
    assert read(changed(MINIMAL, "prune.vocabulary", {})).prune is not None
    assert read(changed(MINIMAL, "teacher.train", {})).teacher.train is not None


def test_every_value_of_a_full_recipe_arrives() -> None:
    dumped = read(FULL).model_dump(mode="json")

    def within(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(within(value, whole[key]) for key, value in part.items())
        if isinstance(part, list):
            return len(part) == len(whole) and all(map(within, part, whole))
        return part == whole

    assert within(FULL, dumped)
    assert isinstance(read(FULL).quantize.artifacts[2], OpenVinoInt8)


def test_numbers_in_any_of_yamls_spellings() -> None:
    text = yaml.safe_dump(changed(MINIMAL, "recover", {})) + "prune: {heads: 1}\n"
    for number in ("2e-4", "2.0e-4", "0.0002"):
        recipe = Recipe.from_yaml(text, [f"recover.optimization.learning_rate={number}"])
        assert recipe.recover is not None and recipe.recover.optimization.learning_rate == 2e-4
    assert recipe.prune is not None and recipe.prune.heads == 1.0


# Round trip

VARIANTS: list[tuple[str, Any]] = [
    ("seed", 123456789),
    ("data.sets", ["a", "b", "api-search"]),
    ("data.max_queries", {"test": 5}),
    ("teacher.base_model", "Ünicode/mödel: #1"),
    ("teacher.base_model", "123"),
    ("teacher.train", {}),
    ("teacher.train", {"loss": "pointwise", "hard_negatives": 0}),
    ("teacher.train.optimization.learning_rate", 1e-07),
    ("prune.layers", [0]),
    ("prune.heads", 1 / 3),
    ("prune.importance", "fisher"),
    ("prune", {"target_speedup": 2.5, "structure": "stock"}),
    ("prune", {"target_latency_ms": 0.5, "runtime": "openvino"}),
    ("prune", {"target_parameters": 0.123}),
    ("prune", {"target_macs": 0.5, "vocabulary": {}}),
    ("prune", {"vocabulary": {"keep": ["no", "~"]}}),
    ("prune", {"ffn": 0.5, "spread": "uniform", "structure": "stock"}),
    ("prune.vocabulary", None),
    ("prune", {"target_macs": 0.1, "stages": 3}),
    ("recover.optimization", {"queries_per_batch": 16, "accumulation": 16}),
    ("quantize.artifacts", []),
    ("quantize.artifacts", [{"runtime": "openvino"}]),
    ("quantize.artifacts.0.reduce_range", False),
    ("quantize.artifacts.0.target", "arm64"),
    ("quantize.artifacts.1.calibration", "entropy"),
    (
        "quantize.artifacts.1",
        {"runtime": "onnxruntime", "mode": "static", "calibration": "percentile", "percentile": 99.0},
    ),
    ("quantize.artifacts.0.max_loss", 0.01),
    ("evaluate.confidence", 0.999),
    ("publish.license", "yes"),
]


@pytest.mark.parametrize("settings", [MINIMAL, FULL], ids=["minimal", "full"])
def test_round_trip(settings: dict[str, Any]) -> None:
    recipe = read(settings)
    again = Recipe.from_yaml(recipe.to_yaml())
    assert same(again, recipe)
    assert again.to_yaml() == recipe.to_yaml()


@pytest.mark.parametrize(("path", "value"), VARIANTS)
def test_variants_round_trip(path: str, value: Any) -> None:
    recipe = read(changed(FULL, path, value))
    assert not same(recipe, read(FULL))
    assert same(Recipe.from_yaml(recipe.to_yaml()), recipe)


# Unknown keys

SECTIONS = [
    "",
    "data.",
    "data.max_queries.",
    "teacher.",
    "teacher.train.",
    "teacher.train.optimization.",
    "prune.",
    "prune.vocabulary.",
    "recover.",
    "recover.loss.",
    "recover.features.",
    "recover.optimization.",
    "quantize.",
    "quantize.artifacts.0.",
    "quantize.artifacts.2.",
    "evaluate.",
    "publish.",
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section or "top")
def test_unknown_keys_are_named_at_every_level(section: str) -> None:
    message = fault(changed(FULL, f"{section}hedas", 1))
    assert "hedas" in message and all(part in message for part in section.split("."))
    assert "Extra inputs are not permitted" in message


def test_all_faults_are_named_at_once() -> None:
    settings = changed(changed(changed(FULL, "extra", 1), "prune.heads", 2), "evaluate.margin", 0)
    message = fault(settings)
    assert all(path in message for path in ("extra", "prune.heads", "evaluate.margin"))


def test_many_faults_are_all_named() -> None:
    keys = [f"unknown_{number}" for number in range(8)]
    message = fault({**MINIMAL, **dict.fromkeys(keys, 1)})
    assert all(key in message for key in keys)


def test_keys_that_are_no_text() -> None:
    assert "1" in fault(yaml.safe_dump(MINIMAL) + "1: 2\n")


# Overrides


def test_overrides_take_the_place_of_what_the_recipe_says() -> None:
    overrides = ["prune.heads=0.75", "name=other", "prune.layers=[1, 3]", "teacher.train.optimization.epochs=9"]
    recipe = read(FULL, *overrides)
    assert recipe.prune is not None and recipe.teacher.train is not None
    assert (recipe.name, recipe.prune.heads, recipe.prune.layers) == ("other", 0.75, [1, 3])
    assert recipe.teacher.train.optimization.epochs == 9
    assert recipe.prune.ffn == 0.0  # neighbours stay


def test_overrides_make_sections() -> None:
    recipe = read(MINIMAL, "teacher.train.optimization.epochs=2", "prune.heads=0.25", "data.max_queries.test=4")
    assert recipe.teacher.train is not None and recipe.teacher.train.optimization.epochs == 2
    assert recipe.prune is not None and recipe.prune.heads == 0.25
    assert recipe.data.max_queries.test == 4
    assert recipe.data.sets == ["api-search"]


def test_overrides_can_empty_a_section_and_make_one_of_an_empty_one() -> None:
    assert read(FULL, "recover=", "prune=null").prune is None
    recipe = read(changed(MINIMAL, "prune", None), "prune.heads=0.25")
    assert recipe.prune is not None and recipe.prune.heads == 0.25


def test_the_last_override_counts_and_values_may_hold_an_equals_sign() -> None:
    recipe = read(MINIMAL, "seed=1", "seed=2", "teacher.model=a=b")
    assert (recipe.seed, recipe.teacher.model) == (2, "a=b")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("prune.heads", ["key=value", "'prune.heads'"]),
        ("=0.25", ["key=value", "'=0.25'"]),
        ("", ["key=value"]),
        ("prune.hedas=0.25", ["prune.hedas"]),
        ("prunee.heads=0.25", ["prunee"]),
        ("prune..heads=0.25", ["prune."]),
        ("name.first=x", ["'name'", "holds no keys"]),
        ("data.sets.0=x", ["'sets'", "holds no keys"]),
        ("prune.heads=1.5", ["prune.heads"]),
        ("prune.heads=half", ["prune.heads"]),
        ("prune.layers=[1, 2", ["prune.layers"]),
    ],
)
def test_bad_overrides(override: str, words: list[str]) -> None:
    message = fault(FULL, override)
    assert all(word in message for word in words), message


# Values and combinations that are invalid


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 1.5, "integer"),
        ("name", "", "pattern"),
        ("name", "with/slash", "pattern"),
        ("name", "../up", "pattern"),
    ],
)
def test_invalid_values_are_named(path: str, value: Any, words: str) -> None:
    assert_named(path, value, words)


def test_recovery_without_pruning() -> None:
    message = fault(changed(FULL, "prune", None))
    assert "recover is set without prune" in message
    assert "recover is set without prune" in fault(changed(MINIMAL, "recover", {}))
    assert "prune.weights.gradual is set without recover" in fault(changed(FULL, "recover", None))


@pytest.mark.parametrize("missing", ["name", "data", "teacher"])
def test_what_has_to_be_given(missing: str) -> None:
    message = fault({key: value for key, value in MINIMAL.items() if key != missing})
    assert f"{missing}: Field required" in message


# Files that are no recipe


@pytest.mark.parametrize("text", ["", "\n# only a comment\n", "~"])
def test_empty_recipe(text: str) -> None:
    message = fault(text)
    assert "empty" in message and "NoneType" in message and "configs/" in message


@pytest.mark.parametrize(("text", "kind"), [("- a\n- b\n", "list"), ("just words\n", "str"), ("12\n", "int")])
def test_recipe_that_is_no_mapping(text: str, kind: str) -> None:
    message = fault(text)
    assert "no mapping" in message and kind in message


@pytest.mark.parametrize(
    "text", ["name: [unclosed\n", "name: a\n\tseed: 1\n", "name: a: b\n", "name: !!python/object:os.system x\n"]
)
def test_invalid_yaml_says_where(text: str) -> None:
    message = fault(text)
    assert "not valid YAML" in message and "line" in message


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(RecipeError, match="no such recipe") as caught:
            Recipe.load(path)
        assert str(path) in str(caught.value)


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(RecipeError, match="UTF-8"):
        Recipe.load(path)


def test_load_reads_the_file_with_overrides(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(FULL, allow_unicode=True), encoding="utf-8")
    assert same(Recipe.load(path), read(FULL))
    assert Recipe.load(path, ["seed=3"]).seed == 3
