"""The asynchronous client's calls of upgrades: planning, driving, and re-embedding documents."""

import asyncio
from collections.abc import Iterator
from typing import TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from kintsugi import columns, limits
from kintsugi.errors import InvalidArgument
from kintsugi.projections import anchors, artifact
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.artifact import chunks
from kintsugi.projections.calibration import Calibration
from kintsugi.projections.projection import Projection
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.upgrades_wire import CALIBRATIONS, STRATEGIES, calibration_of, state_of, strategy_of
from kintsugi.sdk import answers, arrays, bounds, convert, requests
from kintsugi.sdk.connection import Connection
from kintsugi.sdk.convert import Ids, Items
from kintsugi.sdk.options import CallOptions, NextDocumentsOptions, PutVectorsOptions, check_options
from kintsugi.sdk.upgrade_types import (
    DocumentToEmbed,
    NextDocuments,
    PutVectorsResult,
    Upgrade,
    UpgradePlan,
    UpgradeProgress,
    UpgradeStatus,
)
from kintsugi.v1 import upgrades_pb2

Word = TypeVar("Word", Strategy, Calibration)

# The artifacts of large models take up to 96 MiB each, which are uploaded, and which the servers unpack and check.
PLAN_TIMEOUT_S = 300.0
# Indexes that few have searched are measured meanwhile.
CUT_OVER_TIMEOUT_S = 60.0


