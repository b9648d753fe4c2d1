"""What the SDK's calls of upgrades take and give back: frozen values. Pure: knows nothing of protobuf or RPC."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from kintsugi.ids import DocId
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.projection import Projection
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import UpgradeState
from kintsugi.sdk.types import Model


@dataclass(frozen=True, slots=True, eq=False)
class UpgradePlan:
    """What an upgrade is planned with. Projections and anchors may be given packed, as bytes. `bridge` (new to old, for
    queries) is needed but with "both-vectors", `gallery_map` (old to new) with "gallery-map" only; `reverse` (new to old)
    is for documents that have only a new vector. `report` is the planner's, as JSON; `refused` says that it refuses.
    Before `min_migrated` of the documents have new vectors, and below `min_recall`, there is no cut-over. `uncertainty`, a
    packed predictor of the map's misses, puts documents that no search asks for into order."""

    new_model: Model
    strategy: Strategy | str
    calibration: Calibration | str
    reverse: Projection | bytes
    anchors: Anchors | bytes
    report: bytes
    bridge: Projection | bytes | None = None
    gallery_map: Projection | bytes | None = None
    refused: bool = False
    min_migrated: float | None = None
    min_recall: float | None = None
    uncertainty: bytes | None = None


@dataclass(frozen=True, slots=True)
class Upgrade:
    """An upgrade as it stands. `number` counts those of the collection; `waits_for` says for people what the present state
    waits for, '' for nothing; `query_vectors` are the models whose query vectors a search of the new model needs."""

    number: int
    old_model: str
    new_model: Model
    state: UpgradeState
    paused: bool
    strategy: Strategy
    calibration: Calibration
    min_migrated: float
    min_recall: float
    created_at: datetime
    changed_at: datetime
    waits_for: str
    query_vectors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UpgradeProgress:
    """How far the upgrade is on one replica. `mapped`: its new index holds mapped vectors; `message`: what keeps it from the
    next state. Of `hits` of recent searches of the new model, `native_hits` have a document with a new vector.
    `calibration_error` (in deviations of the new model's scores) and `estimated_recall` are None when not measured."""

    shard: int
    member: str
    documents: int
    with_old_vector: int
    with_new_vector: int
    mapped: bool
    message: str
    native_hits: int
    hits: int
    stale_vectors: int
    calibration_error: float | None
    estimated_recall: float | None


@dataclass(frozen=True, slots=True)
class UpgradeStatus:
    """An upgrade with the progress of every replica that answered. `report` is the planner's, as JSON, b'' when nobody holds
    it any more. Counts of documents are of the replica of each shard that is the furthest behind."""

    upgrade: Upgrade
    replicas: tuple[UpgradeProgress, ...]
    report: bytes

    @property
    def documents(self) -> int:
        """All documents of the shards that answered."""
        return sum(replica.documents for replica in self._behind())

    @property
    def migrated(self) -> float | None:
        """The part of the documents that have a new vector; None when there are none."""
        documents = self.documents
        return sum(replica.with_new_vector for replica in self._behind()) / documents if documents else None

    @property
    def migrated_by_traffic(self) -> float | None:
        """The part of recent hits whose document has a new vector; None without hits."""
        hits = sum(replica.hits for replica in self.replicas)
        return sum(replica.native_hits for replica in self.replicas) / hits if hits else None

    def _behind(self) -> Iterator[UpgradeProgress]:
        for shard in sorted({replica.shard for replica in self.replicas}):
            mine = [replica for replica in self.replicas if replica.shard == shard]
            yield min(mine, key=lambda replica: replica.with_new_vector)


@dataclass(frozen=True, slots=True)
class DocumentToEmbed:
    """A document to embed. Give `version` back with its vector. `text` is '' when it has none."""

    id: DocId
    version: int
    text: str
    attributes: str


@dataclass(frozen=True, slots=True)
class NextDocuments:
    """Documents to embed with `model`, the most urgent first. `remaining` counts all that lack its vector, also those that
    other workers are at, in the shards that answered."""

    documents: tuple[DocumentToEmbed, ...]
    model: str
    remaining: int
    shards_total: int
    shards_answered: int

    @property
    def is_complete(self) -> bool:
        """Whether every shard told what remains there."""
        return self.shards_answered == self.shards_total


@dataclass(frozen=True, slots=True)
class PutVectorsResult:
    """What became of vectors: `stale` and `missing` ones were dropped, because the document has another version by now, or
    is gone. `token`: give it as `at_least` to a read that must see them."""

    written: int
    stale: int
    missing: int
    token: bytes
    request_id: str
