"""Who may call the service: a file of hashed keys, and the ring that each worker reads it into.

In: the file (`recops keys` writes it) and keys of the environment. Out: `KeyRing.caller` for the header of a call. The
file holds only SHA-256 digests: a key has 256 random bits, so that nobody can guess it from a digest, however quick the
digest is to make; a slow one is for passwords, and would cost every call. Knows nothing about HTTP but that header.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recops.bundle import canonical_json, write_atomically
from recops.errors import CallError

logger = logging.getLogger("recops.serving")

Role = Literal["read", "write", "admin"]
ROLES: tuple[Role, ...] = ("read", "write", "admin")  # each may do what those before it may
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # of a key, or of a tenant
PREFIX = "rk_"  # so that a key is known for one where it was left lying about
LOOK_S = 0.2  # how old what a worker knows of the file may be


class Key(BaseModel):
    """One key as the file holds it. `rate`: calls a second of all workers together, 0: any number."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    role: Role
    tenant: Annotated[str, Field(pattern=f"^{NAME}$")] = "main"
    rate: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created_at: str


class KeysFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: Literal[1] = 1
    keys: list[Key] = []


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call is from: the key's name, role and tenant."""

    name: str
    role: Role
    tenant: str

    def may(self, needed: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(needed)


def digest(key: str | bytes) -> str:
    """What is kept of a key: the SHA-256 of its bytes, in hex."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def read_keys(path: Path) -> list[Key]:
    """The keys of a file, in the order they were added. Raises CallError for a file that is missing, or is none of
    keys."""
    try:
        found = KeysFile.model_validate(json.loads(path.read_text(encoding="utf-8"))).keys
    except FileNotFoundError:
        raise CallError(f"{path}: no such file of keys; `recops keys add NAME --role read` makes one") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise CallError(f"{path}: {place}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise CallError(f"{path}: not a readable file of keys ({error})") from None
    names = [key.name for key in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CallError(f"{path}: two keys are named {twice}")
    return found


def add_key(path: Path, name: str, role: Role, tenant: str = "main", rate: float = 0.0) -> str:
    """Makes a key, keeps its digest in the file and returns the key itself, which nothing can show again.

    The file is made where there is none. Raises CallError for a name that is taken, and for what `Key` refuses."""
    made = PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        key = Key(name=name, role=role, tenant=tenant, rate=rate, sha256=digest(made), created_at=now)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise CallError(f"{first['loc'][0]}: {first['msg']}") from None

    def added(keys: list[Key]) -> list[Key]:
        if any(known.name == name for known in keys):
            raise CallError(f"{path}: has a key named {name}; revoke it first, or choose another name")
        return [*keys, key]

    _change(path, added)
    return made


def revoke_key(path: Path, name: str) -> None:
    """Takes a key out of the file; a running service refuses it within a second. Raises CallError where there is none
    of that name."""

    def without(keys: list[Key]) -> list[Key]:
        if all(key.name != name for key in keys):
            raise CallError(f"{path}: no key named {name}; there are: {', '.join(k.name for k in keys) or 'none'}")
        return [key for key in keys if key.name != name]

    read_keys(path)
    _change(path, without)


def _change(path: Path, change: Callable[[list[Key]], list[Key]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        keys = change(read_keys(path) if path.exists() else [])
        write_atomically(path, canonical_json(KeysFile(keys=keys).model_dump()))
        path.chmod(0o600)  # digests only, but names and roles are nobody's business


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Bucket:
    """A token bucket: `rate` calls a second, at most one second's worth (and one call) saved up."""

    def __init__(self, rate: float) -> None:
        self.rate, self.size = rate, max(1.0, rate)
        self.tokens, self.at = self.size, monotonic()

    def wait_s(self) -> float:
        """0, and one call is taken off; or the seconds until there is one."""
        now = monotonic()
        self.tokens, self.at = min(self.size, self.tokens + (now - self.at) * self.rate), now
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) / self.rate


class KeyRing:
    """The keys that one worker knows: those of `file`, which is looked at anew while it serves, and `fixed` ones.

    `fixed` are texts `KEY` (role admin) or `ROLE:KEY`. Without both nobody needs a key (`is_open`). A file that goes
    missing or cannot be read lets nobody in: a service never opens because a file was lost. A key's rate is divided by
    `workers`, so that all together never let more through.
    """

    def __init__(self, file: Path | None, fixed: Sequence[str] = (), workers: int = 1) -> None:
        self.file, self.workers = file, workers
        self.is_open = file is None and not fixed
        self._fixed = [fixed_key(number, text) for number, text in enumerate(fixed, start=1)]
        self._keys = self._fixed
        self._seen: tuple[int, int, int] | None = (-1, -1, -1)
        self._look_at = -math.inf
        self._buckets: dict[tuple[str, float], Bucket] = {}

    def caller(self, authorization: bytes) -> Key | None:
        """The key that a header `Authorization: Bearer KEY` holds, if it is known."""
        self._look()
        kind, _, given = authorization.partition(b" ")
        if kind.lower() != b"bearer":
            return None
        # Digests are compared, and all of them, so that the time tells nothing about which key came close.
        found = digest(given.strip())
        matches = [key for key in self._keys if hmac.compare_digest(key.sha256, found)]
        return matches[0] if matches else None

    def wait_s(self, key: Key) -> float:
        """0 for a call within the key's rate, which it is then counted against; else the seconds to wait."""
        if not key.rate:
            return 0.0
        place = (key.sha256, key.rate)
        bucket = self._buckets.get(place)
        if bucket is None:
            bucket = self._buckets[place] = Bucket(key.rate / self.workers)
        return bucket.wait_s()

    def _look(self) -> None:
        now = monotonic()
        if self.file is None or now < self._look_at:
            return
        self._look_at = now + LOOK_S
        try:
            found = self.file.stat()
            seen: tuple[int, int, int] | None = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            seen = None
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._keys = [*self._fixed, *read_keys(self.file)]
        except CallError as error:
            logger.error("no key of the file is taken: %s", error)
            self._keys = self._fixed
        known = {key.sha256 for key in self._keys}
        self._buckets = {place: bucket for place, bucket in self._buckets.items() if place[0] in known}


def fixed_key(number: int, text: str) -> Key:
    """What `KEY` (role admin) or `ROLE:KEY` stands for, `number` counted from 1. Raises CallError where nothing is left
    to be the key: a call without any would have it."""
    role, colon, key = text.partition(":")
    named = next((known for known in ROLES if colon and role.strip() == known), None)
    found = (text if named is None else key).strip()
    if not found:
        raise CallError(f"RECOPS_API_KEYS: key {number}: nothing after the role {named}")
    return Key(name=f"environment-{number}", role=named or "admin", sha256=digest(found), created_at="")