class AsyncUpgrades:
    """The part of AsyncClient that upgrades collections from one model to another."""

    _connection: Connection
    _timeout_s: float

    async def upgrade_plan(
        self, collection: str, plan: UpgradePlan, *, force: bool = False, **options: Unpack[CallOptions]
    ) -> Upgrade:
        """Registers an upgrade; nothing changes before `upgrade_start`. Replaces a plan that was not started.

        Raises FailedPrecondition when the plan's report refuses it, unless `force` is set, InvalidArgument when an artifact
        is not what it claims to be, AlreadyExists while another upgrade is under way. timeout_s, also for the upload of the
        artifacts, is 300 unless it is given."""
        check_options("upgrade_plan", options, CallOptions)
        now = self._connection.clock.now
        deadline = now() + options.get("timeout_s", max(PLAN_TIMEOUT_S, self._timeout_s))
        message, artifacts = await asyncio.to_thread(pack_plan, plan)
        for digest, data in artifacts.items():
            await self._upload(digest, data, max(0.0, deadline - now()))
        request = upgrades_pb2.PlanUpgradeRequest(collection=collection, plan=message, force=force)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.Plan(request, timeout=left_s), max(0.0, deadline - now()), changes=True
        )
        return unpack_upgrade(response.upgrade)

    async def _upload(self, digest: str, data: bytes, timeout_s: float) -> None:
        await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.PutArtifact(_chunk_messages(digest, data), timeout=left_s), timeout_s
        )

    async def upgrade_start(self, collection: str, **options: Unpack[CallOptions]) -> Upgrade:
        """Begins: the new model takes queries and writes from now on. Raises NotFound when nothing is planned."""
        check_options("upgrade_start", options, CallOptions)
        request = upgrades_pb2.StartUpgradeRequest(collection=collection)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.Start(request, timeout=left_s), self._left(options), changes=True
        )
        return unpack_upgrade(response.upgrade)

    async def upgrade_status(self, collection: str, **options: Unpack[CallOptions]) -> UpgradeStatus:
        """The last upgrade of a collection with its progress. Raises NotFound when there was none."""
        check_options("upgrade_status", options, CallOptions)
        request = upgrades_pb2.GetUpgradeRequest(collection=collection)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.Get(request, timeout=left_s), self._left(options)
        )
        replicas = tuple(_unpack_progress(progress) for progress in response.shards)
        return UpgradeStatus(unpack_upgrade(response.upgrade), replicas, response.report)

    async def upgrade_pause(self, collection: str, **options: Unpack[CallOptions]) -> Upgrade:
        """Hands out no more documents to embed until `upgrade_resume`; searches and writes go on."""
        check_options("upgrade_pause", options, CallOptions)
        request = upgrades_pb2.PauseUpgradeRequest(collection=collection)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.Pause(request, timeout=left_s), self._left(options), changes=True
        )
        return unpack_upgrade(response.upgrade)

    async def upgrade_resume(self, collection: str, **options: Unpack[CallOptions]) -> Upgrade:
        """Ends a pause."""
        check_options("upgrade_resume", options, CallOptions)
        request = upgrades_pb2.ResumeUpgradeRequest(collection=collection)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.Resume(request, timeout=left_s), self._left(options), changes=True
        )
        return unpack_upgrade(response.upgrade)

    async def upgrade_cut_over(self, collection: str, **options: Unpack[CallOptions]) -> Upgrade:
        """Makes the new model the one that requests mean when they name none. Raises FailedPrecondition while fewer documents
        have new vectors, or the new index finds less, than the plan demands. timeout_s is 60 unless it is given: an index that
        few have searched is measured first."""
        check_options("upgrade_cut_over", options, CallOptions)
        request = upgrades_pb2.CutOverRequest(collection=collection)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.CutOver(request, timeout=left_s),
            options.get("timeout_s", max(CUT_OVER_TIMEOUT_S, self._timeout_s)),
            changes=True,
        )
        return unpack_upgrade(response.upgrade)

    async def upgrade_rollback(self, collection: str, **options: Unpack[CallOptions]) -> Upgrade:
        """Returns to the old model. Raises FailedPrecondition once the upgrade is finishing."""
        check_options("upgrade_rollback", options, CallOptions)
        request = upgrades_pb2.RollbackUpgradeRequest(collection=collection)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.Rollback(request, timeout=left_s), self._left(options), changes=True
        )
        return unpack_upgrade(response.upgrade)

    async def upgrade_finish(self, collection: str, **options: Unpack[CallOptions]) -> Upgrade:
        """Gives the old model up and drops its vectors: there is no way back. Raises FailedPrecondition while a document lacks
        a new vector. Returns at once; `upgrade_status` shows when it is finished."""
        check_options("upgrade_finish", options, CallOptions)
        request = upgrades_pb2.FinishUpgradeRequest(collection=collection)
        response = await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.Finish(request, timeout=left_s), self._left(options), changes=True
        )
        return unpack_upgrade(response.upgrade)

    async def next_documents(
        self, collection: str, limit: int = 100, **options: Unpack[NextDocumentsOptions]
    ) -> NextDocuments:
        """Documents that lack a vector of the model to embed with, the most urgent first; no other worker gets them for a
        while. limit: 1 to 1000. Raises FailedPrecondition while the upgrade is paused or needs no documents."""
        check_options("next_documents", options, NextDocumentsOptions)
        lease_s, first = options.get("lease_s"), options.get("first")
        if first is not None:
            Items(first).check()
        request = upgrades_pb2.NextDocumentsRequest(
            collection=collection,
            limit=bounds.bounded(limit, "limit", limits.MAX_BATCH_ITEMS),
            lease_s=0.0 if lease_s is None else bounds.fraction(lease_s, "lease_s"),
            first=None if first is None else columns.pack_ids(convert.doc_ids(first)),
        )
        response = await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.NextDocuments(request, timeout=left_s), self._left(options)
        )
        documents = tuple(
            DocumentToEmbed(answers.unpack_id(one.id), one.version, one.text, one.attributes)
            for one in response.documents
        )
        shards = response.shards_total, response.shards_answered
        return NextDocuments(documents, response.model, response.remaining, *shards)

    async def put_vectors(
        self,
        collection: str,
        model: str,
        ids: Ids,
        versions: npt.ArrayLike,
        vectors: npt.ArrayLike,
        **options: Unpack[PutVectorsOptions],
    ) -> PutVectorsResult:
        """Adds vectors of `model` to 1 to 1000 documents, n x dimension, and keeps everything else of them. versions: per id
        the version that was embedded, at least 1; vectors of documents that changed since are dropped and counted.

        Raises FailedPrecondition when the collection has no such model, or it is retired."""
        check_options("put_vectors", options, PutVectorsOptions)
        Items(ids).check()
        matrix = arrays.as_matrix(vectors, "vectors")
        bounds.same_length("vectors", len(matrix), len(ids))
        embedded = np.asarray(versions)
        bounds.same_length("versions", len(embedded), len(ids))
        request = upgrades_pb2.PutVectorsRequest(
            collection=collection,
            model=model,
            ids=convert.pack_ids(ids),
            versions=convert.pack_versions(embedded),
            block=columns.pack_vectors(matrix),
            acknowledgement=convert.acknowledgement(options.get("acknowledgement", "durable")),
            request_id=requests.request_id(options),
        )
        response = await self._connection.call(
            lambda stubs, left_s: stubs.upgrades.PutVectors(request, timeout=left_s), self._left(options), changes=True
        )
        return PutVectorsResult(response.written, response.stale, response.missing, response.token, response.request_id)

    def _left(self, options: CallOptions) -> float:
        return options.get("timeout_s", self._timeout_s)


