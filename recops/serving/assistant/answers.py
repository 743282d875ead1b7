"""The words of an answer, by template: what was found, or honestly that nothing was, and what stood in the way.

In: the wishes, the ranking. Out: a text that names only items of the list. Knows no language model.
"""

from collections.abc import Sequence

import numpy as np

from recops.serving.assistant.catalogue import Catalogue
from recops.serving.assistant.fits import title
from recops.serving.assistant.ranking import allowed
from recops.serving.assistant.wishes import HARD, Wishes

NAMED = 3  # items that a text names; the others stand in the list
_IN_WORDS = {
    "categories": "the category",
    "not_categories": "the categories left out",
    "price": "the price",
    "dates": "the date",
    "not_dates": "the dates left out",
    "available": "availability",
    "excluded": "the items left out",
    "without": "the words left out",
    "among": "the items shown before",
}


def asked_for(wishes: Wishes) -> list[str]:
    """The hard constraints in words."""
    parts = [" or ".join(group) for group in wishes.categories]
    if wishes.dates is not None:
        parts.append(wishes.dates.text)
    parts += [f"not {span.text}" for span in wishes.not_dates if span.text]
    if wishes.price is not None:
        parts.append(f"price {wishes.price.text()}")
    return [*parts, *wishes.yes_or_no()]


def found_text(
    catalogue: Catalogue, wishes: Wishes, rows: Sequence[int], offered: np.ndarray, meets_text: bool = True
) -> str:
    """What was found; `rows` are those of the list, best first. No item but these is named. `meets_text`: whether any
    has to do with the words that were asked for, else that is said. `offered` bool [N+1]: what the service's rules let
    through; of other items nothing is said."""
    lacking = remarks(catalogue, wishes)
    if not len(rows):
        return " ".join([*lacking, _nothing(catalogue, wishes, offered)])
    names = [f"“{title(catalogue, row)}”" for row in rows[:NAMED]]
    more = len(rows) - len(names)
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    rest = f", and {more} more below" if more else ""
    asked = asked_for(wishes)
    if wishes.text and not meets_text:
        within = f" among what you asked for ({'; '.join(asked)})" if asked else ""
        return " ".join([*lacking, f"I found nothing for “{wishes.said}”{within}. What comes nearest: {listed}{rest}."])
    if wishes.text:
        asked.append(f"for “{wishes.said}”")
    begin = f"For what you asked ({'; '.join(asked)}) I found" if asked else "I would suggest"
    return " ".join([*lacking, f"{begin} {listed}{rest}."])


def why_text(catalogue: Catalogue, rows: Sequence[int], reasons: Sequence[str]) -> str:
    """Why items were shown."""
    if not len(rows):
        return "I cannot tell what you mean: give the items shown before in `conversation`, or name one by its title."
    told = [f"“{title(catalogue, row)}”: {reason}." for row, reason in zip(rows[:NAMED], reasons, strict=False)]
    more = f" The reasons for {len(rows) - NAMED} more are below." if len(rows) > NAMED else ""
    return f"This is what speaks for {'it' if len(rows) == 1 else 'them'}. {' '.join(told)}{more}"


def remarks(catalogue: Catalogue, wishes: Wishes) -> list[str]:
    """What the asker should know: names that are not there, facts that the catalogue does not have."""
    told = [f"I know nothing called “{name}”." for name in wishes.unknown]
    if (wishes.price is not None or wishes.cheapest) and not catalogue.has_prices:
        told.append("This catalogue has no prices.")
    if (wishes.dates is not None or wishes.not_dates or wishes.newest) and not catalogue.has_dates:
        told.append("This catalogue has no dates.")
    if wishes.available is not None and not catalogue.knows_available:
        told.append("This catalogue does not say what is available.")
    return [*told, *wishes.notes]


def _nothing(catalogue: Catalogue, wishes: Wishes, offered: np.ndarray) -> str:
    """Which single constraint keeps everything away, where there is one."""
    asked = asked_for(wishes)
    if (allowed(catalogue, wishes) & offered).any():
        return "Everything that fits you have had already, or turned down."
    text = f"Nothing in the catalogue fits all of this: {'; '.join(asked)}." if asked else "Nothing is left to show."
    for name in HARD:
        if getattr(wishes, name) in (None, ()):
            continue
        if num := int((allowed(catalogue, wishes, leave_out=name) & offered).sum()):
            return f"{text} Without {_IN_WORDS[name]} there {'is one item' if num == 1 else f'are {num} items'}."
    return text
