"""The file of keys, and who is let in by it, how often, and to what."""

import json
import os
import stat
from pathlib import Path

import pytest

from recops.errors import CallError
from recops.serving import keys
from recops.serving.app import operations
from recops.serving.keys import Bucket, KeyRing, add_key, digest, read_keys, revoke_key
from recops.serving.settings import Settings, read_settings

JSON = {"content-type": "application/json"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """The clock of keys.py, moved by hand."""
    now = [100.0]
    monkeypatch.setattr(keys, "monotonic", lambda: now[0])
    return now


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_only_a_digest_is_at_rest(file: Path) -> None:
    key = add_key(file, "shop", "read", rate=50)
    assert key.startswith("rk_") and len(key) == 3 + 43  # 256 bits in base64
    text = file.read_text()
    assert key not in text and key[3:] not in text and digest(key) in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (found,) = read_keys(file)
    assert (found.name, found.role, found.tenant, found.rate) == ("shop", "read", "main", 50.0)
    assert add_key(file, "other", "admin") != key


def test_names_are_unique_until_revoked(file: Path) -> None:
    add_key(file, "shop", "read")
    with pytest.raises(CallError, match="has a key named shop"):
        add_key(file, "shop", "write")
    with pytest.raises(CallError, match=r"no key named other; there are: shop"):
        revoke_key(file, "other")
    revoke_key(file, "shop")
    assert read_keys(file) == []
    add_key(file, "shop", "write")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "two words"}, "name: "),
        ({"name": "../up"}, "name: "),
        ({"role": "root"}, "role: "),
        ({"tenant": ""}, "tenant: "),
        ({"rate": -1.0}, "rate: "),
        ({"rate": float("nan")}, "rate: "),
    ],
)
def test_what_a_key_cannot_be(file: Path, changes: dict, said: str) -> None:
    with pytest.raises(CallError, match=said):
        add_key(file, **{"name": "shop", "role": "read", **changes})
    assert not file.exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"version": 2, "keys": []}', '{"keys": [{"name": "a"}]}', '{"keys": [], "more": 1}']
)
def test_a_file_that_is_none_of_keys_is_named(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(CallError, match=str(file)):
        read_keys(file)
    with pytest.raises(CallError, match="recops keys add"):
        read_keys(file.with_name("missing"))


def test_a_name_twice_is_refused(file: Path) -> None:
    add_key(file, "shop", "read")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "keys": content["keys"] * 2}))
    with pytest.raises(CallError, match="two keys are named shop"):
        read_keys(file)


def test_the_ring_knows_the_file_a_moment_later(file: Path, clock: list[float]) -> None:
    first = add_key(file, "first", "read")
    ring = KeyRing(file, ["fixed"])
    assert not ring.is_open
    assert ring.caller(f"Bearer {first}".encode()).name == "first"
    second = add_key(file, "second", "write")
    revoke_key(file, "first")
    clock[0] += 0.9
    assert ring.caller(f"Bearer {first}".encode()) is None
    assert ring.caller(f"bearer  {second}".encode()).role == "write"
    assert ring.caller(b"Bearer fixed").role == "admin"
    for wrong in (b"", b"Bearer", b"Bearer ", second.encode(), b"Basic " + second.encode(), b"Bearer \xff"):
        assert ring.caller(wrong) is None
    # Neither the digest nor a part of the key is one.
    assert ring.caller(f"Bearer {digest(second)}".encode()) is None
    assert ring.caller(f"Bearer {second[:-1]}".encode()) is None


@pytest.mark.parametrize("damage", ["gone", "broken", "empty"])
def test_a_lost_file_lets_nobody_in(file: Path, clock: list[float], damage: str) -> None:
    key = add_key(file, "shop", "admin")
    ring = KeyRing(file)
    assert ring.caller(f"Bearer {key}".encode())
    if damage == "gone":
        file.unlink()
    else:
        file.write_text("" if damage == "empty" else '{"keys": 7}')
    clock[0] += 0.9
    assert ring.caller(f"Bearer {key}".encode()) is None and not ring.is_open
    assert not KeyRing(file).is_open


def test_roles_of_keys_of_the_environment() -> None:
    ring = KeyRing(None, ["read:r", "write:w", "admin:a", "plain", "odd:key"])
    found = {key: ring.caller(f"Bearer {key}".encode()) for key in ("r", "w", "a", "plain", "odd:key")}
    assert [key.role for key in found.values()] == ["read", "write", "admin", "admin", "admin"]
    assert ring.caller(b"Bearer read:r") is None
    assert KeyRing(None).is_open


def test_a_bucket_by_hand(clock: list[float]) -> None:
    """Two calls a second: two saved up, then one each half second."""
    bucket = Bucket(2.0)
    assert [bucket.wait_s() for _ in range(3)] == [0, 0, 0.5]
    clock[0] += 0.25
    assert bucket.wait_s() == 0.25
    clock[0] += 0.25
    assert [bucket.wait_s() for _ in range(2)] == [0, 0.5]
    clock[0] += 3600
    assert [bucket.wait_s() for _ in range(3)] == [0, 0, 0.5]  # no more than a second's worth is saved
    slow = Bucket(0.1)
    assert [slow.wait_s() for _ in range(2)] == [0, pytest.approx(10)]


