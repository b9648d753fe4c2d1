"""How Kintsugi talks to Redis: connecting, checking the server, running scripts, translating failures.

Guarantees that every call ends within the socket timeout and is sent once: the client library's own retries are off,
because a repeated write could happen twice; whoever may safely repeat a call does so itself. Blocking reads must block
for less than the socket timeout. Knows no keys.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha1
from importlib.resources import files
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from kintsugi.errors import FailedPrecondition, InvalidArgument, Unavailable

RedisClient: TypeAlias = Redis | RedisCluster

SOCKET_TIMEOUT_S = 5.0
# The longest a blocking read may ask for; the rest of the socket timeout is for the answer to arrive.
MAX_BLOCK_MS = int(SOCKET_TIMEOUT_S * 1000 / 2)
MIN_VERSION = (6, 2)
# Every replica's reader holds a connection while it blocks; the library's default of 100 would stop a large server.
_MAX_CONNECTIONS = 4096
_DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}

# What any of the library's calls may raise: the cluster client's own exceptions stand outside RedisError.
REDIS_EXCEPTIONS = (RedisError, RedisClusterException, OSError)


def connect(url: str, *, socket_timeout_s: float = SOCKET_TIMEOUT_S) -> RedisClient:
    """Makes a client without contacting the server.

    Takes redis://, rediss:// and unix:// URLs as the library does, `sentinel://host:port,host:port/service` for the
    primary that Sentinels name, and `cluster://host:port,host:port` for a Redis Cluster. The last two take
    `user:password@` and the query fields `db` (Sentinel only) and `tls=true`.
    """
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": socket_timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "max_connections": _MAX_CONNECTIONS,
        "protocol": 2,
    }
    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss", "unix"):
        if scheme == "unix":
            del options["socket_keepalive"]  # which such sockets have no use for
        try:
            client: Redis = Redis.from_url(url, retry=_no_retry(), **options)
        except ValueError as error:
            raise InvalidArgument("redis", f"is {without_password(url)!r}", str(error)) from error
        return client
    if scheme == "sentinel":
        return _connect_sentinel(url, options)
    if scheme == "cluster":
        return _connect_cluster(url, options)
    raise InvalidArgument(
        "redis",
        f"is {without_password(url)!r}",
        "must start with redis://, rediss://, unix://, sentinel:// or cluster://",
    )


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def _connect_sentinel(url: str, options: dict[str, Any]) -> Redis:
    hosts, credentials, query = _split(url)
    service = urlsplit(url).path.strip("/")
    if not service:
        raise InvalidArgument(
            "redis", f"is {without_password(url)!r}", "must name a service: sentinel://host:port/service"
        )
    sentinel_options = {name: value for name, value in options.items() if name.startswith("socket_")}
    sentinel_options |= {"protocol": 2, "retry": _no_retry()}
    if query.get("tls") == "true":
        options = options | {"ssl": True}
        sentinel_options["ssl"] = True
    sentinel = Sentinel(hosts, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    options = options | credentials | {"db": int(query.get("db", "0")), "retry": _no_retry()}
    client: Redis = sentinel.master_for(service, **options)
    return client


def _connect_cluster(url: str, options: dict[str, Any]) -> RedisCluster:
    hosts, credentials, query = _split(url)
    if query.get("tls") == "true":
        options = options | {"ssl": True}
    nodes = [ClusterNode(host, port) for host, port in hosts]
    options = options | credentials
    return RedisCluster(startup_nodes=nodes, retry=_no_retry(), **options)


def _split(url: str) -> tuple[list[tuple[str, int]], dict[str, str], dict[str, str]]:
    """The hosts, credentials and query of a URL that names several hosts."""
    parts = urlsplit(url)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    credentials = {"username": unquote(user), "password": unquote(password)}
    try:
        named = [urlsplit(f"//{host}") for host in hosts.split(",")]
        addresses = [(host.hostname or "localhost", host.port or _DEFAULT_PORTS[parts.scheme]) for host in named]
    except ValueError as error:
        raise InvalidArgument("redis", f"is {without_password(url)!r}", str(error)) from error
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return addresses, {name: value for name, value in credentials.items() if value}, query


def without_password(url: str) -> str:
    return re.sub(r"://[^@/]*@", "://***@", url)


@contextmanager
def redis_errors(doing: str = "redis") -> Iterator[None]:
    """Turns whatever a call to Redis raises into Unavailable: lost connections and timeouts, and also replies such as
    LOADING, READONLY, OOM, NOREPLICAS or CLUSTERDOWN, which a repeated call may overcome."""
    try:
        with _closed_transports():
            yield
    except REDIS_EXCEPTIONS as error:
        detail = str(error) or type(error).__name__
        raise Unavailable(f"{doing} failed: {detail}", reason="REDIS_UNAVAILABLE") from error


@contextmanager
def _closed_transports() -> Iterator[None]:
    """A server that goes away just when a connection is made leaves a closed transport, and for a write to one uvloop raises
    RuntimeError, which the library does not take for a lost connection."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).endswith("the handler is closed"):
            raise
        raise RedisConnectionError(str(error)) from error


class Script:
    """A Lua script that stands as a file, or several joined in order, next to the code that runs it. Sent by its
    digest, in full when the server does not have it; all its keys must share a hash tag. Redis' exceptions pass."""

    def __init__(self, package: str, *names: str) -> None:
        self.source = "\n".join(files(package).joinpath(name).read_text("utf-8") for name in names)
        self.digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: RedisClient, keys: Sequence[str], args: Sequence[bytes | str | int]) -> Any:
        with _closed_transports():
            try:
                return await client.execute_command("EVALSHA", self.digest, len(keys), *keys, *args)
            except NoScriptError:
                return await client.execute_command("EVAL", self.source, len(keys), *keys, *args)


async def check_server(client: RedisClient) -> None:
    """Refuses servers that would lose data by design or lack a command, with FailedPrecondition that says what to set."""
    with redis_errors("reading INFO from redis"):
        if isinstance(client, RedisCluster):
            await client.initialize()
            for node in client.get_primaries():
                check_info(await client.info("everything", target_nodes=node))
        else:
            check_info(await client.info("everything"))


def check_info(info: Mapping[str, Any]) -> None:
    """Checks the fields of INFO, which managed servers answer even where they forbid CONFIG."""
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < MIN_VERSION:
        raise FailedPrecondition(
            f"redis_version is {version or 'unknown'}, must be 6.2 or newer (any valkey will do)",
            reason="REDIS_TOO_OLD",
        )
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        raise FailedPrecondition(
            f"maxmemory-policy is {policy or 'unknown'}, must be noeviction, or redis deletes the log when memory is full; "
            "set it with CONFIG SET maxmemory-policy noeviction and in the server's configuration",
            reason="REDIS_EVICTS",
        )
