"""How many items a question asks for: 'three comedies', 'the top 10', 'no more than 2'.

In: a Question. Out: a number, or None. A number that counts anything but items is left as it is.
"""

import re
from collections.abc import Callable, Sequence

from recops.serving.assistant import english
from recops.serving.assistant.question import Question

MOST = 100
_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_COUNT = re.compile(
    r"\b(?P<only>(?:no more than|not more than|at most|up to|only|just|(?:the )?top|(?:the )?best|"
    r"max(?:imum)?(?: of)?)\s+)?"
    rf"(?<![\w.,-])(?P<n>\d{{1,3}}|{'|'.join(_WORDS)})(?![\w.,-]*\w)"
)
_LIMIT = re.compile(r"\b(?:than|least|over|above|under|about)\s+$")  # of which no list can be made
_QUALITIES = re.compile(r"(?:\s+(?:good|great|nice|other|more|different))?")
_ITEMS = "|".join(sorted(word for word in english.GENERIC if word.endswith("s")))
# 'three animated films', but not 'two hours of films' or 'a two brothers movie'.
_OF_KIND = re.compile(rf"(?:\s+(?!(?:of|and|or|{english.UNITS})\b)[\w'-]+){{1,2}}?\s+(?:{_ITEMS})\b")


def count(question: Question, is_category: Callable[[Sequence[str]], bool], asks_others: bool = False) -> int | None:
    """The number of items that is asked for, which is taken from the question; None where none is. `asks_others`: of
    what was shown before, so that a number alone counts items ('another three')."""
    for match in list(question.found(_COUNT)):
        end = _QUALITIES.match(question.low, match.end())
        assert end is not None
        after = next((t for t in question.tokens if t.start >= end.end()), None)
        is_next = after is not None and not question.text[end.end() : after.start].strip()
        word = after.word if is_next and after is not None else ""
        of_items = word in english.GENERIC or (word != "" and is_category([word]))
        of_items = of_items or _OF_KIND.match(question.low, match.end()) is not None
        alone = (match["only"] or asks_others) and (not word or word in english.BOUNDARY)
        said = match["n"]
        number = int(said) if said.isdigit() else _WORDS.index(said) + 2
        is_limit = not match["only"] and _LIMIT.search(question.low[: match.start()]) is not None
        if of_items or alone:
            question.take(match.start(), match.end())
            if not is_limit and 0 < number <= MOST:
                return number
    return None
