"""Answers as bytes."""

import json

import pytest

from recops.serving.operation import json_bytes


@pytest.mark.parametrize(
    "value",
    [
        {"title": 'Fahrvergnügen \u2028 "\\\n\x01 😀', "score": 0.1 + 0.2, "small": 1e-7, "large": 2**70, "none": None},
        {"titles": ["NaN", "-Infinity"], "is": [True, False], "nothing": {}},
    ],
)
def test_answers_are_json_of_the_same_value(value) -> None:
    assert json.loads(json_bytes(value)) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_our_own_mistake(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"scores": [{"item_id": "a", "score": number}]})
