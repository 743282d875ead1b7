"""Whether an index is released: the least effort that finds enough, said in the manifest, else the scan and why."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recops import bundle
from recops import index as ann
from recops.bundle import load_bundle
from recops.errors import BundleError, CallError
from recops.protocols import ServingParts
from recops.release.export import export_bundle
from recops.release.index_choice import Wanted, choose_index
from tests.release.small_bundles import facts, items

NUM_ITEMS, NUM_USERS, WIDTH = 2000, 300, 8
needs_faiss = pytest.mark.skipif(not ann.is_available(), reason="the extra ann is not installed: no faiss")


@pytest.fixture(scope="module")
def parts() -> ServingParts:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, WIDTH))
    vectors, users = (
        (centres[rng.integers(0, 20, num + 1)] + rng.standard_normal((num + 1, WIDTH)) / 4).astype(np.float32)
        for num in (NUM_ITEMS, NUM_USERS)
    )
    vectors[0] = users[0] = 0
    return ServingParts(item_vectors=vectors, user_table=users)


@pytest.fixture
def wanted(parts: ServingParts) -> Wanted:
    assert parts.user_table is not None
    return Wanted("auto", 1000, 0.98, parts.user_table[1::2], parts.user_table[2::2])


@needs_faiss
def test_the_least_effort_that_finds_enough_is_taken(parts: ServingParts, wanted: Wanted) -> None:
    wanted = replace(wanted, kind="ivf", min_recall=0.9)
    index, entry = choose_index(parts, wanted)
    assert index is not None and entry["kind"] == "ivf"
    assert {"depth": entry["depth"], "over": entry["over"]} == vars(index.effort)
    vectors = parts.item_vectors
    assert vectors is not None
    exact, reached = ann.exact(vectors, wanted.chosen_by), {}
    for effort in ann.efforts("ivf", NUM_ITEMS):
        shares = ann.shares_found(index.trying(effort), vectors, wanted.chosen_by, exact)
        reached[effort] = shares.mean() - 2 * shares.std() / len(shares) ** 0.5
    assert index.effort == next(effort for effort, found in reached.items() if found >= 0.9)
    of_others = ann.shares_found(
        index.trying(index.effort), vectors, wanted.stated_on, ann.exact(vectors, wanted.stated_on)
    )
    of_others = of_others.mean()
    assert entry["recall@50"] == round(of_others, 4) and entry["num_users"] == len(wanted.stated_on)


@needs_faiss
def test_what_finds_too_little_is_not_released(parts: ServingParts, wanted: Wanted) -> None:
    assert parts.item_vectors is not None
    noise = np.random.default_rng(1).standard_normal((NUM_ITEMS + 1, 64)).astype(np.float32)
    users = np.random.default_rng(2).standard_normal((200, 64)).astype(np.float32)
    hard = replace(wanted, kind="ivf", min_recall=0.999, chosen_by=users, stated_on=users)
    index, entry = choose_index(ServingParts(item_vectors=noise), hard)
    assert index is None and entry["kind"] == "exact" and "recall@50 below 0.999: ivf 0." in entry["why"]


def test_where_none_is_of_use_the_manifest_says_why(
    parts: ServingParts, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = replace(parts, item_scores=np.zeros(NUM_ITEMS + 1, np.float32))
    cases = [
        (parts, replace(wanted, kind="none"), "export.index is none"),
        (parts, replace(wanted, exact_up_to=NUM_ITEMS), "no more than 2000 items"),
        (linked, wanted, "more than one product"),
    ]
    if ann.is_available():
        cases.append((parts, replace(wanted, chosen_by=wanted.chosen_by[:5]), "only 5 users"))
    for some, how, why in cases:
        index, entry = choose_index(some, how)
        assert index is None and entry["kind"] == "exact" and why in entry["why"]
    monkeypatch.setattr(ann, "is_available", lambda: False)
    assert "faiss is not installed" in choose_index(parts, wanted)[1]["why"]
    with pytest.raises(CallError, match=r"export\.index: ivf needs faiss"):
        choose_index(parts, replace(wanted, kind="ivf"))


def export(parts: ServingParts, wanted: Wanted, out: Path) -> str:
    return export_bundle(
        parts,
        out,
        items=items(*(f"i{row:04d}" for row in range(NUM_ITEMS))),
        users=[f"u{row}" for row in range(NUM_USERS)],
        fallback=np.arange(NUM_ITEMS + 1, dtype=np.float32),
        profile={},
        facts=facts(),
        opset=20,
        max_links=1,
        index=wanted,
    )


@needs_faiss
def test_the_bundle_holds_it_under_its_hash_and_is_the_same_bytes_again(
    parts: ServingParts, wanted: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(parts, wanted, tmp_path / "a") == export(parts, wanted, tmp_path / "b")
    found = load_bundle(tmp_path / "a")
    assert found.index is not None and found.index.settings().items() <= found.manifest["index"].items()
    assert bundle.INDEX in found.manifest["files"]
    monkeypatch.setattr(bundle, "is_available", lambda: False)
    assert load_bundle(tmp_path / "a").index is None
    monkeypatch.undo()
    (tmp_path / "a" / bundle.INDEX).write_bytes(b"another")
    with pytest.raises(BundleError, match="altered or cut short"):
        load_bundle(tmp_path / "a")


@needs_faiss
def test_an_index_of_other_items_is_refused(parts: ServingParts, wanted: Wanted, tmp_path: Path) -> None:
    export(parts, wanted, tmp_path / "a")
    assert parts.item_vectors is not None
    ann.build_index("ivf", parts.item_vectors[:-1]).write(tmp_path / "a" / bundle.INDEX)
    manifest = bundle.read_manifest(tmp_path / "a")
    bundle.write_manifest(tmp_path / "a", {k: v for k, v in manifest.items() if k not in ("files", "format_version")})
    with pytest.raises(BundleError, match="1999 items, which are not those of the model"):
        load_bundle(tmp_path / "a")
