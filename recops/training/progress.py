"""Shows how a training run is getting on: a bar on a terminal, a line per epoch anywhere else.

In: steps and finished epochs. Out: lines on standard error, or nothing at all. Knows nothing about models.
"""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A context; `step` is called after each batch and `epoch_done` after each epoch with the row of the FitReport."""

    def __init__(self, is_shown: bool, num_epochs: int, num_batches: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._is_shown, self._num_epochs, self._num_batches = is_shown, num_epochs, num_batches
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._examples, self._steps, self._loss, self._metric = 0, 0, 0.0, ""
        self._started = time.perf_counter()

    def __enter__(self) -> "Progress":
        if self._is_shown and self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("training", total=self._num_epochs * self._num_batches, facts="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, loss: float, num_examples: int) -> None:
        self._examples, self._steps = self._examples + num_examples, self._steps + 1
        self._loss = loss if self._steps == 1 else 0.95 * self._loss + 0.05 * loss
        if self._bar is not None:
            self._bar.update(self._task, advance=1, facts=self._facts(self._loss))

    def epoch_done(self, row: dict[str, float]) -> None:
        epoch = int(row["epoch"])
        if "metric" in row:
            self._metric = f"  validation {row['metric']:.4f}"
        if self._bar is not None:
            # An epoch taken up from a checkpoint was never counted by `step`.
            done = epoch * self._num_batches
            self._bar.update(self._task, description=f"epoch {epoch}/{self._num_epochs}", completed=done)
        elif self._is_shown:
            left = (self._elapsed() / max(self._steps, 1)) * (self._num_epochs - epoch) * self._num_batches
            self._console.print(
                f"epoch {epoch}/{self._num_epochs}  {self._facts(row['loss'])}  {left:.0f} s left", highlight=False
            )

    def _facts(self, loss: float) -> str:
        return f"loss {loss:.4f}{self._metric}  {self._examples / max(self._elapsed(), 1e-9):,.0f} examples/s"

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started
