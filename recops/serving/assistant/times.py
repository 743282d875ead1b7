"""Years, decades and relative dates in a question.

In: a Question and the moment that relative dates are counted from. Out: spans of time. Days, weeks (from Monday),
months and years are those of the calendar in UTC; 'the last 3 days' are counted back from the moment.
"""

import re
from datetime import UTC, datetime, timedelta
from operator import attrgetter, itemgetter

from recops.serving.assistant.question import Question
from recops.serving.assistant.wishes import Span

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_YEAR, LAST_YEAR = 1800, 2199
STALE_US = 30 * 86_400 * 1_000_000  # a catalogue whose newest item is older ended then
EARLIEST, LATEST = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC)
_WORDS = {
    **{"twenties": 20, "thirties": 30, "forties": 40, "fifties": 50, "sixties": 60, "seventies": 70, "eighties": 80},
    **{"nineties": 90, "noughties": 0, "two thousands": 0},
}
_NUMBERS = {
    word: number
    for number, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1)
}
# The century that is the last one to those who ask until 2100.
_CENTURIES = {"nineteenth": 19, "twentieth": 20, "twenty first": 21, "last": 20, "this": 21}
_CENTURY = rf"(?:19th|20th|21st|{'|'.join(_CENTURIES).replace(' ', '[ -]')}) century"
_YEAR = r"(?:1[89]\d\d|20\d\d|21\d\d)"
_DECADE = rf"(?:{_CENTURY}|(?:1[89]|20)\d0'?s|'?\d0'?s|{'|'.join(_WORDS)})"
_PERIOD = rf"(?:(?:early|mid|late)[ -]+)?{_DECADE}|{_YEAR}"
_NOT = (
    r"(?P<not>\b(?:not|nothing|none|never|no|except|excluding|but not|without)\s+"
    r"(?:(?:the|an?|any|those|ones|anything|something|films?|movies?|books?|items?|songs?|news|articles?|products?|from|"
    r"made)\s+){0,4})?"
)
_MADE = r"(?:(?:made|released|published|filmed|shot|written|produced|out|came out|dated)\s+)?"
_MONEY = r"(?!\s*(?:pounds?|euros?|dollars?|quid|bucks|gbp|usd|eur|£|\$|€))"
_BETWEEN = re.compile(
    rf"{_NOT}\b{_MADE}(?:between|from(?!(?:\s+the)?\s+(?:{_PERIOD})\s+and\b))\s+(?:the\s+)?(?P<a>{_PERIOD})\s+"
    rf"(?:and|to|until|till|-)\s+(?:the\s+)?"
    rf"(?P<b>{_PERIOD})\b{_MONEY}|\b(?P<c>{_YEAR})\s*-\s*(?P<d>{_YEAR})\b{_MONEY}"
)
_BEFORE = r"before|prior to|earlier than|older than|pre-?"
_UNTIL = r"until|till|up to"
_AFTER = r"after|later than|newer than|more recent than|post-?"
_SINCE = r"since|from|starting in"
_ON = r"on|onwards?|or later|or newer|and later|or earlier|or older|and earlier"
_SIDE = re.compile(
    rf"{_NOT}\b{_MADE}(?:(?P<until>{_UNTIL})|(?P<since>{_SINCE})|(?P<before>{_BEFORE})|(?P<after>{_AFTER}))"
    rf"\s*(?:the\s+)?(?P<a>{_PERIOD})\b{_MONEY}\s*(?P<on>(?:{_ON})\b)?"
)
_IN = re.compile(
    rf"{_NOT}(?:\b{_MADE}(?:in|from|of|during|for|dating from)\s+(?:the\s+)?(?:year\s+)?)?(?:\bthe\s+)?"
    rf"(?<![\w£$€.,])(?P<a>{_PERIOD})\b{_MONEY}"
)
_COUNT = rf"(?P<n>\d{{1,3}}|{'|'.join(_NUMBERS)}|couple of|few)"
_RELATIVE = re.compile(
    rf"{_NOT}\b(?:(?:from|in|of|during|within|over)\s+)?"
    rf"(?:(?:the\s+)?(?:last|past|previous)\s+{_COUNT}\s+(?P<unit>hour|day|week|month|year)s?"
    r"|(?:the past|past)\s+(?P<unit2>day|week|month|year)"
    # 'What shall I watch today?' asks for nothing of today.
    r"|(?P<word>today(?='s)|(?<=from )today|(?<=of )today|(?<=published )today|(?<=happened )today|(?<=new )today|"
    r"yesterday|(?:this|last) (?:week|month|year)))\b(?:'s)?"
)
_DAYS = {"hour": 1 / 24, "day": 1, "week": 7, "month": 30.4375, "year": 365.25}


def us(moment: datetime) -> int:
    return round((moment - EPOCH) / timedelta(microseconds=1))


def years(first: int, last: int, text: str) -> Span:
    """From the first of January of one year to the end of another."""
    return Span(us(datetime(first, 1, 1, tzinfo=UTC)), us(datetime(last + 1, 1, 1, tzinfo=UTC)), text)


