"""Users who were erased after a release was trained: what its tables still hold of them is not used.

Ids are compared by keyed hash, as the store's list has them. Knows nothing about HTTP.
"""

from recops.store import Store
from recops.user_hash import user_hash


class ErasedUsers:
    """The store's list as it was last read; empty without a store."""

    def __init__(self) -> None:
        self._key = ""
        self._places: dict[str, int] = {}  # of the last erasure, by hash
        self._last = 0

    def refresh(self, store: Store) -> None:
        """Reads what is new on the list."""
        for place, hashed, _ in store.erasures(self._last):
            self._key = self._key or store.erasure_key()
            self._places[hashed] = place
            self._last = place

    def hides(self, user_id: str, honoured: int) -> bool:
        """Whether the user was erased after the first `honoured` entries of the list."""
        return self._last > honoured and self._places.get(user_hash(self._key, user_id), 0) > honoured
