"""The workloads by name: who calls, how many at once, how many queries per call, and what each is compared with.

A new way to call is a new Caller and an entry in callers.py; a new workload is an entry here.
"""

from dataclasses import dataclass
from enum import StrEnum


class Caller(StrEnum):
    """A way in which searches reach the cluster."""

    SDK_SYNC = "sdk-sync"
    """kintsugi.Client in one thread."""
    SDK_ASYNC = "sdk-async"
    """kintsugi.AsyncClient: searches that start together share a call."""
    SDK_BATCH = "sdk-batch"
    """kintsugi.AsyncClient.search_batch."""
    GRPC = "grpc"
    """The generated stub on a plain grpc.aio channel, one query per call."""


@dataclass(frozen=True, slots=True)
class SearchWorkload:
    """A closed loop: `callers` of them, each sending its next call when the last one is answered. `batch` queries per
    call; the raw engine beside it gets its queries in the same calls. `oversampling` None: that of the encoding,
    `ef_search` None: what the index has learned."""

    name: str
    caller: Caller
    callers: int
    batch: int = 1
    oversampling: float | None = None
    ef_search: int | None = None

    @property
    def raw(self) -> str:
        """The name of the raw engine's run with the same calls."""
        return raw_name(self.batch)


def raw_name(batch: int) -> str:
    return "raw-single" if batch == 1 else f"raw-batch-{batch}"


SEARCHES = (
    SearchWorkload("sdk-sync-1", Caller.SDK_SYNC, 1),
    SearchWorkload("sdk-1", Caller.SDK_ASYNC, 1),
    SearchWorkload("sdk-16", Caller.SDK_ASYNC, 16),
    SearchWorkload("sdk-64", Caller.SDK_ASYNC, 64),
    SearchWorkload("grpc-1", Caller.GRPC, 1),
    SearchWorkload("grpc-16", Caller.GRPC, 16),
    SearchWorkload("grpc-64", Caller.GRPC, 64),
    SearchWorkload("batch-64x4", Caller.SDK_BATCH, 4, batch=64),
)
# The largest calls: what the engine gives at best, the limit of every cluster around it.
LIMIT_BATCH = max(workload.batch for workload in SEARCHES)
RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A generated set: points around a subspace of `intrinsic` dimensions, as embeddings are; uniform noise would
    make every index look bad."""

    name: str
    vectors: int
    dimension: int
    queries: int = 1000
    intrinsic: int = 16


DATASETS = (
    DatasetSpec("generated-200k-384", 200_000, 384),
    DatasetSpec("generated-1m-128", 1_000_000, 128),
    DatasetSpec("smoke-6k-64", 6_000, 64, queries=100),
)
DEFAULT_DATASET, RECOVERY_DATASET, SMOKE_DATASET = DATASETS


def searches_named(names: list[str]) -> list[SearchWorkload]:
    """In the order of the table above. Raises ValueError naming what there is not."""
    known = {workload.name for workload in SEARCHES}
    unknown = sorted({*names} - known - {RECOVERY})
    if unknown:
        raise ValueError(f"workloads has {', '.join(unknown)}, must be of {', '.join([*sorted(known), RECOVERY])}")
    return [workload for workload in SEARCHES if workload.name in names]


def dataset_named(name: str) -> DatasetSpec:
    for spec in DATASETS:
        if spec.name == name:
            return spec
    raise ValueError(f"dataset is {name}, must be one of {', '.join(spec.name for spec in DATASETS)}")
