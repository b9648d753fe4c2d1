"""What a process counts and keeps of its memory, in processes of its own."""

import os
import re
import subprocess
import sys

import pytest

_HEAPS_OF_BUSY_THREADS = """
import ctypes, os, sys, tempfile, threading
from kintsugi.process_memory import keep_one_heap

changed = keep_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(8)

def busy():
    together.wait()
    for _ in range(100):
        assert libc.malloc(5000)
    together.wait()

threads = [threading.Thread(target=busy) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile("r") as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(changed, file.read().count("<heap nr="))
"""


def heaps(**environment: str) -> tuple[str, int]:
    """Whether the number of heaps was changed, and how many there are after eight threads allocated at once."""
    given = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", _HEAPS_OF_BUSY_THREADS]
    done = subprocess.run(command, env=given | environment, capture_output=True, text=True, check=True)
    told = re.fullmatch(r"(True|False) (\d+)\s*", done.stdout)
    assert told, done.stdout
    return told[1], int(told[2])


@pytest.mark.skipif(sys.platform != "linux", reason="counts the heaps of glibc")
def test_threads_share_one_heap():
    """What one of them frees can be used by the others."""
    assert heaps() == ("True", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the heaps of glibc")
def test_the_environment_rules():
    """Whoever runs the server may ask for more heaps."""
    changed, count = heaps(MALLOC_ARENA_MAX="4")
    assert changed == "False"
    assert 1 < count <= 4


_FILLED = """
from kintsugi.process_memory import resident_bytes

before = resident_bytes()
filled = b"x" * (64 << 20)
print(resident_bytes() - before)
"""


def test_a_process_holds_what_it_fills():
    """The resident set grows with what is written to."""
    said = subprocess.run([sys.executable, "-c", _FILLED], capture_output=True, text=True, check=True).stdout
    assert int(said) >= 32 << 20


_CYCLES = """
import gc
from kintsugi.process_memory import collect_seldom

made = []
gc.callbacks.append(lambda phase, _: made.append(phase))

def cycle():
    one = []
    one.append(one)

def collections():
    made.clear()
    for _ in range(100_000):
        cycle()
    return len(made) // 2

before = collections()
collect_seldom()
print(before, collections(), gc.get_freeze_count() > 1000)
"""


def test_the_collector_looks_for_cycles_less_often():
    """A tenth as often as by default, and still before cycles amount to much; what was there at the start is left alone."""
    said = subprocess.run([sys.executable, "-c", _CYCLES], capture_output=True, text=True, check=True).stdout.split()
    before, after = int(said[0]), int(said[1])
    assert 5 <= after <= before / 10
    assert said[2] == "True"
