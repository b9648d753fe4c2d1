"""The parts of the bench that need no cluster: settings, /proc, the raw engine's arithmetic, children, the recorder."""

import os

import numpy as np
import pytest

from bench.child import Child, ChildFailed
from bench.cli import _parser, settings_of
from bench.datasets import prepare
from bench.processes import CpuMeter, memory, parse_busy_seconds, parse_cpu_seconds, parse_memory
from bench.raw import PartitionLoad, RawEngine, combined
from bench.recorder import Recorder
from bench.statistics import NO_HIT, NOT_ASKED, recall
from bench.workloads import DATASETS, SEARCHES, DatasetSpec, searches_named
from kintsugi.metrics import Metric


def settings(*arguments):
    return settings_of(_parser().parse_args(list(arguments)))


def test_workload_names_are_unique():
    """A name is what a result is found by."""
    for named in (SEARCHES, DATASETS):
        assert len({one.name for one in named}) == len(named)


def test_a_run_without_arguments_measures_all_searches():
    """Recovery takes minutes and runs on demand."""
    told = settings()
    assert told.searches == SEARCHES
    assert not told.recovery
    assert told.source.name == "generated-200k-384"


def test_recovery_alone_takes_a_million_vectors_and_no_searches():
    """The promise is about that size."""
    told = settings("recovery")
    assert told.searches == ()
    assert told.recovery
    assert told.source.name == "generated-1m-128"


def test_an_unknown_workload_is_refused_with_those_there_are():
    """A mistyped name must not run nothing."""
    with pytest.raises(ValueError, match="workloads has sdk-63, must be of batch-64x4, grpc-1,"):
        searches_named(["sdk-64", "sdk-63"])


def test_cpu_time_is_read_behind_the_name_of_the_program():
    """The name may hold spaces and parentheses."""
    stat = "17 (a (b) c) S 1 17 17 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10"
    assert parse_cpu_seconds(stat, 100) == 3.0


def test_waiting_for_disks_is_not_being_busy():
    """Idle and iowait are time that others could have had; guest time counts once."""
    stat = "cpu  100 20 30 5000 400 5 6 7 50 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert parse_busy_seconds(stat, 100) == pytest.approx(1.68)


def test_memory_is_read_by_name():
    """The first line of the file is an address range."""
    rollup = "00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss:     2048 kB\nPss: 1 kB\nAnonymous:    1024 kB\n"
    told = parse_memory(rollup)
    assert (told.resident_bytes, told.anonymous_bytes) == (2 * 2**20, 2**20)


def test_the_kernel_tells_about_a_live_process():
    """The format is that of this kernel too."""
    meter = CpuMeter({"me": os.getpid()})
    assert memory(os.getpid()).resident_bytes > 2**20
    assert meter.seconds()["me"] >= 0


def part(calls, latencies):
    found = np.array([[0, 1]])
    return PartitionLoad(calls, 1.0, 0.5, np.array(latencies), found, np.array([[0.5, 0.4]]))


def test_partitions_together_are_as_fast_as_the_slowest():
    """A query is answered when both have answered it."""
    load = combined([part(3, [1.0, 5.0, 1.0]), part(2, [2.0, 2.0])], 4, 2, 0.0)
    assert load.queries == 8
    assert load.latencies_ms.tolist() == [2.0, 5.0]
    assert load.cpu_s["raw-1"] == 0.5
    assert load.cpu_s["raw-0"] == pytest.approx(0.5 * 2 / 3)


def test_the_raw_engine_finds_the_true_neighbours(tmp_path):
    """A limit that searches badly would be none."""
    spec = DatasetSpec("tiny", 3000, 24, queries=20, intrinsic=4)
    dataset = prepare(spec, tmp_path, metric=Metric.COSINE, k=5, seed=1, queries=20)
    raw = RawEngine(dataset, 2, 5, pinned=False)
    try:
        assert raw.build() > 0
        for batch in (1, 8):
            load = raw.run(batch, 0.05, 0.3)
            assert load.queries > 0
            assert recall(load.found, dataset.truth) > 0.95
    finally:
        raw.close()


def test_a_child_keeps_its_state_and_tells_its_errors():
    """The parent sees the traceback, and the child goes on."""
    with Child(dict, [("a", 1)]) as child:
        assert child.call(dict.get, "a") == 1
        with pytest.raises(ChildFailed, match="KeyError: 'b'"):
            child.call(dict.pop, "b")
        child.call(dict.update, {"b": 2})
        assert child.call(dict.get, "b") == 2


def test_only_calls_that_end_inside_the_window_count():
    """Warm-up and winding down are not measured."""
    recorder = Recorder(queries=3, batch=1, k=2, pids={"me": os.getpid()})
    recorder.answered(recorder.deal(), 0, [1, 2])
    recorder.open()
    recorder.answered(recorder.deal(), 0, [5])
    recorder.failed(RuntimeError("no"))
    recorder.close()
    recorder.answered(recorder.deal(), 0, [7, 8])
    load = recorder.load
    assert (load.queries, len(load.latencies_ms), load.errors) == (1, 1, {"RuntimeError: no": 1})
    assert load.found.tolist() == [[NOT_ASKED] * 2, [5, NO_HIT], [NOT_ASKED] * 2]


def test_batches_go_round_the_queries():
    """Any batch size meets all queries in time."""
    recorder = Recorder(queries=3, batch=2, k=1, pids={})
    assert [recorder.deal().tolist() for _ in range(3)] == [[0, 1], [2, 0], [1, 2]]
