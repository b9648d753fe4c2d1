"""Clusters of real processes for the tests in this folder.

`new_cluster(servers=2, ...)` starts one in a folder of its own and stops it after the test, whatever happened; when the
test failed, the ends of all process logs are printed with it. `shared_cluster` is the same for all tests of a module.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kintsugi.local.cluster import LocalCluster

LOG_END_BYTES = 4000

NewCluster = Callable[..., LocalCluster]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Lets fixtures see whether their test failed."""
    report = yield
    setattr(item, f"report_{report.when}", report)
    return report


@pytest.fixture
def new_cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[NewCluster]:
    with clusters_in(tmp_path) as (make, clusters):
        yield make
        report = getattr(request.node, "report_call", None)
        if report is not None and report.failed:
            print_logs(clusters)


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[NewCluster]:
    failed_before = request.session.testsfailed
    with clusters_in(tmp_path_factory.mktemp("shared")) as (make, clusters):
        yield make
        if request.session.testsfailed > failed_before:
            print_logs(clusters)


@contextmanager
def clusters_in(folder: Path) -> Iterator[tuple[NewCluster, list[LocalCluster]]]:
    """Something that makes clusters, and those that it made, which are killed at the end."""
    clusters: list[LocalCluster] = []

    def make(name: str = "cluster", *, ready: bool = True, **options: object) -> LocalCluster:
        cluster = LocalCluster(folder / name, **options)  # type: ignore[arg-type]
        clusters.append(cluster)
        cluster.start()
        if ready:
            cluster.wait_ready()
        return cluster

    try:
        yield make, clusters
    finally:
        for cluster in clusters:
            cluster.kill_all()


def print_logs(clusters: list[LocalCluster]) -> None:
    for cluster in clusters:
        for name in cluster.names():
            path = cluster.log_path(name)
            end = path.read_bytes()[-LOG_END_BYTES:].decode(errors="replace") if path.exists() else ""
            print(f"--- {cluster.data.name} {name}\n{end}")
