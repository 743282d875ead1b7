"""The whole account of one item for one user: where it stands and why, to the last part of its score.

In: a Release, a parsed request (whose filters and exclusions count), the stored history of its user, an item id, the
rules of the service. Out: a plain dict. Made from the scores that a list is made from, by the same code.
"""

from typing import Any

import numpy as np

from recops.attribution import Account
from recops.errors import CallError
from recops.runtime import Scorer
from recops.serving.listing import listed, moved
from recops.serving.reasons import Reasons
from recops.serving.release import Release
from recops.serving.requests import Recommend, Similar
from recops.serving.retrieval import Stored, occasion_of, person, similar
from recops.serving.ruleset import NO_RULES, Rules

NUM_NEAREST = 5


def explain(
    release: Release,
    request: Recommend,
    stored: Stored | None,
    item_id: str,
    rules: Rules = NO_RULES,
    request_id: str | None = None,
) -> dict[str, Any]:
    """Entries of the account:

    `rank` among what may be shown (None for an item that may not), `rank_before_rules` among all; `score`;
    `removed_by`: `seen`, `disliked`, or the fields of rules that take the item away; `moved`: the rules that gave it
    another rank, in their order, with its rank `from` before and `to` after each; chance is left out without the
    `request_id` of an answer. `source` as a list has it.
    `parts`: for each model its name, its `raw` score, the same `calibrated`, its `weight` and what that `adds` (all but
    the name None where it cannot say), `by_content` the raw score that its content alone gives the item, and the
    `content_share` of the score (1: a model of content, or an item never trained on; 0: content had no part in it;
    None: both were learnt as one). `content_share` of what the parts add in the item's favour; `reranker`: what it
    adds, None where there is none. Empty, with None, where the fallback answers.
    `history`: the items that were left out, strongest first: what the score `loses` without each, and its `share` of
    what speaks for the item. `reasons` as a list has them; `nearest` items, and by what they are near (`nearest_by`).
    Raises CallError for an item that the release does not know.
    """
    row = release.row_of.get(item_id)
    if row is None:
        raise CallError(
            f"item {item_id!r}: not in the catalogue of the served release ({release.bundle.num_items} items)"
        )
    someone = person(release, request, stored)
    account = Account(release.bundle.scorer, someone.asked)
    occasion = occasion_of(release, someone, stored)
    masks = rules.hidden(request, occasion)
    removed_by = [name for name, rows in masks.items() if (rows[row] if rows.dtype == bool else row in rows)]
    shown = account.scores.copy()
    for mask in masks.values():
        shown[mask] = -np.inf
    reasons = Reasons(release, account, np.array([row]))
    movers = rules.moving(request)
    alike = similar(release, Similar.model_construct(item_id=item_id, k=NUM_NEAREST), rules)
    assert alike is not None
    return {
        "item_id": item_id,
        "title": release.titles[row - 1],
        "release": release.id,
        "source": someone.source,
        "rank": None if removed_by else listed(shown, request.k, movers, occasion, request_id).rank(row),
        "rank_before_rules": _rank(account.scores, row),
        "num_shown": int(np.isfinite(shown).sum()),
        "score": _shown(release, account.scores[row]),
        "removed_by": removed_by,
        "moved": [] if removed_by else moved(shown, request.k, movers, occasion, request_id, [row])[0],
        "parts": (parts := _parts(release, account, row) if account.is_answered else []),
        "content_share": _content_share(parts),
        "reranker": _added(account, row),
        "history": _history(release, reasons),
        "history_length": len(account.history),
        "reasons": reasons.of(0),
        "nearest": alike["items"],
        "nearest_by": alike["source"],
    }


def _shown(release: Release, score: np.float32) -> float:
    """As a list shows it."""
    ratings = release.bundle.scorer.ratings
    return float(score if ratings is None else ratings.clipped(np.array([score]))[0])


def _rank(scores: np.ndarray, row: int) -> int:
    """From 1; of equal scores the lower row stands first."""
    return int((scores > scores[row]).sum() + (scores[:row] == scores[row]).sum()) + 1


def _parts(release: Release, account: Account, row: int) -> list[dict[str, Any]]:
    manifest = release.bundle.manifest
    names = [part["name"] for part in manifest["scoring"].get("members", [{"name": manifest["model"]}])]
    found = []
    for m, name in enumerate(names):
        raw, calibrated = float(account.said[m, row]), float(account.calibrated[m, row])
        weight = float(account.weights[m, row])
        if np.isnan(raw):
            part = dict.fromkeys(("raw", "calibrated", "weight", "adds", "by_content", "content_share"))
        else:
            part = {"raw": raw, "calibrated": calibrated, "weight": weight, "adds": weight * calibrated}
            part |= _by_content(release, account, account.scorer.parts[m], name, row, raw)
        found.append({"model": name, **part})
    return found


def _by_content(
    release: Release, account: Account, part: Scorer, name: str, row: int, raw: float
) -> dict[str, float | None]:
    """`by_content` and `content_share` of one model."""
    if part.nearness is not None:
        return {"by_content": raw, "content_share": 1.0}
    if part.project is None or part.item_vectors is None:
        return {"by_content": None, "content_share": 0.0}
    content = np.concatenate([release.bundle.content[encoder][[row]] for encoder in part.content], axis=1)
    users = part.user_vectors(account.asked)
    assert users is not None, "a model with a projection has vectors of users"
    by_content = None
    if content.any():
        made, own = part.project(content.astype(np.float32))[0], part.item_vectors[row]
        by_content = float(made @ users[0])
        # Scores may be alike by chance, above all small ones.
        if np.linalg.norm(made - own) <= 1e-3 * np.linalg.norm(own):
            return {"by_content": by_content, "content_share": 1.0}
    settings = release.bundle.manifest["params"].get("train", {}).get("models", {}).get(name, {})
    return {"by_content": by_content, "content_share": None if settings.get("content_fit") == "joint" else 0.0}


def _content_share(parts: list[dict[str, Any]]) -> float | None:
    """None where a part cannot tell, or nothing speaks for the item."""
    speaking = [part for part in parts if part["adds"] is not None and part["adds"] > 0]
    if not speaking or any(part["content_share"] is None for part in speaking):
        return None
    return sum(part["adds"] * part["content_share"] for part in speaking) / sum(part["adds"] for part in speaking)


def _added(account: Account, row: int) -> float | None:
    if account.scorer.reranker is None or not account.is_answered:
        return None
    return float(account.scores[row] - account.stage_one[row])


def _history(release: Release, reasons: Reasons) -> list[dict[str, Any]]:
    losses, shares = reasons.losses_HR[:, 0], reasons.shares_HR[:, 0]
    return [
        {
            "item_id": release.ids[reasons.items[h] - 1],
            "title": release.titles[reasons.items[h] - 1],
            "loses": float(losses[h]),
            "share": float(shares[h]),
        }
        for h in np.argsort(-losses, kind="stable")
    ]
