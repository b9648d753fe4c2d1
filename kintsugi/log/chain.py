"""The digest chain over a log: whoever holds the same digest at the same sequence number holds the same history.

The digest of an entry is sha1(digest of the entry before || decimal seq || sha1(payload)), raw, where seq is that of its
last record; before the first it is empty. All records of an entry share its digest. It does not depend on the epoch, so a
restored log continues it. It detects loss and replacement, not forgery. chain.lua computes the same.
"""

from hashlib import sha1

DIGEST_BYTES = 20


def payload_digest(payload: bytes) -> bytes:
    return sha1(payload, usedforsecurity=False).digest()


def extend(digest: bytes, seq: int, payload: bytes) -> bytes:
    """The digest of the entry that ends with the record `seq`, given that of the entry before."""
    return sha1(b"%b%d%b" % (digest, seq, payload_digest(payload)), usedforsecurity=False).digest()
