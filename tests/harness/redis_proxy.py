"""A proxy before a Redis that shifts its clock or answers late, in a thread of its own."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 2**16


@contextmanager
def proxy(port: int, *, clock_shift_s: int = 0, delay_s: float = 0.0) -> Iterator[str]:
    """Yields the URL under which the Redis at `port` is reached through the proxy."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def serve() -> asyncio.Server:
        return await asyncio.start_server(lambda r, w: _relay(r, w, port, clock_shift_s, delay_s), "127.0.0.1", 0)

    server = asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, clock_shift_s: int, delay_s: float
) -> None:
    """One connection. The client sends the next command only after the answer, so that TIME is known by its name."""
    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
    asked = b""

    async def forward() -> None:
        nonlocal asked
        while data := await reader.read(_CHUNK):
            asked = data
            there_writer.write(data)

    async def answer() -> None:
        while data := await there_reader.read(_CHUNK):
            await asyncio.sleep(delay_s)
            if asked.endswith(b"\r\nTIME\r\n"):
                data = re.sub(rb"\d{10}", lambda found: str(int(found[0]) + clock_shift_s).encode(), data, count=1)
            writer.write(data)

    with suppress(ConnectionError, asyncio.CancelledError):
        done, rest = await asyncio.wait(
            [asyncio.ensure_future(forward()), asyncio.ensure_future(answer())], return_when=asyncio.FIRST_COMPLETED
        )
        for task in rest:
            task.cancel()
        await asyncio.gather(*done, *rest, return_exceptions=True)
    for end in (writer, there_writer):
        end.close()
