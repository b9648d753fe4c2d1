"""How documents without a new vector take part in searches of the new model while a collection is upgraded. Pure."""

from enum import StrEnum


class Strategy(StrEnum):
    # New query vectors are projected into the old space.
    BRIDGE = "query-bridge"
    # Stored old vectors are projected into the new space.
    MAP = "gallery-map"
    # Clients give both models' query vectors; nothing is projected.
    BOTH = "both-vectors"