# --- Between values and protos ----------------------------------------------------------------------------------------


def pack_plan(plan: UpgradePlan) -> tuple[upgrades_pb2.UpgradePlan, dict[str, bytes]]:
    """The message, and the artifacts that it names, by digest."""
    artifacts: dict[str, bytes] = {}

    def named(field: str) -> str:
        if not (data := _packed(getattr(plan, field), field)):
            return ""
        artifacts[digest := artifact.digest(data)] = data
        return digest

    message = upgrades_pb2.UpgradePlan(
        new_model=convert.pack_model(plan.new_model),
        strategy=STRATEGIES[_named(Strategy, plan.strategy, "strategy")],
        calibration=CALIBRATIONS[_named(Calibration, plan.calibration, "calibration")],
        bridge=named("bridge"),
        gallery_map=named("gallery_map"),
        reverse=named("reverse"),
        anchors=named("anchors"),
        report=plan.report,
        refused=plan.refused,
        uncertainty=named("uncertainty"),
        min_migrated=0.0 if plan.min_migrated is None else bounds.fraction(plan.min_migrated, "min_migrated"),
        min_recall=0.0 if plan.min_recall is None else bounds.fraction(plan.min_recall, "min_recall"),
    )
    return message, artifacts


def _chunk_messages(digest: str, data: bytes) -> Iterator[upgrades_pb2.PutArtifactRequest]:
    for place, chunk in enumerate(chunks(data)):
        request = upgrades_pb2.PutArtifactRequest(data=chunk)
        if place == 0:
            request.digest, request.total_bytes = digest, len(data)
        yield request


def unpack_upgrade(message: upgrades_pb2.Upgrade) -> Upgrade:
    state, strategy = state_of(message.state), strategy_of(message.strategy)
    calibration = calibration_of(message.calibration)
    if state is None or strategy is None or calibration is None:
        raise InvalidArgument("upgrade", "is of a newer release", "must be read by a client of that release")
    return Upgrade(
        number=message.number,
        old_model=message.old_model,
        new_model=convert.unpack_model(message.new_model),
        state=state,
        paused=message.paused,
        strategy=strategy,
        calibration=calibration,
        min_migrated=message.min_migrated,
        min_recall=message.min_recall,
        created_at=answers.unpack_time(message.created_at),
        changed_at=answers.unpack_time(message.changed_at),
        waits_for=message.waits_for,
        query_vectors=tuple(message.query_vectors),
    )


def _unpack_progress(message: upgrades_pb2.UpgradeShardProgress) -> UpgradeProgress:
    return UpgradeProgress(
        shard=message.shard,
        member=message.member,
        documents=message.documents,
        with_old_vector=message.with_old_vector,
        with_new_vector=message.with_new_vector,
        mapped=message.mapped,
        message=message.message,
        native_hits=message.native_hits,
        hits=message.hits,
        stale_vectors=message.stale_vectors,
        calibration_error=message.calibration_error or None,
        estimated_recall=message.estimated_recall or None,
    )


def _packed(value: Projection | Anchors | bytes | None, field: str) -> bytes:
    if value is None or isinstance(value, bytes):
        data = value or b""
        if len(data) > limits.MAX_ARTIFACT_BYTES:
            raise InvalidArgument(field, f"has {len(data)} bytes", f"must have at most {limits.MAX_ARTIFACT_BYTES}")
        return data
    try:
        return anchors.pack(value) if isinstance(value, Anchors) else artifact.pack(value)
    except ValueError as error:
        raise InvalidArgument(field, f"is too large: {error}") from error


def _named(words: type[Word], value: str, field: str) -> Word:
    try:
        return words(value)
    except ValueError as error:
        raise InvalidArgument(field, f"is {value!r}", f"must be {', '.join(sorted(words))}") from error
