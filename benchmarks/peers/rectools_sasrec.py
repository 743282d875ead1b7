"""SASRec of RecTools, run by its own environment: `python rectools_sasrec.py SPEC.json OUT`.

SPEC (see `__main__.py`) says what data and which settings. Writes OUT/epochs.jsonl, a line an epoch: CPU seconds of
training so far and targets trained on; and OUT/EPOCH.json: the best items of each user judged.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

SPEC = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
OUT = Path(sys.argv[2])


class Clock(Callback):
    """CPU seconds of training alone, counted by epoch, and the weights at the end of each."""

    def __init__(self) -> None:
        self.targets, self.rows, self.states = 0, [], []

    def on_train_start(self, trainer, module) -> None:
        self.started = time.process_time()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.targets += int((batch["y"] != 0).sum())

    def on_train_epoch_end(self, trainer, module) -> None:
        seconds = time.process_time() - self.started
        self.rows.append({"epoch": len(self.rows) + 1, "cpu_seconds": seconds, "targets": self.targets})
        print(self.rows[-1], file=sys.stderr, flush=True)
        self.states.append({name: value.clone() for name, value in module.state_dict().items()})
        if seconds > SPEC["cpu_seconds"]:
            trainer.should_stop = True


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SPEC["seed"])
    events = pd.read_csv(SPEC["events"], dtype=str)
    events = events.rename(columns={"user": Columns.User, "item": Columns.Item})
    events[Columns.Weight] = 1.0
    events[Columns.Datetime] = pd.to_datetime(range(len(events)), unit="s")
    dataset = Dataset.construct(events)

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=1000,
            min_epochs=1,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
            callbacks=[Clock()],
        )

    model = SASRecModel(
        n_blocks=SPEC["num_blocks"],
        n_heads=SPEC["num_heads"],
        n_factors=SPEC["embedding_dim"],
        session_max_len=SPEC["max_history"],
        dropout_rate=SPEC["dropout"],
        lr=1e-3,
        batch_size=128,
        epochs=1000,
        recommend_torch_device="cpu",
        get_trainer_func=trainer,
        **SPEC["options"],
    )
    model.fit(dataset)
    # The trainer is copied before it is used.
    clock = next(found for found in model.fit_trainer.callbacks if isinstance(found, Clock))
    users = json.loads(Path(SPEC["users"]).read_text(encoding="utf-8"))
    for row, state in zip(clock.rows, clock.states, strict=True):
        if row["epoch"] % SPEC["judge_every"] and row is not clock.rows[-1]:
            continue
        model.lightning_model.load_state_dict(state)
        found = model.recommend(users=users, dataset=dataset, k=10, filter_viewed=True)
        lists = found.groupby(Columns.User, sort=False)[Columns.Item].agg(list)
        (OUT / f"{row['epoch']}.json").write_text(json.dumps(lists.to_dict()), encoding="utf-8")
    (OUT / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in clock.rows), encoding="utf-8")


if __name__ == "__main__":
    main()
