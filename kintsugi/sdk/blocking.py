"""The synchronous client: the calls of AsyncClient, run on an event loop in a thread of its own.

Nothing is written twice: each method is made from the asynchronous one and has its signature. Any number of threads
may share a client, also threads that run an event loop (which then waits). A forked child needs a client of its own.
"""

import asyncio
import concurrent.futures
import functools
import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from opentelemetry.trace import TracerProvider

from kintsugi import limits
from kintsugi.sdk.aio import DEFAULT_ADDRESS, AsyncClient
from kintsugi.sdk.retry import RetryPolicy

P = ParamSpec("P")
T = TypeVar("T")

# How many values an iterator fetches per visit to the other thread.
_TAKEN_AT_ONCE = 100


class _LoopThread:
    """An event loop in a daemon thread, for the process that made it."""

    def __init__(self) -> None:
        self._process = os.getpid()
        # Orders the last submitted call before the end: a call behind it would wait for ever.
        self._lock = threading.Lock()
        self._stopped = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kintsugi-client", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs the coroutine over there and returns its result here; an interrupt here cancels it over there."""
        if os.getpid() != self._process:  # asked before the lock, which another thread may have held during the fork
            raise RuntimeError(f"the client belongs to process {self._process}: make a new one after a fork")
        with self._lock:
            if self._stopped:
                raise RuntimeError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise RuntimeError("the client was closed during the call") from error
        except BaseException:
            future.cancel()
            raise

    def stop(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancels what still runs, runs `last` and ends the thread. Does nothing in a forked child or a second time."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        asyncio.run_coroutine_threadsafe(_finish(last), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _finish(last: Callable[[], Coroutine[Any, Any, None]]) -> None:
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await last()
    await asyncio.get_running_loop().shutdown_asyncgens()


def _blocking(method: "Callable[Concatenate[AsyncClient, P], Awaitable[T]]") -> "Callable[Concatenate[Client, P], T]":
    """The method as one of Client."""

    @functools.wraps(method)
    def call(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def run() -> T:
            return await method(client._client, *args, **kwargs)  # noqa: SLF001

        return client._thread.run(run)  # noqa: SLF001

    return call


def _iterate(
    method: "Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]", at_once: int = _TAKEN_AT_ONCE
) -> "Callable[Concatenate[Client, P], Iterator[T]]":
    """The asynchronous iterator as an iterator of Client. `at_once`: 1 for values that take their time."""

    @functools.wraps(method)
    def call(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        values = method(client._client, *args, **kwargs)  # noqa: SLF001
        while taken := client._thread.run(lambda: _take(values, at_once)):  # noqa: SLF001
            yield from taken

    return call


async def _take(values: AsyncIterator[T], count: int) -> list[T]:
    taken: list[T] = []
    while len(taken) < count:
        try:
            taken.append(await anext(values))
        except StopAsyncIteration:
            break
    return taken


class Client:
    """A client of one cluster for threads. The arguments and methods are those of AsyncClient."""

    def __init__(
        self,
        addresses: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        timeout_s: float = limits.DEFAULT_DEADLINE_S,
        retry: RetryPolicy | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self._client = AsyncClient(addresses, timeout_s=timeout_s, retry=retry, tracer_provider=tracer_provider)
        self._thread = _LoopThread()
        # Also runs when the interpreter exits, before threads are torn down under gRPC.
        self._finalizer = weakref.finalize(self, self._thread.stop, self._client.close)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The coordinators, as given."""
        return self._client.addresses

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections and ends the thread; calls in flight are cancelled. Closing again does nothing."""
        self._finalizer()

    create_collection = _blocking(AsyncClient.create_collection)
    collection = _blocking(AsyncClient.collection)
    collections = _blocking(AsyncClient.collections)
    encode_collection = _blocking(AsyncClient.encode_collection)
    delete_collection = _blocking(AsyncClient.delete_collection)
    upsert = _blocking(AsyncClient.upsert)
    update_attributes = _blocking(AsyncClient.update_attributes)
    bulk_upsert = _blocking(AsyncClient.bulk_upsert)
    bulk_import = _blocking(AsyncClient.bulk_import)
    bulk_export = _blocking(AsyncClient.bulk_export)
    delete = _blocking(AsyncClient.delete)
    delete_by_filter = _blocking(AsyncClient.delete_by_filter)
    get = _blocking(AsyncClient.get)
    count = _blocking(AsyncClient.count)
    scroll_page = _blocking(AsyncClient.scroll_page)
    scroll = _iterate(AsyncClient.scroll)
    search = _blocking(AsyncClient.search)
    search_batch = _blocking(AsyncClient.search_batch)
    status = _blocking(AsyncClient.status)
    accept_loss = _blocking(AsyncClient.accept_loss)
    verify = _iterate(AsyncClient.verify, at_once=1)
    upgrade_plan = _blocking(AsyncClient.upgrade_plan)
    upgrade_start = _blocking(AsyncClient.upgrade_start)
    upgrade_status = _blocking(AsyncClient.upgrade_status)
    upgrade_pause = _blocking(AsyncClient.upgrade_pause)
    upgrade_resume = _blocking(AsyncClient.upgrade_resume)
    upgrade_cut_over = _blocking(AsyncClient.upgrade_cut_over)
    upgrade_rollback = _blocking(AsyncClient.upgrade_rollback)
    upgrade_finish = _blocking(AsyncClient.upgrade_finish)
    next_documents = _blocking(AsyncClient.next_documents)
    put_vectors = _blocking(AsyncClient.put_vectors)
