"""The digest chain over a log: whoever holds the same digest at the same sequence number holds the same history.

digest_n = sha1(digest_{n-1} || decimal n || sha1(payload_n)), raw; digest_0 is empty. It does not depend on the epoch, so
a restored log continues it. It detects loss and replacement, not forgery. chain.lua computes the same.
"""

from hashlib import sha1

DIGEST_BYTES = 20


def payload_digest(payload: bytes) -> bytes:
    return sha1(payload, usedforsecurity=False).digest()


def extend(digest: bytes, seq: int, payload: bytes) -> bytes:
    """The digest after the entry `seq`, given the one before it."""
    return sha1(b"%b%d%b" % (digest, seq, payload_digest(payload)), usedforsecurity=False).digest()
