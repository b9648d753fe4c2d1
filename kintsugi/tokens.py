"""The opaque tokens that a write returns and that `at_least` takes: which positions of which shards must be seen.

A token names a collection by uid, so that it cannot be used for another one of the same name, and holds per shard the
last position of each epoch the caller wrote in. Positions of several epochs are kept apart on purpose: the newest one
says how far a replica must be, the older ones let a recovery that discarded a write be noticed. Pure.

Layout: a format version byte, the body, then an 8-byte BLAKE2b checksum over both. Integers are big-endian.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from kintsugi import limits
from kintsugi.errors import Aborted, InvalidArgument
from kintsugi.position import Position
from kintsugi.registry.records import Collection, Shard

FORMAT_VERSION = 1

_CHECKSUM_BYTES = 8
_ENTRY = struct.Struct(">HQQB")


@dataclass(frozen=True, slots=True)
class Token:
    """`positions` holds (shard, position) in the order of shards, then epochs; one per shard and epoch."""

    collection_uid: str
    positions: tuple[tuple[int, Position], ...]

    @classmethod
    def of(cls, collection_uid: str, positions: Iterable[tuple[int, Position]]) -> "Token":
        """Builds a token from positions in any order, keeping the highest of each shard and epoch."""
        highest: dict[tuple[int, int], Position] = {}
        for shard, position in positions:
            known = highest.get((shard, position.epoch))
            if known is None or known.seq < position.seq:
                highest[shard, position.epoch] = position
        return cls(collection_uid, tuple((shard, position) for (shard, _), position in sorted(highest.items())))

    def of_shard(self, shard: int) -> list[Position]:
        """What must be seen of a shard, oldest epoch first; empty when nothing must."""
        return [position for number, position in self.positions if number == shard]

    def merge(self, other: "Token") -> "Token":
        """The token of both tokens' writes."""
        if self.collection_uid != other.collection_uid:
            raise InvalidArgument(
                "at_least", f"joins collections {self.collection_uid} and {other.collection_uid}", "must be of one"
            )
        return Token.of(self.collection_uid, (*self.positions, *other.positions))

    def encode(self) -> bytes:
        uid = self.collection_uid.encode()
        parts = [bytes([FORMAT_VERSION, len(uid)]), uid, struct.pack(">H", len(self.positions))]
        for shard, position in self.positions:
            parts.append(_ENTRY.pack(shard, position.epoch, position.seq, len(position.digest)))
            parts.append(position.digest)
        body = b"".join(parts)
        return body + _checksum(body)


def decode(data: bytes, field: str = "at_least") -> Token:
    """Inverts Token.encode. Raises InvalidArgument for everything that encode did not make."""
    if len(data) > limits.MAX_TOKEN_BYTES:
        raise InvalidArgument(field, f"has {len(data)} bytes", f"must have at most {limits.MAX_TOKEN_BYTES}")
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if not body or checksum != _checksum(body):
        raise InvalidArgument(field, "is not a token", "must be given as a write returned it")
    if body[0] != FORMAT_VERSION:
        raise InvalidArgument(field, f"has format {body[0]}", f"must have {FORMAT_VERSION}")
    try:
        return _parse(body)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise InvalidArgument(field, "is not a token", "must be given as a write returned it") from error


def required(token: Token, collection: Collection, shard: Shard, field: str = "at_least") -> Position | None:
    """The position that a replica of `shard` must have reached, None when the token does not name the shard.

    Raises InvalidArgument for a token of another collection and Aborted when recovery discarded one of its writes."""
    if token.collection_uid != collection.uid:
        raise InvalidArgument(
            field,
            f"is of collection {token.collection_uid}",
            f"must be of {collection.uid}, now named {collection.name}",
        )
    positions = token.of_shard(shard.shard)
    for position in positions:
        # An epoch ahead of ours only means that our view is old: the replica decides.
        if position.epoch <= shard.epoch and not shard.survived(position.epoch, position.seq):
            raise Aborted(
                f"{field}: recovery of shard {shard.shard} of collection {collection.name} discarded the write "
                f"{position.epoch}-{position.seq}",
                field=field,
            )
    return positions[-1] if positions else None


def _parse(body: bytes) -> Token:
    uid_end = 2 + body[1]
    uid = body[2:uid_end].decode()
    (count,) = struct.unpack_from(">H", body, uid_end)
    at = uid_end + 2
    positions = []
    for _ in range(count):
        shard, epoch, seq, digest_bytes = _ENTRY.unpack_from(body, at)
        at += _ENTRY.size
        positions.append((shard, Position(epoch, seq, body[at : at + digest_bytes])))
        at += digest_bytes
    return Token(uid, tuple(positions))


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()
