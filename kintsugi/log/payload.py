"""What one entry of a log holds: records, which have consecutive sequence numbers. The entry stands in the log, and in
what replicas keep of it, as a whole."""

from typing import NamedTuple


class Payload(NamedTuple):
    """The bytes of an entry, and how many records they are."""

    data: bytes
    records: int = 1
