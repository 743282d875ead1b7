"""The textbook's network, one example at a time, against ours: the time each takes to the same test loss.

`python -m benchmarks.network [--quick] [--examples N]`. Data: the 100,004 ratings of `movielens_small`; a fifth, drawn
at random, is the test part, and a tenth of the rest the validation part, which neither trains on. The network is the
same for both: user and item embeddings of width 32 side by side, 64, 32, 1, ReLU, squared error. The loop is plain
PyTorch as a tutorial writes it: for each rating `zero_grad`, forward, `backward`, `step`, over one pass in random order
(the first N ratings of it with `--examples`), once with SGD and once with Adam, each at the learning rate, of those in
`RATES`, that has the lowest validation loss after the first `TRIAL` ratings. Ours is `concat_mlp` with `objective:
mse`, timed as a whole, from making the model on.

The test part chooses nothing. Batch size, learning rate and epochs of ours are, for each loop, those in `OURS` that
came to the loop's validation loss in the least time. They are fitted once more with another seed: that is the time
given, and the loss counts as reached if that fit's test loss is no higher than the loop's. Choosing (on either side)
and evaluation are in neither time. Times are processor seconds of one thread each, so that a busy machine does not
favour either.

What this does not say: the loop's loss after one pass is not the lowest it can come to, and a dense Adam changes every
row of both tables for each rating, which is most of its time. The row with SGD is the cheaper loop.
"""

import argparse
import itertools
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.factorization import Ratings, movielens
from benchmarks.report import write_results
from recops.data.interactions import Interactions
from recops.data.vocabulary import Vocabulary
from recops.models.concat_mlp import ConcatMlp
from recops.training.loop import fit_model

RATES = {"SGD": (0.01, 0.003), "Adam": (0.001, 0.0003)}
TRIAL = 4_000
OURS = [
    {"batch_size": batch_size, "learning_rate": rate, "epochs": epochs}
    for epochs, batch_size, rate in itertools.product((1, 2), (1024, 2048, 4096), (0.01, 0.02, 0.04))
]


