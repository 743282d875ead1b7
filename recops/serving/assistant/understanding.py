"""From a question to wishes, by rules and the catalogue itself.

In: the question, the catalogue, the conversation before. Out: `Wishes`. Nothing here can be talked out of a constraint:
each is read from the asker's words alone, item text is only ever matched against. Knows nothing about ranking.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recops.serving.assistant import comparisons, counts, english, prices, times
from recops.serving.assistant.catalogue import Catalogue
from recops.serving.assistant.categories import SAME, Categories
from recops.serving.assistant.mentions import mentions
from recops.serving.assistant.question import Question, Token
from recops.serving.assistant.wishes import Prices, Span, Wishes

MOST_PHRASES = 8  # of which is asked what category they mean


def understand(
    text: str, catalogue: Catalogue, now_us: int, conversation: Sequence[tuple[str, Sequence[int]]] = ()
) -> Wishes:
    """The wishes of a question after a `conversation` of earlier questions and the rows shown for each, oldest first.

    A question goes on with the one before when it speaks of what was shown, begins like a continuation, or asks for
    nothing but constraints ('under 10 pounds'); else it stands for itself.
    """
    question = Question(text)
    everything = tuple(row for _, rows in conversation for row in rows)
    conversation = before_whys(conversation)
    shown = tuple(conversation[-1][1]) if conversation else ()
    reader = _Reader(question, catalogue, now_us, shown, everything)
    wishes = reader.read()
    if not conversation or wishes.why is not None:
        return wishes
    goes_on = (
        reader.points_back
        or english.CONTINUES.search(question.low)
        or english.IS_COMPARATIVE.search(question.low)
        or wishes.is_bare
    )
    if not goes_on:
        return wishes
    before = understand(conversation[-1][0], catalogue, now_us, conversation[:-1])
    wishes = merged(before, wishes, bool(english.REPLACES.search(question.low)), reader.narrows)
    if english.ADDS_ANOTHER.search(question.low) and before.categories and len(wishes.categories) > 1:
        # 'or a western': either will do.
        *groups, one, other = wishes.categories
        wishes = replace(wishes, categories=(*groups, tuple(dict.fromkeys((*one, *other)))))
    return wishes


def before_whys(conversation: Sequence[tuple[str, Sequence[int]]]) -> Sequence[tuple[str, Sequence[int]]]:
    """A conversation up to the last question that asked for items rather than for reasons."""
    while conversation and english.BEGINS_WITH_WHY.search(Question(conversation[-1][0]).low):
        conversation = conversation[:-1]
    return conversation


def merged(before: Wishes, new: Wishes, replaces: bool = False, narrows: bool = False) -> Wishes:
    """The wishes of a question that goes on with an earlier one.

    What is said anew stands for what was said of the same; `narrows`: within it ('cheaper'). Exclusions add up.
    """
    own_categories = {name for group in new.categories for name in group}
    categories = new.categories if replaces and new.categories else (*before.categories, *new.categories)
    price = new.price
    if before.price is not None:
        price = (
            before.price if price is None else before.price.both(price) if narrows else _renewed(before.price, price)
        )
    dates = new.dates
    if before.dates is not None:
        within = before.dates if dates is None else before.dates.both(dates) if narrows else dates
        # 'newer ones' than all of 2005, of which nothing is left in 2005, are those of later years.
        dates = dates if dates is not None and within.start >= within.end else within

    def union(name: str) -> tuple:
        return tuple(dict.fromkeys((*getattr(before, name), *getattr(new, name))))

    return replace(
        new,
        text=" ".join(filter(None, (before.text, new.text))),
        terms=union("terms"),
        likes=new.likes or before.likes,
        dislikes=union("dislikes"),
        leanings=tuple(name for name in union("leanings") if name not in {n for group in categories for n in group}),
        less=union("less"),
        count=new.count or before.count,
        newest=new.newest or before.newest,
        cheapest=new.cheapest or before.cheapest,
        categories=tuple(dict.fromkeys(categories)),
        not_categories=tuple(name for name in union("not_categories") if name not in own_categories),
        price=price,
        dates=dates,
        not_dates=union("not_dates"),
        available=before.available if new.available is None else new.available,
        excluded=union("excluded"),
        without=union("without"),
        unknown=new.unknown,
        notes=union("notes"),
    )


def _renewed(before: Prices, new: Prices) -> Prices:
    low = (new.low, new.open_low) if new.low > -np.inf else (before.low, before.open_low)
    high = (new.high, new.open_high) if new.high < np.inf else (before.high, before.open_high)
    return new if low[0] > high[0] else Prices(low[0], high[0], low[1], high[1])


class _Reader:
    """Reads one question; `points_back`: it speaks of what was shown; `narrows`: within what was asked before."""

    def __init__(
        self, question: Question, catalogue: Catalogue, now_us: int, shown: Sequence[int], everything: Sequence[int]
    ) -> None:
        self.question, self.catalogue, self.now_us = question, catalogue, now_us
        self.shown, self.everything = list(shown), everything
        self.points_back = self.narrows = False
        self._less: list[str] = []  # what there should be less of
        self._topics: set[int] = set()  # where words stand that elsewhere only name the kind of item

    def read(self) -> Wishes:
        question, catalogue = self.question, self.catalogue
        is_why = english.WHY.search(question.low) is not None
        asks_why = is_why or english.BEGINS_WITH_WHY.search(question.low) is not None
        list(question.taken(english.GIFT))
        named = mentions(
            question, catalogue.titles, self._is_category, catalogue.year, self.shown, 1 if asks_why else 2
        )
        if asks_why and (named.named or named.pointed):  # 'why the second?'
            is_why = is_why or all(t.word in english.FILLER for t in question.free_tokens)
        among = self._among()
        if is_why:
            target = named.named or named.pointed or named.liked or self._pointed() or self.shown
            return Wishes(why=tuple(dict.fromkeys(target)))
        moment, notes = self._moment()
        unchecked = prices.unchecked(question)
        price = prices.price(question, catalogue.has_prices)
        dates, not_dates = times.spans(question, moment, catalogue.newest_year)
        if dates is None or not any(
            word in dates.text for word in ("today", "yesterday", "week", "month", "year", "last")
        ):
            notes = ()
        more = comparisons.compared(question, catalogue, named, self.shown, self._is_category)
        count = counts.count(question, self._is_category, more.others)
        if more.price is not None:
            price = more.price if price is None else price.both(more.price)
        if more.dates is not None:
            dates = more.dates if dates is None else dates.both(more.dates)
        self.narrows = more.narrows
        self.points_back |= more.narrows or more.others
        excluded = [*self.everything] if more.others else []
        available = self._available()
        not_categories, without = self._negated()
        categories = self._categories()
        self._find_topics()
        phrases = self._phrases()
        categories, leanings = self._meant(phrases, categories, not_categories)
        text, terms = self._rest()
        likes = [*named.liked, *named.named, *named.pointed]
        excluded += [*named.liked, *named.namesakes, *named.pointed, *named.disliked, *named.refused]
        pointed = {*likes, *named.disliked, *named.refused}
        self.points_back |= bool(named.pointed or named.notes) or any(row in self.shown for row in pointed)
        return Wishes(
            text=text,
            terms=terms,
            likes=tuple(dict.fromkeys(likes)),
            dislikes=tuple(dict.fromkeys(named.disliked)),
            leanings=leanings,
            less=tuple(dict.fromkeys((*more.less, *self._less))),
            newest=more.newest,
            cheapest=more.cheapest,
            count=count,
            categories=categories,
            not_categories=not_categories,
            price=price,
            dates=dates,
            not_dates=not_dates,
            available=available,
            excluded=tuple(dict.fromkeys(excluded)),
            without=without,
            among=among,
            unknown=tuple(named.unknown),
            notes=(*notes, *unchecked, *dict.fromkeys(named.notes)),
        )

    def _is_category(self, words: Sequence[str]) -> bool:
        return bool(self.catalogue.categories.named(words))

    def _moment(self) -> tuple[int, tuple[str, ...]]:
        """What relative dates are counted from, and what to say of it."""
        newest = self.catalogue.newest_us
        if newest is None or self.now_us - newest < times.STALE_US:
            return self.now_us, ()
        day = (times.EPOCH + times.timedelta(microseconds=newest)).date().isoformat()
        return newest, (f"The newest item here is of {day}, so dates are counted from there.",)

    def _among(self) -> tuple[int, ...] | None:
        if not self.shown or not list(self.question.taken(english.AMONG_SHOWN)):
            return None
        self.points_back = True
        return tuple(self.shown)

    def _pointed(self) -> list[int]:
        return self.shown[:1] if re.search(r"\b(?:this|that|it)\b", self.question.low) and len(self.shown) == 1 else []

    def _available(self) -> bool | None:
        found = None
        for match in self.question.taken(english.AVAILABLE):
            found = not match["no"]
        return found

    def _negated(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Categories and phrases that are not wanted."""
        categories: list[str] = []
        phrases: list[str] = []
        for match in list(self.question.found(english.NEGATED)):
            end = match.end()
            if degree := english.OF_DEGREE.match(self.question.low, end):
                self._less.append(degree["what"])
                self.question.take(match.start(), degree.end())
                continue
            for piece in self._pieces(end):
                words = [t.word for t in piece]
                core = [t for t in piece if t.word not in english.GENERIC] or piece
                if words[0] in english.HARMLESS:
                    break
                found = self.catalogue.categories.named(words) or self.catalogue.categories.named(
                    [t.word for t in core]
                )
                is_topic = words[0] in english.MAY_SAY and english.ASKS_OF_TOPIC.search(match.group())
                if not found and not is_topic and all(t.word in english.FILLER for t in core):
                    break
                if not found:
                    phrase = self.question.text[core[0].start : core[-1].end]
                    phrases.append(phrase)
                    found = self._same(phrase)
                categories += found
                end = piece[-1].end
                self.question.take(match.start(), end)
        return tuple(dict.fromkeys(categories)), tuple(dict.fromkeys(phrases))

    def _same(self, phrase: str) -> tuple[str, ...]:
        """The category that a phrase means, where there is no doubt."""
        near = self.catalogue.meant([phrase.lower()])[0]
        return (near[0][0],) if near and near[0][1] >= SAME else ()

    def _pieces(self, position: int) -> list[list[Token]]:
        """What stands after a 'not', as far as it goes: phrases between 'or', 'and', 'nor' or commas of such a list."""
        clause = re.match(r"[^.;:!?()\"]*", self.question.low[position:])
        assert clause is not None
        is_list = re.search(r"\b(?:or|nor)\b", clause.group()) is not None
        pieces: list[list[Token]] = []
        piece: list[Token] = []
        last = position
        for token in self.question.tokens:
            if token.start < position:
                continue
            between = self.question.text[last : token.start]
            if token.start >= position + clause.end() or not self.question.is_free(token.start, token.end):
                break
            if token.word in ("or", "nor", "and") or ("," in between and piece):
                if "," in between and not is_list and token.word not in ("or", "nor", "and"):
                    break
                if piece:
                    pieces.append(piece)
                piece = []
                last = token.end
                if token.word in ("or", "nor", "and"):
                    continue
            if token.word in english.ENDS_NEGATION:
                break
            piece.append(token)
            last = token.end
        return [*pieces, piece] if piece else pieces

    def _categories(self) -> tuple[tuple[str, ...], ...]:
        """Categories named as such; those with 'or' between them make one group."""
        names: Categories = self.catalogue.categories
        found: list[tuple[int, int, tuple[str, ...]]] = []
        for run in list(self.question.runs()):
            i = 0
            while i < len(run):
                for num in range(min(5, len(run) - i), 0, -1):
                    group = names.named([t.word for t in run[i : i + num]])
                    if group:
                        found.append((run[i].start, run[i + num - 1].end, group))
                        i += num
                        break
                else:
                    i += 1
        groups: list[tuple[str, ...]] = []
        last_end = -1
        for start, end, group in found:
            if groups and english.IN_ONE_GROUP.fullmatch(self.question.low[last_end:start]):
                groups[-1] = tuple(dict.fromkeys((*groups[-1], *group)))
            else:
                groups.append(group)
            last_end = end
        for start, end, _ in found:
            self.question.take(start, end)
        return tuple(dict.fromkeys(groups))

    def _find_topics(self) -> None:
        """Words such as 'music' that say what is asked for: after 'a film about', and in a name of two words that the
        catalogue has ('music box')."""
        for run in self.question.runs():
            for place, token in enumerate(run):
                if token.word not in english.MAY_SAY:
                    continue
                start = place - 1
                while start > 0 and run[start].word in english.FILLER and run[start].word not in english.TOPIC_FOLLOWS:
                    start -= 1
                follows = start >= 0 and run[start].word in english.TOPIC_FOLLOWS
                # Where nothing is before it, what was there is understood: 'a documentary about music'.
                if follows and (not start or run[start - 1].word in english.GENERIC | {"something", "anything"}):
                    self._topics.add(token.start)
                after = run[place + 1].word if place + 1 < len(run) else "a"
                if after not in english.FILLER and len(self.catalogue.having(f"{token.word} {after}")):
                    self._topics.add(token.start)

    def _says(self, token: Token) -> bool:
        """Whether it says what is asked for, and does not only ask."""
        return token.word not in english.FILLER or token.start in self._topics

    def _phrases(self) -> list[tuple[str, list[Token]]]:
        """Words, and pairs of them, that may mean a category."""
        found: list[tuple[str, list[Token]]] = []
        for run in self.question.runs():
            for place, token in enumerate(run):
                if not self._says(token) or len(token.word) < 3 or token.word.isdigit():
                    continue
                found.append((token.word, [token]))
                after = run[place + 1] if place + 1 < len(run) else None
                if after is not None and self._says(after):
                    found.append((f"{token.word} {after.word}", [token, after]))
        return found[:MOST_PHRASES]

    def _meant(
        self, phrases: list[tuple[str, list[Token]]], named: tuple[tuple[str, ...], ...], unwanted: Sequence[str]
    ) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
        """Categories that words mean: as good as named, or leaned to ('funnier' is never more than that)."""
        groups, leanings = list(named), list[str]()
        have = {name for group in named for name in group} | set(unwanted)
        for (phrase, tokens), near in zip(phrases, self.catalogue.meant([p for p, _ in phrases]), strict=True):
            if not near or near[0][0] in have:
                continue
            name, cosine = near[0]
            is_topic = any(token.start in self._topics for token in tokens)
            if cosine >= SAME and not english.COMPARATIVE.match(phrase) and not is_topic:
                groups.append((name,))
                have.add(name)
                for token in tokens:
                    self.question.take(token.start, token.end)
            elif name not in leanings:
                leanings.append(name)
        return tuple(groups), tuple(name for name in leanings if name not in have)

    def _rest(self) -> tuple[str, tuple[str, ...]]:
        """What is left, as it was said (without the words that only ask) and as words to look for."""
        terms = [t.word for t in self.question.free_tokens if self._says(t)]
        if not terms:
            return "", ()
        pieces = []
        for run in self.question.runs():
            while run and not self._says(run[0]):
                run = run[1:]
            while run and not self._says(run[-1]):
                run = run[:-1]
            if run:
                pieces.append(self.question.text[run[0].start : run[-1].end])
        return " ".join(pieces), tuple(dict.fromkeys(terms))


def _within(dates: Span | None, more: Span) -> Span:
    return more if dates is None else dates.both(more)
