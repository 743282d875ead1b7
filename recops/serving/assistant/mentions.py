"""Items that a question names: by title after 'like', 'not' and the like, in quotes, or as 'the second' of those shown.

In: a Question, the titles of a catalogue, what was shown last. Out: `Mentions`. What is recognised is taken from the
question.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from recops.serving.assistant import english
from recops.serving.assistant.question import Question, Token
from recops.serving.assistant.titles import LONGEST, Titles, words_of

_QUOTED = re.compile(r'"([^"]{1,300})"|(?<!\w)\'([^\']{1,300})\'(?!\w)')
MOST_GUESSES = 3  # misspelt titles that are looked for in one question; each costs milliseconds
_YEAR = re.compile(r"\"?\s*\(\s*(\d{4})\s*\)")
_BARE_YEAR = re.compile(r"\s+(\d{4})\b(?!\s*-)")


@dataclass
class Mentions:
    """Rows by how they were named."""

    liked: list[int] = field(default_factory=list)
    disliked: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    named: list[int] = field(default_factory=list)  # without a word about liking
    pointed: list[int] = field(default_factory=list)  # 'the second', without such a word
    than: list[int] = field(default_factory=list)  # 'funnier than …'
    namesakes: list[int] = field(default_factory=list)  # whose whole title is a name that was liked
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # of what was pointed at without being there


class _Reader:
    def __init__(
        self,
        question: Question,
        titles: Titles,
        is_category: Callable[[Sequence[str]], bool],
        year: Callable[[int], int | None],
    ):
        self.question, self.titles, self.is_category, self.year = question, titles, is_category, year
        self.whole: set[int] = set()  # rows whose whole title was found
        self._guesses_left = MOST_GUESSES

    def at(self, position: int, is_sure: bool, may_be_common: bool = False) -> tuple[list[int], int, int] | None:
        """Rows (the one meant first), start and end of the longest title that begins at the first token from
        `position`; `is_sure` says that a title is expected there, so that it may be misspelt; `may_be_common`, that it
        may be a common word in small letters ('up', 'her') or the one word before a colon ('borat')."""
        tokens = [t for t in self.question.tokens if t.start >= position][:LONGEST]
        if not tokens or not self.question.is_free(tokens[0].start, tokens[0].end):
            return None
        for num in range(len(tokens), 0, -1):
            start, end = tokens[0].start, tokens[num - 1].end
            words = words_of(self.question.text[start:end])
            rows = self.titles.meant(words) or (self.titles.shortened(words) if may_be_common else [])
            if rows and self.question.is_free(start, end) and self._is_plausible(tokens, num, words, may_be_common):
                self.whole.update(self.titles.named(words))
                return self._with_year(rows, start, end)
        if not is_sure:
            return None
        phrase = self._phrase(tokens)
        words = [t.word for t in phrase]
        while words and words[0] in ("the", "a", "an"):
            words = words[1:]
        if words and not self.is_category(words) and (row := self.nearest(words)) is not None:
            return self._with_year([row], phrase[0].start, phrase[-1].end)
        return None

    def nearest(self, words: Sequence[str]) -> int | None:
        """The row of a title that may be misspelt, for the first few that are looked for."""
        self._guesses_left -= 1
        return self.titles.nearest(words) if self._guesses_left >= 0 else None

    def unknown(self, position: int) -> str | None:
        """A name in capitals that begins there, or None."""
        phrase = self._phrase([t for t in self.question.tokens if t.start >= position][:LONGEST])
        named = [t for t in phrase if t.word not in english.WEAK]
        if (
            not named
            or not all(t.is_capital or t.word.isdigit() for t in named)
            or self.is_category([t.word for t in phrase])
        ):
            return None
        return self.question.text[phrase[0].start : phrase[-1].end]

    def _phrase(self, tokens: Sequence[Token]) -> list[Token]:
        found: list[Token] = []
        for token in tokens:
            between = self.question.text[found[-1].end : token.start] if found else ""
            if (found and re.search(r"[,.;:!?()\"]", between)) or not self.question.is_free(token.start, token.end):
                break
            if token.word in english.BOUNDARY and not (found and token.is_capital):
                break
            found.append(token)
        return found

    def _is_plausible(self, tokens: Sequence[Token], num: int, words: Sequence[str], may_be_common: bool) -> bool:
        if all(word in english.WEAK for word in words) or self.is_category(words):
            return False
        strong = [t for t in tokens[:num] if t.word not in english.WEAK]
        after = tokens[num] if num < len(tokens) else None
        if after is not None and after.is_capital and not self.question.text[tokens[num - 1].end : after.start].strip():
            return False  # a longer name
        if all(t.is_capital or t.word[0].isdigit() for t in strong) and any(t.is_capital for t in strong):
            return True
        if not may_be_common and all(word in english.FILLER for word in words):
            return False  # 'no more'
        rest = self.question.low[tokens[num - 1].end :]
        ends = after is None or after.word in english.BOUNDARY
        return ends or not rest.strip() or rest.lstrip()[0] in ',.;:!?()"'

    def _with_year(self, rows: list[int], start: int, end: int) -> tuple[list[int], int, int]:
        if said := _YEAR.match(self.question.text, end):
            end = said.end()
            rows = [row for row in rows if self.year(row) == int(said.group(1))] or rows
        elif (said := _BARE_YEAR.match(self.question.text, end)) and (
            of_year := [row for row in rows if self.year(row) == int(said.group(1))]
        ):
            rows, end = of_year, said.end()  # 'Blade Runner 1982'
        return rows, start, end


def mentions(
    question: Question,
    titles: Titles,
    is_category: Callable[[Sequence[str]], bool],
    year: Callable[[int], int | None],
    shown: Sequence[int],
    least_words: int = 2,
) -> Mentions:
    """What is named in `question`; `shown` are the rows of the last answer, in its order. A title in capitals that no
    word about liking comes before counts from `least_words` on: shorter ones are often just words."""
    found = Mentions()
    reader = _Reader(question, titles, is_category, year)
    earlier: list[int] = []  # what 'it' means after a title
    for match in list(english.MARKER.finditer(question.low)):
        if not question.is_free(match.start(), match.end()):
            continue
        place = found.disliked if match["disliked"] else found.refused if match["refused"] else found.liked
        is_sure = bool(match["liked"] or match["disliked"])
        if match["than"]:
            if (title := reader.at(match.end(), is_sure=False)) is not None:
                found.than.append(title[0][0])
                question.take(title[1], title[2])  # 'than' is of the comparison
            continue
        if match["asked"]:
            title = reader.at(match.end(), is_sure=False, may_be_common=True)
            if title is not None and _is_written_as_name(question, title):  # 'Have you got Up?'
                found.named.append(title[0][0])
                question.take(title[1], title[2])
            continue
        listed = list(_listed(question, reader, match.end(), is_sure, shown, earlier))
        # What is not wanted is none of those that bear the name.
        rows = [row for named, _, is_title in listed for row in (named[:1] if match["liked"] and is_title else named)]
        end = max((end for _, end, _ in listed), default=match.end())
        if match["liked"]:
            whole = [row for named, _, is_title in listed if is_title for row in named if row in reader.whole]
            found.namesakes += whole
        if any(not named for named, _, _ in listed):
            found.notes.append(_no_such(shown))
        if listed:
            place += rows
            earlier = rows
            question.take(match.start(), end)
        elif match["liked"] and (name := reader.unknown(_after_kind(question, match.end()))):
            found.unknown.append(name)
    for match in list(question.found(_QUOTED)):
        words = words_of(match.group(1) or match.group(2))
        rows = titles.meant(words)
        if not rows and match.group(1) and (near := reader.nearest(words)) is not None:
            rows = [near]
        if rows:
            found.named.append(rows[0])
            question.take(match.start(), match.end())
    for token in question.tokens:
        if (token.is_capital or token.word[0].isdigit()) and question.is_free(token.start, token.end):
            title = reader.at(token.start, is_sure=False)
            if title is not None and len(words_of(question.text[title[1] : title[2]])) >= least_words:
                found.named.append(title[0][0])
                question.take(title[1], title[2])
    if shown:
        for match in list(question.found(english.ORDINAL)):
            if _ends_there(question, match.end()):
                question.take(match.start(), match.end())
                found.pointed += (rows := _nth(match, shown))
                if not rows:
                    found.notes.append(_no_such(shown))
    return found


def _no_such(shown: Sequence[int]) -> str:
    if not shown:
        return "I cannot tell which one you mean: give the items shown before in `conversation`."
    return f"Before, {len(shown)} items were shown." if len(shown) > 1 else "Before, one item was shown."


def _after_kind(question: Question, position: int) -> int:
    """Behind 'the film' and the like, where that stands there."""
    kind = english.KIND_OF.match(question.low, position)
    return kind.end() if kind else position


def _listed(
    question: Question, reader: _Reader, position: int, is_sure: bool, shown: Sequence[int], earlier: Sequence[int]
) -> Iterator[tuple[list[int], int, bool]]:
    """What stands one after the other, with 'and', 'or' or a comma between: rows, end, and whether it is a title rather
    than a place in what was shown."""
    may_be_common = is_sure
    while True:
        pointed = _shown(question, position, shown, earlier)
        title = reader.at(position, False, may_be_common) or reader.at(
            _after_kind(question, position), is_sure and pointed is None, may_be_common
        )
        if title and (pointed is None or title[2] > pointed[1] or _is_written_as_name(question, title)):
            rows, end, is_title = title[0], title[2], True
        elif pointed:
            rows, end, is_title = *pointed, False
        else:
            return
        yield rows, end, is_title
        more = english.AND.match(question.text, end)
        if not more:
            return
        position, is_sure, may_be_common = more.end(), False, False


def _is_written_as_name(question: Question, title: tuple[list[int], int, int]) -> bool:
    tokens = [t for t in question.tokens if title[1] <= t.start < title[2] and t.word not in english.ARTICLES]
    return bool(tokens) and all(t.is_capital for t in tokens)


def _shown(
    question: Question, position: int, shown: Sequence[int], earlier: Sequence[int]
) -> tuple[list[int], int] | None:
    """Which of the items shown is pointed at there ('the second', 'these', 'this'), none where there is no such, and
    where that ends; None where nothing is pointed at. `earlier`: what the question named before, which 'it' means."""
    start = position + len(question.low[position:]) - len(question.low[position:].lstrip())
    if (match := english.ORDINAL.match(question.low, start)) and _ends_there(question, match.end()):
        return _nth(match, shown), match.end()
    if shown and (match := english.ALL_SHOWN.match(question.low, start)):
        return list(shown), match.end()
    if (earlier or shown) and (match := english.FIRST_SHOWN.match(question.low, start)):
        return list(earlier or shown)[:1], match.end()
    return None


def _ends_there(question: Question, position: int) -> bool:
    """Whether no noun follows that 'the second' may belong to ('the second world war')."""
    after = next((t for t in question.tokens if t.start >= position), None)
    if after is None or question.text[position : after.start].strip():
        return True
    return after.word in english.FILLER or after.word in english.BOUNDARY


def _nth(match: re.Match[str], shown: Sequence[int]) -> list[int]:
    said = match["a"] or match["b"] or match["c"] or match["d"]
    if said == "last":
        return list(shown[-1:])
    place = english.ORDINALS.get(said)
    if place is None:
        place = int(re.sub(r"\D", "", said)) - 1
    return [shown[place]] if 0 <= place < len(shown) else []
