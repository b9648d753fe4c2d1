"""`kintsugi doctor` finds set-ups that were broken on purpose, with real parts, and names what mends them."""

import asyncio
import json
import resource
import signal
import socket
import sys
import time

import numpy as np
import pytest
from harness.redis_proxy import proxy
from redis import Redis

from kintsugi import Client, KintsugiError, Model
from kintsugi.cli.main import run
from kintsugi.local.cluster import LocalCluster
from kintsugi.local.initialise import initialise
from kintsugi.registry.records import Defaults

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(sys.platform != "linux", reason="changes limits of processes")]

PATIENCE_S = 90.0


@pytest.fixture
def diagnose(capsys):
    """Runs the doctor and returns its exit code and findings."""

    def ask(*arguments):
        capsys.readouterr()
        code = run(["doctor", "--json", *arguments])
        report = json.loads(capsys.readouterr().out)
        assert (code == 1) == (not report["healthy"])
        return code, [finding for one in report["checks"] for finding in one["findings"]]

    return ask


@pytest.fixture
def finds(diagnose):
    """Asks the doctor until it finds what is expected: detection takes as long as a lease."""

    def until(message, advice, *arguments, severity="problem"):
        end = time.monotonic() + PATIENCE_S
        while True:
            _, findings = diagnose(*arguments)
            for finding in findings:
                if message in finding["message"] and advice in finding["advice"] and finding["severity"] == severity:
                    return finding
            assert time.monotonic() < end, f"{message!r} / {advice!r} not in {findings}"

    return until


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A healthy cluster with a collection of two replicas, for tests that mend what they break."""
    env = {"KINTSUGI_OUT_OF_SYNC_AFTER_S": "3600"}
    with LocalCluster(tmp_path_factory.mktemp("doctor") / "cluster", servers=2, env=env) as cluster:
        cluster.wait_ready()
        with Client(cluster.address) as client:
            client.create_collection("docs", Model("m", 4), shards=1, replicas=2)
        yield cluster


def of(cluster):
    """The arguments that name a cluster and its Redis."""
    return ("--address", cluster.address, "--redis", cluster.redis_url)


def write(cluster, count, first=0):
    with Client(cluster.address, timeout_s=30) as client:
        client.upsert("docs", range(first, first + count), np.ones((count, 4)))


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "durable", "expected", "severity"),
    [
        (("--maxmemory-policy", "allkeys-lru"), True, ("maxmemory-policy is allkeys-lru, must be noeviction",
         "CONFIG SET maxmemory-policy noeviction"), "problem"),
        ((), False, ("appendonly is no: a restart loses", "CONFIG SET appendonly yes"), "problem"),
        (("--appendfsync", "no"), True, ("appendfsync is no", "CONFIG SET appendfsync everysec"), "warning"),
        (("--maxmemory", "32mb"), True, ("maxmemory is 32 MiB, too little", "CONFIG SET maxmemory to 512 MiB"), "problem"),
        (("--replicaof", "127.0.0.1 1"), True, ("it is a replica and takes no writes", "name its primary"), "problem"),
    ],
    ids=["evicts", "without-appendonly", "without-fsync", "too-little-memory", "replica"],
)  # fmt: skip
def test_a_redis_that_would_lose_or_refuse_writes_is_found(
    new_valkey, finds, nobody, options, durable, expected, severity
):
    """What an operator must set is said in the words of Redis."""
    server = new_valkey(durable=durable, options=options)
    finds(*expected, "--address", nobody, "--redis", server.url, severity=severity)


def test_a_redis_that_is_nearly_full_is_found(new_valkey, finds, nobody):
    """Before it refuses writes, not after."""
    server = new_valkey(options=("--maxmemory", "100mb"))
    with Redis.from_url(server.url) as client:
        client.setrange("filler", 92 * 2**20, b"x")
    finds("soon it refuses writes", "raise maxmemory", "--address", nobody, "--redis", server.url)


def test_a_redis_with_another_clock_is_found(new_valkey, finds, nobody):
    """Leases end by that clock."""
    with proxy(new_valkey().port, clock_shift_s=-300) as url:
        finds("its clock is 300 s behind", "by NTP", "--address", nobody, "--redis", url, severity="warning")


def test_a_slow_redis_is_found(new_valkey, finds, nobody):
    """Every write waits for it."""
    with proxy(new_valkey().port, delay_s=0.05) as url:
        finds("it answers a PING in", "move it nearer", "--address", nobody, "--redis", url, severity="warning")


def test_a_redis_that_is_down_is_found(finds, nobody):
    """The URL that does not answer is named, without its password."""
    found = finds(
        "does not answer", "start it, or correct --redis", "--address", nobody, "--redis", f"redis://u:secret@{nobody}"
    )
    assert "secret" not in json.dumps(found)


def test_a_redis_without_a_cluster_is_found(new_valkey, finds, nobody):
    """A new user learns the command that is missing."""
    server = new_valkey()
    finds("it holds no cluster in namespace kintsugi", "kintsugi init", "--address", nobody, "--redis", server.url)


# --- Members ----------------------------------------------------------------------------------------------------------


def test_a_healthy_cluster_has_no_problems(shared, diagnose):
    """An alarm that always rings is none."""
    code, findings = diagnose(*of(shared))
    assert code == 0
    assert [finding for finding in findings if finding["severity"] == "problem"] == []


def test_a_coordinator_that_is_down_is_found(finds, nobody):
    """The first thing to start is named."""
    finds("Connection refused", "start it with `kintsugi up`", "--address", nobody)


def test_a_wrong_namespace_is_found(shared, finds):
    """The processes and whoever looks must mean the same keys."""
    finds(
        "it holds no cluster in namespace other, the coordinators know cluster", "correct --redis or --namespace",
        *of(shared), "--namespace", "other",
    )  # fmt: skip


def test_the_redis_of_another_cluster_is_found(shared, new_valkey, finds):
    """Two clusters that share a namespace would destroy each other's logs."""
    server = new_valkey()
    asyncio.run(initialise(server.url, "kintsugi", "another", Defaults()))
    finds(
        "namespace kintsugi holds cluster another, the coordinators know", "its own --namespace",
        "--address", shared.address, "--redis", server.url,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "value", "message", "advice"),
    [
        (resource.RLIMIT_NOFILE, 200, "it may open 200 files and connections only", "ulimit -n 65536"),
        (resource.RLIMIT_AS, 2**42, "its address space is limited to", "ulimit -v unlimited"),
    ],
    ids=["open-files", "address-space"],
)
def test_limits_that_are_too_low_are_found(shared, finds, limit, value, message, advice):
    """Of the process that has them, wherever it runs."""
    pid = shared.pid("shard-0")
    before = resource.prlimit(pid, limit, (value, resource.RLIM_INFINITY if value > 200 else 20_000))
    try:
        assert finds(message, advice, *of(shared))["subject"].startswith("shard-")
    finally:
        resource.prlimit(pid, limit, before)


