"""How many threads numpy's matrix products take in this process."""

import os
from typing import Final

from threadpoolctl import threadpool_limits

_ASKED_FOR: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def keep_one_math_thread() -> bool:
    """Lets matrix products take one thread each, unless the environment names a number; then False. By default they take one per
    core of the machine, which wait for each other by spinning: where a process may use fewer cores, or others want them, for
    tens of milliseconds. See docs/decisions/0035."""
    if any(name in os.environ for name in _ASKED_FOR):
        return False
    threadpool_limits(limits=1, user_api="blas")
    return True
