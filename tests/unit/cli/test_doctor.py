"""What the doctor concludes from what it was told, where a real set-up would take another machine."""

from dataclasses import replace

import pytest
from harness.statuses import MACHINE, member, replica, shard, silent, status

from kintsugi.cli.doctor import document
from kintsugi.doctor.cluster_checks import check_members, check_registry, check_shards
from kintsugi.doctor.findings import Check, Report, Severity, check, problem, warning
from kintsugi.doctor.log_checks import check_holds
from kintsugi.doctor.machine_checks import check_clock, check_machine
from kintsugi.doctor.redis_checks import check_redis
from kintsugi.doctor.redis_facts import RedisFacts
from kintsugi.log.read import Head
from kintsugi.position import Position
from kintsugi.registry.records import EpochStart, LogState, ReplicaState, Shard

GOOD_INFO = {"redis_version": "7.2.4", "maxmemory_policy": "noeviction", "aof_enabled": 1, "role": "master"}


def one(findings, severity, message, advice):
    """The only finding, which must be as expected."""
    (found,) = findings
    assert (found.severity, message in found.message, advice in found.advice) == (severity, True, True), found


@pytest.mark.parametrize(
    ("changes", "severity", "message", "advice"),
    [
        ({"filesystem": "nfs4"}, Severity.PROBLEM, "nfs4, a network file system", "local disk"),
        ({"filesystem": "overlay"}, Severity.WARNING, "does not survive a restart", "mount a disk"),
        ({"disk_free_bytes": 2**29}, Severity.PROBLEM, "512 MiB free", "make room"),
        ({"disk_free_bytes": 5 * 2**30}, Severity.WARNING, "5,120 MiB free", "make room"),
        ({"open_files": 60_000}, Severity.PROBLEM, "60000 of 65536 files", "ulimit -n"),
        ({"open_files_limit": 2048}, Severity.WARNING, "may open 2048 files", "LimitNOFILE"),
        ({"address_space_limit_bytes": 2**40}, Severity.PROBLEM, "address space is limited", "LimitAS=infinity"),
        ({"memory_limit_bytes": 2**27}, Severity.PROBLEM, "beyond, it is killed", "memory limit of the container"),
    ],
)
def test_machines_that_hinder_are_found(changes, severity, message, advice):
    """Each limit by itself, with what to change where."""
    one(list(check_machine("s0", replace(MACHINE, **changes), 2**27, shard=True)), severity, message, advice)


def test_a_coordinator_needs_no_disk():
    """It keeps nothing but its name."""
    machine = replace(MACHINE, filesystem="overlay", disk_free_bytes=1, address_space_limit_bytes=2**40)
    assert list(check_machine("c0", machine, 0, shard=False)) == []


@pytest.mark.parametrize(("ahead_s", "asked_s", "found"), [(1, 0, 0), (-60, 0.1, 1), (3, 2, 0), (3, 0.5, 1)])
def test_clocks_are_compared_as_exactly_as_they_can_be(ahead_s, asked_s, found):
    """A slow answer proves nothing about a clock."""
    assert len(list(check_clock("s0", ahead_s, asked_s))) == found


@pytest.mark.parametrize(
    ("changed", "severity", "message", "advice"),
    [
        (status(members=(member("s0"), member("s1", version="0.2.0"))), Severity.WARNING, "of different versions",
         "finish the rolling restart"),
        (status(members=(member("s0"), member("s1", address="s0:1"))), Severity.PROBLEM, "both have this address",
         "--advertise"),
        (status(members=(member("s0"), member("s1", address="s0:1", alive=False))), Severity.WARNING,
         "both have this address", "a data folder that was lost"),
        (status(members=(member("s0", lifecycle="REPLAYING"),)), Severity.WARNING, "is REPLAYING", "wait"),
        (status(members=(member("c1", "coordinator", alive=False, lifecycle=""),)), Severity.WARNING, "is gone",
         "forgotten by itself"),
    ],
)  # fmt: skip
def test_members_that_do_not_fit_are_found(changed, severity, message, advice):
    """Two processes with one address, mixed versions, processes that are coming or went."""
    findings = [found for found in check_members(changed) if message in found.message]
    one(findings, severity, message, advice)


@pytest.mark.parametrize(
    ("changed", "severity", "message", "advice"),
    [
        (replica("s0", phase="failed", message="storage is full: x"), Severity.PROBLEM, "is failed", "make room"),
        (replica("s0", phase="failed", message="x is corrupt"), Severity.PROBLEM, "is failed", "an in-sync peer"),
        (replica("s0", phase="failed", message="strange"), Severity.PROBLEM, "strange", "see the log"),
        (replica("s0", state="out-of-sync", phase="bootstrapping", message="7 %"), Severity.WARNING, "7 %", "wait"),
        (replica("s0", phase="replaying"), Severity.WARNING, "is replaying", "it catches up"),
        (silent("s0"), Severity.PROBLEM, "does not answer", "that shard server"),
    ],
)
def test_replicas_that_are_not_well_are_found(changed, severity, message, advice):
    """With the advice that their message calls for."""
    one(list(check_shards(status(shard(changed)))), severity, message, advice)


