"""Seals what the service was told: before ingest, events of the store become Parquet parts that ingest depends on.

Also brings the list of erased users into the project. Exactly once: a part counts when `.recops/feedback.json` names
it, and that file is replaced as a whole.
"""

import fcntl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import sha256

from recops.bundle import write_atomically
from recops.data.feedback import Erased, Feedback, read_key, settle
from recops.errors import CallError
from recops.stages.project import Project
from recops.store import Store, open_store


def seal(project: Project) -> Feedback:
    """Brings `.recops/feedback.json` and `data/feedback/` up to what the store holds now; nothing new changes nothing.

    Raises CallError for a part that is missing or altered.
    """
    with closing(open_store(project.store_url)) as store:
        return seal_from(project, store)


def seal_from(project: Project, store: Store) -> Feedback:
    """As `seal`; of two at once, such as a run and `recops erase`, one waits for the other."""
    with one_seal(project):
        return _seal(project, store)


@contextmanager
def one_seal(project: Project) -> Iterator[None]:
    """Held by whoever changes `.recops/feedback.json`."""
    with (project.state / "feedback.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _seal(project: Project, store: Store) -> Feedback:
    feedback, key = Feedback.read(project.feedback), store.erasure_key()
    settle(project.feedback_parts, feedback.parts)
    name = name_of(store)
    # Another store counts from 1 again: what was sealed of the former one stays.
    found = feedback if feedback.store == name else replace(feedback, store=name, events_until=0, erased=())
    erased = tuple(Erased(e.user_hash, e.erased_at) for e in store.erasures())
    check_erased(project, feedback, len(erased))
    if erased != found.erased:
        found = found.without_erased(project.feedback_parts, key, erased)
    if (last := store.last_place()) > found.events_until:
        found = found.with_part(project.feedback_parts, store.events(found.events_until, last), last)
    if erased and key != read_key(project.erasure_key):
        write_atomically(project.erasure_key, key)
        project.erasure_key.chmod(0o600)
    if found != feedback:
        found.write(project.feedback)
        settle(project.feedback_parts, found.parts)
    return found


def check_erased(project: Project, feedback: Feedback, num_listed: int) -> None:
    """Raises CallError for a store that lists fewer erased users than the project knows of."""
    if num_listed < len(feedback.erased):
        raise CallError(
            f"{project.feedback}: {len(feedback.erased)} users were erased here, and the store lists {num_listed}: it "
            "is another one, or an older copy. Erase them in it too (`recops erase --user ID`), so that they stay out"
        )


def name_of(store: Store) -> str:
    """What tells this store from another, 8 hex digits."""
    return sha256(f"store {store.erasure_key()}".encode()).hexdigest()[:8]
