"""Service time that is injected into shard servers of the cluster under measurement, switched on and off by a file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.cluster import MeasuredCluster
from kintsugi.failpoints import ENVIRONMENT_VARIABLE, Failpoint


@dataclass(frozen=True, slots=True)
class Injection:
    """While `file` exists, each batch of searches takes so much longer on the servers that were armed."""

    milliseconds: int
    file: Path

    def arm(self, measured: MeasuredCluster, names: Sequence[str]) -> None:
        """Restarts shard servers such that they look at the file; a batch costs them a few microseconds more."""
        what = f"{Failpoint.SEARCHER_BATCH}=delay:{self.milliseconds}:{self.file}"
        measured.restart(names, {ENVIRONMENT_VARIABLE: what})

    @contextmanager
    def on(self) -> Iterator[None]:
        self.file.touch()
        try:
            yield
        finally:
            self.file.unlink()