def test_a_replica_that_lags_is_found():
    """Seconds of writing behind, not milliseconds."""
    lagging = status(shard(replica("s0"), log_seq=90_000))
    one(list(check_shards(lagging)), Severity.WARNING, "89,900 records behind", "faster disk")


@pytest.mark.parametrize("state", ["unreachable", "missing", "foreign", "regressed", "forked"])
def test_every_state_of_the_registry_has_its_advice(state):
    """Whoever is silent could restore it, and is named where that helps."""
    lost = status(registry=state, message="why", members=(member("s0", lifecycle=""),))
    (found,) = check_registry(lost)
    assert found.severity is Severity.PROBLEM
    assert found.advice != "see docs/operations.md"
    assert ("s0:1" in found.advice) == (state not in ("foreign", "unreachable"))


def holds(positions, replicas, alive, head_bytes=1000):
    record = Shard("u", 0, (EpochStart(1, 0),), LogState.OPEN, replicas)
    head = Head(1, Position(1, 100, b""), 0, b"", 1, 1, head_bytes, open=True)
    return list(check_holds("books/0", record, head, positions, alive))


def test_only_needless_holds_of_a_log_are_found():
    """A replica that reads along may hold the log; one that is gone, out of sync or none must not."""
    in_sync, out = ReplicaState.IN_SYNC, ReplicaState.OUT_OF_SYNC
    alive = {"a": None, "b": None}
    assert holds({"a": 10}, {"a": in_sync}, alive) == []
    assert holds({"c": 100}, {"c": in_sync}, alive) == []
    one(holds({"c": 10}, {"c": in_sync}, alive), Severity.WARNING, "has no lease, keeps 90 records", "start that")
    one(holds({"b": 10}, {"a": in_sync, "b": out}, alive), Severity.WARNING, "is out of sync", "start that")
    one(holds({"b": 10}, {"a": in_sync}, alive, 2**28), Severity.PROBLEM, "is no replica", "lets go")


def redis(**changes):
    facts = {"appendfsync": "always", "clock_ahead_s": 0.0, "latency_s": 0.001}
    facts |= {key: changes.pop(key) for key in list(changes) if key in facts}
    return list(check_redis(RedisFacts("redis", info={**GOOD_INFO, **changes}, **facts), shards=4))


@pytest.mark.parametrize(
    ("changes", "severity", "message", "advice"),
    [
        ({"redis_version": "6.0.9"}, Severity.PROBLEM, "redis_version is 6.0.9, must be 6.2", "any Valkey"),
        ({"maxmemory": 2**30}, Severity.WARNING, "the logs of 4 shards may take up to 2,048 MiB", "--max-log-bytes"),
        ({"total_system_memory": 2**30, "used_memory": 2**30}, Severity.PROBLEM, "the memory of its machine", "raise"),
        ({"aof_enabled": 0, "connected_slaves": 1}, Severity.WARNING, "appendonly is no", "appendonly yes"),
        ({"aof_last_write_status": "err"}, Severity.PROBLEM, "append-only file could not be written", "make room"),
        ({"loading": 1}, Severity.PROBLEM, "still loads", "wait"),
        ({"connected_clients": 95, "maxclients": 100}, Severity.WARNING, "95 of 100 connections", "maxclients"),
        ({"clock_ahead_s": -9.0}, Severity.WARNING, "9 s behind", "NTP"),
        ({"latency_s": 0.1}, Severity.WARNING, "a PING in 100 ms", "nearer"),
    ],
)
def test_every_trouble_of_redis_is_found_by_itself(changes, severity, message, advice):
    """One cause, one finding."""
    one(redis(**changes), severity, message, advice)


def test_a_good_redis_has_no_findings():
    """Also when CONFIG is forbidden, as managed servers do."""
    assert redis() == redis(appendfsync="") == redis(maxmemory=4 * 2**30, used_memory=2**20) == []


def test_a_report_tells_problems_first():
    """Programs read the same as people: a state per check, and what to do."""
    mixed = check("redis", [warning("redis", "w", "a"), problem("redis", "p", "b")])
    report = Report((mixed, Check("logs", skipped="no redis"), check("members", [])))
    assert [found.message for found in mixed.findings] == ["p", "w"]
    assert [one["state"] for one in document(report)["checks"]] == ["problem", "skipped", "ok"]
    assert document(report)["healthy"] is False
    assert report.problems == 1


def test_statuses_of_the_tests_are_healthy():
    """The findings above come from what was changed."""
    assert [*check_members(status()), *check_shards(status()), *check_registry(status())] == []
