"""Empty messages through as many hops as searches take, between real processes."""

from contextlib import closing

from bench.hops import Hops
from bench.report import table
from bench.results import HopsResult, Report


def test_messages_go_through_all_processes_and_are_timed():
    """As calls and on a stream; the table tells of both."""
    with closing(Hops(2, 256, pinned=True)) as hops:
        ways = {name: hops.measure(0.1, 0.3, on_stream=name == "stream") for name in ("calls", "stream")}
    for way in ways.values():
        assert way.p50_ms > 0
        assert way.cpu_ms.keys() == {"shard-0", "shard-1", "coordinator", "client"}
    settings = {"k": 10, "shards": 2, "replicas": 1, "coordinators": 1, "rounds": 1}
    dataset = {"name": "tiny", "vectors": 1, "dimension": 64, "metric": "cosine"}
    report = Report([], settings, dataset, hops={name: HopsResult.of([way]) for name, way in ways.items()})
    told = table(report)
    assert "the way alone" in told
    (row,) = (line.split() for line in told.splitlines() if line.startswith("stream"))
    assert row[1] == f"{ways['stream'].p50_ms:.2f}"
