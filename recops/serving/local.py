"""One answer of the promoted release without a server: the same code as the service, in the caller's process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recops.bundle import read_pointer, release_folder
from recops.errors import CallError, RefusedError
from recops.serving.assistant.asking import ask, told
from recops.serving.assistant.language_model import LanguageModel
from recops.serving.erased import ErasedUsers
from recops.serving.explaining import explain
from recops.serving.loading import load_release
from recops.serving.online_items import OnlineItems
from recops.serving.operation import json_bytes
from recops.serving.problems import Problem
from recops.serving.release import Release
from recops.serving.requests import Ask, Recommend, parse
from recops.serving.retrieval import Stored, recommend
from recops.serving.ruleset import NO_RULES, Rules
from recops.serving.state import stored_of
from recops.store import Store, open_store


def recommend_once(
    releases: Path,
    store_url: str,
    user_id: str | None,
    history: list[str],
    k: int,
    explained: bool = False,
    source: Path | None = None,
    rules: Rules = NO_RULES,
    request_id: str | None = None,
) -> dict[str, Any]:
    """`items`, `source` and `release`, as POST /recommend gives them; nothing is logged. The folder `source` holds the
    files that items name. Chance is at work only as in the answer `request_id`.

    Raises RefusedError before the first promotion and BundleError for a release that does not load.
    """
    with _opened(releases, store_url, source, user_id) as (release, stored):
        request = Recommend.model_construct(user_id=user_id, history=history, k=k, explain=explained)
        found = recommend(release, request, stored, rules, request_id)
        return {"items": found["items"], "source": found["source"], "release": release.id}


def explain_once(
    releases: Path,
    store_url: str,
    user_id: str | None,
    history: list[str] | None,
    item_id: str,
    exclude: list[str],
    filters: str | None,
    source: Path | None = None,
    rules: Rules = NO_RULES,
    k: int = 10,
    request_id: str | None = None,
) -> dict[str, Any]:
    """`serving.explaining.explain` of the promoted release; `filters` are the JSON of POST /recommend,
    `k` the length of the list that orderings fill.

    Raises CallError for wrong filters, an item that is not known, or a user without a history, and as `recommend_once`.
    """
    asked: dict[str, Any] = {"user_id": user_id, "history": history, "exclude": exclude, "k": k}
    try:
        asked["filters"] = None if filters is None else json.loads(filters)
        request = parse(Recommend, json_bytes(asked))
    except Problem as problem:
        raise CallError(f"{problem.field}: {problem.message}") from None
    except ValueError as error:
        raise CallError(f"--filters: not JSON: {error}") from None
    with _opened(releases, store_url, source, user_id) as (release, stored):
        if unknown := [item for item in history or [] if item not in release.row_of]:
            raise CallError(f"--history: {unknown[0]!r} is not in the catalogue of the served release")
        if user_id is not None and stored is None and not history and not release.user_row(user_id):
            raise CallError(f"user {user_id!r}: not known to the served release; --history names items instead")
        return explain(release, request, stored, item_id, rules, request_id)


def ask_once(
    releases: Path,
    store_url: str,
    question: str,
    user_id: str | None,
    history: list[str] | None,
    k: int,
    model: LanguageModel | None = None,
    source: Path | None = None,
    rules: Rules = NO_RULES,
) -> dict[str, Any]:
    """`answer`, `items`, `understood` and `release`, as POST /ask gives them; nothing is logged.

    Raises CallError for a question that says nothing or is too long, and as `recommend_once`.
    """
    try:
        request = parse(Ask, json_bytes({"question": question, "user_id": user_id, "history": history, "k": k}))
    except Problem as problem:
        raise CallError(f"{problem.field}: {problem.message}") from None
    with _opened(releases, store_url, source, user_id) as (release, stored):
        return {**told(ask(release, request, stored, model, rules=rules)), "release": release.id}


@contextmanager
def _opened(
    releases: Path, store_url: str, source: Path | None, user_id: str | None
) -> Iterator[tuple[Release, Stored | None]]:
    """The promoted release, and what the store holds of a user."""
    pointer = read_pointer(releases)
    if pointer is None:
        raise RefusedError(f"{releases}: no release has been promoted yet; `recops run` or `recops promote` does it")
    store = open_store(store_url)
    try:
        release, _ = as_served(releases, pointer.release, store, source)
        stored = None if user_id is None else stored_of(store, release, [user_id])[0]
    finally:
        store.close()
    yield release, stored


def as_served(releases: Path, release: str, store: Store, source: Path | None) -> tuple[Release, int]:
    """A release with what was told of items, and the last change of these; erased users are nobody to it. Raises
    BundleError for one that does not load."""
    return bundle_as_served(release_folder(releases, release), release, store, source)


def bundle_as_served(folder: Path, release: str, store: Store, source: Path | None) -> tuple[Release, int]:
    """`as_served` of a bundle wherever it lies."""
    erased = ErasedUsers()
    loaded = load_release(folder, release, source=source, erased=erased)
    erased.refresh(store)
    items = OnlineItems(store)
    items.refresh()
    return items.applied(loaded), items.change
