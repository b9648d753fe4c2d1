"""The digest chain, in Python and in Lua."""

from hashlib import sha1
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from kintsugi.local.valkey import Valkey
from kintsugi.log.chain import DIGEST_BYTES, extend, payload_digest

_EXTEND = (
    files("kintsugi.log").joinpath("chain.lua").read_text()
    + "\nreturn {raw_sha1(ARGV[3]), extend(ARGV[1], tonumber(ARGV[2]), raw_sha1(ARGV[3]))}"
)


@pytest.fixture(scope="module")
def blocking_redis(valkey_server: Valkey):
    with Redis.from_url(valkey_server.url) as client:
        yield client


@settings(max_examples=200, deadline=None)
@given(
    digest=st.one_of(st.just(b""), st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)),
    seq=st.integers(1, 2**53 - 1),
    payload=st.binary(max_size=300),
)
def test_lua_chain_equals_the_python_chain(blocking_redis, digest, seq, payload):
    """The script and the readers compute the same digests for any bytes and any sequence number."""
    assert blocking_redis.eval(_EXTEND, 0, digest, seq, payload) == [
        payload_digest(payload),
        extend(digest, seq, payload),
    ]


def test_extend_is_the_documented_formula():
    """A digest is the raw sha1 of the digest before it, the decimal number and the payload's raw sha1."""
    assert extend(b"\x01" * 20, 12, b"x") == sha1(b"\x01" * 20 + b"12" + sha1(b"x").digest()).digest()


@given(payloads=st.lists(st.binary(max_size=8), min_size=2, max_size=6), data=st.data())
def test_a_replaced_payload_changes_every_digest_after_it(payloads, data):
    """No later entry of the same content makes up for an earlier difference."""
    at = data.draw(st.integers(0, len(payloads) - 1))
    other = data.draw(st.binary(max_size=8).filter(lambda payload: payload != payloads[at]))
    ours, theirs = b"", b""
    for index, payload in enumerate(payloads):
        ours = extend(ours, index + 1, payload)
        theirs = extend(theirs, index + 1, other if index == at else payload)
        assert (ours == theirs) == (index < at)
