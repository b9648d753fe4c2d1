"""Where appends are refused before they reach the log, and which refusals are tried again."""

import pytest

from coordinator.floor import Floors
from coordinator.shard_log import ShardLogs
from kintsugi.errors import NotFound, Unavailable
from kintsugi.log.append import AppendRequest, AppendResult
from kintsugi.log.payload import Payload
from kintsugi.position import Position
from kintsugi.registry.records import LogState
from kintsugi.registry.watch import RegistryHealth

KEY = ("uid1", 0)
REQUESTS = [AppendRequest("r", [Payload(b"x")])]


class Log:
    """LogWriter.append: fails as told, then writes."""

    def __init__(self):
        self.failures = []
        self.targets = []

    async def __call__(self, target, requests, _timeout_s):
        self.targets.append(target)
        if self.failures:
            raise self.failures.pop(0)
        return [
            AppendResult(request.request_id, 1, Position(target.epoch, 1, b"d"), repeated=False) for request in requests
        ]


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def logs(registry, replicas, log):
    return ShardLogs(registry, Floors(lambda: registry.view, registry.refresh, replicas.position, replicas.server), log)


@pytest.mark.parametrize("health", [health for health in RegistryHealth if health is not RegistryHealth.OK])
async def test_registry_that_is_not_well_refuses_writes(logs, registry, log, deadline, health):
    """Whatever is wrong with the registry, nothing is written and the reason is told."""
    registry.set_health(health)
    with pytest.raises(Unavailable, match=health.value) as caught:
        await logs.append(KEY, REQUESTS, deadline)
    assert caught.value.reason == f"REGISTRY_{health.name}"
    assert caught.value.retry_delay_s
    assert not log.targets


async def test_recovering_log_refuses_writes(logs, registry, log, deadline, kit):
    """Until recovery is done."""
    registry.set(kit.shard(0, log_state=LogState.RECOVERING))
    with pytest.raises(Unavailable, match="recovering"):
        await logs.append(KEY, REQUESTS, deadline)
    assert not log.targets


async def test_deleted_collection_is_not_found(logs, deadline):
    """The registry no longer names the shard."""
    with pytest.raises(NotFound):
        await logs.append(("gone", 0), REQUESTS, deadline)


async def test_next_append_carries_what_the_last_one_reached(logs, log, deadline):
    """The floor rises with our own appends."""
    await logs.append(KEY, REQUESTS, deadline)
    await logs.append(KEY, REQUESTS, deadline)
    assert [target.floor.seq for target in log.targets] == [0, 1]


async def test_refusal_by_a_newer_epoch_is_tried_again_with_the_newer_registry(logs, registry, log, deadline, kit):
    """The log was recovered since the replicas were asked, and our registry had not told yet."""
    await logs.append(KEY, REQUESTS, deadline)
    log.failures = [Unavailable("moved", reason="EPOCH_MOVED")]
    registry.newer = kit.snapshot([kit.collection(), kit.shard(0, epochs=((1, 0), (2, 0)))], revision=9)
    outcomes = await logs.append(KEY, REQUESTS, deadline)
    assert [target.epoch for target in log.targets] == [1, 1, 2]
    assert outcomes[0].last.epoch == 2


@pytest.mark.parametrize("reason", ["EPOCH_MOVED", "LOG_MISSING", "LOG_BEHIND", "OUTCOME_UNKNOWN"])
async def test_other_refusals_are_told_and_make_the_floor_doubtful(logs, log, replicas, deadline, reason):
    """A refusal that the registry does not explain goes to the caller; replicas are asked before the next append."""
    log.failures = [Unavailable("no", reason=reason)]
    with pytest.raises(Unavailable) as caught:
        await logs.append(KEY, REQUESTS, deadline)
    assert caught.value.reason == reason
    asked = replicas.position_calls
    await logs.append(KEY, REQUESTS, deadline)
    assert replicas.position_calls == asked + 2


async def test_outage_of_the_registry_makes_all_floors_doubtful(logs, registry, replicas, deadline):
    """Redis may have come back with less than it had."""
    await logs.append(KEY, REQUESTS, deadline)
    registry.set_health(RegistryHealth.UNREACHABLE)
    registry.set_health(RegistryHealth.OK)
    asked = replicas.position_calls
    await logs.append(KEY, REQUESTS, deadline)
    assert replicas.position_calls == asked + 2


async def test_restart_of_the_server_asks_the_replicas_again_and_appends(logs, log, replicas, deadline):
    """What others appended since the last floor may be lost: it was learnt in another life of the server."""
    await logs.append(KEY, REQUESTS, deadline)
    log.failures = [Unavailable("restarted", reason="SERVER_CHANGED")]
    replicas.server_life = "life-2"
    asked = replicas.position_calls
    await logs.append(KEY, REQUESTS, deadline)
    assert replicas.position_calls == asked + 2
    assert [target.server for target in log.targets] == ["life-1", "life-1", "life-2"]
