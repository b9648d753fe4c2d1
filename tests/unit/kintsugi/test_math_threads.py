"""How many threads matrix products take, in processes of their own."""

import os
import subprocess
import sys

import pytest

_LOOK = """
import numpy
from threadpoolctl import threadpool_info
from kintsugi.math_threads import keep_one_math_thread

changed = keep_one_math_thread()
numpy.ones((64, 64)) @ numpy.ones((64, 64))
print(changed, *{one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"})
"""
_NAMES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def threads(**environment: str) -> str:
    """Whether the number was changed, and what it is then."""
    given = {name: value for name, value in os.environ.items() if name not in _NAMES}
    done = subprocess.run(
        [sys.executable, "-c", _LOOK], env=given | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_products_take_one_thread():
    """However many cores there are."""
    assert threads() == "True 1"


@pytest.mark.parametrize("name", _NAMES)
def test_the_environment_rules(name):
    """Whoever names a number gets what the library makes of it: not every library heeds every name."""
    assert threads(**{name: "1"}).startswith("False ")
