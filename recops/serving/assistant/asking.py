"""One question answered: understand, retrieve, rank, put into words.

In: a Release, a parsed request, the stored history of its user. Out: a plain dict. Every item of an answer is in the
catalogue and holds every hard constraint: the list is made before any language model is asked, which only phrases it.
"""

import logging
import math
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np

from recops.attribution import Account
from recops.serving import counters
from recops.serving.assistant import answers, fits, phrasing, proposals
from recops.serving.assistant.catalogue import Catalogue, catalogue_of
from recops.serving.assistant.language_model import LanguageModel, LanguageModelError, Message
from recops.serving.assistant.ranking import Ranking, allowed, rank
from recops.serving.assistant.understanding import before_whys, understand
from recops.serving.assistant.wishes import Wishes
from recops.serving.release import Release
from recops.serving.requests import Ask, Recommend
from recops.serving.retrieval import Stored, occasion_of, person
from recops.serving.ruleset import NO_RULES, OF_FILE, Rules

TEMPLATE = "template"
logger = logging.getLogger("recops.serving")


@dataclass(frozen=True)
class Found:
    """An answer: `text` is the template's, or a language model's that passed the check (`phrased_by`)."""

    wishes: Wishes
    rows: list[int]
    items: list[dict[str, Any]]
    text: str
    source: str
    retrieved_by: list[str]
    named: dict[str, list[dict[str, Any]]]  # the items that a question was understood to name, by how it names them
    phrased_by: str = TEMPLATE


def told(found: Found) -> dict[str, Any]:
    """What is said to the asker."""
    return {
        "answer": found.text,
        "items": found.items,
        "understood": found.wishes.told() | found.named,
        "retrieved_by": found.retrieved_by,
        "phrased_by": found.phrased_by,
        "source": found.source,
    }


def ask(
    release: Release,
    request: Ask,
    stored: Stored | None,
    model: LanguageModel | None = None,
    now_us: int | None = None,
    until: float = math.inf,
    rules: Rules = NO_RULES,
) -> Found:
    """`now_us`: what 'this week' is counted from; None: now. The model is asked while nothing is held that others wait
    for; where it fails, is busy, or writes what the check refuses, the template answers. Raises TimeoutError where
    other questions take until the moment `until` of the monotonic clock, the time of the model not counted."""
    now_us = fits.today_us() if now_us is None else now_us
    catalogue = catalogue_of(release)
    known = release.row_of
    conversation = [
        (turn.question, [known[item_id] for item_id in turn.items if item_id in known])
        for turn in request.conversation or ()
    ]
    with catalogue.used_for(release, until):
        wishes = understand(request.question, catalogue, now_us, conversation)
    if model is not None and model.understands and wishes.why is None:
        start = monotonic()
        proposal = _said(model, proposals.messages(request.question))
        until += monotonic() - start
        if proposal is None:
            model = None  # one that does not answer is not waited for twice
        read = None if proposal is None else proposals.read(proposal)
        if proposal is not None and read is None:
            logger.info("what a language model proposed was not used: it is no JSON of what was asked for")
        if read is not None:
            with catalogue.used_for(release, until):
                wishes = proposals.taken_up(wishes, read, catalogue, request.question)
    with catalogue.used_for(release, until):
        found = _answered(catalogue, request, stored, wishes, conversation, now_us, rules)
        if model is None or wishes.why is not None or not found.rows:
            return found
        messages = phrasing.messages(catalogue, wishes, request.question, found.rows)
    start = monotonic()
    text = _said(model, messages)
    if text is None:
        return found
    try:
        with catalogue.used_for(release, until + monotonic() - start):
            wrong = phrasing.objection(text, catalogue, wishes, found.rows)
            remarks = answers.remarks(catalogue, wishes)
    except TimeoutError:
        counters.PHRASED.labels("unchecked").inc()
        logger.info("what a language model wrote was not used: there was no time left to check it")
        return found
    counters.PHRASED.labels("refused" if wrong else "used").inc()
    if wrong:
        logger.info("what a language model wrote was not used: it %s", wrong)
        return found
    return replace(found, text=" ".join([*remarks, text]), phrased_by="language model")


