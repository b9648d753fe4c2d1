"""Pulls of documents to re-embed: split over shards, of replicas that answer, in the states that hand them out."""

import dataclasses
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.deadline import Deadline
from coordinator.next_documents import NextDocuments, handed_out, parts_of
from kintsugi import columns, ids, limits
from kintsugi.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.metrics import Metric, StoredType
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import (
    Collection,
    EpochStart,
    LogState,
    Member,
    Model,
    ReplicaState,
    Role,
    Shard,
    Snapshot,
    Upgrade,
    UpgradeState,
    encode_record,
    field_of,
)
from kintsugi.registry.upgrades import BACKFILL, collection_after
from kintsugi.v1 import upgrades_pb2

OLD = Model(1, "old", 4, Metric.COSINE)
NEW = Model(2, "new", 6, Metric.COSINE)


def upgrade(state=UpgradeState.BACKFILLING, *, paused=False):
    return Upgrade(
        collection_uid="uid", number=1, old_model="old", new_model=NEW, state=state, strategy=Strategy.BRIDGE,
        calibration=Calibration.QUANTILES, bridge="b", gallery_map="", reverse="r", anchors="a", report="x",
        min_migrated=0.99, min_recall=0.95, created_at_us=0, changed_at_us=0, paused=paused,
    )  # fmt: skip


def collection(shards=2):
    return Collection("uid", "docs", shards, 2, Metric.COSINE, StoredType.F32, (OLD, NEW), "old", 0)


def view(shards=2, moved=None):
    wanted = moved if moved is not None else upgrade()
    found = collection_after(collection(shards), wanted) if wanted else collection(shards)
    records = [found, *([wanted] if wanted else [])]
    records += [Member(member, Role.SHARD, member, "1") for member in "ab"]
    both = dict.fromkeys("ab", ReplicaState.IN_SYNC)
    records += [Shard("uid", shard, (EpochStart(1, 0),), LogState.OPEN, both) for shard in range(shards)]
    return Snapshot("c", 1, 1, "", {field_of(record): encode_record(record) for record in records}).view()


class Views:
    """Gives one view, and another one after a refresh."""

    def __init__(self, now, later=None):
        self.now, self.later = now, later or now

    async def collection(self, name, _deadline):
        return self.now, self.now.collections_by_name[name]

    async def refreshed(self, _deadline):
        return self.later


@dataclasses.dataclass
class Calls:
    """Replicas by address, which share the documents of each shard."""

    documents: dict
    down: set = dataclasses.field(default_factory=set)
    asked: list = dataclasses.field(default_factory=list)

    async def next_documents(self, address, request, _deadline):
        shard = request.replica.shard
        self.asked.append((address, shard, request.limit))
        if address in self.down or (address, shard) in self.down:
            raise Unavailable("down")
        waiting = self.documents.get(shard, [])
        remaining = len(waiting)
        first = [one for one in columns.unpack_ids(request.first, "first") if one in waiting]
        given_out = [*first, *(one for one in waiting if one not in first)][: request.limit]
        self.documents[shard] = [one for one in waiting if one not in given_out]
        return shard_pb2.NextShardDocumentsResponse(
            documents=[
                upgrades_pb2.DocumentToEmbed(id=columns.pack_id(one), version=1, text=f"text {one}")
                for one in given_out
            ],
            remaining=remaining,
        )


def some_ids(shard, count, shards=2):
    found = (number for number in range(10_000) if ids.shard_of_encoded(ids.encode(number), shards) == shard)
    return [next(found) for _ in range(count)]


async def pull(calls, views=None, first=(), **more):
    request = upgrades_pb2.NextDocumentsRequest(collection="docs", first=columns.pack_ids(list(first)), **more)
    return await NextDocuments(views or Views(view()), calls).next(request, Deadline.after(5, time.monotonic))


def ids_in(response):
    return [columns.unpack_id(document.id, "id") for document in response.documents]


async def test_every_shard_gives_its_part():
    """A pull takes evenly of all shards, and tells the model and what remains of all of them."""
    calls = Calls({0: some_ids(0, 10), 1: some_ids(1, 20)})
    response = await pull(calls, limit=6)
    shards = [ids.shard_of_encoded(ids.encode(one), 2) for one in ids_in(response)]
    assert (shards.count(0), shards.count(1)) == (3, 3)
    assert (response.model, response.remaining) == ("new", 30)
    assert (response.shards_total, response.shards_answered) == (2, 2)


async def test_what_one_shard_lacks_the_others_give():
    """The limit is reached as long as there are documents anywhere."""
    calls = Calls({0: some_ids(0, 2), 1: some_ids(1, 20)})
    response = await pull(calls, limit=10)
    assert len(response.documents) == 10


async def test_more_shards_than_documents_wanted_are_all_counted():
    """A pull of one document still knows what remains in every shard."""
    calls = Calls({shard: some_ids(shard, 3, 5) for shard in range(5)})
    response = await pull(calls, Views(view(5)), limit=1)
    assert len(response.documents) == 1
    assert response.remaining == 15


async def test_turns_begin_with_another_shard():
    """Pulls of one document each do not drain the first shard alone."""
    calls = Calls({shard: some_ids(shard, 3) for shard in range(2)})
    story = NextDocuments(Views(view()), calls)
    request = upgrades_pb2.NextDocumentsRequest(collection="docs", limit=1)
    taken = [await story.next(request, Deadline.after(5, time.monotonic)) for _ in range(4)]
    shards = [ids.shard_of_encoded(ids.encode(ids_in(one)[0]), 2) for one in taken]
    assert sorted(shards) == [0, 0, 1, 1]


