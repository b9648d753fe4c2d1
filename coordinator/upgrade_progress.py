"""How far the replicas of a collection are with its upgrade, from what their servers say, and what that allows. Pure.

An in-sync replica whose server has a lease counts; one without says nothing and holds nothing up: it will copy what it lacks
before it is searched again. A shard without such a replica holds everything up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kintsugi.internal.v1 import shard_pb2
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import Collection, Shard, Upgrade, UpgradeState, View
from kintsugi.v1 import upgrades_pb2

Hosted = shard_pb2.HostedReplica

_SERVING = "serving"
_OWN_VECTORS_ONLY = frozenset({UpgradeState.ROLLED_BACK, UpgradeState.FINISHED})


@dataclass(frozen=True, slots=True)
class ReplicaAnswer:
    """A replica that counts. `hosted` is None when its server did not answer, or does not host it yet."""

    shard: int
    member: str
    hosted: Hosted | None

    def __str__(self) -> str:
        return f"shard {self.shard} on {self.member}"


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """How much of what exact search finds the index of a model finds. `by`: the searches that tell, for people."""

    recall: float
    queries: int
    by: str


@dataclass(frozen=True, slots=True)
class Progress:
    """`replicas` are those that count, of all shards; `alone` the shards without one."""

    replicas: tuple[ReplicaAnswer, ...]
    alone: tuple[int, ...]

    @property
    def told(self) -> Iterator[tuple[ReplicaAnswer, Hosted]]:
        for replica in self.replicas:
            if replica.hosted is not None:
                yield replica, replica.hosted

    def silent(self) -> str:
        """Why not everything is known; '' when it is."""
        if self.alone:
            return f"shard {self.alone[0]} has no replica in sync"
        for replica in self.replicas:
            if replica.hosted is None:
                return f"{replica} does not answer"
        return ""

    def untold(self) -> str:
        """Which replica does not tell of the upgrade; '' when all do."""
        for replica, hosted in self.told:
            if hosted.status.phase != _SERVING or not hosted.HasField("upgrade"):
                return f"{replica} does not tell how far it is"
        return self.silent()

    def not_serving(self, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> str:
        """Which replica does not serve all of `wanted` yet, or still one of `unwanted`; '' when none."""
        if problem := self.silent():
            return problem
        for replica, hosted in self.told:
            serving = set(hosted.serving_models) if hosted.status.phase == _SERVING else set()
            if lacking := [name for name in wanted if name not in serving]:
                return f"{replica} does not serve {lacking[0]} yet{_why(hosted)}"
            if left := [name for name in unwanted if name in serving]:
                return f"{replica} still serves {left[0]}"
        return ""

    def not_mapped(self) -> str:
        """Which replica has not built its index of mapped vectors; '' when none."""
        if problem := self.untold():
            return problem
        waiting = [
            f"{replica} builds mapped vectors{_why(hosted)}"
            for replica, hosted in self.told
            if not hosted.upgrade.mapped
        ]
        return waiting[0] if waiting else ""

    def behind(self, positions: Mapping[int, int]) -> str:
        """Which replica has not stored its shard's log up to a position; '' when none."""
        if problem := self.untold():
            return problem
        for replica, hosted in self.told:
            if hosted.status.durable_seq < positions[replica.shard]:
                return f"{replica} is at {hosted.status.durable_seq} of {positions[replica.shard]}"
        return ""

    def vectors(self, *, new: bool) -> tuple[int, int]:
        """The documents with a vector of the new or the old model, and all: by the replica of each shard that holds most of its
        log; another one will say the same when it is as far."""
        with_ = _with_new if new else _with_old
        with_vector = documents = 0
        for shard in sorted({replica.shard for replica in self.replicas}):
            mine = [hosted for replica, hosted in self.told if replica.shard == shard]
            if mine:
                furthest = max(one.status.durable_seq for one in mine)
                known = [one.upgrade for one in mine if one.status.durable_seq == furthest]
                last = max(known, key=lambda one: one.documents - with_(one))
                with_vector, documents = with_vector + with_(last), documents + last.documents
        return with_vector, documents

    def without_index(self, model: str) -> str:
        """Which replica has no index of a model in service yet; '' when none."""
        indexed = {str(replica) for replica, _ in self.recalls(model)}
        waiting = [f"{replica} builds it" for replica, _ in self.told if str(replica) not in indexed]
        return waiting[0] if waiting else ""

    def recalls(self, model: str) -> Iterator[tuple[ReplicaAnswer, IndexRecall | None]]:
        """The recall of the index of a model by live searches, by replica; None where there were none."""
        for replica, hosted in self.told:
            versions = [one for one in hosted.status.index_versions if one.model == model and one.state == _SERVING]
            for version in versions[-1:]:
                queries = version.live_recall_queries
                live = IndexRecall(version.live_recall, queries, f"{queries} live searches")
                yield replica, live if version.HasField("live_recall") else None

    def messages(self) -> list[upgrades_pb2.UpgradeShardProgress]:
        found = []
        for replica, hosted in self.told:
            message = upgrades_pb2.UpgradeShardProgress()
            message.CopyFrom(hosted.upgrade)
            message.shard, message.member = replica.shard, replica.member
            found.append(message)
        return found


