"""The memory of this process: how much of it the operating system counts, how its allocator keeps it, and when it looks for
garbage."""

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path
from typing import Final

_STATM = Path("/proc/self/statm")
# Of glibc's malloc.h.
_M_ARENA_MAX: Final = -8
# Objects made and not yet gone, young collections, middle ones.
_COLLECT_AFTER: Final = (10_000, 20, 10)


def resident_bytes() -> int:
    """The resident set size; where the system has no /proc, its highest value so far."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_one_heap() -> bool:
    """Lets all threads allocate from one heap, unless MALLOC_ARENA_MAX says otherwise. False where nothing was
    changed; C libraries other than glibc have no such setting. By default glibc gives threads up to 8 heaps per core, and what one thread frees is of no
    use to the others: see docs/decisions/0033."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or "MALLOC_ARENA_MAX" in os.environ:
        return False
    return bool(mallopt(_M_ARENA_MAX, 1))


def collect_seldom() -> None:
    """Lets the garbage collector look for cycles after many more objects than by default, and never at those that are there when a
    server starts: modules and protocols. Searches make thousands of objects, which go by themselves. See docs/decisions/0036."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
