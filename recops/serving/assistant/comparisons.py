"""What a question says by comparing: 'cheaper', 'older ones', 'others', 'the oldest', 'less violent'.

In: a Question, the catalogue, the items shown before. Out: constraints where something was shown that items are
compared with, leanings where nothing was. What is recognised is taken from the question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from recops.serving.assistant import english, times
from recops.serving.assistant.catalogue import Catalogue
from recops.serving.assistant.mentions import Mentions
from recops.serving.assistant.question import Question
from recops.serving.assistant.wishes import RATHER, SUPERLATIVE, Prices, Span
from recops.serving.release import NO_TIME


@dataclass
class Compared:
    """`narrows`: within what was asked for before; `others`: nothing that was shown."""

    price: Prices | None = None
    dates: Span | None = None
    newest: float = 0.0
    cheapest: float = 0.0
    narrows: bool = False
    others: bool = False
    less: list[str] = field(default_factory=list)


def compared(
    question: Question,
    catalogue: Catalogue,
    named: Mentions,
    shown: Sequence[int],
    is_category: Callable[[Sequence[str]], bool],
) -> Compared:
    """'cheaper', 'newer': than the item that is named or liked ('like Heat but newer'), else than all that was `shown`.
    One that is only compared with is then no longer in `named`."""
    found = Compared()
    likes = list(named.than)
    for match in question.taken(english.COMPARED_WITH_SHOWN):
        than: Sequence[int] = named.liked or shown
        if match["than"] and (named.than or named.pointed):
            than, likes = named.than or named.pointed, []
            named.pointed = [] if not named.than else named.pointed
        found.narrows |= than is shown and bool(shown)
        asked = {name for name, said in match.groupdict().items() if said}
        if len(than) and _constrained(found, catalogue, asked, than):
            continue
        if match["cheaper"] or match["dearer"]:
            found.cheapest = RATHER if match["cheaper"] else -RATHER
        else:
            found.newest = RATHER if match["newer"] else -RATHER
    named.liked += likes  # 'funnier than Heat' is rather like it
    found.others = bool(shown and list(question.taken(english.OTHERS)))
    for match in question.taken(english.CHEAP):
        weight = SUPERLATIVE if match["cheapest"] or match["dearest"] else RATHER
        found.cheapest = -weight if match["dear"] or match["dearest"] else weight
    for match in question.taken(english.NEW):
        found.newest = RATHER if match["new"] else -SUPERLATIVE if match["oldest"] else SUPERLATIVE
    _ages(found, question, is_category)
    found.less += [match["what"] for match in question.taken(english.LESS)]
    return found


def _constrained(found: Compared, catalogue: Catalogue, asked: set[str], than: Sequence[int]) -> bool:
    """Whether what is compared is known of any of `than`."""
    cost = catalogue.prices[than]
    cost = cost[~np.isnan(cost)]
    starts, ends = catalogue.starts[than], catalogue.ends[than]
    dated = starts != NO_TIME
    price: Prices | None = None
    dates: Span | None = None
    if "cheaper" in asked and len(cost):
        price = Prices(high=float(cost.min()), open_high=True)
    elif "dearer" in asked and len(cost):
        price = Prices(low=float(cost.max()), open_low=True)
    elif "newer" in asked and dated.any():
        dates = times.since_end(int(ends[dated].max()))
    elif "older" in asked and dated.any():
        dates = times.before(int(starts[dated].min()))
    if price is not None:
        found.price = price if found.price is None else found.price.both(price)
    if dates is not None:
        found.dates = dates if found.dates is None else found.dates.both(dates)
    return price is not None or dates is not None


def _ages(found: Compared, question: Question, is_category: Callable[[Sequence[str]], bool]) -> None:
    """'old' and 'new' of a kind of item: 'old westerns', 'something new', but not 'an old man'."""
    for place, token in enumerate(question.tokens):
        if token.word not in english.AGES or not question.is_free(token.start, token.end):
            continue
        after = question.tokens[place + 1] if place + 1 < len(question.tokens) else None
        before = question.tokens[place - 1].word if place else ""
        is_kind = after is None or after.word in english.GENERIC or is_category([after.word])
        if is_kind or before in ("something", "anything"):
            found.newest = RATHER * english.AGES[token.word]
            question.take(token.start, token.end)
