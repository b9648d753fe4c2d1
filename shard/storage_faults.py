"""What can go wrong with the database of a replica, and the mapping of LMDB's own errors to it.

StorageFault (Unavailable)
  StorageCorrupt     the file is torn, foreign or does not decode; rebuild the replica
  StorageFull        the disk, the map or the replica's own quota is full; nothing of the batch was written
  StorageTooNew      the file was written by a later release
  EpochFenced        the record belongs to an epoch that the replica promised not to follow any more
JournalTrimmed (OutOfRange)   the follower fell behind the journal; it must start over

All are Unavailable towards clients: another replica may answer. Knows nothing of what the database holds.
"""

import errno
import struct
from types import TracebackType

import lmdb

from kintsugi.errors import OutOfRange, Unavailable


class StorageFault(Unavailable):
    reason = "STORAGE_FAULT"


class StorageCorrupt(StorageFault):
    reason = "STORAGE_CORRUPT"


class StorageFull(StorageFault):
    reason = "STORAGE_FULL"


class StorageTooNew(StorageFault):
    reason = "STORAGE_TOO_NEW"


class EpochFenced(StorageFault):
    reason = "EPOCH_FENCED"


class JournalTrimmed(OutOfRange):
    reason = "JOURNAL_TRIMMED"


_FULL = (lmdb.MapFullError, lmdb.DiskError)
_CORRUPT = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.NotFoundError,
    lmdb.ProblemError,
    lmdb.PanicError,
)
_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = ("no space left", "quota exceeded", "file too large")


def fault_of(error: Exception) -> StorageFault:
    """The fault that a foreign error means."""
    text = str(error)
    code = getattr(error, "code", None) or getattr(error, "errno", None)
    if isinstance(error, _FULL) or code in _FULL_ERRNOS or any(word in text.lower() for word in _FULL_WORDS):
        return StorageFull(f"storage is full: {text}")
    if isinstance(error, _CORRUPT) or not isinstance(error, lmdb.Error | OSError):
        return StorageCorrupt(f"storage is corrupt: {text}")
    return StorageFault(f"storage failed: {text}")


class _Mapped:
    """Maps errors of LMDB, of the operating system and of decoding; one shared instance, as it has no state."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, lmdb.Error | OSError | struct.error | UnicodeDecodeError):
            raise fault_of(error) from error


faults_mapped = _Mapped()
