"""What a question asks for, once it is understood: the one shape that every way of understanding must fill.

Hard constraints (`categories`, `not_categories`, `price`, `dates`, `not_dates`, `available`, `excluded`, `without`,
`among`) are held by every item of an answer. The others only move items up or down. Rows are those of the release.
"""

from dataclasses import dataclass, field, fields
from typing import Any

INFINITE = float("inf")
RATHER, SUPERLATIVE = 2.0, 4.0  # how much 'old' weighs, and 'the oldest'
MOST_SAID = 80  # characters of a question that an answer repeats


@dataclass(frozen=True)
class Prices:
    """A range of prices; each end counts as in it unless it is `open_…`."""

    low: float = -INFINITE
    high: float = INFINITE
    open_low: bool = False
    open_high: bool = False

    def text(self) -> str:
        if self.low > -INFINITE and self.high < INFINITE:
            return f"between {self.low:g} and {self.high:g}"
        if self.high < INFINITE:
            return f"{'under' if self.open_high else 'at most'} {self.high:g}"
        return f"{'over' if self.open_low else 'at least'} {self.low:g}"

    def both(self, other: "Prices") -> "Prices":
        """What lies in both ranges."""
        low = max((self.low, self.open_low), (other.low, other.open_low))
        high = min((self.high, not self.open_high), (other.high, not other.open_high))
        return Prices(low[0], high[0], low[1], not high[1])


@dataclass(frozen=True)
class Span:
    """Times in µs since 1970 UTC from `start`, inclusive, to `end`, exclusive; `text` says it in words, empty where
    another span's text says it."""

    start: int
    end: int
    text: str

    def both(self, other: "Span") -> "Span":
        """What lies in both."""
        texts = dict.fromkeys((self.text, other.text))
        return Span(max(self.start, other.start), min(self.end, other.end), " and ".join(texts))


@dataclass(frozen=True)
class Wishes:
    text: str = ""  # in the asker's words, what is not said by the others
    terms: tuple[str, ...] = ()  # words to look for
    likes: tuple[int, ...] = ()
    dislikes: tuple[int, ...] = ()
    leanings: tuple[str, ...] = ()  # categories it should rather be of ("funnier")
    less: tuple[str, ...] = ()  # what it should have less of ("less violent")
    newest: float = 0.0  # RATHER new or, negative, old; SUPERLATIVE: the newest
    cheapest: float = 0.0  # the same of cheap and dear
    count: int | None = None  # no more items than that
    categories: tuple[tuple[str, ...], ...] = ()  # of each group the item must have one
    not_categories: tuple[str, ...] = ()
    price: Prices | None = None
    dates: Span | None = None
    not_dates: tuple[Span, ...] = ()
    available: bool | None = None
    excluded: tuple[int, ...] = ()
    without: tuple[str, ...] = ()  # phrases that must not stand in title, text or categories
    among: tuple[int, ...] | None = None  # nothing but these
    unknown: tuple[str, ...] = ()  # names of items that the catalogue does not have
    why: tuple[int, ...] | None = None  # asked why these were shown; empty: it is not clear which
    notes: tuple[str, ...] = field(default=(), compare=False)  # how something was read, for the answer

    @property
    def is_hard(self) -> bool:
        """Whether any constraint is hard."""
        return any(getattr(self, name) not in (None, ()) for name in HARD)

    @property
    def said(self) -> str:
        """`text` as an answer repeats it."""
        return self.text if len(self.text) <= MOST_SAID else f"{self.text[:MOST_SAID].rstrip()}…"

    @property
    def is_bare(self) -> bool:
        """Whether it says nothing of its own about what the item is like, such as 'under 10 pounds'."""
        return not (self.text or self.likes or self.leanings or self.less or self.categories or self.unknown)

    def yes_or_no(self) -> list[str]:
        """The constraints that an item holds in the very words they are asked in."""
        parts = []
        if self.available is not None:
            parts.append("available" if self.available else "not available")
        if self.not_categories:
            parts.append(f"not {' or '.join(self.not_categories)}")
        if self.without:
            parts.append(f"without {' or '.join(f'“{phrase}”' for phrase in self.without)}")
        return parts

    def told(self) -> dict[str, Any]:
        """The constraints as an answer shows them; what is not asked for is left out."""
        shown: dict[str, Any] = {}
        if self.text:
            shown["text"] = self.text
        for name in ("categories", "not_categories", "without", "leanings", "less", "unknown"):
            if value := getattr(self, name):
                shown[name] = [list(v) if isinstance(v, tuple) else v for v in value]
        if self.price is not None:
            shown["price"] = self.price.text()
        if self.dates is not None:
            shown["dates"] = self.dates.text
        if any(span.text for span in self.not_dates):
            shown["not_dates"] = [span.text for span in self.not_dates if span.text]
        if self.available is not None:
            shown["available"] = self.available
        if self.count is not None:
            shown["count"] = self.count
        return shown


HARD = ("categories", "not_categories", "price", "dates", "not_dates", "available", "excluded", "without", "among")
assert set(HARD) <= {f.name for f in fields(Wishes)}
