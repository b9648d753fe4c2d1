"""What the registry holds, as immutable records, and the snapshot that readers work with.

Pure: knows neither Redis nor gRPC. Each record is one field of the registry's hash, as JSON.
"""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from kintsugi.ann.spec import AUTOMATIC, EncodingSpec
from kintsugi.metrics import Metric, StoredType
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.strategy import Strategy


class Role(StrEnum):
    COORDINATOR = "coordinator"
    SHARD = "shard"


class ReplicaState(StrEnum):
    """How far a replica may be trusted. Transitions: registry/replicas.py."""

    # Holds every write of the log, or is catching up within its lease. Counts for acknowledgements, answers searches.
    IN_SYNC = "in-sync"
    # Copies from a peer or catches up with the log. Left by reaching the head of the log.
    JOINING = "joining"
    # Lost its lease or its data. Left by joining again.
    OUT_OF_SYNC = "out-of-sync"


class LogState(StrEnum):
    """Whether the log of a shard takes writes."""

    OPEN = "open"
    # Writes are refused until recovery has rebuilt the log under a higher epoch (DESIGN 3a).
    RECOVERING = "recovering"


class IndexVersionState(StrEnum):
    """Transitions: registry/index_versions.py."""

    BUILDING = "building"
    READY = "ready"
    SERVING = "serving"
    RETIRED = "retired"

    @property
    def is_in_the_making(self) -> bool:
        """Whether its replica is busy with it, beside the version that serves."""
        return self in {IndexVersionState.BUILDING, IndexVersionState.READY}


class UpgradeState(StrEnum):
    """Where an upgrade stands. Transitions: registry/upgrades.py."""

    PLANNED = "planned"
    # Both models take queries and writes; replicas open the new model's index.
    SERVING_BOTH = "serving-both"
    # Replicas build indexes of mapped vectors.
    MAPPING = "mapping"
    # Documents are re-embedded.
    BACKFILLING = "backfilling"
    # Requests that name no model mean the new one.
    CUT_OVER = "cut-over"
    # The old model takes no more writes.
    FINISHING = "finishing"
    FINISHED = "finished"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An embedding model version. `number` names it within its collection, from 1, and is never reused."""

    number: int
    name: str
    dimension: int
    metric: Metric
    revision: str = ""
    normalised: bool = False
    query_prefix: str = ""
    document_prefix: str = ""
    pooling: str = ""


class Collection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    uid: str
    name: str
    shards: int
    replicas: int
    metric: Metric
    stored: StoredType
    models: tuple[Model, ...]
    serving_model: str
    created_at_us: int
    encoding: EncodingSpec = AUTOMATIC
    # Counts the calls that asked for an encoding, so that asking again after a refused check tries anew.
    encoding_requests: int = 0
    # Models that take neither queries nor writes any more. Some of their vectors may still be stored.
    retired: tuple[str, ...] = ()
    # Those of them whose vectors are gone for good, or about to go.
    dropped: tuple[str, ...] = ()

    @property
    def live_models(self) -> tuple[Model, ...]:
        """The models that take queries and writes."""
        return tuple(model for model in self.models if model.name not in self.retired)

    def model(self, name: str) -> Model | None:
        """The model of this name; the serving one for an empty name; None when there is no such model."""
        wanted = name or self.serving_model
        return next((model for model in self.models if model.name == wanted), None)


class EpochStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Epoch `epoch` began after sequence number `base_seq`: writes of older epochs survive up to there only."""

    epoch: int
    base_seq: int