async def test_wanted_documents_come_first():
    """The ids that the worker names stand before all others, those that lack nothing are left out."""
    calls = Calls({0: some_ids(0, 10), 1: some_ids(1, 10)})
    wanted = [some_ids(1, 10)[7], some_ids(0, 10)[9], 9_999]
    response = await pull(calls, limit=4, first=wanted)
    assert ids_in(response)[:2] == wanted[:2]
    assert len(response.documents) == 4


async def test_a_replica_that_is_down_is_left_for_the_next_one():
    """The first replica in sync is asked, and the second one only when that fails."""
    calls = Calls({0: some_ids(0, 3), 1: some_ids(1, 3)}, down={("a", 0)})
    assert len((await pull(calls, limit=6)).documents) == 6
    assert {address for address, shard, _ in calls.asked if shard == 1} == {"a"}


async def test_a_shard_without_an_answer_is_left_out_while_others_have_documents():
    """The backfill goes on where it can; only a pull that finds nothing fails."""
    calls = Calls({0: some_ids(0, 3), 1: some_ids(1, 3)}, down={("a", 0), ("b", 0)})
    response = await pull(calls, limit=6)
    assert (len(response.documents), response.shards_total, response.shards_answered) == (3, 2, 1)
    with pytest.raises(Unavailable, match="shard 0: b: down"):
        await pull(calls, limit=6)


async def test_nothing_left_is_an_empty_answer():
    """When every shard says so, nothing remains."""
    response = await pull(Calls({}))
    assert (len(response.documents), response.remaining, response.model) == (0, 0, "new")


@pytest.mark.parametrize("state", list(UpgradeState))
async def test_the_state_decides_which_model_is_wanted(state):
    """Documents are handed out to the new model, to the old one after a rollback, and in the other states not at all."""
    moved = Views(view(moved=upgrade(state)))
    if state not in BACKFILL:
        with pytest.raises(FailedPrecondition, match=state.value) as refused:
            await pull(Calls({}), moved)
        assert refused.value.reason == "UPGRADE_STATE"
        return
    returning = state in {UpgradeState.ROLLING_BACK, UpgradeState.ROLLED_BACK}
    assert (await pull(Calls({}), moved)).model == ("old" if returning else "new")


async def test_a_paused_upgrade_hands_out_nothing():
    """Pausing is told as the reason, before a shard is asked."""
    calls = Calls({0: some_ids(0, 3)})
    with pytest.raises(FailedPrecondition, match="paused") as refused:
        await pull(calls, Views(view(moved=upgrade(paused=True))))
    assert refused.value.reason == "UPGRADE_PAUSED"
    assert calls.asked == []


async def test_an_upgrade_that_another_coordinator_resumed_is_believed():
    """What the last view refuses is looked up once more."""
    now, later = view(moved=upgrade(paused=True)), view()
    assert (await pull(Calls({0: some_ids(0, 1)}), Views(now, later))).model == "new"


async def test_a_collection_without_an_upgrade_is_told():
    """There is nothing to hand out for."""
    records = view()
    without = msgspec.structs.replace(
        records.snapshot, fields={key: value for key, value in records.snapshot.fields.items() if "upgrade" not in key}
    )
    with pytest.raises(NotFound, match="docs has no upgrade"):
        await pull(Calls({}), Views(without.view()))


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("limit", {"limit": 1001}),
        ("lease_s", {"lease_s": 0.5}),
        ("lease_s", {"lease_s": 3601}),
        ("lease_s", {"lease_s": float("nan")}),
        ("first", {"first": range(1001)}),
    ],
)
async def test_bounds_are_checked(field, more):
    """Each field outside its bound is refused by name."""
    with pytest.raises(InvalidArgument) as refused:
        await pull(Calls({}), **more)
    assert refused.value.field == field


async def test_large_texts_make_it_fewer():
    """An answer stays below the size of a page."""

    class Large(Calls):
        async def next_documents(self, address, request, deadline):
            answer = await super().next_documents(address, request, deadline)
            for document in answer.documents:
                document.text = "x" * limits.MAX_TEXT_BYTES
            return answer

    response = await pull(Large({0: some_ids(0, 100)}), limit=100)
    assert 0 < len(response.documents) < 100
    assert response.ByteSize() <= limits.MAX_PAGE_BYTES + limits.MAX_TEXT_BYTES


def test_the_model_must_be_there():
    """Nothing is handed out for a model that the collection does not have."""
    without = msgspec.structs.replace(collection(), models=(OLD,))
    assert handed_out(without, upgrade()) is None


@given(limit=st.integers(0, 1000), at_least=st.lists(st.integers(0, 20), min_size=1, max_size=30))
def test_parts_are_even_and_complete(limit, at_least):
    """Parts sum to the limit, none is below what its shard wants, and those above it differ by at most one."""
    limit = max(limit, sum(at_least))
    parts = parts_of(limit, at_least)
    assert sum(parts) == limit
    assert all(part >= least for part, least in zip(parts, at_least, strict=True))
    raised = [part for part, least in zip(parts, at_least, strict=True) if part > least]
    assert not raised or max(raised) - min(raised) <= 1
