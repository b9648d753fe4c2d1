"""Embeds with a command of the shell, which is started once and asked batch after batch.

The command reads one JSON object per line, {"id": ..., "text": "...", "attributes": {...}}, and an empty line behind each
batch. It answers each document with one line, a JSON array of numbers, in their order, and must flush behind each batch. It
ends when its input does. What it writes to stderr is shown.

Guarantees: one batch at a time; a command that ends, stalls or answers nonsense fails the batch and is started anew for the
next one; after close() neither it nor its children run.
"""

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

import msgspec

from kintsugi.backfill.embedder import EmbedFailed, EmbedRefused, F32Matrix, matrix_of
from kintsugi.sdk.upgrade_types import DocumentToEmbed

# For how long a command may clean up after its input has ended.
_ENDING_S = 5.0
_SHOWN_CHARACTERS = 80

_NUMBERS = msgspec.json.Decoder(list[float])


class CommandEmbedder:
    """`timeout_s`: for how long the command may say nothing while a batch lacks vectors."""

    needs_text = False

    def __init__(self, command: str, timeout_s: float) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._running: _Running | None = None

    def embed(self, documents: Sequence[DocumentToEmbed]) -> F32Matrix:
        if self._running is None:
            self._running = _Running(self._command)
        try:
            vectors = self._running.ask(b"".join(map(_line_of, documents)) + b"\n", len(documents), self._timeout_s)
            return matrix_of(vectors, len(documents), "the command")
        except BaseException:
            # Whatever it still has to say belongs to no later batch.
            self._running.kill()
            self._running = None
            raise

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None


class _Running:
    """The process, with a thread that reads what it says and one that writes to it: neither can hold up the other."""

    def __init__(self, command: str) -> None:
        # In a session of its own: Ctrl-C is for the worker, which then ends it with all its children.
        self._process = subprocess.Popen(  # noqa: S602 -- it is the user's own command line
            command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="embed-read", daemon=True).start()

    def ask(self, batch: bytes, answers: int, timeout_s: float) -> list[list[float]]:
        threading.Thread(target=self._write, args=(batch,), name="embed-write", daemon=True).start()
        vectors: list[list[float]] = []
        # Per line, so that a large batch may take its time as long as something comes.
        while len(vectors) < answers:
            try:
                line = self._lines.get(timeout=timeout_s)
            except queue.Empty:
                raise EmbedFailed(
                    f"the command gave {len(vectors)} of {answers} vectors and then nothing for {timeout_s:g} s; it must "
                    "flush its output behind each batch"
                ) from None
            if line is None:
                raise EmbedFailed(
                    f"the command ended with code {self._process.wait()} after {len(vectors)} of {answers} vectors"
                )
            if line.strip():
                vectors.append(_numbers(line))
        return vectors

    def close(self) -> None:
        """Ends its input and waits a little for it to end."""
        self._end_input()
        with suppress(subprocess.TimeoutExpired):  # it is killed next
            self._process.wait(_ENDING_S)
        self.kill()

    def kill(self) -> None:
        """With all its children, which may have outlived it."""
        with suppress(ProcessLookupError):  # all of them have ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._end_input()

    def _end_input(self) -> None:
        with suppress(BrokenPipeError):  # it has ended before its input
            _stream(self._process.stdin).close()

    def _read(self) -> None:
        with _stream(self._process.stdout) as stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put(None)

    def _write(self, batch: bytes) -> None:
        stream = _stream(self._process.stdin)
        with suppress(OSError, ValueError):  # it has ended or was ended: the reading thread hears of it
            stream.write(batch)
            stream.flush()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "the process was started with pipes"
    return stream


def _line_of(document: DocumentToEmbed) -> bytes:
    attributes = msgspec.Raw(document.attributes.encode() or b"{}")
    told = {"id": document.id, "text": document.text, "attributes": attributes}
    return msgspec.json.encode(told) + b"\n"


def _numbers(line: bytes) -> list[float]:
    try:
        return _NUMBERS.decode(line)
    except msgspec.DecodeError as error:
        shown = line.decode(errors="replace").strip()[:_SHOWN_CHARACTERS]
        raise EmbedRefused(f"the command answered {shown!r}, must be a JSON array of numbers per document") from error