def counted(view: View, collection: Collection, alive: Mapping[str, object]) -> list[tuple[Shard, tuple[str, ...]]]:
    """The members of each shard whose replicas count."""
    return [(shard, tuple(one for one in shard.in_sync if one in alive)) for shard in view.shards_of(collection)]


def progress_of(
    places: Sequence[tuple[Shard, tuple[str, ...]]], answers: Mapping[str, shard_pb2.GetServerStatusResponse]
) -> Progress:
    replicas = tuple(
        ReplicaAnswer(shard.shard, member, _hosted(answers.get(member), shard))
        for shard, members in places
        for member in members
    )
    return Progress(replicas, tuple(shard.shard for shard, members in places if not members))


def waits_for(upgrade: Upgrade, progress: Progress) -> str:
    """For people: what the present state waits for."""
    old, new = upgrade.old_model, upgrade.new_model.name
    match upgrade.state:
        case UpgradeState.PLANNED:
            return "start"
        case UpgradeState.SERVING_BOTH:
            return progress.not_serving((old, new))
        case UpgradeState.MAPPING:
            return progress.not_mapped()
        case UpgradeState.BACKFILLING:
            return f"cut-over{_lacking(progress, new)}"
        case UpgradeState.CUT_OVER:
            return f"finish{_lacking(progress, new)}"
        case UpgradeState.FINISHING:
            return progress.silent()
        case UpgradeState.ROLLING_BACK:
            return progress.not_serving((old,), (new,))
    return ""


def query_vectors(upgrade: Upgrade) -> tuple[str, ...]:
    """The models whose query vectors a search of the new model needs."""
    both = upgrade.strategy is Strategy.BOTH and upgrade.state not in _OWN_VECTORS_ONLY
    return (upgrade.old_model, upgrade.new_model.name) if both else (upgrade.new_model.name,)


def _hosted(answer: shard_pb2.GetServerStatusResponse | None, shard: Shard) -> Hosted | None:
    for one in answer.replicas if answer is not None else ():
        if (one.replica.collection_uid, one.replica.shard) == (shard.collection_uid, shard.shard):
            return one
    return None


def _with_new(progress: upgrades_pb2.UpgradeShardProgress) -> int:
    return progress.with_new_vector


def _with_old(progress: upgrades_pb2.UpgradeShardProgress) -> int:
    return progress.with_old_vector


def _lacking(progress: Progress, model: str) -> str:
    with_vector, documents = progress.vectors(new=True)
    return (
        f"; {documents - with_vector} of {documents} documents lack a vector of {model}"
        if documents > with_vector
        else ""
    )


def _why(hosted: Hosted) -> str:
    return f": {hosted.upgrade.message}" if hosted.upgrade.message else ""
