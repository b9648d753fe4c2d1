"""What the index holds of one document: the postings it stands in, and its numbers. Pure."""

from dataclasses import dataclass, field
from typing import Final

import msgspec

from kintsugi.filters.matching import decisive, flatten, present
from shard.attributes.layout import BOOLEAN, PRESENCE, STRING, View

# Made once: msgspec crashes when two threads are the first to decode the same type.
_READ: Final = msgspec.json.Decoder()

# Attribute, kind, text: as much of it as comparisons can depend on.
Term = tuple[str, int, bytes]


@dataclass(frozen=True, slots=True)
class Terms:
    """`numbers` of an attribute are ascending, each once. Almost always there is one: an attribute has several when it
    is written in several ways, as `a.b` can be."""

    postings: frozenset[Term] = frozenset()
    numbers: dict[str, tuple[float, ...]] = field(default_factory=dict)


NO_TERMS: Final = Terms()


def boolean_text(value: bool) -> bytes:
    return b"1" if value else b"0"


def decode_attributes(attributes: View) -> dict[str, object]:
    """The attributes of a document. Empty for none, and for what is no JSON object, which no coordinator lets in."""
    if not len(attributes):
        return {}
    try:
        decoded = _READ.decode(attributes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def terms_of(attributes: View) -> Terms:
    decoded = decode_attributes(attributes)
    if not decoded:
        return NO_TERMS
    postings: set[Term] = {(name, PRESENCE, b"") for name in present(decoded)}
    numbers: dict[str, tuple[float, ...]] = {}
    for name, value in flatten(decoded):
        if isinstance(value, str):
            postings.add((name, STRING, decisive(value)))
        elif isinstance(value, bool):
            postings.add((name, BOOLEAN, boolean_text(value)))
        else:
            known = numbers.get(name)
            numbers[name] = (value,) if known is None else tuple(sorted({*known, value}))
    return Terms(frozenset(postings), numbers)
