"""What validation makes of a write: the records to log, by shard, and how to answer for each item. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from kintsugi.log import records
from kintsugi.log.payload import Payload
from kintsugi.registry.records import Collection

# Collection uid and shard number.
ShardKey: TypeAlias = tuple[str, int]


class Level(StrEnum):
    """When a write is answered; see Acknowledgement in types.proto."""

    LOGGED = "logged"
    DURABLE = "durable"
    SEARCHABLE = "searchable"


@dataclass(frozen=True, slots=True)
class Options:
    """How a write is acknowledged, and the id that makes its repetition harmless."""

    level: Level
    durable_replicas: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One valid item. `index` is its place in the request, `body` the serialised Record without its time."""

    index: int
    shard: int
    body: bytes
    is_delete: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """The operations of a write that go to one shard, in the order of the request."""

    shard: int
    operations: tuple[Operation, ...]

    @property
    def content(self) -> bytes:
        return records.content_digest(operation.body for operation in self.operations)

    def payloads(self, written_at_us: int) -> list[Payload]:
        return records.pack([records.stamp(operation.body, written_at_us) for operation in self.operations])


@dataclass(frozen=True, slots=True)
class Write:
    """A validated request of `size` items. `refused` tells the items that were refused alone, and why (bulk only). `revision` is
    that of the registry that it was validated against, None when no change of the registry matters to it."""

    collection: Collection
    options: Options
    size: int
    operations: Sequence[Operation]
    refused: Mapping[int, str]
    revision: int | None = None

    def parts(self) -> list[Part]:
        by_shard: dict[int, list[Operation]] = {}
        for operation in self.operations:
            by_shard.setdefault(operation.shard, []).append(operation)
        return [Part(shard, tuple(operations)) for shard, operations in sorted(by_shard.items())]
