"""Builds index versions for the thread of an indexer: the first one, and those that take over from one that serves.

Outline of `work`, which the thread calls again and again: is what serves as it is wanted, and not worn out? If not, ask for
this replica's turn; once it is granted, begin; then do a step each time, and rest as the pace says; in the end compare the
recall with that of what serves, and hand the new version over, or keep why not.

Guarantees: nothing is begun beside a serving version without the turn; what is wanted may change at any time, and a build
that is no longer wanted is given up; an encoding that was refused is not tried again before the data has changed by its own
size or it is asked for again. Does not swap, save or follow: it is told what changed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from kintsugi import failpoints
from kintsugi.ann.spec import AUTOMATIC, EncodingSpec
from kintsugi.ann.vector_index import GraphParameters, Rows
from kintsugi.metrics import FloatArray
from kintsugi.registry.index_versions import IndexVersionEvent
from kintsugi.telemetry import LogEvent, logger, metric_names, metrics
from shard.build import Build, BuildPlan
from shard.build_pace import BuildPace
from shard.checkpoint import Checkpoints, IndexedModel, IndexVersion
from shard.rebuild_policy import (
    FULL_PRECISION,
    DriftWatch,
    Rebuild,
    RebuildSettings,
    encoding_due,
    fits,
    may_replace,
    reason_to_rebuild,
    resolve,
)
from shard.refusals import Refusal, Refusals
from shard.source import DocumentSource
from shard.storage_faults import fault_of

# Whoever rests looks again so often whether anybody still searches.
_LONGEST_NAP_S = 0.25
# Between two looks whether the fitting is done.
_FITTING_NAP_S = 0.02

OnVersion = Callable[[int, str, IndexVersionEvent], None]

_log = logger("indexer")
_BUILDS = metrics.counter(metric_names.INDEX_BUILDS)
_BUILD_SECONDS = metrics.histogram(metric_names.INDEX_BUILD_SECONDS)


class Turn(Protocol):
    """Whether this replica may build beside what it serves; see shard/build_turns.py."""

    @property
    def waits_for(self) -> str: ...
    def ask(self, version: int, encoding: str, wake: Callable[[], None]) -> bool: ...
    def withdraw(self) -> None: ...


class AtOnce:
    """The turn of a replica that shares its server and its shard with nobody."""

    waits_for = ""

    def ask(self, version: int, encoding: str, wake: Callable[[], None]) -> bool:  # noqa: ARG002 -- nobody is asked
        return True

    def withdraw(self) -> None:
        return


class BuildSettings(Protocol):
    """The part of IndexerSettings that builds need."""

    @property
    def graph(self) -> GraphParameters: ...
    @property
    def rebuild(self) -> RebuildSettings: ...


def _ignore(_number: int, _encoding: str, _event: IndexVersionEvent) -> None:
    return


@dataclass(frozen=True, slots=True)
class Outside:
    """What an indexer has to do with the rest of its server. `on_version(number, encoding, event)` is called from its
    thread at every event in the life of an index version, for a swap once, of the new one; it must be quick and must not
    raise. `pace` is shared by all builds of the process."""

    on_version: OnVersion = _ignore
    turn: Turn = field(default_factory=AtOnce)
    pace: BuildPace = field(default_factory=BuildPace)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The encoding that the collection asks for, and how often one was asked for."""

    spec: EncodingSpec = AUTOMATIC
    requests: int = 0


@dataclass(frozen=True, slots=True)
class _Wish:
    """A build that waits for its turn."""

    number: int
    rebuild: Rebuild


