"""A place in the log of a shard."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """The state after the record `seq`, taken in `epoch`; `digest` chains over every record up to it (20 bytes, empty
    at the very start). Two replicas with the same seq and digest hold the same history, whatever their epochs."""

    epoch: int
    seq: int
    digest: bytes


START = Position(0, 0, b"")
