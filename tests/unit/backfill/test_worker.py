"""The loop of a worker: what it pulls, embeds and puts back, how it waits, and when it ends."""

import dataclasses

import numpy as np
import pytest

from kintsugi.backfill.embedder import EmbedFailed, EmbedRefused
from kintsugi.backfill.worker import ASK_AGAIN_S, Worker, WorkerSettings
from kintsugi.errors import FailedPrecondition, Unavailable
from kintsugi.sdk.types import Model
from kintsugi.sdk.upgrade_types import DocumentToEmbed, NextDocuments, PutVectorsResult

MODEL = Model("new", 2, document_prefix="passage: ")
PAUSED = FailedPrecondition("paused", reason="UPGRADE_PAUSED")


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


class Cluster:
    """Documents by id that lack a vector, with leases that never end. Raises what waits in `failures` first."""

    def __init__(self, documents, model="new"):
        self.waiting = dict(documents)
        self.leased = {}
        self.model = model
        self.pulls = []
        self.vectors = {}
        self.request_ids = []
        self.pull_failures = []
        self.put_failures = []

    def pull(self, limit, lease_s, first):
        self.pulls.append((limit, list(first)))
        if self.pull_failures:
            raise self.pull_failures.pop(0)
        ids = [*(one for one in first if one in self.waiting), *(one for one in self.waiting if one not in first)]
        documents = tuple(DocumentToEmbed(one, 7, self.waiting[one], "{}") for one in ids[:limit])
        remaining = len(self.waiting) + len(self.leased)
        self.leased |= {document.id: self.waiting.pop(document.id) for document in documents}
        return NextDocuments(documents, self.model, remaining, shards_total=2, shards_answered=2)

    def put(self, ids, versions, vectors, request_id):
        self.request_ids.append(request_id)
        if self.put_failures:
            raise self.put_failures.pop(0)
        assert versions.tolist() == [7] * len(ids)
        self.vectors |= dict(zip(ids, vectors.tolist(), strict=True))
        for one in ids:
            self.leased.pop(one)
        return PutVectorsResult(len(ids), 0, 0, b"", request_id)


class Embedder:
    """Tells the length of each text. Raises what waits in `failures` first."""

    def __init__(self, *failures, needs_text=True):
        self.needs_text = needs_text
        self.failures = list(failures)
        self.texts = []

    def embed(self, documents):
        if self.failures:
            raise self.failures.pop(0)
        self.texts += [document.text for document in documents]
        return np.array([[len(document.text), 1.0] for document in documents], dtype=np.float32)

    def close(self):
        pass


def worker(cluster, embedder=None, **settings):
    clock = Clock()
    made = Worker(cluster, MODEL, embedder or Embedder(), WorkerSettings(**settings), clock=clock, sleep=clock.sleep)
    return made, clock


def test_every_document_gets_its_vector():
    """Batch after batch, with what the model wants before each text, until nothing is left."""
    cluster, embedder = Cluster({number: "x" * number for number in range(1, 26)}), Embedder()
    made, clock = worker(cluster, embedder, batch=10)
    assert made.run().written == 25
    assert cluster.vectors[3] == [len("passage: xxx"), 1.0]
    assert embedder.texts[2] == "passage: xxx"
    assert [limit for limit, _ in cluster.pulls] == [10, 10, 10, 10]
    assert clock.slept == []


def test_wanted_documents_are_named_until_all_were():
    """The ids that are to be first go along with the pulls, as many as a pull may return."""
    cluster = Cluster(dict.fromkeys(range(8), "x"))
    made, _ = worker(cluster, batch=2, first=(7, 6, 5))
    made.run()
    assert [first for _, first in cluster.pulls[:3]] == [[7, 6], [5], []]
    assert list(cluster.vectors)[:3] == [7, 6, 5]


def test_a_rate_is_kept_over_the_run():
    """40 documents at 10 a second take what they take, the last batch aside."""
    made, clock = worker(Cluster(dict.fromkeys(range(40), "x")), batch=10, rate=10.0)
    made.run()
    assert clock.now == pytest.approx(3.0)


def test_slow_rates_pull_no_more_than_their_leases_allow():
    """What is pulled is embedded before it would be handed to somebody else."""
    cluster = Cluster(dict.fromkeys(range(5), "x"))
    made, _ = worker(cluster, batch=100, rate=0.5, lease_s=8.0)
    made.run()
    assert {limit for limit, _ in cluster.pulls} == {2}


def test_a_pause_is_waited_for():
    """While the upgrade is paused the worker asks again and loses nothing that was to be first."""
    cluster = Cluster({1: "x", 2: "x"})
    cluster.pull_failures = [PAUSED, PAUSED]
    made, clock = worker(cluster, first=(2,))
    assert made.run().written == 2
    assert len(clock.slept) == 2
    assert [first for _, first in cluster.pulls] == [[2], [2], [2], []]


