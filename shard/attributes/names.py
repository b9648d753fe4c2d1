"""Attribute names and their numbers, inside one write transaction.

A name gets a number when the first document has it, and loses it with the last one. Numbers are never given twice.
"""

from typing import Any

from shard.attributes.layout import NUMBER_BYTES, PRESENCE, kind_prefix, name_key, number_bytes
from shard.storage_faults import StorageCorrupt


def find_number(txn: Any, names: Any, name: str) -> int | None:
    """The number of an attribute, None when no document has it."""
    value = txn.get(name_key(name), None, names)
    return None if value is None else int.from_bytes(value, "big")


class Names:
    """`next_number` is the first number that was never given."""

    def __init__(self, txn: Any, names: Any, next_number: int) -> None:
        self._txn = txn
        self._names = names
        self._known: dict[str, int] = {}
        self.next_number = next_number

    def number(self, name: str) -> int:
        """The number of an attribute that documents have."""
        number = self._known.get(name) or find_number(self._txn, self._names, name)
        if number is None:
            raise StorageCorrupt(f"attribute {name!r} has no number")
        self._known[name] = number
        return number

    def add(self, name: str) -> None:
        """Gives the attribute a number if it has none."""
        known = find_number(self._txn, self._names, name)
        if known is None:
            known = self.next_number
            self.next_number += 1
            self._txn.put(name_key(name), number_bytes(known), db=self._names)
        self._known[name] = known

    def drop_unused(self, postings: Any, names: list[str]) -> None:
        """Lets go of those of the names that no document has any more."""
        cursor = self._txn.cursor(postings)
        for name in names:
            prefix = kind_prefix(self.number(name), PRESENCE)
            if not cursor.set_range(prefix) or bytes(cursor.key()[: NUMBER_BYTES + 1]) != prefix:
                self._txn.delete(name_key(name), db=self._names)
                del self._known[name]
