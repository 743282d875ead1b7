"""One answer of the promoted release without a server: the same code as the service, in the caller's process."""

from pathlib import Path
from typing import Any

from recops.bundle import read_pointer, release_folder
from recops.errors import RefusedError
from recops.serving.requests import Recommend
from recops.serving.retrieval import recommend
from recops.serving.state import load_release, stored_history
from recops.store import open_store


def recommend_once(releases: Path, store_url: str, user_id: str | None, history: list[str], k: int) -> dict[str, Any]:
    """`items`, `source` and `release`, as POST /recommend gives them; nothing is logged.

    Raises RefusedError before the first promotion and BundleError for a release that does not load.
    """
    pointer = read_pointer(releases)
    if pointer is None:
        raise RefusedError(f"{releases}: no release has been promoted yet; `recops run` or `recops promote` does it")
    release = load_release(release_folder(releases, pointer.release), pointer.release)
    store = open_store(store_url)
    try:
        stored = None if user_id is None else stored_history(store, release, user_id)
    finally:
        store.close()
    request = Recommend.model_construct(user_id=user_id, history=history, k=k)
    return {**recommend(release, request, stored), "release": release.id}
