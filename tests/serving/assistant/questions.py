"""Questions made from known constraints, and which items hold them: written without the code tested."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NAMES = {
    "Comedy": ("comedy", "comedies"),
    "Drama": ("drama", "dramas"),
    "Horror": ("horror", "horror films"),
    "Sci-Fi": ("sci-fi", "sci fi"),
    "Children's": ("children's films", "childrens films"),
    "Film-Noir": ("film noir", "film-noir"),
    "War": ("war", "war films"),
}
DECADES = {1960: "the sixties", 1970: "the 70s", 1980: "the eighties", 1990: "the nineties", 2000: "the 2000s"}


@dataclass
class Made:
    """A question and its constraints; None and empty: not asked for."""

    text: str = ""
    categories: list[str] = field(default_factory=list)
    not_categories: list[str] = field(default_factory=list)
    low: float = -np.inf
    high: float = np.inf
    is_strict: bool = False
    years: tuple[int, int] | None = None
    not_years: tuple[int, int] | None = None
    available: bool | None = None
    without: str | None = None
    not_titles: list[str] = field(default_factory=list)

    def violations(self, item: dict[str, Any]) -> list[str]:
        """Which constraints an item breaks; a fact that is missing breaks the constraint that asks for it."""
        found = []
        own = item["categories"] or []
        found += [f"not {name}" for name in self.categories if name not in own]
        found += [f"is {name}" for name in self.not_categories if name in own]
        price = item["price"]
        if self.low > -np.inf or self.high < np.inf:
            fits = price is not None and self.low <= price <= self.high
            if self.is_strict and price in (self.low, self.high):
                fits = False
            found += [] if fits else [f"price {price}"]
        said = re.search(r"\((\d{4})\)$", item["title"] or "")
        year = int(said.group(1)) if said else None
        if self.years and not (year is not None and self.years[0] <= year <= self.years[1]):
            found.append(f"year {year}")
        if self.not_years and (year is None or self.not_years[0] <= year <= self.not_years[1]):
            found.append(f"year {year}")
        if self.available is not None and item["available"] is not self.available:
            found.append(f"available {item['available']}")
        words = re.findall(r"\w+", f"{item['title']} {item['text'] or ''} {' '.join(own)}".lower())
        if self.without and self.without in words:
            found.append(f"has {self.without}")
        found += [f"is {title}" for title in self.not_titles if item["title"] == title]
        return found


def make(rng: np.random.Generator, things: list[str], titles: list[str]) -> Made:
    """One question of one to four constraints, in one of many wordings."""
    made = Made()
    before, after = [], []
    kinds = rng.choice(
        ["category", "not category", "price", "years", "not years", "available", "without", "like", "not like"],
        int(rng.integers(1, 5)),
        replace=False,
    )
    names = [str(name) for name in rng.permutation(list(NAMES))]

    def one(*of: str) -> str:
        return str(rng.choice(of))

    noun = one("something", "a film", "films", "anything good")
    for kind in kinds:
        if kind == "category":
            made.categories = [names[0]]
            noun = one(*NAMES[names[0]])
            if rng.random() < 0.3:
                made.categories.append(names[2])
                noun = f"{noun} and {one(*NAMES[names[2]])}"
        elif kind == "not category":
            made.not_categories = [names[1]]
            after.append(f"{one('but not', 'without', 'no', 'except')} {one(*NAMES[names[1]])}")
        elif kind == "price":
            low, high = sorted(
                round(float(x), one_digit) for x, one_digit in zip(rng.uniform(1, 40, 2), (0, 0), strict=True)
            )
            which = rng.integers(5)
            if which == 0:
                made.high, made.is_strict = high, True
                after.append(
                    f"{one('under', 'below', 'for less than')} "
                    + one(f"£{high:g}", f"{high:g} pounds", f"{high:g} euros")
                )
            elif which == 1:
                made.high = high
                after.append(
                    f"{one('up to', 'at most', 'no more than')} "
                    + one(f"${high:g}", f"{high:g} dollars", f"{high:g} quid")
                )
            elif which == 2:
                made.low, made.is_strict = low, True
                after.append(f"{one('over', 'more than')} {low:g} pounds")
            elif which == 3:
                made.low = low
                after.append(f"for at least £{low:g}")
            else:
                made.low, made.high = low, high
                after.append(one(f"between {low:g} and {high:g} pounds", f"from £{low:g} to £{high:g}"))
        elif kind == "years":
            first = int(rng.integers(1960, 2010))
            which = rng.integers(5)
            if which == 0:
                made.years = (first, first)
                after.append(one(f"from {first}", f"made in {first}", f"released in {first}"))
            elif which == 1:
                decade = first // 10 * 10
                made.years = (decade, decade + 9)
                after.append(f"{one('from', 'of', 'made in')} {DECADES.get(decade, f'the {decade}s')}")
            elif which == 2:
                made.years = (0, first - 1)
                after.append(one(f"before {first}", f"older than {first}"))
            elif which == 3:
                made.years = (first, 3000)
                after.append(one(f"since {first}", f"from {first} on"))
            else:
                made.years = (first, first + 8)
                after.append(one(f"between {first} and {first + 8}", f"from {first} to {first + 8}"))
        elif kind == "not years":
            decade = int(rng.integers(196, 201)) * 10
            made.not_years = (decade, decade + 9)
            after.append(f"not from {DECADES[decade]}")
        elif kind == "available":
            made.available = True
            after.append(one("in stock", "that is available now"))
        elif kind == "without":
            made.without = one(*things)
            after.append(one(f"without a {made.without}", f"not about a {made.without}"))
        elif kind == "like":
            title = one(*titles)
            made.not_titles.append(title)
            before.append(f"{one('like', 'similar to', 'in the style of')} {_said(title)}")
        else:
            title = one(*titles)
            made.not_titles.append(title)
            after.append(f"but not {_said(title)}")
    order = [after[i] for i in rng.permutation(len(after))]
    text = f"{one('', 'Show me ', 'I would like ', 'Can you recommend ')}{noun} {' '.join(before)}"
    made.text = f"{text}{', ' if order else ''}{', '.join(order)}{one('', '?', ' please')}"
    return made


def _said(title: str) -> str:
    """As people write it: 'The Matrix' for 'Matrix, The (1999)'."""
    bare = re.sub(r"\s*\(\d{4}\)$", "", title)
    front, comma, article = bare.rpartition(", ")
    return f"{article} {front}" if comma and article == "The" else bare