def test_a_member_that_hangs_is_found(shared, finds):
    """It holds a lease, and its address does not answer."""
    shared.kill("shard-0", signal.SIGSTOP)
    try:
        finds("holds a lease, and nothing answers at its address", "--advertise, firewall", *of(shared))
    finally:
        shared.kill("shard-0", signal.SIGCONT)
        shared.wait_ready()


def test_a_dead_member_and_the_log_that_waits_for_it_are_found(shared, finds):
    """The member is named, and what its absence keeps in Redis."""
    write(shared, 1)  # later ones need not ask every replica where the log was
    shared.kill("shard-1")
    try:
        write(shared, 50)
        finds("is gone", "start it again with its data folder", *of(shared))
        finds("records in the log from being trimmed", "start that shard server", *of(shared), severity="warning")
        finds("does not answer; it is in-sync", "see what is said", *of(shared))
    finally:
        shared.start_process("shard-1")
        shared.wait_ready()


def test_a_replica_at_its_quota_is_found(new_cluster, finds):
    """The setting to raise is named."""
    cluster = new_cluster(servers=1, env={"KINTSUGI_MAX_REPLICA_BYTES": str(2**20)})
    with Client(cluster.address, timeout_s=1) as client:
        client.create_collection("docs", Model("m", 256))
        vectors = np.ones((1000, 256), dtype=np.float32)
        for first in range(0, 10_000, 1000):
            try:
                client.upsert("docs", range(first, first + 1000), vectors)
            except KintsugiError:
                break
        else:
            pytest.fail("the quota was never reached")
    finds("its quota is", "raise --max-replica-bytes", *of(cluster))


def test_a_lost_registry_is_found_while_those_who_could_restore_it_are_away(new_cluster, finds):
    """Nobody must initialise again what the shard servers still hold."""
    cluster = new_cluster(servers=1)
    address = cluster.address_of("shard-0")
    cluster.kill("shard-0")
    with Redis.from_url(cluster.redis_url) as client:
        client.flushall()
    finds("it is missing, writes are refused", "start all shard servers: they restore it", *of(cluster))
    found = finds("it holds no cluster in namespace kintsugi, the coordinators know", "they restore it", *of(cluster))
    assert found["subject"] == "redis"
    finds(f"shard server {address}", "start it again with its data folder", *of(cluster))


def test_a_foreign_registry_is_found(new_cluster, finds):
    """Somebody initialised another cluster where this one was."""
    cluster = new_cluster(servers=1)
    cluster.kill("shard-0")
    with Redis.from_url(cluster.redis_url) as client:
        client.flushall()
    asyncio.run(initialise(cluster.redis_url, "kintsugi", "another", Defaults()))
    finds("it is foreign, writes are refused", "point the processes to their own Redis", *of(cluster))


def test_a_recovery_that_waits_is_found(new_cluster, finds):
    """Whom it waits for is named, and the command for when they never come back."""
    cluster = new_cluster(servers=2, env={"KINTSUGI_OUT_OF_SYNC_AFTER_S": "3600"})
    with Client(cluster.address) as client:
        client.create_collection("docs", Model("m", 4), shards=1, replicas=2)
    write(cluster, 10)
    address = cluster.address_of("shard-1")
    cluster.kill("shard-1")
    with Redis.from_url(cluster.redis_url) as client:
        client.flushall()
    finds("its log is recovering, writes are refused", f"start the shard servers at {address}", *of(cluster))
    finds("its log is recovering", "kintsugi recover --accept-loss docs/0", *of(cluster))
