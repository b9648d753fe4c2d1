"""Which hits make up the best groups. Pure.

A group is as good as its best hit; hits without a group belong nowhere.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from kintsugi.filters.tree import Value

# True and 1.0 are different groups, although Python takes them for equal.
Group: TypeAlias = tuple[type, Value]


def group_of(value: Value | None) -> Group | None:
    return None if value is None else (type(value), value)


def chosen(groups: Iterable[Group | None], k: int, size: int) -> list[int]:
    """The places of the `size` best hits of each of the `k` best groups, given the groups of hits ranked best first. They
    keep their order."""
    counts: dict[Group, int] = {}
    places: list[int] = []
    for place, group in enumerate(groups):
        if group is None:
            continue
        count = counts.get(group, 0)
        if count == size or (not count and len(counts) == k):
            continue
        counts[group] = count + 1
        places.append(place)
    return places


class Collected:
    """The hits of one query by group, in the order in which they are found: best first within a group, and no group before
    a better one."""

    def __init__(self, k: int, size: int) -> None:
        self._k = k
        self._size = size
        self._rows: dict[Group, list[int]] = {}

    @property
    def has_all_groups(self) -> bool:
        return len(self._rows) == self._k

    @property
    def values(self) -> list[Value]:
        """Those of the groups found so far."""
        return [value for _, value in self._rows]

    @property
    def rows(self) -> list[int]:
        return [row for rows in self._rows.values() for row in rows]

    def unfilled(self) -> list[Group]:
        """The groups with fewer hits than wanted."""
        return [group for group, rows in self._rows.items() if len(rows) < self._size]

    def count(self, group: Group) -> int:
        return len(self._rows[group])

    def add(self, rows: Sequence[int], groups: Sequence[Group | None]) -> None:
        """Takes ranked hits, best first, none of which is better than those of the same group that were taken before."""
        for row, group in zip(rows, groups, strict=True):
            if group is None or (group not in self._rows and self.has_all_groups):
                continue
            mine = self._rows.setdefault(group, [])
            if len(mine) < self._size and row not in mine:
                mine.append(row)

    def fill(self, group: Group, rows: list[int]) -> None:
        """Replaces the hits of a group by its best ones."""
        self._rows[group] = rows