def test_all_workers_together_let_no_more_through_than_the_rate(file: Path, clock: list[float]) -> None:
    key = add_key(file, "shop", "read", rate=8)
    rings = [KeyRing(file, workers=4) for _ in range(4)]
    known = [ring.caller(f"Bearer {key}".encode()) for ring in rings]
    for seconds in range(1, 4):
        passed = sum(ring.wait_s(own) == 0 for ring, own in zip(rings, known, strict=True) for _ in range(50))
        assert passed == 8, seconds
        clock[0] += 1.0


def test_a_key_above_its_rate_is_told_when_to_come_again(serve, file: Path, clock: list[float]) -> None:
    slow, quick = add_key(file, "slow", "read", rate=2), add_key(file, "quick", "read")
    client = serve({"keys_file": file}).client
    answers = [client.get("/release", headers=bearer(slow)) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 429, 429]
    assert (answers[2].headers["retry-after"], answers[2].json()["error"]) == ("1", "overloaded")
    assert client.get("/release", headers=bearer(quick)).status_code == 200
    clock[0] += 0.5
    assert client.get("/release", headers=bearer(slow)).status_code == 200
    # Probes need no key and count against none.
    assert {client.get("/readyz", headers=bearer(slow)).status_code for _ in range(5)} == {200}


def test_the_table_of_roles(serve, file: Path) -> None:
    """Every operation there is: 401 without a key, 403 with one of a lower role or another tenant, else let in."""
    made = {role: add_key(file, role, role) for role in keys.ROLES}
    other = add_key(file, "other", "admin", tenant="other")
    served = serve({"keys_file": file})
    told = []
    for operation in operations():
        path = operation.path.replace("{", "").replace("}", "")

        def status(headers: dict[str, str], method=operation.method, path=path) -> int:
            content = b"{" if method == "POST" else None  # wrong, so that whoever is let in gets 400
            answer = served.client.request(method, path, content=content, headers={**JSON, **headers})
            assert answer.status_code < 500, answer.text
            assert "main" not in answer.text or answer.status_code not in (401, 403)
            return answer.status_code

        if operation.is_probe:
            assert status({}) == 200
            continue
        told.append((operation.method, operation.path))
        assert status({}) == status(bearer("rk_wrong")) == 401
        assert status(bearer(other)) == 403
        for role in keys.ROLES:
            is_let_in = keys.ROLES.index(role) >= keys.ROLES.index(operation.role)
            assert (status(bearer(made[role])) in (200, 400, 404)) == is_let_in, (operation.path, role)
            assert is_let_in or status(bearer(made[role])) == 403
    assert ("POST", "/items") in told and len(told) >= 10


def test_what_changes_something_needs_more_than_read() -> None:
    needed = {(o.method, o.path): o.role for o in operations() if not o.is_probe}
    assert needed[("POST", "/items")] == "write"
    reads = {"/recommend", "/recommend/batch", "/score", "/similar", "/ask"}
    for (method, path), role in needed.items():
        assert role != "read" or method == "GET" or path in reads, path
        assert role == "admin" or not path.startswith("/admin")


def test_the_description_says_which_role(served) -> None:
    paths = served.client.get("/openapi.json").json()["paths"]
    assert paths["/items"]["post"]["x-role"] == "write" and paths["/recommend"]["post"]["x-role"] == "read"
    assert "403" in paths["/items"]["post"]["responses"] and "403" not in paths["/livez"]["get"]["responses"]


def test_no_other_tenant_is_let_in(serve, file: Path) -> None:
    key = add_key(file, "shop", "admin", tenant="b")
    mine = add_key(file, "mine", "read", tenant="a")
    served = serve({"keys_file": file, "tenant": "a"})
    answer = served.client.post("/recommend", json={"user_id": "u1"}, headers=bearer(key))
    assert (answer.status_code, answer.json()["message"]) == (403, "this key is of another tenant")
    assert not any(item_id in answer.text for item_id in ('"a"', '"b"', "u1"))
    assert served.client.post("/recommend", json={"user_id": "u1"}, headers=bearer(mine)).status_code == 200


def test_settings_show_no_secret(file: Path) -> None:
    text = repr(Settings(keys=("hidden-key",), ask_key="hidden-too", keys_file=file))
    assert "hidden" not in text and str(file) in text


def test_a_file_is_replaced_as_a_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader, or a full disk, sees the old keys or the new ones."""
    key = add_key(file, "shop", "read")

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        add_key(file, "other", "read")
    monkeypatch.undo()
    assert [known.name for known in read_keys(file)] == ["shop"]
    assert KeyRing(file).caller(f"Bearer {key}".encode())


@pytest.mark.parametrize("text", ["read:", "shop,admin: ", "write: ,read:b"])
def test_nothing_is_no_key(text: str) -> None:
    """As of a variable that is put together of another one, which is not set."""
    with pytest.raises(CallError, match=r"RECOPS_API_KEYS: key \d: nothing after the role (read|admin|write)"):
        read_settings({"RECOPS_API_KEYS": text})


def test_spaces_are_no_part_of_a_key() -> None:
    ring = KeyRing(None, read_settings({"RECOPS_API_KEYS": " read: abc , def "}).keys)
    found = [ring.caller(b"Bearer " + key) for key in (b"abc", b"def", b"")]
    assert [key and key.role for key in found] == ["read", "admin", None]
