"""Questions with a known right answer, made from a catalogue and what held-out users chose next.

In: a release, and the folder of the project it was made in. Out: `Asked`, the same for the same data. Rows of data sets
are not kept here: the questions are made anew by each run. Facts are read from the catalogue's columns and titles, not
by the code that answers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recops.serving.release import Release

SEED = 20
NAMES = {"Children": "children's film", "Film-Noir": "film noir", "Sci-Fi": "sci-fi film", "War": "war film"}
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_WORD = re.compile(r"[A-Za-z]{4,}")
_DULL = {
    "with",
    "from",
    "that",
    "this",
    "your",
    "into",
    "movie",
    "film",
    "part",
    "episode",
    "assorted",
    "colour",
    "design",
}


@dataclass(frozen=True)
class Asked:
    question: str
    wanted: str  # id of the right answer
    kind: str
    history: list[str] | None = None
    categories: tuple[str, ...] = ()
    years: tuple[int, int] | None = None
    low: float | None = None
    high: float | None = None
    not_titles: tuple[str, ...] = field(default=())


def check(asked: Asked, item: dict[str, Any]) -> bool:
    """Whether an item holds all that was asked for."""
    if not set(asked.categories) <= set(item["categories"] or ()):
        return False
    year = year_of(item["title"])
    if asked.years is not None and not (year is not None and asked.years[0] <= year <= asked.years[1]):
        return False
    price = item["price"]
    if asked.high is not None and not (price is not None and price < asked.high):
        return False
    if asked.low is not None and not (price is not None and price >= asked.low):
        return False
    return item["title"] not in asked.not_titles


def year_of(title: str | None) -> int | None:
    found = _YEAR.search(title or "")
    return int(found.group(1)) if found else None


def made(name: str, release: Release, project: Path, num_each: int) -> list[Asked]:
    """`num_each` questions of each kind, the kinds in turn."""
    rng = np.random.default_rng(SEED)
    events = _events(project)
    makers = (
        (_film_by_taste, _film_by_likeness, _film_by_words)
        if name == "films"
        else (
            _product_by_taste,
            _product_by_likeness,
            _product_by_words,
        )
    )
    items = {
        item_id: {c: release.bundle.items[c][row] for c in ("title", "categories", "price")}
        for row, item_id in enumerate(release.ids)
    }
    columns = []
    for maker in makers:
        found: list[Asked] = []
        for history, wanted in _drawn(events, items, rng):
            asked = maker(items, history, wanted, rng)
            if asked is not None and check(asked, items[wanted]):
                found.append(asked)
            if len(found) == num_each:
                break
        columns.append(found)
    # The kinds in turn, each with as many before as after in both halves.
    return [
        columns[kind][2 * i + half] for i in range(min(map(len, columns)) // 2) for kind in range(3) for half in (0, 1)
    ]


def _events(project: Path) -> list[tuple[list[str], str]]:
    """Of each user what was trained on, oldest first, and what was chosen last."""
    columns = ["user_id", "item_id", "timestamp"]
    train = pl.read_parquet(project / "data" / "split" / "train.parquet", columns=columns)
    test = pl.read_parquet(project / "data" / "split" / "test.parquet", columns=columns)
    before = train.sort("timestamp", maintain_order=True).group_by("user_id", maintain_order=True).agg("item_id")
    rows = before.join(test.select("user_id", wanted="item_id"), on="user_id").sort("user_id")
    return [
        (history, wanted) for history, wanted in zip(rows["item_id"].to_list(), rows["wanted"].to_list(), strict=True)
    ]


def _drawn(
    events: list[tuple[list[str], str]], items: dict[str, dict[str, Any]], rng: np.random.Generator
) -> Iterator[tuple[list[str], str]]:
    for i in rng.permutation(len(events)):
        history, wanted = events[i]
        if wanted in items and wanted not in history and items[wanted]["title"] and len(history) >= 5:
            yield history, wanted


def _facts(
    item: dict[str, Any], rng: np.random.Generator, num: int
) -> tuple[str, tuple[str, ...], str, tuple[int, int]] | None:
    """A film's genre in words, its genres, when in words, and which years."""
    year, genres = year_of(item["title"]), [g for g in item["categories"] or () if g != "IMAX"]
    if year is None or not genres:
        return None
    chosen = [str(g) for g in rng.permutation(genres)[:num]]
    kind = " and ".join(NAMES.get(g, g.lower()) for g in chosen)
    if rng.random() < 0.5:
        return kind, tuple(chosen), f"from {year}", (year, year)
    decade = year // 10 * 10
    words = {1990: "from the nineties", 1980: "from the eighties", 1970: "of the seventies"}
    return kind, tuple(chosen), words.get(decade, f"of the {decade}s"), (decade, decade + 9)


