"""Reads published files of item sequences. In: a file. Out: item ids of each user, oldest first."""

import gzip
from pathlib import Path


def read_pairs(path: Path) -> dict[str, list[str]]:
    """Files of `user item`, one event a line, each user's events in order (SASRec, BERT4Rec)."""
    found: dict[str, list[str]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            user, item = line.split()
            found.setdefault(user, []).append(item)
    return found


def read_lines(path: Path) -> dict[str, list[str]]:
    """Files of `user item item …`, one user a line (S3-Rec)."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = (line.split() for line in lines)
        return {user: items for user, *items in rows}
