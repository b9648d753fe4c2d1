"""The memory of an index by formula, against what the kernel said of real ones."""

import pytest

from kintsugi.ann.footprint import graph_bytes, index_bytes


@pytest.mark.parametrize(
    ("vectors", "code_bytes", "connectivity", "measured"),
    [
        (100_000, 1536, 16, 1793.6),
        (100_000, 384, 16, 641.8),
        (200_000, 48, 16, 305.6),
        (66_000, 48, 16, 333.3),
        (65_000, 48, 16, 293.8),
        (65_000, 384, 14, 566.3),
        (65_000, 384, 22, 631.7),
    ],
)
def test_the_formula_gives_the_anonymous_memory_that_was_measured(vectors, code_bytes, connectivity, measured):
    """Bytes per vector in /proc/PID/smaps_rollup of a process that built such an index, without that of the process."""
    assert index_bytes(vectors, code_bytes, connectivity) / vectors == pytest.approx(measured, rel=0.01)


def test_nodes_are_padded_to_whole_cache_lines():
    """Fourteen links fill two lines; sixteen begin a third, which twenty-two still fit."""
    assert graph_bytes(14) == pytest.approx(132.6, abs=0.5)
    assert graph_bytes(16) == pytest.approx(graph_bytes(22), rel=0.03)
    assert graph_bytes(16) > graph_bytes(14) + 60


def test_nothing_takes_nothing():
    """No vectors, no room."""
    assert index_bytes(0, 384, 16) == 0
