"""What a replica tells of its index versions: the one that serves, the one in the making, and the one that was refused."""

from collections.abc import Iterator

from kintsugi.registry.records import IndexVersionState
from kintsugi.v1 import cluster_pb2
from shard.checkpoint import IndexVersion
from shard.engine import Engine
from shard.model_index import ModelIndex


def index_versions(engine: Engine) -> list[cluster_pb2.IndexVersionStatus]:
    """In the order of their numbers."""
    told = [one for index in engine.models.values() for one in (*_refused(index), *_serving(index), *_building(index))]
    return sorted(told, key=lambda version: version.version)


def waits_for(engine: Engine) -> str:
    """For people: what a build waits for, '' when none does."""
    return next(filter(None, (index.indexer.rebuilder.waits_for for index in engine.models.values())), "")


def settled_requests(engine: Engine) -> int:
    """The last request for an encoding that all indexes have settled."""
    return min(index.indexer.rebuilder.settled_requests for index in engine.models.values())


def _serving(index: ModelIndex) -> Iterator[cluster_pb2.IndexVersionStatus]:
    serving = index.indexer.serving
    if serving is None:
        return
    plan = index.indexer.rebuilder.last_plan
    told = cluster_pb2.IndexVersionStatus(
        version=serving.number,
        model=index.model.name,
        encoding=serving.encoding,
        state=IndexVersionState.SERVING.value,
        vectors=len(serving.index),
        checkpoint_seq=index.indexer.checkpoint_seq,
        reason=plan.reason if plan is not None and plan.number == serving.number else "",
        code_bytes=serving.index.encoding.code_bytes,
        mapped_bytes=serving.index.mapped_bytes,
    )
    _tell_recall(told, index, serving)
    yield told


def _tell_recall(told: cluster_pb2.IndexVersionStatus, index: ModelIndex, serving: IndexVersion) -> None:
    known = index.recall.recall
    if known.index_version == serving.number and known.all is not None:
        told.live_recall, told.live_recall_queries = known.all.recall, known.all.queries


def _building(index: ModelIndex) -> Iterator[cluster_pb2.IndexVersionStatus]:
    build = index.indexer.rebuilder.build
    if build is None:
        return
    yield cluster_pb2.IndexVersionStatus(
        version=build.plan.number,
        model=index.model.name,
        encoding=build.plan.encoding,
        state=IndexVersionState.BUILDING.value,
        vectors=build.progress.added,
        vectors_wanted=build.progress.wanted,
        reason=build.plan.reason,
    )


def _refused(index: ModelIndex) -> Iterator[cluster_pb2.IndexVersionStatus]:
    for encoding, refusal in index.indexer.rebuilder.refusals.items():
        yield cluster_pb2.IndexVersionStatus(
            version=refusal.version,
            model=index.model.name,
            encoding=encoding,
            state=IndexVersionState.RETIRED.value,
            reason=refusal.reason,
        )