class Rebuilder:
    """Belongs to the thread of one indexer, which it lets `wake`; what is public may be read from any thread."""

    def __init__(
        self,
        source: DocumentSource,
        model: IndexedModel,
        checkpoints: Checkpoints,
        refusals: Refusals,
        settings: BuildSettings,
        outside: Outside,
        wake: Callable[[], None],
    ) -> None:
        self.wanted = Wanted()
        # The last request for an encoding after which there was nothing more to do.
        self.settled_requests = 0
        # What was built last, and why.
        self.last_plan: BuildPlan | None = None
        self._source = source
        self._model = model
        self._checkpoints = checkpoints
        self._refusals = refusals
        self._graph = settings.graph
        self._settings = settings.rebuild
        self._outside = outside
        self._wake = wake
        self._drift = DriftWatch()
        self._build: Build | None = None
        self._wish: _Wish | None = None
        self._built_for = self.wanted
        self._began = 0.0

    # --- Asked from any thread ----------------------------------------------------------------------------------------

    @property
    def build(self) -> Build | None:
        return self._build

    @property
    def refusals(self) -> dict[str, Refusal]:
        return self._refusals.present

    @property
    def waits_for(self) -> str:
        """What the next build waits for; '' when none does."""
        wish = self._wish
        if wish is None:
            return ""
        return f"waits to build {wish.rebuild.spec.name}: {self._outside.turn.waits_for or 'asks for its turn'}"

    def want(self, wanted: Wanted) -> None:
        """Takes effect at the next `work`."""
        self.wanted = wanted

    # --- The first version --------------------------------------------------------------------------------------------

    def build_first(self, is_stopped: Callable[[], bool]) -> IndexVersion | None:
        """Nothing serves that could go on: whatever was asked for, there will be a version, as soon as may be. None when
        the indexer is closed meanwhile."""
        reason = "no checkpoint fits the storage"
        self._refusals.forget_old(self._source.position.seq, self.wanted.requests)
        vectors = self._source.documents_with_vector(self._model.number)
        for wanted in (self.wanted.spec, AUTOMATIC):
            spec = resolve(wanted, vectors, self._settings)
            if spec.name == FULL_PRECISION.name:
                break
            if spec.name in self.refusals:
                continue
            if (build := self._whole(spec, reason, is_stopped)) is None:
                return None
            recall = build.recall(build.version)
            if may_replace(recall, None):
                return self._accept(build)
            reason = f"recall of {spec.name} is {recall:.3f}"
            self._refuse(build, reason)
        last = self._whole(FULL_PRECISION, reason, is_stopped)
        return None if last is None else self._accept(last)

    def _whole(self, spec: EncodingSpec, reason: str, is_stopped: Callable[[], bool]) -> Build | None:
        build = self._begin(self._checkpoints.next_number(), Rebuild(spec, reason))
        try:
            while not build.step():
                build.is_ready(_LONGEST_NAP_S)
                if is_stopped():
                    return None
        finally:
            self._build = None
        return build

    # --- Versions beside one that serves ------------------------------------------------------------------------------

    def serves(self, version: IndexVersion) -> None:
        """Tells which version took over, or was loaded."""
        self._drift = DriftWatch()
        self._apply_oversampling(version, self.wanted)

    def changed(self, serving: IndexVersion, present: Rows, vectors: FloatArray, gone: Rows) -> None:
        """Tells what the journal changed, as `serving` has it already."""
        self._drift.add(len(vectors), serving.index.encoding.unfit_fraction(vectors))
        if self._build is None:
            return
        try:
            self._build.apply(present, vectors, gone)
        except OSError as error:
            self._refuse(self._build, str(fault_of(error)))

    @property
    def rest_s(self) -> float | None:
        """When to `work` again: at once, after a rest, or, with None, when something has changed."""
        if self._build is None:
            return None
        least_s = 0.0 if self._build.is_ready() else _FITTING_NAP_S
        return min(max(least_s, self._outside.pace.rest_s()), _LONGEST_NAP_S)

    def work(self, serving: IndexVersion) -> IndexVersion | None:
        """Does what is due. The version that is to take over from `serving` now, if there is one."""
        wanted, new = self.wanted, None
        self._refusals.forget_old(self._source.position.seq, wanted.requests)
        if self._build is not None and self._is_outdated(self._build, wanted):
            self._abandon(self._build)
        if self._build is None:
            self._start(serving, wanted)
        if self._build is not None and self._build.is_ready() and not self._outside.pace.rest_s():
            new = self._step(self._build, serving)
        if new is None:
            self._settle(serving, wanted)
        return new

    def close(self) -> None:
        """Gives up what is under way, and the place in the line."""
        self._outside.turn.withdraw()
        if self._build is not None:
            self._build.discard()

    def _settle(self, serving: IndexVersion, wanted: Wanted) -> None:
        served, vectors = serving.index.encoding.spec, len(serving.index)
        if encoding_due(served, vectors, self._settings, wanted.spec, self.refusals) is None:
            self._apply_oversampling(serving, wanted)
            self.settled_requests = wanted.requests

    def _apply_oversampling(self, version: IndexVersion, wanted: Wanted) -> None:
        """A version that was built for another encoding keeps what was good for it."""
        if wanted.spec.name in (version.encoding, AUTOMATIC.name):
            version.index.oversampling = wanted.spec.oversampling or version.index.encoding.oversampling

    def _start(self, serving: IndexVersion, wanted: Wanted) -> None:
        """Begins a build, or asks for its turn, if there is a reason."""
        rebuild = reason_to_rebuild(serving, self._drift, self._settings, wanted.spec, self.refusals)
        if rebuild is None:
            if self._wish is not None:
                self._wish = None
                self._outside.turn.withdraw()
            return
        number = self._wish.number if self._wish is not None else self._checkpoints.next_number()
        self._wish = _Wish(number, rebuild)
        if self._outside.turn.ask(number, rebuild.spec.name, self._wake):
            self._wish = None
            self._built_for = wanted
            self._begin(number, rebuild)

    def _begin(self, number: int, rebuild: Rebuild) -> Build:
        vectors = self._source.documents_with_vector(self._model.number)
        fitted = fits(rebuild.spec, vectors, self._settings)
        plan = BuildPlan(number, rebuild.spec, rebuild.reason, fitted=fitted)
        names = {"model": self._model.number, "number": plan.number, "encoding": plan.encoding}
        _log.info(LogEvent.INDEX_BUILD_STARTED, **names, reason=plan.reason)
        self._began = time.monotonic()
        self._outside.on_version(plan.number, plan.encoding, IndexVersionEvent.BEGUN)
        self._build = Build(self._source, self._model, plan, self._graph, self._checkpoints.code_files)
        return self._build

    def _is_outdated(self, build: Build, wanted: Wanted) -> bool:
        """Whether something else than what is being built is wanted since it began."""
        if wanted.spec.name == self._built_for.spec.name:
            return False
        vectors = self._source.documents_with_vector(self._model.number)
        return resolve(wanted.spec, vectors, self._settings).name != build.plan.encoding

    def _step(self, build: Build, serving: IndexVersion) -> IndexVersion | None:
        failpoints.hit("indexer.build_step")
        started, fitted_s = time.monotonic(), build.fitting_s
        try:
            is_built = build.step()
        except OSError as error:
            # What serves is not harmed when there is no room for another one beside it.
            self._refuse(build, str(fault_of(error)))
            return None
        finally:
            # The fitting cannot rest; what it took is rested for afterwards.
            self._outside.pace.worked(time.monotonic() - started + build.fitting_s - fitted_s)
        if not is_built:
            return None
        new = build.version
        self._apply_oversampling(new, self._built_for)
        recall, recall_of_old = build.recall(new), build.recall(serving)
        names = {"model": self._model.number, "number": new.number}
        _log.info(LogEvent.INDEX_BUILT, **names, recall=recall, recall_of_old=recall_of_old)
        if may_replace(recall, recall_of_old):
            failpoints.hit("indexer.before_swap")
            return self._accept(build)
        self._refuse(build, f"recall of {new.encoding} is {recall:.3f}, that of {serving.encoding} {recall_of_old:.3f}")
        return None

    def _accept(self, build: Build) -> IndexVersion:
        self._build = None
        self.last_plan = build.plan
        self._refusals.remove(build.plan.encoding)
        self._outside.on_version(build.plan.number, build.plan.encoding, IndexVersionEvent.BUILT)
        self._ended("served")
        return build.version

    def _refuse(self, build: Build, reason: str) -> None:
        """Goes on without what was built. It is not tried again before the data has changed by its own size."""
        self._build = None
        patience = max(build.progress.added, self._settings.rebuild_at)
        build.discard()
        until_seq = self._source.position.seq + patience
        refusal = Refusal(build.plan.number, reason, until_seq, self.wanted.requests)
        self._refusals.add(build.plan.encoding, refusal)
        self._outside.on_version(build.plan.number, build.plan.encoding, IndexVersionEvent.FAILED)
        self._ended("refused")

    def _abandon(self, build: Build) -> None:
        self._build = None
        build.discard()
        self._outside.on_version(build.plan.number, build.plan.encoding, IndexVersionEvent.ABANDONED)
        self._ended("abandoned")

    def _ended(self, outcome: str) -> None:
        _BUILDS.labels(outcome).inc()
        _BUILD_SECONDS.observe(time.monotonic() - self._began)
