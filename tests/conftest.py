"""What all tests share: the --long mode and a real Valkey.

`valkey` is a server that the whole session shares, empty at the start of each test. A test that stops, kills or
reconfigures its server takes one of its own from `new_valkey`. `redis` is a client of `valkey`.
"""

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from kintsugi.keys import Keys
from kintsugi.local.valkey import Valkey
from kintsugi.redis_client import RedisClient, connect


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


def pytest_configure() -> None:
    """A shell that runs the tests in the background has them ignore SIGINT, and the processes that they start, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests marked long unless --long is given."""
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The session's server. It keeps nothing on disk."""
    with Valkey(tmp_path_factory.mktemp("valkey"), durable=False) as server:
        yield server


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """The session's server, emptied."""
    with Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server


@pytest.fixture
def new_valkey(tmp_path: Path) -> Iterator[Callable[..., Valkey]]:
    """Makes running servers of a test's own: new_valkey(name, durable=True, options=(...))."""
    servers: list[Valkey] = []

    def make(name: str = "valkey", *, durable: bool = True, options: tuple[str, ...] = ()) -> Valkey:
        server = Valkey(tmp_path / name, durable=durable, options=options)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[RedisClient]:
    """A client of the emptied server, made as the processes make theirs."""
    client = connect(valkey.url)
    yield client
    await client.aclose()


@pytest.fixture
def keys() -> Keys:
    return Keys("test")