def spans(question: Question, now_us: int, newest_year: int) -> tuple[Span | None, tuple[Span, ...]]:
    """What the question asks for (several hold together; None: nothing) and what it does not want.

    Decades of two digits ('the twenties') are the latest that have begun by `newest_year`.
    """
    wanted: list[tuple[int, bool, Span]] = []  # where it stands, whether it is a period named as such
    unwanted: list[Span] = []

    def add(match: re.Match[str], span: Span, is_named: bool) -> None:
        if match["not"]:
            unwanted.append(span)
        else:
            wanted.append((match.start(), is_named, span))

    for match in question.taken(_RELATIVE):
        add(match, _relative(match, EPOCH + timedelta(microseconds=now_us)), False)
    for match in question.taken(_BETWEEN):
        first, last = _period(match["a"] or match["c"], newest_year), _period(match["b"] or match["d"], newest_year)
        low, high = min(first[0], last[0]), max(first[1], last[1])
        add(match, years(low, high, f"from {low} to {high}"), True)
    for match in question.taken(_SIDE):
        add(match, _side(match, newest_year), match["since"] == "from" and not match["on"])
    for match in question.taken(_IN):
        low, high = _period(match["a"], newest_year)
        add(match, years(low, high, _named(low, high)), True)
    total: Span | None = None
    was_named = False
    for _, is_named, span in sorted(wanted, key=itemgetter(0)):
        if total is None:
            total = span
        elif is_named and was_named and not _meets(total, span):
            # 'from 1990 or 1993': either will do, but nothing in between.
            one, other = sorted((total, span), key=attrgetter("start"))
            unwanted.append(Span(one.end, other.start, ""))  # said by the text of both
            total = Span(one.start, other.end, f"{total.text} or {span.text}")
        else:
            total = total.both(span)
        was_named = is_named
    return total, tuple(unwanted)


def _meets(one: Span, other: Span) -> bool:
    return max(one.start, other.start) < min(one.end, other.end)


def _period(text: str, newest_year: int) -> tuple[int, int]:
    """First and last year of '1995', '90s', 'late nineties', '1990s'."""
    part, _, rest = text.replace("-", " ").partition(" ")
    part, text = (part, rest.strip()) if part in ("early", "mid", "late") and rest else ("", text)
    if text.endswith(" century"):
        number = text.removesuffix(" century").replace("-", " ")
        first = (_CENTURIES.get(number) or int(number[:2])) * 100 - 100
        low, high = {"early": (0, 32), "mid": (33, 66), "late": (67, 99), "": (0, 99)}[part]
        return first + low, first + high
    if re.fullmatch(_YEAR, text):
        return int(text), int(text)
    if text in _WORDS:
        digits = _WORDS[text]
        # Two thousands are no decade of another century.
        first = 2000 if text in ("two thousands", "noughties") else _latest(digits, newest_year)
    else:
        digits_text = re.sub(r"\D", "", text)
        first = int(digits_text) if len(digits_text) == 4 else _latest(int(digits_text), newest_year)
    if part:
        low, high = {"early": (0, 4), "mid": (4, 6), "late": (5, 9)}[part]
        return first + low, first + high
    return first, first + 9


def _latest(digits: int, newest_year: int) -> int:
    century = newest_year // 100 * 100
    return century + digits if century + digits <= newest_year else century - 100 + digits


def _side(match: re.Match[str], newest_year: int) -> Span:
    low, high = _period(match["a"], newest_year)
    on = match["on"] or ""
    if match["before"]:
        return years(FIRST_YEAR, low - 1, f"before {low}")
    if match["until"] or on.endswith(("earlier", "older")):
        return years(FIRST_YEAR, high, f"until {high}")
    if match["after"]:
        return years(high + 1, LAST_YEAR, f"after {high}")
    if match["since"] == "from" and not on:
        return years(low, high, _named(low, high))
    return years(low, LAST_YEAR, f"since {low}")


def _named(low: int, high: int) -> str:
    return f"from {low}" if low == high else f"from {low} to {high}"


def _relative(match: re.Match[str], now: datetime) -> Span:
    end = now + timedelta(microseconds=1)
    unit = match["unit"] or match["unit2"]
    if unit:
        said = match["n"] or "one"
        number = int(said) if said.isdigit() else _NUMBERS.get(said, 2 if said.startswith("couple") else 3)
        text = f"from the last {number} {unit}s" if number > 1 else f"from the last {unit}"
        return Span(us(now - timedelta(days=min(number * _DAYS[unit], 365_000))), us(end), text)
    word = match["word"]
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    week, month, year = day - timedelta(days=day.weekday()), day.replace(day=1), day.replace(month=1, day=1)
    last_month, last_year = (
        (month - timedelta(days=1)).replace(day=1),
        (year - timedelta(days=1)).replace(month=1, day=1),
    )
    start, stop = {
        "today": (day, end),
        "yesterday": (day - timedelta(days=1), day),
        "this week": (week, end),
        "last week": (week - timedelta(days=7), week),
        "this month": (month, end),
        "last month": (last_month, month),
        "this year": (year, end),
        "last year": (last_year, year),
    }[word]
    return Span(us(start), us(stop), f"from {word}")


def before(moment_us: int) -> Span:
    """Whatever is earlier."""
    return Span(us(EARLIEST), moment_us, f"before {_moment_text(moment_us)}")


def since_end(moment_us: int) -> Span:
    """From the end of some span on."""
    text = _moment_text(moment_us)
    later = f"after {int(text) - 1}" if len(text) == 4 else f"later than {day_text(moment_us - 1)}"
    return Span(moment_us, us(LATEST), later)


def _moment_text(moment_us: int) -> str:
    """The year where it begins then, else the day."""
    moment = EPOCH + timedelta(microseconds=moment_us)
    year = moment.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return str(moment.year) if moment == year else moment.date().isoformat()


def day_text(moment_us: int) -> str:
    return (EPOCH + timedelta(microseconds=moment_us)).date().isoformat()