class TextbookNetwork(nn.Module):
    """Both rows through PyTorch's own first weights; user and item rows [B] to predicted values [B]."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(num_users + 1, 32), nn.Embedding(num_items + 1, 32)
        self.layers = nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0)
        )

    def forward(self, user_idx: torch.Tensor, item_idx: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([self.users(user_idx), self.items(item_idx)], dim=1))


def divide(ratings: Ratings) -> tuple[Ratings, Ratings, Ratings]:
    """Train, validation and test part: 72, 8 and 20 % of the rows."""
    generator = np.random.default_rng(1)
    is_test = generator.random(len(ratings[0])) < 0.2
    is_valid = ~is_test & (generator.random(len(ratings[0])) < 0.1)
    masks = (~is_test & ~is_valid, is_valid, is_test)
    train, valid, test = (tuple(column[mask] for column in ratings) for mask in masks)
    return train, valid, test  # type: ignore[return-value]


def mse(module: nn.Module, part: Ratings) -> float:
    user_idx, item_idx, value = (torch.from_numpy(column) for column in part)
    with torch.no_grad():
        return float(((module(user_idx, item_idx) - value) ** 2).mean())


def textbook_loop(
    parts: tuple[Ratings, Ratings, Ratings], sizes: tuple[int, int], name: str, rate: float, num_examples: int
) -> dict[str, Any]:
    """One step for each of the first `num_examples` ratings of a pass; making the network is not timed."""
    train, valid, test = parts
    torch.manual_seed(2)
    network = TextbookNetwork(*sizes)
    optimizer: torch.optim.Optimizer = getattr(torch.optim, name)(network.parameters(), lr=rate)
    order = np.random.default_rng(2).permutation(len(train[0]))[:num_examples]
    user_idx, item_idx, value = (torch.from_numpy(column[order]).split(1) for column in train)
    started = time.process_time()
    for user, item, target in zip(user_idx, item_idx, value, strict=True):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(user, item), target)
        loss.backward()
        optimizer.step()
    seconds = time.process_time() - started
    return {
        "optimizer": name,
        "learning_rate": rate,
        "num_examples": len(order),
        "seconds": seconds,
        "seconds_per_step": seconds / len(order),
        "valid_mse": mse(network, valid),
        "test_mse": mse(network, test),
    }


def as_interactions(train: Ratings, sizes: tuple[int, int]) -> Interactions:
    order = np.argsort(train[0], kind="stable")
    user_idx = train[0][order].astype(np.int32)
    return Interactions(
        user_idx=user_idx,
        item_idx=train[1][order].astype(np.int32),
        timestamp=None,
        value=train[2][order],
        weight=np.ones(len(order), np.float32),
        offsets=np.searchsorted(user_idx, np.arange(sizes[0] + 2)).astype(np.int64),
        users=Vocabulary(map(str, range(sizes[0]))),
        items=Vocabulary(map(str, range(sizes[1]))),
    )


def ours(parts: tuple[Ratings, Ratings, Ratings], sizes: tuple[int, int], seed: int, **settings: Any) -> dict[str, Any]:
    train, valid, test = parts
    interactions = as_interactions(train, sizes)
    config = ConcatMlp.Config(objective="mse", embedding_dim=32, hidden_dims=[64, 32], dropout=0, **settings)
    started = time.process_time()
    model = ConcatMlp(config, *sizes, seed=seed)
    fit_model(model, interactions, None, seed=seed, threads=1, device="cpu")
    seconds = time.process_time() - started
    return {
        **settings,
        "seconds": seconds,
        "valid_mse": mse(model.module, valid),
        "test_mse": mse(model.module, test),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first 4,000 ratings of the pass: about a minute")
    parser.add_argument("--examples", type=int, help="ratings of the pass that the loop takes (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(1)

    ratings = movielens()
    parts = divide(ratings)
    sizes = (int(ratings[0].max()), int(ratings[1].max()))
    num_train = len(parts[0][0])
    num_examples = min(options.examples or (TRIAL if options.quick else num_train), num_train)

    # The first call of a process loads parts of torch; that is no part of a fit.
    ours(parts, sizes, 0, **OURS[0])
    tried = [ours(parts, sizes, 0, **settings) for settings in OURS]
    mean = float(parts[0][2].mean())
    numbers: dict[str, Any] = {
        "num_train": num_train,
        "num_valid": len(parts[1][0]),
        "num_test": len(parts[2][0]),
        "mean_only_test_mse": float(np.mean((parts[2][2] - mean) ** 2)),
        "ours_tried": tried,
    }
    for name, rates in RATES.items():
        trials = [textbook_loop(parts, sizes, name, rate, min(TRIAL, num_examples)) for rate in rates]
        best = min(trials, key=lambda trial: trial["valid_mse"])
        loop = textbook_loop(parts, sizes, name, best["learning_rate"], num_examples)
        row: dict[str, Any] = {"loop": loop, "loop_trials": trials}
        enough = [fit for fit in tried if fit["valid_mse"] <= loop["valid_mse"]]
        # Where none came to the loop's validation loss, the closest is fitted, so that what is printed says how close.
        chosen = min(enough, key=lambda fit: fit["seconds"]) if enough else min(tried, key=lambda fit: fit["valid_mse"])
        row["ours"] = ours(parts, sizes, 1, **{key: chosen[key] for key in OURS[0]})
        row["reached"] = row["ours"]["test_mse"] <= loop["test_mse"]
        row["times_faster"] = loop["seconds"] / row["ours"]["seconds"]
        numbers[f"loop_{name.lower()}"] = row
        print_row(row)
    print(f"mean of the train part as the answer to all: test MSE {numbers['mean_only_test_mse']:.4f}")
    print(write_results("network", numbers, options.quick))


def print_row(row: dict[str, Any]) -> None:
    loop, fit = row["loop"], row["ours"]
    times = f"{row['times_faster']:.0f}x" if row["reached"] else "not reached"
    print(
        f"loop, {loop['optimizer']} at {loop['learning_rate']:g}, {loop['num_examples']} ratings: "
        f"test MSE {loop['test_mse']:.4f} in {loop['seconds']:.1f} s"
    )
    print(
        f"ours, {fit['epochs']} epochs of {fit['batch_size']} at {fit['learning_rate']:g}: "
        f"test MSE {fit['test_mse']:.4f} in {fit['seconds']:.3f} s; faster: {times}",
        flush=True,
    )


if __name__ == "__main__":
    main()
