"""What is chosen of several models, by either task; test_rating_thread.py has the rest."""

import doctest
import math

import pytest

from recops.stages import task


def test_doctest() -> None:
    result = doctest.testmod(task)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_a_model_that_could_not_be_judged_is_chosen_last(lower_is_better: bool) -> None:
    assert task.best({"a": math.nan, "b": 0.5}, lower_is_better, "a") == "b"