class Shard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shard's log and replicas. `replicas` maps member id to state; `given_up` lists members whose replicas
    recovery does not wait for (AcceptLoss)."""

    collection_uid: str
    shard: int
    epochs: tuple[EpochStart, ...]
    log_state: LogState
    replicas: dict[str, ReplicaState]
    given_up: tuple[str, ...] = ()

    @property
    def epoch(self) -> int:
        return self.epochs[-1].epoch

    @property
    def in_sync(self) -> tuple[str, ...]:
        return tuple(member for member, state in sorted(self.replicas.items()) if state is ReplicaState.IN_SYNC)

    def survived(self, epoch: int, seq: int) -> bool:
        """Whether a write of `epoch` at `seq` is part of this log's history, as far as recoveries tell."""
        return all(seq <= start.base_seq for start in self.epochs if start.epoch > epoch) and epoch <= self.epoch


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process of the cluster. Its liveness is a lease, which is not part of the registry."""

    id: str
    role: Role
    address: str
    version: str


class IndexVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    collection_uid: str
    shard: int
    member: str
    version: int
    model: str
    encoding: str
    state: IndexVersionState


class Upgrade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last upgrade of a collection. `number` counts them, from 1. `bridge` (new to old, for queries), `gallery_map` (old to
    new), `reverse` (new to old, for documents), `anchors`, `report` and `uncertainty` (the order of backfill) are digests of
    artifacts, '' for none. Before `min_migrated` of the documents have new vectors, and with less recall than `min_recall`, there is no cut-over."""

    collection_uid: str
    number: int
    old_model: str
    new_model: Model
    state: UpgradeState
    strategy: Strategy
    calibration: Calibration
    bridge: str
    gallery_map: str
    reverse: str
    anchors: str
    report: str
    min_migrated: float
    min_recall: float
    created_at_us: int
    changed_at_us: int
    paused: bool = False
    uncertainty: str = ""

    @property
    def artifacts(self) -> tuple[str, ...]:
        """What every shard server must hold."""
        return tuple(
            filter(None, (self.bridge, self.gallery_map, self.reverse, self.anchors, self.report, self.uncertainty)),
        )


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new collection gets when its specification is silent."""

    shards: int = 1
    replicas: int = 1


Record: TypeAlias = Member | Collection | Shard | IndexVersion | Upgrade | Defaults


def field_of(record: Record) -> str:
    """The field of the registry's hash that holds a record."""
    match record:
        case Member():
            return f"member/{record.id}"
        case Collection():
            return f"collection/{record.uid}"
        case Shard():
            return f"shard/{record.collection_uid}/{record.shard}"
        case IndexVersion():
            return f"index/{record.collection_uid}/{record.shard}/{record.member}/{record.version}"
        case Upgrade():
            return f"upgrade/{record.collection_uid}"
        case Defaults():
            return "defaults"


_TYPES: dict[str, type[Record]] = {
    "member": Member,
    "collection": Collection,
    "shard": Shard,
    "index": IndexVersion,
    "upgrade": Upgrade,
    "defaults": Defaults,
}


# Made once: msgspec crashes when two threads are the first to decode the same type.
_DECODERS = {kind: msgspec.json.Decoder(record) for kind, record in _TYPES.items()}


def encode_record(record: Record) -> bytes:
    return msgspec.json.encode(record)


def decode_record(field: str, value: bytes) -> Record:
    return _DECODERS[field.partition("/")[0]].decode(value)


class Snapshot(msgspec.Struct, frozen=True):
    """The whole registry at one revision. `digest` chains over all changes, so that two registries with the same
    (incarnation, revision) but different histories can be told apart. `fields` are the raw JSON records."""

    cluster_id: str
    incarnation: int
    revision: int
    digest: str
    fields: dict[str, bytes]

    @property
    def version(self) -> tuple[int, int]:
        """Orders snapshots of one cluster: the highest wins."""
        return (self.incarnation, self.revision)

    def view(self) -> "View":
        return View(self)


class View:
    """A snapshot decoded and indexed for reading. Immutable by convention; make one per snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.defaults = Defaults()
        self.members: dict[str, Member] = {}
        self.collections: dict[str, Collection] = {}
        self.collections_by_name: dict[str, Collection] = {}
        self.shards: dict[tuple[str, int], Shard] = {}
        self.index_versions: dict[tuple[str, int, str], list[IndexVersion]] = {}
        self.upgrades: dict[str, Upgrade] = {}
        for field, value in sorted(snapshot.fields.items()):
            self._add(decode_record(field, value))

    def _add(self, record: Record) -> None:
        match record:
            case Defaults():
                self.defaults = record
            case Member():
                self.members[record.id] = record
            case Collection():
                self.collections[record.uid] = record
                self.collections_by_name[record.name] = record
            case Shard():
                self.shards[record.collection_uid, record.shard] = record
            case Upgrade():
                self.upgrades[record.collection_uid] = record
            case IndexVersion():
                self.index_versions.setdefault((record.collection_uid, record.shard, record.member), []).append(record)

    def shards_of(self, collection: Collection) -> list[Shard]:
        return [self.shards[collection.uid, number] for number in range(collection.shards)]

    def replicas_on(self, member: str) -> list[Shard]:
        """The shards that have a replica on this member, whatever its state."""
        return [shard for _, shard in sorted(self.shards.items()) if member in shard.replicas]
