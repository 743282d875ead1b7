"""Prices in a question: 'under 20 pounds', '£5 to £10', 'no more than 15'.

In: a Question. Out: a range. The currency is read but not converted: a catalogue has prices in one currency.
"""

import re

from recops.serving.assistant import english
from recops.serving.assistant.question import Question
from recops.serving.assistant.wishes import Prices

_SIGN = r"[£$€¥₹]"
_UNIT = r"(?:pounds?|quid|gbp|sterling|euros?|eur|dollars?|bucks?|usd|pence|cents?|p|£|\$|€)"
_WORDS = {
    **{
        "a": 1,
        "an": 1,
        "one": 1,
        "two": 2,
        "three": 3,
        "four": 4,
        "five": 5,
        "six": 6,
        "seven": 7,
        "eight": 8,
        "nine": 9,
    },
    **{"ten": 10, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100},
}
# In words only before a currency.
_NUMBER = (
    r"\d{1,9}(?:,\d{3})*(?:[.,]\d{1,2})?"
    rf"|(?:{'|'.join(_WORDS)})(?=\s+(?:pound|quid|euro|dollar|buck|pence\b|cent))"
)


def _amount(n: str) -> str:
    return (
        rf"(?P<sign{n}>{_SIGN}\s*)?(?<![\w.,])(?P<number{n}>{_NUMBER})(?![\d]|[.,]\d)"
        rf"(?:\s*(?P<unit{n}>{_UNIT})(?!\w))?"
    )


_RANGE = re.compile(rf"\b(?:between|from|costing)?\s*(?<!\w){_amount('a')}\s*(?:and|to|-)\s*{_amount('b')}")
_BELOW = r"(?:for )?(?:under|below|less than|cheaper than|lower than|beneath)"
_AT_MOST = (
    r"up to|at most|no more than|not more than|not over|max(?:imum)?(?: of)?|within|(?:a )?budget(?: of| is)?|"
    r"not exceeding|no dearer than|not above|no higher than"
)
_ABOVE = r"over|above|more than|dearer than|higher than|exceeding|more expensive than"
_AT_LEAST = r"at least|no less than|not less than|not under|not below|min(?:imum)?(?: of)?|no cheaper than|starting at"
_ABOUT = r"about|around|roughly|approximately|circa"
_FOR = r"for|costing|costs?|priced at|at|worth"
_END = r"(?P<end>\s+or\s+(?:less|under|below|cheaper|more|over|above))?"
_SIDE = re.compile(
    rf"\b(?:(?:that|which)\s+)?(?:(?:is|are|costs?|costing|priced)\s+)?(?:at\s+)?"
    rf"(?:(?P<most>{_AT_MOST})|(?P<least>{_AT_LEAST})|(?P<below>{_BELOW})|(?P<above>{_ABOVE})|(?P<about>{_ABOUT})|"
    rf"(?P<for>{_FOR}))"
    rf"\s+(?:the price of\s+|a price of\s+)?{_amount('a')}{_END}"
)
_BARE = re.compile(rf"{_amount('a')}{_END}")
# What a number may count that is no price.
_OTHER = re.compile(rf"[\s-]*(?:{english.UNITS}|items?|films?|movies|books|songs|things|th|st|nd|rd|s)\b")
# A limit of anything but money, which nothing here can check.
_UNCHECKED = re.compile(
    rf"\b(?:(?:that|which)\s+)?(?:(?:is|are|lasts?|runs?)\s+)?(?:{_AT_MOST}|{_AT_LEAST}|{_BELOW}|{_ABOVE}|shorter than|"
    rf"longer than)\s+(?:\d{{1,5}}|{'|'.join(_WORDS)})[\s-]*(?:minutes?|mins?|hours?|hrs?|pages?|players?|pieces?|"
    r"people|cm|mm|kg|g|ml|inch(?:es)?|stars?|%|percent)(?!\w)(?:\s+(?:long|or less|or more))?"
)
AROUND = 0.2  # 'about 10' is 8 to 12


def price(question: Question, has_prices: bool) -> Prices | None:
    """The range that the question asks for; several hold together. A number without a currency is a price only where
    the catalogue has any, and where it does not look like a year or count something."""
    found: Prices | None = None

    def add(match: re.Match[str], one: Prices) -> None:
        nonlocal found
        question.take(match.start(), match.end())
        found = one if found is None else found.both(one)

    for match in question.found(_RANGE):
        if _is_price(question, match, ("a", "b"), has_prices):
            # '5 to 10 pence': a unit is of both where it stands once.
            unit = match["unita"] or match["unitb"]
            a, b = _value(match, "a", unit), _value(match, "b", unit)
            add(match, Prices(min(a, b), max(a, b)))
    for match in question.found(_SIDE):
        # Amounts after these words alone may be anything.
        needs_currency = match["for"] or match["about"]
        if _is_price(question, match, ("a",), has_prices and not needs_currency):
            add(match, _side(match))
    for match in question.found(_BARE):
        if _is_price(question, match, ("a",), False):
            value = _value(match, "a", match["unita"])
            end = match["end"] or ""
            add(match, Prices(low=value) if end.endswith(("more", "over", "above")) else Prices(high=value))
    return found


def unchecked(question: Question) -> tuple[str, ...]:
    """Limits of something else than money ('under 90 minutes'), which are taken: what to say of each."""
    return tuple(f"“{m.group()}” cannot be checked here and was left out." for m in question.taken(_UNCHECKED))


def _side(match: re.Match[str]) -> Prices:
    value, end = _value(match, "a", match["unita"]), match["end"] or ""
    if end.endswith(("more", "over", "above")) or match["least"]:
        return Prices(low=value)
    if end or match["most"]:
        return Prices(high=value)
    if match["below"]:
        return Prices(high=value, open_high=True)
    if match["above"]:
        return Prices(low=value, open_low=True)
    if match["about"]:
        return Prices(low=round(value * (1 - AROUND), 4), high=round(value * (1 + AROUND), 4))
    return Prices(high=value)  # 'for 10 pounds': what that buys


def _is_price(question: Question, match: re.Match[str], ends: tuple[str, ...], may_lack_currency: bool) -> bool:
    if any(match[f"sign{n}"] or match[f"unit{n}"] for n in ends):
        return True
    looks_like_year = any(re.fullmatch(r"1[89]\d\d|20\d\d", match[f"number{n}"]) for n in ends)
    counts = _OTHER.match(question.low, match.end()) is not None
    return may_lack_currency and not looks_like_year and not counts


def _value(match: re.Match[str], n: str, unit: str | None) -> float:
    text = match[f"number{n}"]
    if text in _WORDS:
        return float(_WORDS[text])
    # A comma before three digits groups thousands, else it is a decimal one.
    text = re.sub(r",(?=\d{3}(?:\D|$))", "", text).replace(",", ".")
    value = float(text)
    is_small = unit is not None and unit.strip() in ("p", "pence", "cent", "cents") and not match[f"sign{n}"]
    return round(value / 100, 4) if is_small else value
