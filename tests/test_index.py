"""Indexes of item vectors against exact search."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recops import index as ann
from recops.index import Effort, build_index, efforts, exact, read_index, share_read, shares_found

pytest.importorskip("faiss", reason="the extra ann is not installed: no faiss")
NUM_ITEMS, WIDTH = 3000, 8


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Float32 [N+1, D] around thirty centres."""
    rng = np.random.default_rng(0)
    found = rng.standard_normal((30, WIDTH))[rng.integers(0, 30, NUM_ITEMS + 1)]
    found = (found + rng.standard_normal(found.shape) / 4).astype(np.float32)
    found[0] = 0
    return found


@pytest.fixture(scope="module")
def users() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((60, WIDTH)).astype(np.float32)


def test_exact_lists_are_the_largest_products() -> None:
    vectors = np.array([[9, 9], [1, 0], [0, 1], [2, 2]], np.float32)
    assert exact(vectors, np.array([[1, 0], [0, 1]], np.float32), 2).tolist() == [[3, 1], [3, 2]]
    assert exact(vectors, np.zeros((0, 2), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("kind", ann.KINDS)
def test_more_effort_finds_more_and_rows_are_those_of_the_vectors(
    kind: str, vectors: np.ndarray, users: np.ndarray
) -> None:
    built = build_index(kind, vectors)
    found_exactly = exact(vectors, users)
    reached = [
        shares_found(built.trying(effort), vectors, users, found_exactly).mean() for effort in efforts(kind, NUM_ITEMS)
    ]
    assert reached[-1] > 0.9 and reached[-1] >= reached[0]
    # A product with itself is the largest there is among vectors of one length.
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    itself = build_index(kind, unit).trying(list(efforts(kind, NUM_ITEMS))[-1])
    assert all(row in itself.candidates(unit[row], 10) for row in (1, 1500, NUM_ITEMS))


def test_what_is_found_is_the_share_of_the_exact_list_that_is_found() -> None:
    """Of six items on a line the search looks at one list of two: the best three are never all there."""
    vectors = np.array([[0], [1], [2], [3], [4], [5], [6]], np.float32)

    class Two:
        def candidates(self, user_D: np.ndarray, k: int) -> np.ndarray:
            return np.array([6, 1])

    found = shares_found(Two(), vectors, np.ones((1, 1), np.float32), np.array([[6, 5, 4]]))
    assert found == pytest.approx([1 / 3])


@pytest.mark.parametrize("kind", ann.KINDS)
def test_a_file_finds_the_same_and_is_the_same_bytes_for_the_same_vectors(
    kind: str, vectors: np.ndarray, users: np.ndarray, tmp_path: Path
) -> None:
    digests = set()
    for name in ("a", "b"):
        built = build_index(kind, vectors).trying(Effort(4, 4))
        built.write(tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    read = read_index(tmp_path / "a", built.settings())
    assert read.num_items == NUM_ITEMS and read.settings() == built.settings()
    for user in users[:5]:
        assert read.candidates(user, 10).tolist() == built.candidates(user, 10).tolist()


def test_candidates_have_spares_and_end_with_the_catalogue(vectors: np.ndarray, users: np.ndarray) -> None:
    built = build_index("scan", vectors).trying(Effort(over=4))
    assert len(built.candidates(users[0], 10, spare=7)) == 47
    assert sorted(built.candidates(users[0], NUM_ITEMS)) == list(range(1, NUM_ITEMS + 1))


def test_what_is_read_of_an_index_by_hand(vectors: np.ndarray) -> None:
    """64 lists; an exact scan reads 3000 x 32 bytes."""
    by_lists = build_index("ivf", vectors).trying(Effort(8, 4))
    assert share_read(by_lists, WIDTH) == pytest.approx((64 * 32 + 3000 / 8 * 8 + 200 * 32) / 96_000)
    by_codes = build_index("scan", vectors).trying(Effort(0, 10))
    assert share_read(by_codes, WIDTH) == pytest.approx((3000 * 4 + 500 * 32) / 96_000)


def test_the_index_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from recops.index import build_index\n"
        "build_index('ivf', np.ones((400, 4), np.float32)).candidates(np.ones(4, np.float32), 3)\n"
        "print([name for name in ('torch', 'pandas', 'polars', 'pyarrow', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