def _film_by_taste(items, history, wanted, rng) -> Asked | None:
    facts = _facts(items[wanted], rng, 2)
    if facts is None:
        return None
    kind, genres, when, years = facts
    start = str(rng.choice(["I would like a", "Show me a", "Can you recommend a"]))
    return Asked(f"{start} {kind} {when}", wanted, "taste", history, genres, years)


def _film_by_likeness(items, history, wanted, rng) -> Asked | None:
    facts, title = _facts(items[wanted], rng, 1), items[history[-1]]["title"]
    if facts is None or title is None or year_of(title) is None:
        return None
    kind, genres, when, years = facts
    words = {"like": "Something like {}, but a {} {}", "loved": "I loved {}. What {} {} should I watch?"}
    text = words[str(rng.choice(list(words)))].format(said(title), kind, when)
    return Asked(text, wanted, "likeness", None, genres, years, not_titles=(title,))


def _film_by_words(items, history, wanted, rng) -> Asked | None:
    facts, words = _facts(items[wanted], rng, 1), _words(items[wanted]["title"], rng)
    if facts is None or not words:
        return None
    kind, genres, when, years = facts
    return Asked(f"a {kind} {when} about {' '.join(words)}", wanted, "words", None, genres, years)


def _words(title: str, rng: np.random.Generator) -> list[str]:
    """Up to two longer words of a title, in any order."""
    words = [w.lower() for w in _WORD.findall(_YEAR.sub("", title)) if w.lower() not in _DULL]
    return [str(w) for w in rng.permutation(sorted(set(words)))[:2]]


def _below(price: float) -> float:
    """A round price above one, as people name it."""
    return next(
        round_price for round_price in (1, 2, 3, 5, 10, 15, 20, 30, 50, 100, 200, 10_000) if price < round_price
    )


def _limits(price: float, rng: np.random.Generator) -> tuple[str, float | None, float]:
    high = _below(price)
    text = str(rng.choice([f"under {high:g} pounds", f"below £{high:g}", f"for less than {high:g} pounds"]))
    return text, None, high


def _product_by_taste(items, history, wanted, rng) -> Asked | None:
    item = items[wanted]
    words = _words(item["title"], rng)[:1]
    if item["price"] is None or not words:
        return None
    text, low, high = _limits(item["price"], rng)
    return Asked(f"something with {words[0]} {text}", wanted, "taste", history, (), None, low, high)


def _product_by_likeness(items, history, wanted, rng) -> Asked | None:
    item, title = items[wanted], items[history[-1]]["title"]
    if item["price"] is None or title is None:
        return None
    text, low, high = _limits(item["price"], rng)
    return Asked(
        f'Something similar to "{title.title()}", {text}', wanted, "likeness", None, (), None, low, high, (title,)
    )


def _product_by_words(items, history, wanted, rng) -> Asked | None:
    item = items[wanted]
    words = _words(item["title"], rng)
    if item["price"] is None or len(words) < 2:
        return None
    text, low, high = _limits(item["price"], rng)
    return Asked(f"I am looking for a {' '.join(words)} {text}", wanted, "words", None, (), None, low, high)


def said(title: str) -> str:
    """As people write it: 'The Matrix' for 'Matrix, The (1999)'."""
    bare = re.sub(r"\s*\([^()]*\)", "", title).strip()
    front, comma, article = bare.rpartition(", ")
    return f"{article} {front}" if comma and article in ("The", "A", "An") else bare
