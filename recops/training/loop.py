"""Fits any model: in closed form by its own `fit`, or by gradient steps until validation stops getting better.

In: a model of the socket `models`, the train part, and what to judge it by. Out: the model fitted in place and a
FitReport. An epoch depends on (seed, epoch) and the state before it alone, so a run that was killed and goes on from
its checkpoint ends with the same bytes as one that was not. Knows nothing about what a batch or a loss is.
"""

import hashlib
import itertools
import json
import math
import operator
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from recops.data.interactions import Interactions
from recops.errors import CallError, RefusedError
from recops.protocols import FitReport, GradientRecommender, Recommender
from recops.training.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from recops.training.progress import Progress

_MAX_GRADIENT_NORM = 1.0
_FINAL_RATE = 0.05  # share of learning_rate that the cosine ends at


class Team(Protocol):
    """The workers that train one model together, as one of them sees it (training/distributed.py)."""

    rank: int  # from 0; the first one judges, shows progress and writes checkpoints
    size: int

    def sum_up(self, parameters: list[torch.nn.Parameter], loss: float) -> float:
        """Puts the sum of all workers' gradients in place of each one's own; returns the sum of their losses."""
        ...

    def told_by_first(self, find: Callable[[], float]) -> float:
        """What `find` gives the first worker; the others do not call it. An error of it is raised in all of them."""
        ...


def new_model(kind: type[Recommender], config: Any, train: Interactions, seed: int) -> Recommender:
    """An unfitted model for `train`, with the content of its items and the attributes of its users where its config
    asks for any.

    Raises RefusedError where nothing was encoded, CallError for an encoder that was not run.
    """
    model = kind(config, train.num_users, train.num_items, seed)
    if getattr(config, "content", None):
        model.attach_content(train.content)  # type: ignore[attr-defined]
    if getattr(config, "user_attributes", False):
        model.attach_users(train.user_attributes)  # type: ignore[attr-defined]
    return model


def fit_model(
    model: Recommender,
    train: Interactions,
    valid_metric: Callable[[Recommender], float] | None,
    folder: Path | None = None,
    progress: bool = False,
    seed: int = 0,
    threads: int = 1,
    device: str = "auto",
    judged_by: str = "",
    last_epoch: int | None = None,
    lower_is_better: bool = False,
    compiled: bool = False,
    team: Team | None = None,
) -> FitReport:
    """Fits `model` in place and tells how it went.

    Models in closed form are fitted by their `fit`; `device` and `folder` do not matter to them. For the others each
    epoch ends with `valid_metric(model)` (higher is better, or lower; NaN means it cannot tell) and the weights of the
    best epoch are kept, or of the last one where nothing is measured. `folder` keeps a checkpoint, which a later call
    with the same model, config, seed, data, threads, device and `judged_by` (what `valid_metric` looks at, since values
    of two measures cannot be compared) goes on from. `device`: cpu, cuda, or auto. `last_epoch` ends training early, on
    the very path that a longer one would take. `compiled` trains through torch.compile where that works. With `team`
    this is one of several workers: each is called with the same arguments, on a model that has `share`.

    Raises RefusedError when there is nothing to train on or the loss is no longer a finite number, CallError for a
    device that is not there.
    """
    chosen = _device(device)
    with _reproducible(threads, chosen):
        if hasattr(model, "fit"):
            started = time.perf_counter()
            model.fit(train)
            metric = {} if valid_metric is None else {"metric": valid_metric(model)}
            row = {"epoch": 1.0, **metric, "seconds": time.perf_counter() - started}
            return FitReport(epochs=[row], best_epoch=1, best_metric=metric.get("metric"))
        run = _Run(
            model,  # type: ignore[arg-type]
            train,
            valid_metric,
            folder,
            progress,
            seed,
            threads,
            chosen,
            judged_by,
            lower_is_better,
            compiled,
            team,
        )
        return run.fit(last_epoch)


