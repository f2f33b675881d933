"""Every error states the value received, what was expected and the remedy, and has an exit code."""

from __future__ import annotations

import pytest

from hfcompress import errors
from hfcompress.errors import HfCompressError, HubUnavailableError, MissingExtraError, RecipeError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HfCompressError) and kind is not MissingExtraError
]


def test_all_kinds_are_found() -> None:
    assert {kind.__name__ for kind in KINDS} >= {"RecipeError", "DataError", "ModelError", "PlanError", "OutputError"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_message_has_value_expectation_and_remedy(kind: type[HfCompressError]) -> None:
    error = kind("There is no such file", value="a.txt", expected="a text file", remedy="check the path")
    assert str(error) == "There is no such file. Got: 'a.txt'. Expected: a text file. Remedy: check the path."
    assert (error.problem, error.value) == ("There is no such file", "a.txt")
    assert (error.expected, error.remedy) == ("a text file", "check the path")
    assert error.exit_code == (1 if kind is HubUnavailableError else 2)  # 1: the user cannot fix it
    assert isinstance(error, HfCompressError)


def test_value_may_be_left_out() -> None:
    error = RecipeError("The recipe is empty", expected="keys", remedy="write some")
    assert str(error) == "The recipe is empty. Expected: keys. Remedy: write some."
    assert error.value is None


@pytest.mark.parametrize("value", [0, False, "", []])
def test_falsy_values_are_shown(value: object) -> None:
    assert f"Got: {value!r}." in str(RecipeError("Wrong", value=value, expected="x", remedy="y"))


def test_long_values_are_shortened_in_the_message_only() -> None:
    value = list(range(1000))
    error = RecipeError("Too much", value=value, expected="less", remedy="remove some")
    shown = str(error).partition("Got: ")[2].partition(". Expected")[0]
    assert len(shown) == 200 and shown.startswith("[0, 1, 2") and shown.endswith("...")
    assert error.value is value


def test_values_of_the_longest_length_are_shown_whole() -> None:
    value = "x" * 198  # 200 with its quotes
    assert f"Got: {value!r}." in str(RecipeError("Long", value=value, expected="x", remedy="y"))


def test_missing_extra_names_the_pip_command() -> None:
    error = MissingExtraError("openvino", "openvino", "Ranking with an OpenVINO graph")
    assert str(error).startswith("Ranking with an OpenVINO graph needs the package 'openvino', which is not installed")
    assert "pip install 'hfcompress[openvino]'" in str(error)
    assert isinstance(error, HfCompressError) and error.exit_code == 2
