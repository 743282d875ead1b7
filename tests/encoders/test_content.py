"""Encoded content is read as it was written, and anything that does not fit is told; vectors are kept by content."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from recops.encoders.content import read_content
from recops.encoders.content.cache import VectorCache
from recops.encoders.content.item_encoder import normalised
from recops.errors import CallError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "items.json").write_text('["b", "a"]')
    (tmp_path / "encoders.json").write_text(json.dumps({"encoders": [{"name": "text", "dim": 3}]}))
    np.save(tmp_path / "text.npy", np.arange(6, dtype=np.float16).reshape(2, 3))
    return tmp_path


def test_vectors_are_mapped_by_encoder(folder: Path) -> None:
    content = read_content(folder)
    assert content.item_ids == ["b", "a"]
    assert content.row_of == {"b": 0, "a": 1}
    assert isinstance(content.vectors["text"], np.memmap)
    assert content.vectors["text"][1].tolist() == [3, 4, 5]
    assert content.encoders == [{"name": "text", "dim": 3}]


def test_no_encoders_no_vectors(folder: Path) -> None:
    (folder / "encoders.json").write_text('{"encoders": []}')
    assert read_content(folder).vectors == {}


@pytest.mark.parametrize("name", ["items.json", "encoders.json", "text.npy"])
def test_a_file_that_is_missing_or_cut_is_told(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(CallError, match="run: recops encode"):
        read_content(folder)
    (folder / name).unlink()
    with pytest.raises(CallError, match="run: recops encode"):
        read_content(folder)


@pytest.mark.parametrize("matrix", [np.zeros((3, 3), np.float16), np.zeros((2, 3), np.float32)])
def test_a_matrix_that_does_not_fit_is_told(folder: Path, matrix: np.ndarray) -> None:
    np.save(folder / "text.npy", matrix)
    with pytest.raises(CallError, match=r"text\.npy: float\d\d \(\d, 3\) where float16 \(2, 3\) is needed"):
        read_content(folder)


def test_vectors_are_kept_by_encoder_and_key(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "cache" / "vectors.sqlite") as cache:
        assert cache.get("one", [b"a"]) == {}
        cache.put("one", {b"a": np.array([1, 2], np.float16), b"b": np.array([3, 4], np.float16)})
        cache.put("two", {b"a": np.array([5], np.float16)})
    with VectorCache(tmp_path / "cache" / "vectors.sqlite") as cache:
        found = cache.get("one", [b"a", b"c", b"a"])
        assert {key: vector.tolist() for key, vector in found.items()} == {b"a": [1, 2]}
        assert cache.drop_unused("one") == 1
        assert cache.get("one", [b"b"]) == {}
        assert list(cache.get("two", [b"a"])) == [b"a"]


def test_a_cache_that_is_no_database_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with VectorCache(path) as cache:
        cache.put("one", {b"a": np.array([1], np.float16)})
        assert list(cache.get("one", [b"a"])) == [b"a"]


def test_a_cache_that_is_damaged_inside_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    keys = [bytes([i]) * 32 for i in range(100)]
    with VectorCache(path) as cache:
        cache.put("one", {key: np.ones(384, np.float16) for key in keys})
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"?" * (len(whole) - 4096))  # the schema can still be read
    with VectorCache(path) as cache:
        assert cache.get("one", keys) == {}
        cache.put("one", {keys[0]: np.ones(384, np.float16)})
        assert cache.drop_unused("one") == 0
        assert list(cache.get("one", keys)) == [keys[0]]


def test_a_cache_that_another_holds_is_not_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, connect = tmp_path / "vectors.sqlite", sqlite3.connect
    with VectorCache(path) as cache:
        cache.put("one", {b"a": np.array([1], np.float16)})
    other = connect(path)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0))
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        VectorCache(path)
    other.close()
    with VectorCache(path) as cache:
        assert list(cache.get("one", [b"a"])) == [b"a"]


def test_rows_of_length_1_and_no_nan() -> None:
    rows = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    np.testing.assert_allclose(normalised(rows), [[0.6, 0.8], [0, 0], [0, 0], [0, 0]], atol=1e-7)
