"""Which hyper-parameters to try next, and when a try is hopeless: Optuna's tree-structured Parzen estimator (Bergstra
et al., 2011) and its median rule.

In: ranges as params.yaml has them, and the trials that have ended. Out: the next settings. Nothing is remembered in
between: what is drawn depends on the space, the seed and the trials that have ended, so a search goes on after a kill
as if nothing had been. The only door to Optuna. Knows nothing about what a trial is, beyond a value that should rise.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, create_model

from recops.errors import CallError
from recops.params import Group, TuneRange, checked

if TYPE_CHECKING:
    import optuna

_RANDOM_TRIALS = 5  # before the estimator is asked; as many must be complete before one is stopped early
_DRAWS = 100  # if none of them is new, the space holds no more
_FACTOR = 3.0  # of the ranges that are made where none are given
_DIGITS = 4  # of a decimal that is drawn: what a person would write


@dataclass(frozen=True)
class Ended:
    """A trial that has ended. `value` is the best it reached, None where it failed for the `reason` given.

    `curve` holds the value after each epoch (of a model that has none, after the fit), None where it is undefined.
    """

    trial: int
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    settings: dict[str, Any]
    curve: list[float | None] = field(default_factory=list)
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Dimension:
    """One hyper-parameter: one of `choice`, or a number from `low` to `high`, both included."""

    choice: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False  # only whole numbers

    def holds(self, value: Any) -> bool:
        """Whether `value` could be drawn."""
        if self.choice:
            return json.dumps(value) in map(json.dumps, self.choice)
        return value is not None and self.low <= value <= self.high

    def __str__(self) -> str:
        if self.choice:
            return f"one of {', '.join(json.dumps(value) for value in self.choice)}"
        return f"{self.low:.4g} to {self.high:.4g}{' (log)' if self.log else ''}"


Space = dict[str, Dimension]


def make_space(ranges: Mapping[str, TuneRange], config: BaseModel, name: str) -> Space:
    """What is tried for the model `name`, whose settings are `config` as they stand; without ranges `default_space`.

    Raises CallError naming the key for one that the model does not have, and for a value it does not take.
    """
    if not ranges:
        return default_space(config, name)
    fields = type(config).model_fields
    space = {}
    for key, given in ranges.items():
        if key not in fields:
            raise CallError(f"tune.space.{key}: {name} has no such setting; it has {', '.join(sorted(fields))}")
        one: type[BaseModel] = create_model(
            "Setting",
            __base__=Group,
            **{key: (fields[key].annotation, fields[key])},  # type: ignore[call-overload]
        )

        def value(found: Any, one: type[BaseModel] = one, key: str = key) -> Any:
            return getattr(checked(one, {key: found}, "tune.space"), key)

        if given.choice is not None:
            space[key] = Dimension(choice=tuple(value(found) for found in given.choice))
            continue
        kind = _number(fields[key].annotation)
        if kind is None:
            raise CallError(f"tune.space.{key}: is not a number; give `choice` instead of `low` and `high`")
        space[key] = Dimension(low=value(given.low), high=value(given.high), log=given.log, whole=kind is int)
    return space


def default_space(config: BaseModel, name: str) -> Space:
    """Each decimal that is not 0, from a third to three times its value; where that goes beyond what the model takes,
    half the way there. Raises CallError for a model without any."""
    space = {}
    for key, about in type(config).model_fields.items():
        now = getattr(config, key)
        if _number(about.annotation) is not float or not now:
            continue
        low, high = sorted((now / _FACTOR, now * _FACTOR))
        bounds = {name: value for found in about.metadata for name, value in _bounds(found).items()}
        if (least := bounds.get("low", -math.inf)) >= low:
            low = (now + least) / 2
        if (most := bounds.get("high", math.inf)) <= high:
            high = (now + most) / 2
        space[key] = Dimension(low=_rounded(low), high=_rounded(high), log=low > 0 and most == math.inf)
    if not space:
        raise CallError(f"tune.space: empty, and {name} has no decimal setting to vary; give ranges or another model")
    return space


class Draw:
    """Settings to try, and the judgement of how the try goes."""

    def __init__(self, settings: dict[str, Any], trial: "optuna.Trial") -> None:
        self.settings = settings
        self._trial = trial

    def is_hopeless(self, epoch: int, value: float | None) -> bool:
        """Whether the best so far is below the median, after this epoch (from 1), of the trials that are complete."""
        if value is None:
            return False
        self._trial.report(value, epoch)
        return self._trial.should_prune()


def draw(space: Space, ended: Sequence[Ended], seed: int, warmup: int = 1) -> Draw | None:
    """The settings to try after those that have `ended`, other than all of them; None where the space holds no more.

    No trial is stopped early before epoch `warmup`.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {key: _distribution(dimension) for key, dimension in space.items()}
    study = optuna.create_study(
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_RANDOM_TRIALS, n_warmup_steps=warmup),
    )
    for trial in ended:
        if trial.value is not None and all(space[key].holds(value) for key, value in trial.settings.items()):
            study.add_trial(_frozen(trial, space, distributions))
    tried = {json.dumps(trial.settings, sort_keys=True) for trial in ended}
    for attempt in range(_DRAWS):
        own_seed = int(np.random.SeedSequence([seed, len(ended), attempt]).generate_state(1)[0])
        # The estimator may come back to the same few settings for ever; chance does not.
        study.sampler = (
            optuna.samplers.RandomSampler(seed=own_seed)
            if attempt
            else optuna.samplers.TPESampler(seed=own_seed, n_startup_trials=_RANDOM_TRIALS)
        )
        asked = study.ask(distributions)
        settings = {key: _value(dimension, asked.params[key]) for key, dimension in space.items()}
        if json.dumps(settings, sort_keys=True) not in tried:
            return Draw(settings, asked)
        study.tell(asked, state=optuna.trial.TrialState.FAIL)
    return None


def _number(annotation: Any) -> type | None:
    """int or float for a setting that is one of them or nothing, else None."""
    kinds = {kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType}
    return kinds.pop() if kinds in ({int}, {float}) else None


def _bounds(found: Any) -> dict[str, float]:
    """`low` and `high` of one of the rules that pydantic keeps beside a field (Ge, Gt, Le, Lt)."""
    names = {"ge": "low", "gt": "low", "le": "high", "lt": "high"}
    return {name: getattr(found, rule) for rule, name in names.items() if hasattr(found, rule)}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _distribution(dimension: Dimension) -> "optuna.distributions.BaseDistribution":
    from optuna import distributions

    if dimension.choice:
        # As text, since Optuna takes no lists; in their order, each once.
        return distributions.CategoricalDistribution(list(dict.fromkeys(map(json.dumps, dimension.choice))))
    if dimension.whole:
        return distributions.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _value(dimension: Dimension, drawn: Any) -> Any:
    """What Optuna drew as the value of a setting."""
    if dimension.choice:
        return json.loads(drawn)
    if dimension.whole:
        return int(drawn)
    return min(max(_rounded(drawn), dimension.low), dimension.high)


def _frozen(
    trial: Ended, space: Space, distributions: dict[str, "optuna.distributions.BaseDistribution"]
) -> "optuna.trial.FrozenTrial":
    from optuna.trial import TrialState, create_trial

    return create_trial(
        state=TrialState.COMPLETE if trial.state == "complete" else TrialState.PRUNED,
        value=trial.value,
        params={key: json.dumps(value) if space[key].choice else value for key, value in trial.settings.items()},
        distributions=distributions,
        intermediate_values={epoch: value for epoch, value in enumerate(trial.curve, start=1) if value is not None},
    )
