"""The keyed hash that stands for an erased user: the list of erased users and the audit log hold no id."""

from hashlib import sha256


def user_hash(key: str, user_id: str) -> str:
    """The keyed hash that stands for an erased user, 64 hex digits; `data/feedback.py` makes the same in SQL."""
    inner = sha256((key + user_id).encode("utf-8", "surrogatepass")).hexdigest()
    return sha256((key + inner).encode()).hexdigest()
