"""MovieLens-1M in the order of the SASRec authors' file, with the times of its ratings put beside it.

In: that file, its id maps and the ratings. Out: a `Task` whose train part has times and whose users ask at the time of
their target. Of the times 70 % are exact; the others are known to lie between two bounds. Those are put in the middle
of what their bounds and their neighbours in the file's order leave, so that times never fall along a user's history:
equal times stay equal (a gap of 0), and no gap is longer than the true one by more than its bounds allow.
"""

import csv
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.quality.sequences import read_pairs
from benchmarks.quality.tasks import Task, leave_last_out
from recops.evaluation.judging import Judging

Bounds = tuple[float, float]  # seconds since 1970; infinite where there is no bound


def read_bounds(path: Path) -> dict[tuple[str, str], Bounds]:
    """(MovieLens user, item) to the bounds of the rating's time, equal where it is exact."""
    found = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["timestamp"]:
                low = high = float(row["timestamp"])
            else:
                low = float(row["ts_lo"]) if row["ts_lo"] else -np.inf
                high = float(row["ts_hi"]) if row["ts_hi"] else np.inf
            found[row["userId"], row["movieId"]] = low, high
    return found


def read_map(path: Path) -> dict[str, str]:
    """Id of the file to id of MovieLens."""
    return dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())


def times_between(bounds: Sequence[Bounds]) -> np.ndarray:
    """int64 [E] seconds that never fall, each within its bounds where these allow it.

    >>> times_between([(10, 10), (10, 30), (-np.inf, np.inf), (20, 20)]).tolist()
    [10, 15, 17, 20]
    """
    low = np.maximum.accumulate([low for low, _ in bounds])
    high = np.minimum.accumulate([high for _, high in bounds][::-1])[::-1]
    low = np.where(np.isfinite(low), low, high)
    high = np.where(np.isfinite(high), high, low)
    assert np.isfinite(low).all(), "a user without any known time"
    found = np.zeros(len(bounds))
    before = -np.inf
    for event, (lowest, highest) in enumerate(zip(low, high, strict=True)):
        before = max(before, lowest, (max(before, lowest) + max(highest, lowest)) / 2)
        found[event] = before
    return found.astype(np.int64)


def read_sequences(data: Path, quick_users: int | None = None) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Items of each user, oldest first, and their times in seconds; of a sample of about `quick_users` where given."""
    folder = data / "sasrec-bert4rec"
    sequences = read_pairs(folder / "ml-1m.txt.gz")
    if quick_users is not None:
        sequences = dict(list(sequences.items())[:: max(1, len(sequences) // quick_users)])
    bounds = read_bounds(data / "movielens-1m" / "ratings.csv.gz")
    items = read_map(folder / "ml-1m.sas_to_original_items.txt")
    users = read_map(folder / "ml-1m.sas_to_original_users.txt")
    times = {
        user: times_between([bounds[users[user], items[item]] for item in sequence])
        for user, sequence in sequences.items()
    }
    return sequences, times


def load(data: Path, quick_users: int | None = None) -> Task:
    """The whole file, or a sample of about `quick_users`."""
    sequences, times = read_sequences(data, quick_users)
    return with_times(leave_last_out("ml1m_time", sequences), times)


def with_times(task: Task, times: Mapping[str, np.ndarray]) -> Task:
    """`task` of `leave_last_out` with the times [E] of each user's whole sequence, in seconds."""
    train = task.train
    kept = [times[user][: train.offsets[row + 1] - train.offsets[row]] for row, user in enumerate(train.users.ids, 1)]
    timed = replace(train, timestamp=np.concatenate(kept) * 1_000_000)

    def asked(part: Judging, back: int) -> Judging:
        """Users who ask when their target, `back` events from the end, happened."""
        ages = []
        for user, history in zip(part.user_ids, part.histories, strict=True):
            at = times[user]
            before = at[:-back]
            # At test an item that was never trained on is left out of the history.
            before = before if len(before) == len(history) else before[: len(history)]
            ages.append(at[-back] - before)
        return replace(part, ages=ages)

    return replace(task, train=timed, valid=asked(task.valid, 2), test=asked(task.test, 1))