class _Run:
    """One training run: what changes from epoch to epoch, and how it is written down and taken up again."""

    def __init__(
        self,
        model: GradientRecommender,
        train: Interactions,
        valid_metric: Callable[[Recommender], float] | None,
        folder: Path | None,
        progress: bool,
        seed: int,
        threads: int,
        device: torch.device,
        judged_by: str,
        lower_is_better: bool,
        compiled: bool,
        team: Team | None,
    ) -> None:
        self.model, self.valid_metric, self.folder = model, valid_metric, folder
        self.is_better = operator.lt if lower_is_better else operator.gt
        self.seed, self.device, self.team = seed, device, team
        self.is_first = team is None or team.rank == 0
        self.show_progress = progress and self.is_first
        self.is_compiled, self.loss = compiled, torch.compile(model.loss, dynamic=True) if compiled else model.loss
        self.config: Any = model.config
        model.prepare(train)
        self.num_batches = model.num_batches()
        if self.num_batches == 0:
            raise RefusedError("nothing to train on: no user has two events; train a model that needs no sequences")
        model.module.to(device)
        self.optimizers = _optimizers(model.module, self.config)
        self.report = FitReport()
        self.best: dict[str, torch.Tensor] = {}
        self.fingerprint = ""
        if folder is not None:
            kind = f"{device.type}{' compiled' if compiled else ''}{f' by {team.size} workers' if team else ''}"
            self.fingerprint = _fingerprint(model, train, seed, threads, kind, judged_by)

    def fit(self, last_epoch: int | None) -> FitReport:
        self._resume()
        last = self.config.epochs if last_epoch is None else min(last_epoch, self.config.epochs)
        with Progress(self.show_progress, last, self.num_batches) as progress:
            for epoch in range(len(self.report.epochs) + 1, last + 1):
                if self._is_finished():
                    break
                started = time.perf_counter()
                row = {"epoch": float(epoch), "loss": self._train_epoch(epoch, progress)}
                self.model.module.eval()
                if self.valid_metric is not None:
                    row["metric"] = self._judge(self.valid_metric)
                    self.model.module.to(self.device)
                row["seconds"] = time.perf_counter() - started
                self._keep(epoch, row)
                progress.epoch_done(row)
        self.model.module.load_state_dict(self.best)
        self.model.module.eval()
        return self.report

    def _train_epoch(self, epoch: int, progress: Progress) -> float:
        """Mean loss of the epoch's batches. What is drawn depends on seed and epoch alone."""
        module = self.model.module.train()
        own_seed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        # Workers draw the same batches, and each its own noise.
        noise = [self.seed, epoch] if self.team is None else [self.seed, epoch, self.team.rank]
        torch.manual_seed(int(np.random.SeedSequence(noise).generate_state(1)[0]))
        parameters = list(module.parameters())
        total = 0.0
        step = (epoch - 1) * self.num_batches
        for batch in self.model.batches(torch.Generator().manual_seed(own_seed)):
            rate = self.config.learning_rate * _schedule(
                step, self.config.epochs * self.num_batches, self.config.warmup_steps
            )
            for group in itertools.chain.from_iterable(o.param_groups for o in self.optimizers):
                group["lr"] = rate
            module.zero_grad(set_to_none=True)
            value = self._step(batch, parameters)
            if not math.isfinite(value):
                raise RefusedError(
                    f"training diverged: loss {value} in epoch {epoch} at learning rate {rate:.3g} "
                    f"(learning_rate {self.config.learning_rate:g}); set a lower one"
                )
            torch.nn.utils.clip_grad_norm_(parameters, _MAX_GRADIENT_NORM)
            for optimizer in self.optimizers:
                optimizer.step()
            total, step = total + value, step + 1
            progress.step(value, num_examples=len(next(iter(batch.values()))))
        return total / self.num_batches

    def _step(self, batch: dict[str, torch.Tensor], parameters: list[torch.nn.Parameter]) -> float:
        """Makes the gradient of a batch, together with the team where there is one; returns its loss."""
        part, weight = batch, 1.0
        if self.team is not None:
            part, weight = self.model.share(batch, self.team.rank, self.team.size)  # type: ignore[attr-defined]
        value = 0.0
        if weight > 0:
            part = {name: tensor.to(self.device) for name, tensor in part.items()}
            random_state = torch.get_rng_state() if self.is_compiled else None
            try:
                value = self._gradient(part, weight)
            except Exception as error:  # every compiler has its own, at any batch: new lengths are compiled anew
                if random_state is None:
                    raise
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                print(f"train.compile: on without torch.compile, which failed: {reason}", file=sys.stderr)
                self.is_compiled, self.loss = False, self.model.loss
                torch.set_rng_state(random_state)
                self.model.module.zero_grad(set_to_none=True)
                value = self._gradient(part, weight)
        return value if self.team is None else self.team.sum_up(parameters, value)

    def _gradient(self, part: dict[str, torch.Tensor], weight: float) -> float:
        loss = self.loss(part)
        if self.team is not None:
            loss = loss * weight
        loss.backward()
        return loss.item()

    def _judge(self, valid_metric: Callable[[Recommender], float]) -> float:
        def find() -> float:
            return float(valid_metric(self.model))

        return find() if self.team is None else self.team.told_by_first(find)

    def _keep(self, epoch: int, row: dict[str, float]) -> None:
        report, metric = self.report, row.get("metric", math.nan)
        report.epochs.append(row)
        if math.isnan(metric):
            is_best = report.best_metric is None
        else:
            is_best = report.best_metric is None or self.is_better(metric, report.best_metric)
            report.best_metric = metric if is_best else report.best_metric
        if is_best:
            report.best_epoch = epoch
            self.best = {name: value.detach().clone() for name, value in self.model.module.state_dict().items()}
        if self.folder is not None and self.is_first:
            write_checkpoint(self.folder, self._checkpoint())

    def _is_finished(self) -> bool:
        """True once `patience` epochs have gone by without a better validation metric."""
        report = self.report
        if report.best_metric is None or report.best_epoch is None:
            return False
        return len(report.epochs) - report.best_epoch >= self.config.patience

    def _checkpoint(self) -> Checkpoint:
        tensors = {f"weights.{name}": value for name, value in self.model.module.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for which, optimizer in enumerate(self.optimizers):
            for row, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{which}.{row}.{name}": value for name, value in state.items()}
        about = {
            "fingerprint": self.fingerprint,
            "epochs": self.report.epochs,
            "best_epoch": self.report.best_epoch,
            "best_metric": self.report.best_metric,
        }
        return Checkpoint(tensors, about)

    def _resume(self) -> None:
        found = None if self.folder is None else read_checkpoint(self.folder, self.fingerprint)
        if found is None:
            return
        self.model.module.load_state_dict(found.part("weights"))
        self.best = found.part("best")
        states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in self.optimizers]
        for name, value in found.part("optimizer").items():
            which, row, key = name.split(".")
            states[int(which)].setdefault(int(row), {})[key] = value
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.report = FitReport(
            epochs=found.about["epochs"],
            best_epoch=found.about["best_epoch"],
            best_metric=found.about["best_metric"],
            resumed_from=len(found.about["epochs"]),
        )


