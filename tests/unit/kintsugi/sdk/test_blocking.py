"""The synchronous client: threads, running loops, forks and closing."""

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import kintsugi
from kintsugi import AsyncClient, Client, InvalidArgument


@pytest.fixture
def client(served, fake):
    with Client(served(fake)) as client:
        yield client


def _write(client, count=5):
    return client.upsert("docs", list(range(count)), np.eye(count, 8, dtype=np.float32))


def test_every_call_of_the_asynchronous_client_is_there():
    """Client has each public method of AsyncClient, with its signature and documentation."""
    for name, method in inspect.getmembers(AsyncClient, inspect.isfunction):
        if name.startswith("_") or name == "close":
            continue
        assert inspect.signature(getattr(Client, name)) == inspect.signature(method)
        assert getattr(Client, name).__doc__ == method.__doc__


def test_calls_return_values(client):
    """Writes, reads and searches work without an event loop."""
    assert _write(client).applied == 5
    assert client.count("docs") == 5
    assert client.search("docs", np.eye(5, 8)[3], 1).hits[0].id == 3
    assert client.bulk_upsert("docs", [9], np.ones((1, 8))).applied == 1


def test_scroll_iterates(client):
    """Scrolling is a plain iterator, also across many pages, and may be left early."""
    _write(client, 8)
    assert [document.id for document in client.scroll("docs", 3)] == list(range(8))
    assert next(client.scroll("docs", 3)).id == 0


def test_errors_are_raised_here(client):
    """A failure of the call is raised in the calling thread."""
    with pytest.raises(InvalidArgument, match="ids"):
        client.upsert("docs", [-1], np.ones((1, 2)))


def test_threads_share_a_client(client):
    """Many threads at once get their own answers."""
    _write(client, 8)
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(lambda i: client.search("docs", np.eye(8)[i % 8], 1).hits[0].id, range(64)))
    assert found == [i % 8 for i in range(64)]


async def test_it_works_inside_a_running_loop(served, fake):
    """A thread that runs an event loop may use it, because the calls run on another one."""
    with Client(served(fake)) as client:
        assert client.count("docs") == 0
        assert await asyncio.to_thread(client.count, "docs") == 0


def test_closing_twice_is_harmless_and_calls_after_it_raise(served, fake):
    """A closed client says so and has ended its thread."""
    client = Client(served(fake))
    client.count("docs")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.count("docs")
    assert not any(thread.name == "kintsugi-client" for thread in threading.enumerate())


def test_closing_ends_calls_in_flight(served, fake):
    """Another thread's call raises instead of waiting for ever."""
    client = Client(served(fake))
    client.count("docs")
    fake.hold = asyncio.Event()
    with ThreadPoolExecutor(1) as executor:
        call = executor.submit(client.count, "docs")
        deadline = threading.Event()
        while len(fake.requests["Count"]) < 2:
            assert not deadline.wait(0.01)
        client.close()
        with pytest.raises(RuntimeError, match="closed during the call"):
            call.result(10)


def test_a_forgotten_client_ends_with_its_last_reference(served, fake):
    """Nothing is left running when a client is dropped without close()."""
    client = Client(served(fake))
    client.count("docs")
    del client
    assert not any(thread.name == "kintsugi-client" for thread in threading.enumerate())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_told_to_make_its_own(client):
    """In a child process the client raises instead of hanging, and closing it there does nothing."""
    client.count("docs")
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            client.count("docs")
        except RuntimeError as error:
            client.close()
            os._exit(0 if "fork" in str(error) else 1)
        os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert client.count("docs") == 0


def test_a_program_that_never_closes_it_still_exits(served, fake):
    """An interpreter that ends with an open client ends cleanly and says nothing."""
    program = f"from kintsugi import Client; c = Client({served(fake)!r}); print(c.count('docs'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_importing_the_package_loads_neither_servers_nor_the_sdk():
    """`import kintsugi` is light, and the client brings no server and no demo along."""
    program = (
        "import sys, kintsugi; light = 'grpc' in sys.modules; kintsugi.Client; "
        "print(light, sorted(n for n in sys.modules if n.split('.')[0] in ('coordinator', 'shard', 'redis', 'lmdb', "
        "'usearch', 'sklearn', 'rich', 'click')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "False []"


def test_every_exported_name_exists():
    """What __all__ names can be imported, and nothing else is invented."""
    assert all(getattr(kintsugi, name) for name in kintsugi.__all__)
    with pytest.raises(AttributeError):
        _ = kintsugi.Klient
