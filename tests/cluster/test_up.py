"""The local cluster and `kintsugi up`: starting, stopping, restarting, and leaving nothing behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from kintsugi import Client, Model
from kintsugi.errors import FailedPrecondition
from kintsugi.local.cluster import LocalCluster
from kintsugi.registry.records import Defaults

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

READY_LINE = "Ctrl-C stops it."


def wait_for(condition, timeout_s=60):
    """Waits until the condition holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.05)


def processes_of(folder):
    """The ids of the processes that live in a folder, by the name of their own folder in it. Not by their command
    lines: Valkey changes its own."""
    found = {}
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # gone meanwhile, or a zombie
            home = link.readlink()
            if home.is_relative_to(folder):
                found[home.name] = int(link.parent.name)
    return found


@pytest.fixture
def up(tmp_path):
    """Starts `kintsugi up` in a folder and waits until it is ready."""
    started = []

    def start(*arguments, env=None):
        command = [
            sys.executable,
            "-m",
            "kintsugi.cli",
            "up",
            "--data",
            str(tmp_path / "data"),
            "--port",
            "0",
            *arguments,
        ]
        environment = {**os.environ, **(env or {})}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        started.append(process)
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if READY_LINE in line:
                break
        assert READY_LINE in lines, lines
        return process, [line.split()[1] for line in lines if line.startswith("coordinator")]

    yield start
    for process in started:
        process.kill()
        process.stdout.close()
        process.wait()


def test_cluster_keeps_its_data_ports_and_id_over_a_restart(new_cluster):
    """A second start in the folder is the same cluster."""
    cluster = new_cluster(servers=1, coordinators=2)
    before = (cluster.cluster_id, cluster.addresses, cluster.names())
    with Client(cluster.addresses) as client:
        client.create_collection("books", Model("m", 2))
        client.upsert("books", [1], [[1.0, 0.0]])
    assert set(cluster.stop().values()) == {0}
    cluster.start()
    cluster.wait_ready()
    assert (cluster.cluster_id, cluster.addresses, cluster.names()) == before
    with Client(cluster.addresses) as client:
        assert client.count("books") == 1
    cluster.stop()


def test_defaults_reach_new_collections_and_can_change(new_cluster):
    """`up --shards` counts for collections that do not say, also in an old folder."""
    cluster = new_cluster(servers=1, defaults=Defaults(shards=3))
    with Client(cluster.address) as client:
        assert client.create_collection("a", Model("m", 2)).shards == 3
    cluster.stop()
    again = LocalCluster(cluster.data, defaults=Defaults(shards=2))
    with again:
        again.wait_ready()
        with Client(again.address) as client:
            assert client.create_collection("b", Model("m", 2)).shards == 2


def test_folder_in_use_and_fewer_servers_are_refused(new_cluster):
    """Two clusters in a folder, or one without the servers that hold its replicas, would lose data."""
    cluster = new_cluster(servers=2, ready=False)
    with pytest.raises(FailedPrecondition, match="is in use by process"):
        LocalCluster(cluster.data).start()
    cluster.stop()
    with pytest.raises(FailedPrecondition, match="^servers is 1, must be at least 2"):
        LocalCluster(cluster.data, servers=1).start()


def test_wiped_redis_is_recovered_and_not_initialised_again(new_cluster):
    """A Valkey that lost its files comes back with the cluster that the shard servers remember."""
    cluster = new_cluster(servers=1)
    with Client(cluster.address) as client:
        client.create_collection("books", Model("m", 2))
        client.upsert("books", [1], [[1.0, 0.0]])
        cluster_id = client.status().cluster_id
    cluster.stop()
    for file in sorted(cluster.data.glob("valkey/**/*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    cluster.start()
    cluster.wait_ready()
    with Client(cluster.address, timeout_s=60) as client:
        status = client.status()
        assert (status.cluster_id, status.incarnation) == (cluster_id, 2)
        assert client.count("books") == 1
    cluster.stop()


async def test_cluster_starts_inside_an_event_loop(new_cluster):
    """Asynchronous tests use the same class."""
    cluster = await asyncio.to_thread(new_cluster, servers=1)
    second_start = asyncio.to_thread(cluster.start_process, "shard-0")
    with pytest.raises(FailedPrecondition, match="runs already"):
        await second_start
    cluster.kill("shard-0")
    assert cluster.exit_code("shard-0") == -signal.SIGKILL
    cluster.start_process("shard-0")
    cluster.wait_ready()
    cluster.stop()


def test_up_drains_on_ctrl_c_and_leaves_no_process(up, tmp_path):
    """One signal, exit code 0, nothing left."""
    process, addresses = up("--shards", "2", "--replicas", "2")
    with Client(addresses) as client:
        members = client.status().members
    assert sorted(member.role for member in members if member.alive) == ["coordinator", "shard", "shard"]
    assert set(processes_of(tmp_path / "data")) == {"valkey", "coordinator-0", "shard-0", "shard-1"}
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output.splitlines()[-1] == "stopped"
    assert not processes_of(tmp_path / "data")


def test_second_ctrl_c_kills_what_does_not_drain(up, tmp_path):
    """Somebody in a hurry is obeyed: here a shard server hangs in its last checkpoint."""
    hanging = tmp_path / "hanging"
    process, addresses = up("--servers", "1", env={"KINTSUGI_FAILPOINTS": f"checkpoint.before_rename=pause:{hanging}"})
    with Client(addresses) as client:
        client.create_collection("books", Model("m", 2))
        client.upsert("books", [1], [[1.0, 0.0]])
    process.send_signal(signal.SIGINT)
    wait_for(hanging.exists)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert output.splitlines()[-1] == "killed"
    assert not processes_of(tmp_path / "data")


def test_killed_up_leaves_no_orphan_and_the_folder_can_be_used_again(up, tmp_path):
    """kill -9 of the starter takes everything along; the next start works at once."""
    process, _ = up("--servers", "2")
    assert set(processes_of(tmp_path / "data")) == {"valkey", "coordinator-0", "shard-0", "shard-1"}
    process.kill()
    process.wait()
    wait_for(lambda: not processes_of(tmp_path / "data"))
    again, addresses = up()
    with Client(addresses) as client:
        assert len(client.status().members) == 3
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=120)
    assert again.returncode == 0


def test_up_restarts_what_crashes(up, tmp_path):
    """A killed shard server comes back by itself and serves."""
    process, addresses = up("--servers", "1")
    remembered = json.loads((tmp_path / "data" / "cluster.json").read_text())
    assert remembered["initialised"] is True
    os.kill(processes_of(tmp_path / "data")["shard-0"], signal.SIGKILL)
    assert process.stdout.readline().startswith("shard-0 exited with status -9, restarting in 0.5 s")
    assert process.stdout.readline().strip() == "shard-0 restarted"
    with Client(addresses, timeout_s=30) as client:
        wait_for(lambda: [m.lifecycle for m in client.status().members if m.role == "shard"] == ["SERVING"])
