"""The words of a question, and which of them have been understood already.

In: a text. Out: `Question`; each recogniser takes the part it understands, so that no word counts twice. Knows nothing
about items.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*", re.UNICODE)
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "–": "-", "—": "-"})


def plain(text: str) -> str:
    """Lower case, without accents and apostrophes."""
    decomposed = unicodedata.normalize("NFKD", text)
    kept = "".join(c for c in decomposed if not unicodedata.combining(c)).lower()
    return kept.replace("'", "").replace("’", "")


@dataclass(frozen=True)
class Token:
    start: int
    end: int
    word: str  # as `plain` has it
    is_capital: bool


class Question:
    """`text` as asked, cleaned; `low` the same in lower case, character for character."""

    def __init__(self, text: str) -> None:
        text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
        self.text = "".join(c if c.isprintable() else " " for c in text)
        self.low = "".join(c.lower() if len(c.lower()) == 1 else c for c in self.text)
        self._is_free = bytearray(b"\x01" * len(self.text))
        self.tokens = [
            Token(m.start(), m.end(), plain(m.group()), m.group()[0].isupper()) for m in _TOKEN.finditer(self.text)
        ]

    def is_free(self, start: int, end: int) -> bool:
        return all(self._is_free[start:end])

    def take(self, start: int, end: int) -> None:
        """That part is understood."""
        self._is_free[start:end] = bytes(end - start)

    def found(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Matches in `low` of which no character is understood yet."""
        return (m for m in pattern.finditer(self.low) if m.end() > m.start() and self.is_free(m.start(), m.end()))

    def taken(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """The same, each understood by that."""
        for match in self.found(pattern):
            self.take(match.start(), match.end())
            yield match

    @property
    def free_tokens(self) -> list[Token]:
        return [t for t in self.tokens if self.is_free(t.start, t.end)]

    def runs(self) -> Iterator[list[Token]]:
        """Free tokens that stand together: nothing understood and no comma, stop or bracket between them."""
        run: list[Token] = []
        for token in self.tokens:
            free = self.is_free(token.start, token.end)
            between = self.text[run[-1].end : token.start] if run else ""
            if run and (not free or re.search(r"[,.;:!?()\"]", between) or not self.is_free(run[-1].end, token.start)):
                yield run
                run = []
            if free:
                run.append(token)
        if run:
            yield run