def _schedule(step: int, num_steps: int, warmup_steps: int) -> float:
    """Share of the learning rate at `step` (from 0): up in a line, then down in a cosine.

    The warm-up is at most a tenth of all steps, so that a short run is not spent warming up.
    """
    warmup = min(warmup_steps, num_steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(num_steps - warmup, 1)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def _optimizers(module: torch.nn.Module, config: Any) -> list[torch.optim.Optimizer]:
    """AdamW; biases and the scales of norms do not decay. Where `config.optimizer` is muon, matrices that are no
    embeddings go to Muon (Jordan et al., 2024), with steps as large as AdamW's, so that one learning rate fits both."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    plain: list[torch.nn.Parameter] = []
    embeddings = {id(p) for m in module.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    for parameter in module.parameters():
        is_inner = parameter.ndim == 2 and id(parameter) not in embeddings
        (plain if parameter.ndim <= 1 else matrices if is_inner else others).append(parameter)
    rate, decay = config.learning_rate, config.weight_decay
    optimizers: list[torch.optim.Optimizer] = []
    if getattr(config, "optimizer", "adamw") == "muon" and matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
        matrices = []
    groups = [
        {"params": [*matrices, *others], "weight_decay": decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [*optimizers, torch.optim.AdamW([g for g in groups if g["params"]], lr=rate)]


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise CallError(f"device: found {name!r}, expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise CallError("device: cuda was asked for and there is none here; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def _reproducible(threads: int, device: torch.device) -> Iterator[None]:
    """Fixed threads and algorithms that give the same bytes each time; what was set before comes back afterwards."""
    before_threads, before_algorithms = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    before_fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        # Nothing is read before it is written; filling it first takes a twentieth of the time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before_threads)
        torch.use_deterministic_algorithms(before_algorithms)
        torch.utils.deterministic.fill_uninitialized_memory = before_fill  # type: ignore[attr-defined]


def _fingerprint(
    model: GradientRecommender, train: Interactions, seed: int, threads: int, device: str, judged_by: str
) -> str:
    """A hash of everything that the weights depend on."""
    recipe = {
        "model": type(model).__name__,
        "config": model.config.model_dump(mode="json"),
        "seed": seed,
        "threads": threads,
        "judged_by": judged_by,
        "device": device,
        "torch": torch.__version__,
        "users": train.users.ids,
        "items": train.items.ids,
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for column in (train.user_idx, train.item_idx, train.timestamp, train.value, train.weight, train.offsets):
        digest.update(b"-" if column is None else np.ascontiguousarray(column).data)
    for name in getattr(model.config, "content", ()):
        assert train.content is not None
        digest.update(np.ascontiguousarray(train.content.vectors[name]).data)
    if getattr(model.config, "user_attributes", False):
        assert train.user_attributes is not None
        for vectors in train.user_attributes.vectors.values():
            digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()
