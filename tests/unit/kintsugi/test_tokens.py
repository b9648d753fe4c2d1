"""Tokens: round trip, merging, refusal of what is not a token, and what recoveries make of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi import tokens
from kintsugi.errors import Aborted, InvalidArgument
from kintsugi.metrics import Metric, StoredType
from kintsugi.position import Position
from kintsugi.registry.records import Collection, EpochStart, LogState, Model, Shard
from kintsugi.tokens import Token

POSITIONS = st.builds(Position, st.integers(1, 5), st.integers(1, 2**40), st.binary(min_size=20, max_size=20))
TOKENS = st.builds(Token.of, st.just("c1"), st.lists(st.tuples(st.integers(0, 255), POSITIONS), max_size=8))
COLLECTION = Collection(
    uid="c1",
    name="docs",
    shards=2,
    replicas=1,
    metric=Metric.COSINE,
    stored=StoredType.F32,
    models=(Model(number=1, name="m", dimension=4, metric=Metric.COSINE),),
    serving_model="m",
    created_at_us=0,
)


def shard(*epochs: tuple[int, int]) -> Shard:
    starts = tuple(EpochStart(epoch, base) for epoch, base in epochs)
    return Shard(collection_uid="c1", shard=0, epochs=starts, log_state=LogState.OPEN, replicas={})


@given(TOKENS)
def test_a_token_survives_a_round_trip(token):
    """Decoding inverts encoding."""
    assert tokens.decode(token.encode()) == token


@given(TOKENS, TOKENS)
def test_merging_does_not_depend_on_order_and_keeps_the_highest(one, other):
    """The merge of two tokens demands at least what each of them demands."""
    merged = one.merge(other)
    assert dict(merged.positions).keys() == dict(other.merge(one).positions).keys()
    for number, position in (*one.positions, *other.positions):
        assert any(p.epoch == position.epoch and p.seq >= position.seq for p in merged.of_shard(number))


@given(TOKENS, st.data())
def test_a_changed_token_is_refused(token, data):
    """The checksum finds every single changed byte."""
    encoded = bytearray(token.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidArgument):
        tokens.decode(bytes(encoded))


@given(st.binary(max_size=64))
def test_random_bytes_are_refused(data):
    """What encode did not make is INVALID_ARGUMENT naming the field."""
    with pytest.raises(InvalidArgument) as caught:
        tokens.decode(data)
    assert caught.value.field == "at_least"


def test_tokens_of_two_collections_do_not_merge():
    """A token is of one collection uid."""
    with pytest.raises(InvalidArgument):
        Token.of("c1", []).merge(Token.of("c2", []))


def test_a_token_of_another_collection_is_refused():
    """A collection that was deleted and created again under its name has another uid."""
    with pytest.raises(InvalidArgument, match="at_least is of collection c0"):
        tokens.required(Token.of("c0", []), COLLECTION, shard((1, 0)))


def test_the_newest_position_of_the_shard_is_required():
    """Of several epochs the newest position is what a replica must have; other shards' positions do not count."""
    token = Token.of("c1", [(0, Position(1, 5, b"a")), (0, Position(2, 9, b"b")), (1, Position(1, 50, b"c"))])
    assert tokens.required(token, COLLECTION, shard((1, 0), (2, 5))) == Position(2, 9, b"b")
    assert tokens.required(Token.of("c1", []), COLLECTION, shard((1, 0))) is None


def test_a_discarded_write_aborts_even_below_a_newer_one():
    """A write that recovery discarded is noticed although the merged token holds a later position."""
    token = Token.of("c1", [(0, Position(1, 7, b"a")), (0, Position(2, 9, b"b"))])
    with pytest.raises(Aborted, match="discarded the write 1-7"):
        tokens.required(token, COLLECTION, shard((1, 0), (2, 5)))


def test_an_epoch_ahead_of_the_view_is_left_to_the_replica():
    """A token from a coordinator with a newer view is passed on."""
    assert tokens.required(Token.of("c1", [(0, Position(3, 9, b"b"))]), COLLECTION, shard((1, 0))) is not None