def test_what_others_hold_is_waited_for():
    """The worker ends when nothing is left, not when everything is leased."""
    cluster = Cluster({1: "x"})
    cluster.leased = {2: "x"}
    shown = []
    clock = Clock()

    def sleep(seconds):
        clock.sleep(seconds)
        cluster.leased.clear()

    made = Worker(cluster, MODEL, Embedder(), WorkerSettings(), shown.append, clock=clock, sleep=sleep)
    assert made.run().written == 1
    assert any("others embed the rest" in progress.waiting for progress in shown)


def test_a_replica_that_lags_behind_is_waited_for():
    """It hands out nothing, but still counts the vectors that were just put: the worker asks until it counts none."""
    cluster = Cluster({1: "x", 2: "y"})
    lags = [2, 1]

    def pull(limit, lease_s, first):
        found = Cluster.pull(cluster, limit, lease_s, first)
        if found.documents or not lags:
            return found
        return dataclasses.replace(found, remaining=lags.pop(0))

    cluster.pull = pull
    made, clock = worker(cluster)
    progress = made.run()
    assert (progress.written, progress.remaining) == (2, 0)
    assert clock.slept == [ASK_AGAIN_S, ASK_AGAIN_S]


def test_a_shard_that_does_not_answer_is_waited_for():
    """What remains there is not known: documents without a text elsewhere are not all there is."""
    cluster = Cluster({1: "", 2: "x"})
    silent = [1, 1]

    def pull(limit, lease_s, first):
        found = Cluster.pull(cluster, min(limit, 1), lease_s, first)
        if not silent:
            return found
        # The other shard has the document that waits.
        return dataclasses.replace(found, remaining=1, shards_answered=silent.pop())

    cluster.pull = pull
    shown = []
    clock = Clock()
    made = Worker(cluster, MODEL, Embedder(), WorkerSettings(), shown.append, clock=clock, sleep=clock.sleep)
    progress = made.run()
    assert (progress.written, progress.textless) == (1, 1)
    assert any(one.waiting == "1 of 2 shards answer" for one in shown)


@pytest.mark.parametrize("failing", ["pull_failures", "put_failures", "embed"])
def test_what_may_work_later_is_tried_again(failing):
    """Pauses grow, and are never shorter than what was asked for; a write keeps its request id."""
    failures = [Unavailable("away"), Unavailable("away", retry_delay_s=9.0), EmbedFailed("away")]
    cluster, embedder = Cluster({1: "x"}), Embedder()
    if failing == "embed":
        embedder.failures = failures
    else:
        setattr(cluster, failing, failures)
    made, clock = worker(cluster, embedder)
    progress = made.run()
    assert (progress.written, progress.retries) == (1, 3)
    assert clock.slept == [0.5, 9.0, 2.0]
    assert len(set(cluster.request_ids)) == 1


def test_in_the_end_it_gives_up():
    """After so many attempts the failure is told."""
    made, clock = worker(Cluster({1: "x"}), Embedder(*[EmbedFailed("away")] * 3), attempts=3)
    with pytest.raises(EmbedFailed, match="away"):
        made.run()
    assert len(clock.slept) == 2


def test_what_is_wrong_is_not_tried_again():
    """A refusal is told at once."""
    made, clock = worker(Cluster({1: "x"}), Embedder(EmbedRefused("no such model")))
    with pytest.raises(EmbedRefused, match="no such model"):
        made.run()
    assert clock.slept == []


def test_vectors_of_another_dimension_are_not_sent():
    """An embedder of another model is noticed before anything is written."""
    cluster = Cluster({1: "x"})
    clock = Clock()
    made = Worker(cluster, Model("new", 3), Embedder(), WorkerSettings(), clock=clock, sleep=clock.sleep)
    with pytest.raises(EmbedRefused, match="vectors have 2 elements, model new has 3"):
        made.run()
    assert cluster.vectors == {}


def test_a_rollback_stops_the_worker():
    """Vectors of the new model are never written as those of the old one."""
    cluster = Cluster({1: "x"}, model="old")
    made, _ = worker(cluster)
    with pytest.raises(FailedPrecondition, match="asks for vectors of old now") as refused:
        made.run()
    assert refused.value.reason == "OTHER_MODEL_WANTED"
    assert cluster.vectors == {}


def test_documents_without_text_are_left_and_counted():
    """An embedder of texts does what it can, and ends."""
    cluster = Cluster({1: "x", 2: "", 3: "y"})
    progress = worker(cluster)[0].run()
    assert (progress.written, progress.textless) == (2, 1)
    assert set(cluster.vectors) == {1, 3}


def test_an_embedder_may_need_no_text():
    """A command gets documents without one, too; nothing is put before what is not there."""
    cluster, embedder = Cluster({2: ""}), Embedder(needs_text=False)
    assert worker(cluster, embedder)[0].run().written == 1
    assert embedder.texts == [""]
