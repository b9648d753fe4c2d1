"""What readers remember of the cluster when a part of it is gone."""

from dataclasses import dataclass, field

from coordinator.views import Views
from kintsugi.metrics import Metric, StoredType
from kintsugi.registry.records import (
    Collection,
    EpochStart,
    LogState,
    Model,
    ReplicaState,
    Shard,
    Snapshot,
    View,
    encode_record,
    field_of,
)


@dataclass
class Lease:
    documents: dict[str, int]


@dataclass
class Registry:
    view: View
    leases: dict[str, Lease] = field(default_factory=dict)

    async def refresh(self) -> None: ...

    def subscribe(self, callback) -> None: ...


def registry() -> Registry:
    """One collection of one shard."""
    records = [
        Collection("c1", "docs", 1, 1, Metric.L2, StoredType.F32, (Model(1, "m", 4, Metric.L2),), "m", 1),
        Shard("c1", 0, (EpochStart(1, 0),), LogState.OPEN, {"a": ReplicaState.IN_SYNC}),
    ]
    fields = {field_of(record): encode_record(record) for record in records}
    return Registry(Snapshot("cluster", 1, 1, "", fields).view())


def test_documents_are_known_after_the_lease_that_told_them_has_ended():
    """A shard whose server is gone counts with what its lease said last, the highest of its replicas."""
    known = registry()
    views = Views(known, lambda: 0.0)
    assert views.last_known_documents("c1", 0) == 0
    known.leases = {"a": Lease({"c1/0": 7}), "b": Lease({"c1/0": 9, "gone/0": 3})}
    views.note_leases()
    known.leases = {}
    assert views.last_known_documents("c1", 0) == 9
    assert views.last_known_documents("gone", 0) == 0


def test_what_a_replica_answered_counts_more_than_its_lease():
    """An answer is newer than a lease, which is renewed now and then."""
    known = registry()
    views = Views(known, lambda: 0.0)
    known.leases = {"a": Lease({"c1/0": 7})}
    views.note_documents("c1", 0, 5)
    assert views.last_known_documents("c1", 0) == 5