def _said(model: LanguageModel, messages: list[Message]) -> str | None:
    try:
        return model.chat(messages)
    except LanguageModelError as error:
        counters.PHRASED.labels(error.outcome).inc()
        logger.warning("no answer of the language model: %s", error)
        return None


def _answered(
    catalogue: Catalogue,
    request: Ask,
    stored: Stored | None,
    wishes: Wishes,
    conversation: list[tuple[str, list[int]]],
    now_us: int,
    rules: Rules,
) -> Found:
    release = catalogue.release
    history = request.history if request.history is not None else []
    someone = person(release, request.model_copy(update={"history": history}), stored)
    account = Account(release.bundle.scorer, someone.asked)
    as_list = Recommend.model_construct(user_id=request.user_id, history=history, k=request.k)
    masks = rules.hidden(as_list, occasion_of(release, someone, stored))
    offered = np.ones(release.bundle.num_items + 1, bool)
    for name, hidden in masks.items():
        if name.startswith(OF_FILE):
            offered[hidden] = False
    if wishes.why is not None:  # what was shown may well be in the history by now
        wishes = replace(wishes, why=tuple(row for row in wishes.why if offered[row]))
        return _why(catalogue, wishes, conversation, account, someone.source, now_us)
    mask = allowed(catalogue, wishes)
    for hidden in masks.values():
        mask[hidden] = False
    ranking = rank(catalogue, wishes, mask, account.scores, min(request.k, wishes.count or request.k))
    reasons = fits.reasons(catalogue, wishes, ranking, account)
    rows = ranking.rows.tolist()
    text = answers.found_text(catalogue, wishes, rows, offered, fits.meets_text(catalogue, wishes, ranking))
    items, named = _items(release, ranking, reasons), _named(release, wishes)
    return Found(wishes, rows, items, text, someone.source, ranking.retrieved_by, named)


def _why(
    catalogue: Catalogue,
    wishes: Wishes,
    conversation: list[tuple[str, list[int]]],
    account: Account,
    source: str,
    now_us: int,
) -> Found:
    """What speaks for items shown before: the constraints of the question they were shown for, and the served model."""
    assert wishes.why is not None
    rows = np.array(wishes.why, np.int64)
    before = Wishes()
    conversation = conversation[: len(before_whys(conversation))]
    if conversation:
        before = understand(conversation[-1][0], catalogue, now_us, conversation[:-1])
        before = replace(before, why=None)
    scores = np.asarray(account.scores[rows], np.float32) if len(rows) else np.zeros(0, np.float32)
    every = np.sort(rows)
    ranking = Ranking(rows, scores, every)
    holds = allowed(catalogue, replace(before, excluded=()))
    # Of an item that the question before did not lead to only the model can speak.
    own = [before if holds[row] else Wishes() for row in rows]
    parts = [
        fits.reasons(catalogue, wish, Ranking(rows[[place]], scores[[place]], rows[[place]]), account)[0]
        for place, wish in enumerate(own[: fits.MOST_EXPLAINED])
    ]
    parts += ["it was among what fits"] * (len(rows) - len(parts))
    text = answers.why_text(catalogue, rows.tolist(), parts)
    return Found(wishes, rows.tolist(), _items(catalogue.release, ranking, parts), text, source, ["model"], {})


def _named(release: Release, wishes: Wishes) -> dict[str, list[dict[str, Any]]]:
    named = {"likes": wishes.likes, "dislikes": wishes.dislikes}
    return {
        how: [{"item_id": release.ids[row - 1], "title": release.titles[row - 1]} for row in rows]
        for how, rows in named.items()
        if rows
    }


def _items(release: Release, ranking: Ranking, reasons: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "item_id": release.ids[row - 1],
            "rank": place,
            "score": float(score),
            "title": release.titles[row - 1],
            "reason": reason,
        }
        for place, (row, score, reason) in enumerate(
            zip(ranking.rows.tolist(), ranking.scores.tolist(), reasons, strict=True), start=1
        )
    ]
