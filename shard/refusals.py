"""Which encodings came to nothing with the vectors of a replica, why, and until when they are not tried again.

Kept in a file: a restart is no reason to build in vain. Knows nothing of how an index is judged.
"""

from pathlib import Path

import msgspec

from kintsugi.durable import Disk, write_file

FILE_NAME = "refused.json"


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`version` is what was built. It is not tried again before the replica holds record `until_seq`, or the encoding was
    asked for more than `requests` times."""

    version: int
    reason: str
    until_seq: int
    requests: int


# Made once: msgspec crashes when two threads are the first to decode the same type.
_READ = msgspec.json.Decoder(dict[str, Refusal])


class Refusals:
    """Those of one (replica, model). Changed by one thread."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._file = folder / FILE_NAME
        self._disk = disk
        # By encoding; replaced, never changed, since other threads read it.
        self.present = self._read()

    def add(self, encoding: str, refusal: Refusal) -> None:
        self._keep({**self.present, encoding: refusal})

    def remove(self, encoding: str) -> None:
        self._keep({name: refusal for name, refusal in self.present.items() if name != encoding})

    def forget_old(self, seq: int, requests: int) -> None:
        """Forgets those that may be tried again, now that the replica holds record `seq`."""
        self._keep(
            {name: one for name, one in self.present.items() if seq < one.until_seq and requests <= one.requests}
        )

    def _keep(self, refusals: dict[str, Refusal]) -> None:
        if refusals != self.present:
            write_file(self._file, msgspec.json.encode(refusals), self._disk)
            self.present = refusals

    def _read(self) -> dict[str, Refusal]:
        try:
            return _READ.decode(self._file.read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return {}
