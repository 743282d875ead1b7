"""A release whose scores are ratings, asked over HTTP: within the scale, and null for what is unknown."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recops.bundle import load_bundle
from recops.errors import BundleError
from recops.protocols import ServingParts
from recops.release.export import export_bundle
from recops.runtime import RatingScale
from recops.serving.settings import Settings
from recops.serving.state import State
from tests.release.small_bundles import facts, items
from tests.serving.conftest import Served


def write(
    folder: Path,
    user_means: tuple[float, ...] = (3.0, 4.0),
    users: tuple[str, ...] = ("ann",),
    user_table: tuple = ([0], [1]),
    item_vectors: tuple = ([0], [6], [7], [2]),
) -> None:
    """ann gives a 6, b 7 and c 2, which a scale from 1 to 5 makes 5, 5 and 2; somebody else gives them 3, 2 and 9."""
    export_bundle(
        ServingParts(user_table=np.array(user_table, np.float32), item_vectors=np.array(item_vectors, np.float32)),
        folder,
        items=items("a", "b", "c"),
        users=users,
        fallback=np.array([0, 3, 2, 9], np.float32),
        ratings=RatingScale(1, 5, np.array(user_means, np.float32)),
        profile={},
        facts=facts(model="rating_means", remove_seen=False),
        opset=20,
        max_links=1,
    )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    write(tmp_path / "bundle")
    yield from started(tmp_path / "bundle")


def started(folder: Path) -> Iterator[Served]:
    state = State(Settings(bundle=folder))
    state.poll()
    state.start()
    assert state.release is not None, state.reason
    yield Served(state)
    state.close()


def scores(service: Served, **body: object) -> list[float | None]:
    return [entry["score"] for entry in service.post("/score", **body)["scores"]]


def test_scores_are_ratings_and_null_for_an_item_that_the_catalogue_does_not_know(service: Served) -> None:
    assert scores(service, user_id="ann", item_ids=["a", "c", "new", "b"]) == [5, 2, None, 5]
    assert scores(service, user_id="nobody", item_ids=["a", "c", "new"]) == [3, 5, None]
    assert scores(service, history=["a"], item_ids=["b", "new"]) == [2, None]


def test_lists_are_in_the_order_of_what_is_predicted_and_show_ratings(service: Served) -> None:
    """b above a, though both are shown as 5."""
    found = service.post("/recommend", user_id="ann", k=3)["items"]
    assert [(item["item_id"], item["score"]) for item in found] == [("b", 5), ("a", 5), ("c", 2)]
    assert service.ids(user_id="nobody", k=2) == ["c", "a"]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Served]:
    """ann gives a 6, b 7 and c 2; the mean of ann and bob 4.5, 7 and 1, so that a, and less so c, are ann's own."""
    vectors = ([0, 0], [6, 3], [7, 7], [2, 0])
    write(tmp_path / "bundle", (3.0, 4.0, 4.0), ("ann", "bob"), ([0, 0], [1, 0], [0, 1]), vectors)
    yield from started(tmp_path / "bundle")


def test_reasons_are_the_taste_that_was_learnt_and_never_the_history(two: Served) -> None:
    found = two.post("/recommend", user_id="ann", k=2, explain=True)["items"]
    assert [item["item_id"] for item in found] == ["b", "a"]
    assert found[0]["reasons"] == [{"type": "popular", "text": "Many rate it well"}]  # as much to all
    assert found[1]["reasons"] == [{"type": "taste", "text": "It fits the taste that was learnt of you"}]
    beside_c = two.post("/recommend", user_id="ann", history=["c"], k=2, explain=True)["items"][1]
    text = "It fits the taste that was learnt of you; near it in your history is c"
    near = {"item_id": "c", "title": None, "similarity": pytest.approx(2 / 5**0.5)}
    assert beside_c["reasons"] == [{"type": "taste", **near, "text": text}]


def test_somebody_else_gets_what_many_rate_well(service: Served) -> None:
    """Of 3, 2 and 9 only the last is above the mean."""
    found = service.post("/recommend", user_id="nobody", k=2, explain=True)["items"]
    assert [item["reasons"] for item in found] == [[{"type": "popular", "text": "Many rate it well"}], []]


def test_means_that_are_not_of_the_users_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "bundle", user_means=(3.0, 4.0, 5.0))
    with pytest.raises(BundleError, match=r"user_means.npy: 3 rows where 2 are needed"):
        load_bundle(tmp_path / "bundle")
