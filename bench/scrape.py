"""What the processes of a cluster tell of themselves: their metrics, read over HTTP and summed."""

import urllib.request
from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

from bench.cluster import MeasuredCluster

Totals = dict[str, float]


def expositions(measured: MeasuredCluster, kind: str) -> list[str]:
    """Of each process of a kind, `shard` or `coordinator`."""
    told = []
    for name in measured.local.names():
        if name.startswith(f"{kind}-"):
            address = measured.local.metrics_address_of(name)
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
                told.append(response.read().decode())
    return told


def totals(measured: MeasuredCluster, kind: str) -> Totals:
    """Every sample, summed over processes and labels."""
    return summed(expositions(measured, kind))


def summed(told: list[str]) -> Totals:
    found: Totals = defaultdict(float)
    for exposition in told:
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                found[sample.name] += sample.value
    return found
