"""What a batch of records changes in the attribute index, collected before any of it is written. Pure.

Only differences are noted: a document that is written again with the attributes it had costs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from shard.attributes.layout import View
from shard.attributes.terms import NO_TERMS, Term, terms_of

# Row, attributes before and after; None for no document.
AttributesOfRow: TypeAlias = tuple[int, View | None, View | None]


@dataclass(slots=True)
class RowChanges:
    """The rows that come to a posting and leave it; no row does both."""

    added: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AttributeChanges:
    """`documents`: all rows. `numbers`: by attribute and row, the numbers after the batch, () for none."""

    documents: RowChanges = field(default_factory=RowChanges)
    postings: dict[Term, RowChanges] = field(default_factory=dict)
    numbers: dict[str, dict[int, tuple[float, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[AttributesOfRow]) -> "AttributeChanges":
        changes = cls()
        for row, before, after in rows:
            changes._add(row, before, after)
        return changes

    def _add(self, row: int, before: View | None, after: View | None) -> None:
        if before is None:
            self.documents.added.append(row)
        if after is None:
            self.documents.removed.append(row)
        if (before or b"") == (after or b""):
            return
        old = terms_of(before) if before else NO_TERMS
        new = terms_of(after) if after else NO_TERMS
        for term in new.postings - old.postings:
            self._posting(term).added.append(row)
        for term in old.postings - new.postings:
            self._posting(term).removed.append(row)
        for name in old.numbers.keys() | new.numbers.keys():
            values = new.numbers.get(name, ())
            if values != old.numbers.get(name, ()):
                self.numbers.setdefault(name, {})[row] = values

    def _posting(self, term: Term) -> RowChanges:
        changes = self.postings.get(term)
        if changes is None:
            changes = self.postings[term] = RowChanges()
        return changes
