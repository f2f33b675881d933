"""Recipes: those in configs/ load, every one round-trips, and nothing unknown or unfit gets through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hfcompress.errors import RecipeError
from hfcompress.recipe import TARGETS, OnnxRuntimeInt8, OpenVinoInt8, PruneStep, Recipe

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))

MINIMAL: dict[str, Any] = {"name": "small", "data": {"sets": ["api-search"]}, "teacher": {"model": "some/model"}}
FULL: dict[str, Any] = {
    "name": "full-1.0_b",
    "seed": 7,
    "data": {
        "sets": ["api-search", "data/ä"],
        "candidates": 50,
        "max_queries": {"train": 10, "dev": 5, "test": 3},
        "score_text": {"bm25_max": 12.5, "separator": "</s>"},
    },
    "teacher": {
        "model": "package:a/b",
        "base_model": "some/Model",
        "max_length": 256,
        "train": {
            "loss": "pointwise",
            "hard_negatives": 0,
            "random_negatives": 3,
            "queries": 900,
            "optimization": {
                "epochs": 2,
                "queries_per_batch": 12,
                "accumulation": 3,
                "learning_rate": 3.5e-05,
                "warmup": 0.0,
                "weight_decay": 0.0,
                "max_grad_norm": 0.5,
                "dropout": 0.1,
                "r_drop": 0.5,
                "adversarial": 0.25,
                "freeze_layers": 0,
                "precision": "fp32",
                "evaluations": 4,
                "patience": 1,
            },
        },
    },
    "prune": {
        "importance": "magnitude",
        "heads": 0.25,
        "ffn": 0.0,
        "layers": [0, 2, 5],
        "spread": "uniform",
        "ffn_multiple": 8,
        "calibration_queries": 16,
        "search_steps": 5,
        "sequential": False,
        "structure": "free",
        "runtime": "onnxruntime",
        "vocabulary": {"min_count": 3, "keep": ["ünder", "##s"], "characters": "corpus"},
        "weights": {"pattern": "2:4", "gradual": 0.5},
    },
    "recover": {
        "documents": 4,
        "random_negatives": 1,
        "queries": 800,
        "loss": {"margin_mse": 0.0, "listwise_kl": 1.0, "hard": 0.0, "temperature": 2.0},
        "optimization": {"epochs": 3},
    },
    "quantize": {
        "artifacts": [
            {"runtime": "onnxruntime", "mode": "dynamic", "per_channel": False, "reduce_range": True},
            {"runtime": "onnxruntime", "mode": "static", "reduce_range": "auto"},
            {"runtime": "openvino", "smooth_quant_alpha": -1.0, "optional": True},
            {"runtime": "torch", "method": "truncation", "bits": 4, "group_size": 64, "scope": "all"},
        ],
        "calibration_pairs": 32,
    },
    "evaluate": {
        "margin": 0.02,
        "confidence": 0.9,
        "threads": 2,
        "batch_tokens": 1024,
        "latency_queries": 5,
        "rounds": 2,
    },
    "publish": {"license": "mit"},
}


def changed(settings: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `settings` with the value at a dotted path set; sections on the way are made."""
    copy: dict[str, Any] = yaml.safe_load(yaml.safe_dump(settings))
    target: Any = copy
    *parents, last = path.split(".")
    for parent in parents:
        target = target[int(parent)] if isinstance(target, list) else target.setdefault(parent, {})
    target[int(last) if isinstance(target, list) else last] = value
    return copy


def read(settings: dict[str, Any], *overrides: str) -> Recipe:
    return Recipe.from_yaml(yaml.safe_dump(settings, allow_unicode=True), list(overrides))


def same(first: Recipe, second: Recipe) -> bool:
    """Whether two recipes have the same settings, wherever they were read from."""
    return first.model_dump() == second.model_dump()


