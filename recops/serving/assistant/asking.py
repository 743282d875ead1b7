"""One question answered: understand, retrieve, rank, put into words.

In: a Release, a parsed request, the stored history of its user. Out: a plain dict. Every item of an answer is in the
catalogue and holds every hard constraint: the list is made before any language model is asked, which only phrases it.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recops.attribution import Account
from recops.serving.assistant import answers, fits
from recops.serving.assistant.catalogue import Catalogue, catalogue_of
from recops.serving.assistant.ranking import Ranking, allowed, rank
from recops.serving.assistant.understanding import understand
from recops.serving.assistant.wishes import Wishes
from recops.serving.release import Release
from recops.serving.requests import Ask, Recommend
from recops.serving.retrieval import Stored, hidden, person


@dataclass(frozen=True)
class Found:
    """An answer before it is put into words by anyone but the template (`text`)."""

    wishes: Wishes
    rows: list[int]
    items: list[dict[str, Any]]
    text: str
    source: str
    retrieved_by: list[str]


def told(found: Found) -> dict[str, Any]:
    """What is said to the asker."""
    return {
        "answer": found.text,
        "items": found.items,
        "understood": found.wishes.told(),
        "retrieved_by": found.retrieved_by,
        "phrased_by": "template",
        "source": found.source,
    }


def ask(release: Release, request: Ask, stored: Stored | None, now_us: int | None = None) -> Found:
    """`now_us`: what 'this week' is counted from; None: now."""
    catalogue = catalogue_of(release)
    with catalogue.lock:
        catalogue.use(release)
        return _answered(catalogue, request, stored, fits.today_us() if now_us is None else now_us)


def _answered(catalogue: Catalogue, request: Ask, stored: Stored | None, now_us: int) -> Found:
    release = catalogue.release
    known = release.row_of
    conversation = [
        (turn.question, [known[item_id] for item_id in turn.items if item_id in known])
        for turn in request.conversation or ()
    ]
    wishes = understand(request.question, catalogue, now_us, conversation)
    history = request.history if request.history is not None else []
    someone = person(release, request.model_copy(update={"history": history}), stored)
    account = Account(release.bundle.scorer, someone.asked)
    if wishes.why is not None:
        return _why(catalogue, wishes, conversation, account, someone.source, now_us)
    mask = allowed(catalogue, wishes)
    as_list = Recommend.model_construct(user_id=request.user_id, history=history, k=request.k)
    for is_hidden in hidden(release, as_list, someone, stored).values():
        mask &= ~is_hidden
    ranking = rank(catalogue, wishes, mask, account.scores, request.k)
    reasons = fits.reasons(catalogue, wishes, ranking, account)
    text = answers.found_text(catalogue, wishes, ranking.rows.tolist())
    return Found(
        wishes,
        ranking.rows.tolist(),
        _items(release, ranking, reasons),
        text,
        someone.source,
        ranking.retrieved_by,
    )


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
    return Found(wishes, rows.tolist(), _items(catalogue.release, ranking, parts), text, source, ["model"])


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
