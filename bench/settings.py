"""What a run is told."""

from dataclasses import dataclass
from pathlib import Path

from bench.workloads import DatasetSpec, SearchWorkload
from kintsugi.metrics import Metric


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line documents each of these, see cli.py."""

    searches: tuple[SearchWorkload, ...]
    recovery: bool
    source: DatasetSpec | Path
    metric: Metric
    k: int
    queries: int
    seed: int
    rounds: int
    ingest_rounds: int
    seconds: float
    raw_seconds: float
    warmup_s: float
    shards: int
    replicas: int
    coordinators: int
    pinned: bool
    patience: int
    client_loop: str
    output: Path
    work: Path | None