def fault(text: str | dict[str, Any], *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(text if isinstance(text, str) else yaml.safe_dump(text), list(overrides))
    assert caught.value.expected and caught.value.remedy
    return str(caught.value)


# What is there loads


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
    ("prune", {"target_flops": 0.5, "vocabulary": {}}),
    ("prune", {"vocabulary": {"keep": ["no", "~"]}}),
    ("prune", {"ffn": 0.5, "spread": "uniform", "structure": "stock"}),
    ("prune.vocabulary", None),
    ("prune", {"target_flops": 0.1, "stages": 3}),
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


def test_recipes_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        read(MINIMAL).seed = 1  # type: ignore[misc]


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


def test_features_are_off_until_their_section_is_there() -> None:
    pruned = changed(changed(MINIMAL, "prune.heads", 0.5), "recover", {})
    recipe = read(pruned)
    assert recipe.recover is not None and recipe.recover.features is None
    for features in ({}, {"hidden": 2.0, "relation": 0.0, "decay": 1.0, "hidden_layers": "last", "relation_heads": 48}):
        recipe = read(changed(pruned, "recover.features", features))
        assert recipe.recover is not None and recipe.recover.features is not None
        assert features.items() <= recipe.recover.features.model_dump().items()
        assert same(Recipe.from_yaml(recipe.to_yaml()), recipe)
    assert "recover.features" in fault(changed(FULL, "recover.features", {}))  # it has prune.vocabulary


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


# Values that do not fit


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
        ("prune.target_flops", 0, "greater than 0"),
        ("prune.target_flops", float("inf"), "finite"),
        ("prune.structure", "even", "'free' or 'stock'"),
        ("prune.runtime", "tensorrt", "'torch', 'onnxruntime' or 'openvino'"),
        ("prune.search_steps", 0, "greater than 0"),
        ("prune.calibration_queries", 0, "greater than 0"),
        ("prune.vocabulary.min_count", 0, "greater than 0"),
        ("prune.vocabulary.characters", "some", "'all' or 'corpus'"),
        ("prune.vocabulary.keep", "word", "valid list"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 1.5, "integer"),
        ("name", "", "pattern"),
        ("name", "with/slash", "pattern"),
        ("name", "../up", "pattern"),
        ("data.sets", [], "at least 1"),
        ("data.sets", "api-search", "valid list"),
        ("data.candidates", 0, "greater than 0"),
        ("data.max_queries.test", 0, "greater than 0"),
        ("teacher.max_length", 4, "greater than or equal to 8"),
        ("teacher.train.loss", "triplet", "'listwise' or 'pointwise'"),
        ("teacher.train.optimization.accumulation", 5, "accumulation (5) must divide queries_per_batch (12)"),
        ("teacher.train.optimization.learning_rate", 0, "greater than 0"),
        ("teacher.train.optimization.dropout", 1, "less than 1"),
        ("teacher.train.optimization.precision", "fp16", "'auto', 'bf16' or 'fp32'"),
        ("recover.documents", 1, "greater than or equal to 2"),
        ("recover.loss.temperature", 0, "greater than 0"),
        ("recover.loss.listwise_kl", 0, "at least one of margin_mse, listwise_kl, ranknet"),
        ("recover.loss.hard", -1, "greater than or equal to 0"),
        ("quantize.artifacts.0.mode", "weights", "'dynamic' or 'static'"),
        ("quantize.artifacts.0.runtime", "tensorrt", "tensorrt"),
        ("quantize.artifacts.0.target", "sse4", "'avx512_vnni' or 'arm64'"),
        ("quantize.artifacts.0.calibration", "percentile", "mode: static"),
        ("quantize.artifacts.1.calibration", "mean", "'percentile' or 'entropy'"),
        ("quantize.artifacts.1.percentile", 0.99, "greater than 50"),
        ("quantize.artifacts.1.percentile", 99.9, "calibration: percentile; minmax does not read it"),
        ("quantize.artifacts.1.max_loss", 0, "greater than 0"),
        ("quantize.artifacts.2.smooth_quant_alpha", 2, "less than or equal to 1"),
        ("quantize.artifacts.3.bits", 3, "greater than or equal to 4"),
        ("quantize.artifacts.3.group_size", 0, "greater than 0"),
        ("quantize.artifacts.3.scope", "head", "'embeddings' or 'all'"),
        ("quantize.artifacts.3.method", "ternary", "'truncation' or 'sign'"),
        ("prune.weights.pattern", 124, 'write "2:4" in quotes'),  # what YAML makes of 2:4
        ("prune.weights.sparsity", 0.6, "2:4 has a sparsity of 0.5"),
        ("prune.weights.gradual", 1, "less than 1"),
        ("evaluate.margin", 0, "greater than 0"),
        ("evaluate.confidence", 1, "less than 1"),
        ("evaluate.confidence", 0.5, "greater than 0.5"),
    ],
)
def test_values_that_do_not_fit_are_named(path: str, value: Any, words: str) -> None:
    message = fault(changed(FULL, path, value))
    assert words in message, message
    key = path.split(".")[-1]
    assert key in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({}, ["give one of target_speedup", "target_flops", "vocabulary"], id="nothing"),
        pytest.param({"importance": "fisher"}, ["give one of target_speedup"], id="no budget"),
        pytest.param({"target_speedup": None}, ["give one of target_speedup"], id="an empty target"),
        pytest.param(
            {"target_speedup": 2, "target_flops": 0.5}, ["not target_speedup, target_flops"], id="two targets"
        ),
        *(
            pytest.param({"target_flops": 0.5, name: value}, [f"not target_flops, {name}"], id=f"target and {name}")
            for name, value in (("heads", 1.0), ("ffn", 0.5), ("layers", [0]))
        ),
        *(
            pytest.param({**budget, "speed": "latency"}, ["speed: latency", "target_speedup"], id=f"latency of {name}")
            for name, budget in (
                ("flops", {"target_flops": 0.5}),
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
def test_a_target_goes_by_its_name(name: str, value: float) -> None:
    assert PruneStep.of({name: value}).target == (name, value)
    assert PruneStep.of({name: value, "structure": "stock"}).target == (name, value)


@pytest.mark.parametrize(
    "settings", [{"heads": 0.5}, {"ffn": 0.0}, {"layers": [0]}, {"vocabulary": {}}, {"weights": {}}]
)
def test_shares_and_a_vocabulary_alone_are_no_target(settings: dict[str, Any]) -> None:
    step = PruneStep.of(settings)
    assert step.target is None
    assert [step.heads, step.ffn, step.layers] == [settings.get(name) for name in ("heads", "ffn", "layers")]


def test_recovery_without_pruning() -> None:
    message = fault(changed(FULL, "prune", None))
    assert "recover is set without prune" in message
    assert "recover is set without prune" in fault(changed(MINIMAL, "recover", {}))
    assert "prune.weights.gradual is set without recover" in fault(changed(FULL, "recover", None))
    assert yaml.safe_load("2:4") == 124


def test_single_weights_go_in_the_last_stage() -> None:
    step = PruneStep.of({"target_flops": 0.25, "stages": 2, "weights": {"pattern": "2:4"}})
    assert [each.weights for each in step.by_stage()] == [None, step.weights]


def test_training_without_negatives() -> None:
    message = fault(changed(FULL, "teacher.train.random_negatives", 0))
    assert "hard_negatives and random_negatives cannot both be 0" in message


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
