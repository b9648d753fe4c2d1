"""A data folder has one user and remembers."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from kintsugi.errors import FailedPrecondition
from kintsugi.local.folder import HOST, ClusterFile, DataFolder, is_free, new_cluster_id, take_port

# Locks a folder, starts a child that inherits the lock, and waits.
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from kintsugi.local.folder import DataFolder
folder = DataFolder(Path(sys.argv[1]))
folder.lock()
sleep = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(sleep, pass_fds=[folder.lock_descriptor], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_cluster_file_is_read_as_it_was_written(tmp_path):
    """Ids and ports survive a restart."""
    folder = DataFolder(tmp_path / "new" / "folder")
    folder.lock()
    assert folder.read() is None
    content = ClusterFile(new_cluster_id(), servers=2, coordinators=1, initialised=True, ports={"valkey": 17000})
    folder.write(content)
    assert folder.read() == content
    folder.unlock()


def test_damaged_cluster_file_is_refused(tmp_path):
    """Starting over silently would lose the cluster's identity."""
    (tmp_path / "cluster.json").write_text('{"cluster_id": 5')
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        DataFolder(tmp_path).read()


def test_second_user_is_refused_until_the_first_unlocks(tmp_path):
    """Two clusters on one folder would destroy each other's files."""
    first, second = DataFolder(tmp_path), DataFolder(tmp_path)
    first.lock()
    with pytest.raises(FailedPrecondition, match=f"is in use by process {os.getpid()};"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()


def test_folder_stays_locked_while_an_inheritor_lives(tmp_path):
    """After kill -9 of the starter, the next one waits for its processes to be gone."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    holder.kill()
    holder.communicate()
    folder = DataFolder(tmp_path)
    started = time.monotonic()
    with pytest.raises(FailedPrecondition, match="is in use"):
        folder.lock()
    assert time.monotonic() - started > 1
    os.kill(child, signal.SIGKILL)
    folder.lock()
    folder.unlock()


def test_remembered_port_is_kept_while_it_is_free():
    """Clients keep working after a restart."""
    port = take_port(None, set())
    assert is_free(port)
    assert take_port(port, {port}) == port


def test_port_that_somebody_took_is_replaced():
    """A restart does not fail because of a stranger's port."""
    with socket.socket() as stranger:
        port = take_port(None, set())
        stranger.bind((HOST, port))
        stranger.listen()
        assert not is_free(port)
        assert take_port(port, {port}) != port
