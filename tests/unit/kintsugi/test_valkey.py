"""The embedded Valkey."""

import socket

import pytest
from redis import Redis

from kintsugi.errors import Unavailable
from kintsugi.local.valkey import HOST, Valkey, is_ready


def test_server_keeps_acknowledged_writes_over_kill(new_valkey):
    """What was acknowledged is there after kill -9 and a restart on the same port."""
    server = new_valkey()
    port = server.port
    with Redis.from_url(server.url) as client:
        client.set("key", "value")
    server.kill()
    server.start()
    assert server.port == port
    with Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"


def test_server_is_safe_by_configuration(new_valkey):
    """The server syncs every write, never evicts and listens on loopback only."""
    server = new_valkey()
    with Redis.from_url(server.url) as client:
        settings = client.config_get("append*", "maxmemory-policy", "bind")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == HOST


def test_start_explains_a_taken_port(tmp_path):
    """A port that is taken is an error that quotes the server's log, and no process stays behind."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        server = Valkey(tmp_path, taken.getsockname()[1])
        with pytest.raises(Unavailable, match="bind"):
            server.start()
        assert not server.running


def test_stop_ends_the_process(new_valkey):
    """A stopped server does not answer, and stopping it twice is harmless."""
    server = new_valkey(durable=False)
    server.stop()
    server.stop()
    assert not is_ready(server.port)


def test_start_is_not_fooled_by_another_server_on_its_port(new_valkey, tmp_path):
    """A server that finds another one on its port does not take that one for itself."""
    other = new_valkey(durable=False)
    server = Valkey(tmp_path / "mine", other.port)
    with pytest.raises(Unavailable, match="bind"):
        server.start()
