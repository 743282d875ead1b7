"""What is tried next, and what is given up: a function of the space, the seed and what has ended."""

from typing import Literal

import pytest
from pydantic import Field

from recops.errors import CallError
from recops.params import Group, TuneRange
from recops.training.search import Dimension, Ended, draw, make_space


class Config(Group):
    embedding_dim: int = Field(64, ge=1)
    learning_rate: float = Field(0.002, gt=0)
    dropout: float = Field(0.4, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    decay: float | None = Field(None, gt=0)
    loss: Literal["softmax", "bce"] = "softmax"
    hidden_dims: list[int] = [64, 32]


def space(**ranges: dict[str, object]) -> dict[str, Dimension]:
    return make_space({key: TuneRange.model_validate(value) for key, value in ranges.items()}, Config(), "it")


def run(ranges: dict[str, Dimension], num_trials: int, ended: list[Ended] | None = None) -> list[Ended]:
    """A search for the dropout next to .25, going on after what has ended."""
    ended = list(ended or [])
    while len(ended) < num_trials:
        drawn = draw(ranges, ended, seed=1)
        assert drawn is not None
        value = -abs(drawn.settings["dropout"] - 0.25)
        ended.append(Ended(len(ended), "complete", value, drawn.settings, [value]))
    return ended


def test_ranges_are_read_by_the_kind_of_the_setting() -> None:
    found = space(
        embedding_dim={"choice": ["64", 128]},
        learning_rate={"low": "5e-4", "high": 0.005, "log": True},  # 5e-4 is text to YAML
        decay={"choice": [None, 2]},
        hidden_dims={"choice": [[64], [64, 32]]},
    )
    assert found["embedding_dim"].choice == (64, 128)
    assert found["learning_rate"] == Dimension(low=0.0005, high=0.005, log=True)
    assert found["decay"].choice == (None, 2.0)
    assert found["hidden_dims"].choice == ([64], [64, 32])
    assert space(embedding_dim={"low": 8, "high": 9})["embedding_dim"].whole


@pytest.mark.parametrize(
    ("key", "given", "told"),
    [
        ("width", {"choice": [1]}, "tune.space.width: it has no such setting; it has decay, dropout, embedding_dim"),
        ("dropout", {"choice": ["much"]}, r"tune\.space\.dropout: .*valid number.*'much'"),
        ("dropout", {"low": 0.1, "high": 1}, r"tune\.space\.dropout: .*less than 1"),
        ("embedding_dim", {"low": 1.5, "high": 3}, r"tune\.space\.embedding_dim: .*integer.*1\.5"),
        ("loss", {"choice": ["hinge"]}, r"tune\.space\.loss: .*'softmax' or 'bce'.*'hinge'"),
        ("loss", {"low": 1, "high": 2}, r"tune\.space\.loss: is not a number; give `choice`"),
    ],
)
def test_a_mistake_in_the_space_names_the_key(key: str, given: dict[str, object], told: str) -> None:
    with pytest.raises(CallError, match=told):
        space(**{key: given})


def test_without_ranges_decimals_are_varied_within_what_the_model_takes() -> None:
    found = make_space({}, Config(), "it")
    assert found == {
        "learning_rate": Dimension(low=0.0006667, high=0.006, log=True),
        "dropout": Dimension(low=0.1333, high=0.7),  # three times .4 is too much: half the way from .4 to 1
    }


def test_a_model_without_decimals_has_to_be_given_ranges() -> None:
    with pytest.raises(CallError, match=r"tune\.space: empty, and most_popular has no decimal"):
        make_space({}, Group(), "most_popular")


def test_what_is_drawn_lies_in_the_space_and_is_never_the_same() -> None:
    ranges = space(
        embedding_dim={"low": 8, "high": 64, "log": True},
        learning_rate={"low": 0.0005, "high": 0.005, "log": True},
        dropout={"low": 0.1, "high": 0.5},
        hidden_dims={"choice": [[64], [64, 32]]},
    )
    trials = run(ranges, 15)
    assert all(ranges[key].holds(value) for trial in trials for key, value in trial.settings.items())
    assert all(type(trial.settings["embedding_dim"]) is int for trial in trials)
    assert all(trial.settings["dropout"] == round(trial.settings["dropout"], 4) for trial in trials)
    assert len({str(trial.settings) for trial in trials}) == 15


def test_a_search_goes_on_as_if_it_had_never_ended() -> None:
    ranges = space(dropout={"low": 0.1, "high": 0.5}, loss={"choice": ["softmax", "bce"]})
    whole = run(ranges, 14)
    assert run(ranges, 14, whole[:3]) == whole
    assert run(ranges, 14, whole[:9]) == whole


def test_the_search_comes_near_the_best() -> None:
    ranges = space(dropout={"low": 0.0, "high": 0.9}, learning_rate={"low": 0.001, "high": 0.002})
    late = run(ranges, 60)[20:]
    near = sum(abs(trial.settings["dropout"] - 0.25) < 0.1 for trial in late)
    assert near >= 16  # by chance 9 of 40


def test_a_space_of_three_holds_three() -> None:
    ranges = space(dropout={"choice": [0.1, 0.2, 0.1, 0.3]})
    trials = run(ranges, 3)
    assert sorted(trial.settings["dropout"] for trial in trials) == [0.1, 0.2, 0.3]
    assert draw(ranges, trials, seed=1) is None


def test_what_failed_or_lies_outside_is_not_drawn_again_and_teaches_nothing() -> None:
    ranges = space(dropout={"choice": [0.1, 0.2]})
    outside = Ended(0, "complete", 9.0, {"dropout": 0.7}, [9.0])
    failed = Ended(1, "failed", None, {"dropout": 0.1}, reason="diverged")
    drawn = draw(ranges, [outside, failed], seed=1)
    assert drawn is not None and drawn.settings == {"dropout": 0.2}


def test_a_trial_below_the_median_is_hopeless_once_enough_are_complete() -> None:
    ranges = space(dropout={"low": 0.1, "high": 0.5})
    curves = [[0.1, 0.2 + n / 100, None] for n in range(5)]  # median after the second epoch: .22
    ended = [Ended(n, "complete", 0.3, {"dropout": 0.1 + n / 20}, curve) for n, curve in enumerate(curves)]

    def hopeless(ended: list[Ended], warmup: int, *values: float | None) -> list[bool]:
        drawn = draw(ranges, ended, seed=1, warmup=warmup)
        assert drawn is not None
        return [drawn.is_hopeless(epoch, value) for epoch, value in enumerate(values, start=1)]

    assert hopeless(ended, 1, 0.1, 0.21) == [False, True]
    assert hopeless(ended, 1, 0.1, 0.23) == [False, False]
    assert hopeless(ended, 1, 0.05, 0.23) == [True, False]
    assert hopeless(ended, 2, 0.05, 0.21) == [False, True]
    assert hopeless(ended, 1, None, None) == [False, False]
    assert hopeless(ended[:4], 1, 0.0, 0.0) == [False, False]
