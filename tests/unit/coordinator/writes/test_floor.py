"""The floor: all in-sync replicas tell, the highest counts, and a registry that went back is noticed."""

import pytest

from coordinator.floor import Floors
from kintsugi.errors import NotFound, Unavailable
from kintsugi.internal.v1 import shard_pb2
from kintsugi.position import START, Position
from kintsugi.registry.records import ReplicaState

KEY = ("uid1", 0)


def told(seq, *, registry=(0, 0), epoch=1):
    position = shard_pb2.Position(epoch=epoch, seq=seq, digest=b"%020d" % seq)
    return shard_pb2.GetPositionResponse(
        durable=position, registry_incarnation=registry[0], registry_revision=registry[1]
    )


@pytest.fixture
def floors(registry, replicas):
    return Floors(lambda: registry.view, registry.refresh, replicas.position, replicas.server)


async def test_highest_position_of_all_in_sync_replicas_is_the_floor(floors, replicas):
    """The floor covers whatever any of them acknowledged."""
    replicas.positions = {"shard-a": told(5), "shard-b": told(9)}
    floor = await floors.get(KEY)
    assert floor.position == Position(1, 9, b"%020d" % 9)
    assert (floor.incarnation, floor.epoch) == (1, 1)


async def test_new_shard_has_the_start_as_floor(floors):
    """Replicas that hold nothing make no demand."""
    assert (await floors.get(KEY)).position == START


async def test_silent_in_sync_replica_is_named(floors, replicas):
    """Without its position nobody knows whether the log is whole."""
    replicas.silent["shard-b"] = Unavailable("connection refused")
    with pytest.raises(Unavailable, match="shard-b") as caught:
        await floors.get(KEY)
    assert caught.value.reason == "REPLICA_SILENT"
    assert caught.value.retry_delay_s


async def test_replica_out_of_sync_is_not_asked(floors, registry, replicas, kit):
    """What it holds was acknowledged by others too."""
    registry.set(kit.shard(0, replicas={"shard-a": ReplicaState.IN_SYNC, "shard-b": ReplicaState.OUT_OF_SYNC}))
    replicas.silent["shard-b"] = Unavailable("connection refused")
    assert (await floors.get(KEY)).position == START


async def test_replica_that_got_in_sync_unseen_is_asked(floors, registry, replicas, kit):
    """What it acknowledged is in the floor, although our registry was late to tell of it."""
    registry.set(kit.shard(0, replicas={"shard-a": ReplicaState.IN_SYNC, "shard-b": ReplicaState.JOINING}))
    registry.newer = kit.snapshot([kit.collection(), kit.shard(0)], revision=9)
    replicas.positions = {"shard-a": told(5), "shard-b": told(9)}
    assert (await floors.get(KEY)).position.seq == 9


async def test_known_floor_is_not_asked_for_again_until_forgotten(floors, replicas):
    """Replicas are asked once per epoch, and again after a doubt."""
    await floors.get(KEY)
    await floors.get(KEY)
    assert replicas.position_calls == 2
    floors.forget_all()
    await floors.get(KEY)
    assert replicas.position_calls == 4


async def test_new_epoch_needs_a_new_floor(floors, registry, replicas, kit):
    """A recovery changes what the log must reach."""
    await floors.get(KEY)
    registry.set(kit.shard(0, epochs=((1, 0), (2, 4))))
    replicas.positions = {"shard-a": told(4, epoch=2)}
    assert (await floors.get(KEY)).position.seq == 4


async def test_own_appends_raise_the_floor_and_never_lower_it(floors):
    """A log that loses what this process appended is noticed at the next append."""
    floors.raise_to(KEY, await floors.get(KEY), Position(1, 7, b"x"))
    floors.raise_to(KEY, await floors.get(KEY), Position(1, 3, b"y"))
    assert (await floors.get(KEY)).position.seq == 7


async def test_append_under_a_forgotten_floor_raises_nothing(floors):
    """The doubt that made it forgotten concerns that append too."""
    floor = await floors.get(KEY)
    floors.forget(KEY)
    floors.raise_to(KEY, floor, Position(1, 7, b"x"))
    assert (await floors.get(KEY)).position == START


async def test_registry_that_a_replica_knows_newer_is_read_again(floors, registry, replicas, kit):
    """Ours was merely late."""
    replicas.positions = {"shard-a": told(3, registry=(1, 8))}
    registry.newer = kit.snapshot([kit.collection(), kit.shard(0, epochs=((1, 0), (2, 3)))], revision=8)
    floor = await floors.get(KEY)
    assert (floor.epoch, floor.position.seq) == (2, 3)


async def test_registry_that_stays_behind_refuses_writes(floors, replicas):
    """Redis went back to an older registry: nothing may be written by it."""
    replicas.positions = {"shard-a": told(3, registry=(1, 8))}
    with pytest.raises(Unavailable, match="revision 8") as caught:
        await floors.get(KEY)
    assert caught.value.reason == "REGISTRY_BEHIND"


async def test_shard_of_a_deleted_collection_is_not_found(floors):
    """There is no floor for what is gone."""
    with pytest.raises(NotFound):
        await floors.get(("other", 0))
