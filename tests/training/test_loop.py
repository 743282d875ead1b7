"""The loop on small models: early stop, what is kept, refusals, and going on after a real kill."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from recops.data.interactions import Interactions
from recops.data.vocabulary import Vocabulary
from recops.errors import CallError, RefusedError
from recops.models.sasrec import Sasrec
from recops.params import Group
from recops.protocols import Recommender, ServingParts
from recops.training.loop import _schedule, fit_model
from recops.training.progress import Progress


def make_train(num_users: int = 12, num_items: int = 6, num_events: int = 9) -> Interactions:
    """Users who walk round the items in turn, each from another start."""
    users = Vocabulary(f"u{user:03d}" for user in range(num_users))
    items = Vocabulary(f"i{item:03d}" for item in range(num_items))
    num_rows = num_users * num_events
    item_idx = (np.arange(num_users)[:, None] + np.arange(num_events)) % num_items + 1
    return Interactions(
        user_idx=np.repeat(np.arange(1, num_users + 1, dtype=np.int32), num_events),
        item_idx=item_idx.ravel().astype(np.int32),
        timestamp=None,
        value=np.full(num_rows, np.nan, np.float32),
        weight=np.ones(num_rows, np.float32),
        offsets=np.concatenate([[0], np.arange(num_users + 1) * num_events]).astype(np.int64),
        users=users,
        items=items,
    )


class Line:
    """Learns one number by gradient steps: the smallest model the loop can train."""

    class Config(Group):
        epochs: int = 6
        learning_rate: float = 0.1
        weight_decay: float = 0.0
        batch_size: int = 1
        patience: int = 6
        warmup_steps: int = 0

    def __init__(self, target: float = 1.0, **options: float) -> None:
        self.config, self.target = self.Config(**options), target
        self.module = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.module.weight)

    def prepare(self, train: Interactions) -> None:
        self.num_events = len(train)

    def num_batches(self) -> int:
        return 2 if self.num_events else 0

    def batches(self, generator: torch.Generator) -> Iterator[dict[str, torch.Tensor]]:
        for _ in range(self.num_batches()):
            yield {"x": torch.ones(4, 1)}

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return (self.module(batch["x"]) - self.target).square().mean()

    def parts(self) -> ServingParts:
        return ServingParts()

    def state(self) -> dict[str, np.ndarray]:
        return {"weight": self.module.weight.detach().numpy().copy()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        raise NotImplementedError


class Closed:
    """Fitted in closed form."""

    def fit(self, train: Interactions) -> None:
        self.num_fitted = len(train)


def metrics(*values: float) -> Callable[[Recommender], float]:
    left = iter(values)
    return lambda model: next(left)


def test_closed_form_models_are_fitted_by_themselves() -> None:
    model = Closed()
    report = fit_model(model, make_train(), metrics(0.25))  # type: ignore[arg-type]
    assert model.num_fitted == 108
    assert (report.best_epoch, report.best_metric, len(report.epochs)) == (1, 0.25, 1)


def test_stops_after_patience_and_keeps_the_best_weights() -> None:
    seen = []

    def metric(model: Recommender) -> float:
        seen.append(model.state()["weight"].item())
        return [0.1, 0.3, 0.2, 0.3, 0.9][len(seen) - 1]

    model = Line(patience=2)
    report = fit_model(model, make_train(), metric)
    assert [row["metric"] for row in report.epochs] == [0.1, 0.3, 0.2, 0.3]
    assert (report.best_epoch, report.best_metric) == (2, 0.3)
    assert model.state()["weight"].item() == seen[1] != seen[3]
    assert report.epochs[-1]["loss"] < report.epochs[0]["loss"]
    assert not model.module.training


def test_of_an_error_the_lowest_is_kept() -> None:
    report = fit_model(Line(patience=2), make_train(), metrics(0.9, 0.3, 0.4, 0.3), lower_is_better=True)
    assert (report.best_epoch, report.best_metric, len(report.epochs)) == (2, 0.3, 4)


@pytest.mark.parametrize("metric", [None, lambda model: float("nan")])
def test_keeps_the_last_weights_where_nothing_can_be_measured(metric: Callable[[Recommender], float] | None) -> None:
    model = Line(epochs=6, patience=1)
    report = fit_model(model, make_train(), metric)
    assert (report.best_epoch, report.best_metric, len(report.epochs)) == (6, None, 6)
    assert model.state()["weight"].item() == pytest.approx(0.7, abs=0.3)


def test_a_loss_that_is_no_number_is_refused_with_epoch_and_rate() -> None:
    with pytest.raises(RefusedError, match=r"loss nan in epoch 1 at learning rate 0\.1 .*set a lower one"):
        fit_model(Line(target=float("nan")), make_train(), None)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(RefusedError, match="nothing to train on"):
        fit_model(Line(), make_train(num_events=0), None)


def test_devices_that_are_not_there_are_named() -> None:
    with pytest.raises(CallError, match="found 'tpu', expected auto, cpu or cuda"):
        fit_model(Line(), make_train(), None, device="tpu")


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    rates = [_schedule(step, 100, warmup_steps=4) for step in range(100)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[52] == pytest.approx((1 + 0.05) / 2)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert _schedule(0, 20, warmup_steps=100) == 0.5


def test_leaves_threads_algorithms_and_random_state_as_they_were() -> None:
    model, before = Line(), torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit_model(model, make_train(), None, threads=before + 1)
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.rand(1) == expected


def train_sasrec(folder: Path | None, kill_in_epoch: int = 0, seed: int = 3) -> dict[str, np.ndarray]:
    """Six epochs with dropout and shuffling; killed in the middle of one, after its first step, where asked for."""
    config = Sasrec.Config(embedding_dim=8, num_blocks=1, max_history=8, batch_size=32, epochs=6, warmup_steps=2)
    train = make_train()
    model = Sasrec(config, train.num_users, train.num_items, seed=seed)
    epochs, steps, loss = [0], [0], model.loss

    def counted_loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        steps[0] += 1
        if len(epochs) == kill_in_epoch and steps[0] % model.num_batches() == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(batch)

    def metric(fitted: Recommender) -> float:
        epochs.append(0)
        return float(fitted.state()["items.weight"].sum())

    model.loss = counted_loss  # type: ignore[method-assign]
    report = fit_model(model, train, metric, folder=folder, seed=seed)
    return {**model.state(), "resumed": np.array(report.resumed_from or 0), "best": np.array(report.best_epoch)}


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    code = f"from test_loop import *; train_sasrec(Path({str(tmp_path)!r}), kill_in_epoch=4)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = train_sasrec(tmp_path)
    undisturbed = train_sasrec(None)
    assert (resumed.pop("resumed"), undisturbed.pop("resumed")) == (3, 0)
    assert {name: value.tobytes() for name, value in resumed.items()} == {
        name: value.tobytes() for name, value in undisturbed.items()
    }


def test_only_the_same_run_is_gone_on_with(tmp_path: Path) -> None:
    train_sasrec(tmp_path)
    assert train_sasrec(tmp_path)["resumed"] > 0
    assert train_sasrec(tmp_path, seed=4)["resumed"] == 0


def test_shows_a_line_per_epoch_where_there_is_no_terminal() -> None:
    text = io.StringIO()
    with Progress(True, num_epochs=2, num_batches=1, console=Console(file=text, width=200)) as progress:
        progress.step(1.5, num_examples=10)
        progress.epoch_done({"epoch": 1.0, "loss": 1.5, "metric": 0.25})
    assert text.getvalue().startswith("epoch 1/2  loss 1.5000  validation 0.2500  ")
    assert "examples/s" in text.getvalue() and "s left" in text.getvalue()


def test_shows_a_bar_on_a_terminal() -> None:
    text = io.StringIO()
    with Progress(True, 2, 1, console=Console(file=text, width=200, force_terminal=True)) as progress:
        progress.step(1.5, num_examples=10)
        progress.epoch_done({"epoch": 1.0, "loss": 1.5, "metric": 0.25})
        progress.step(1.0, num_examples=10)
    assert "epoch 1/2" in text.getvalue() and "validation 0.2500" in text.getvalue()


def test_shows_nothing_when_not_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    fit_model(Line(), make_train(), None)
    assert capsys.readouterr() == ("", "")


def test_a_run_judged_by_something_else_does_not_go_on(tmp_path: Path) -> None:
    """Else the best value of one measure would be held against the values of another."""

    def run(judged_by: str, epochs: int = 4) -> int | None:
        report = fit_model(Line(epochs=epochs), make_train(), lambda model: 0.5, folder=tmp_path, judged_by=judged_by)
        return report.resumed_from

    assert run("ndcg@10") is None
    assert run("ndcg@10") == 4
    assert run("recall@10") is None
