"""`--set KEY=null` takes a setting out again: every key has its default then, and a wrong key is still refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from recipe_samples import FULL, MINIMAL, changed, fault, read, same

from hfcompress.errors import RecipeError
from hfcompress.recipe import Recipe


def keys(section: type[BaseModel], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that has a default, with its default, and those of sections within sections."""
    for name, field in section.model_fields.items():
        if not field.is_required():
            yield before + name, field.get_default(call_default_factory=True)
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from keys(part, f"{before}{name}.")


KEYS = dict(keys(Recipe))


def without(settings: dict[str, Any], key: str) -> dict[str, Any]:
    """A copy of settings without a key; sections are left as they are."""
    first, _, others = key.partition(".")
    if others:
        return {name: without(value, others) if name == first else value for name, value in settings.items()}
    return {name: value for name, value in settings.items() if name != first}


def outcome(settings: dict[str, Any], *overrides: str) -> dict[str, Any] | str:
    """The settings of a recipe, or the error that refuses it."""
    try:
        return read(settings, *overrides).model_dump()
    except RecipeError as error:
        return str(error)


def test_the_keys_of_all_sections_are_found() -> None:
    assert {"seed", "data.max_queries", "data.max_queries.train", "prune.target_speedup"} < KEYS.keys()
    assert len(KEYS) > 60


@pytest.mark.parametrize(
    "override", ["data.max_queries=null", "data.max_queries.train=null", "data.max_queries.train="]
)
def test_a_limit_is_taken_out_again(override: str) -> None:
    limited = changed(MINIMAL, "data.max_queries", {"train": 5})
    assert read(limited).data.max_queries.train == 5
    assert same(read(limited, override), read(MINIMAL))


@pytest.mark.parametrize("key", KEYS)
def test_null_restores_the_default_of_any_key(key: str) -> None:
    assert same(read(MINIMAL, f"{key}=null"), read(MINIMAL))
    if not key.startswith("recover.teachers."):  # a list, within which no key can be set
        assert outcome(FULL, f"{key}=null") == outcome(without(FULL, key))


@pytest.mark.parametrize("key", ["hedas", "prune.hedas", "prunee.heads", "data.max_queries.tset"])
def test_null_for_an_unknown_key_is_refused(key: str) -> None:
    assert key.partition(".")[0] in fault(MINIMAL, f"{key}=null")
    assert key.rpartition(".")[2] in fault(FULL, f"{key}=null") or key == "prunee.heads"


@pytest.mark.parametrize("key", ["name", "data.sets", "teacher.model"])
def test_null_for_a_required_key_is_refused(key: str) -> None:
    message = fault(MINIMAL, f"{key}=null")
    assert key in message and "required" in message
