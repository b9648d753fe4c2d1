"""What the demo says about its checks, and how it judges, without a cluster."""

import asyncio
import io
from datetime import UTC, datetime

import numpy as np
import pytest
from rich.console import Console

from kintsugi.demo import answers, embed, film, scene_kill, scene_restart
from kintsugi.demo.checks import Checks, Promise
from kintsugi.demo.corpus import Entry
from kintsugi.demo.stage import Cast, Stage
from kintsugi.demo.traffic import Asked, AskedAmidUpgrade, Traffic
from kintsugi.errors import Unavailable
from kintsugi.sdk.status import (
    ClusterStatus,
    CollectionStatus,
    MemberStatus,
    ReplicaStatus,
    ShardStatus,
)
from kintsugi.sdk.types import Coverage, Document, Hit, SearchResult

ADDRESS = "127.0.0.1:1"


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=60)


def all_kept() -> Checks:
    checks = Checks()
    for promise in Promise:
        checks.add(promise, held=True)
    return checks


def test_checks_hold_only_when_every_promise_was_kept():
    """A broken promise fails the demo, and so does one that was never checked."""
    assert all_kept().all_held
    assert not Checks().all_held
    for promise in Promise:
        checks = all_kept()
        checks.add(promise, held=False)
        assert checks.broken == {promise}
        checks = all_kept()
        del checks.kept[promise]
        assert checks.broken == {promise}


def test_a_promise_once_broken_stays_broken():
    """A later look at the same promise does not mend it."""
    checks = all_kept()
    checks.add(Promise.COUNTED, held=False)
    checks.add(Promise.COUNTED, held=True)
    assert not checks.all_held


def test_a_film_that_broke_off_fails_whatever_held_until_then():
    """Nobody may take a demo that ended early for one that passed."""
    checks = all_kept()
    checks.end_early("the cluster is gone")
    assert not checks.all_held


def test_checks_are_listed_with_their_outcome(console):
    """The closing list names each check on one line, whatever the width, and those that were never made."""
    checks = Checks()
    checks.add(Promise.COUNTED, held=True, measured="[1,000]")
    checks.add(Promise.EXACT, held=False)
    checks.end_early("no disk")
    checks.show(console)
    lines = console.file.getvalue().splitlines()[2:]
    assert lines[:3] == [
        "  [ok] the collection counts them all: [1,000]",
        "  [FAILED] exact search gives the answers that numpy gives, ids and scores",
        "  [FAILED] the demo runs to its end: no disk",
    ]
    assert len(lines) == 3 + len(Promise) - 2
    assert all(line.startswith("  [FAILED] ") and line.endswith(": not checked") for line in lines[3:])


def test_a_demo_that_cannot_start_fails_in_words(console, tmp_path):
    """A data folder that cannot be used is a failed check with the reason, not a traceback."""
    (tmp_path / "file").write_text("not a folder")
    assert film.run(tmp_path / "file" / "data", console=console) == 1
    assert "[FAILED] the demo runs to its end: " in console.file.getvalue()


def test_recall_is_the_share_of_wanted_answers():
    """Two of four wanted answers found are a recall of one half."""

    class Answers:
        def __init__(self, ids):
            self.ids = np.array(ids, dtype=object)

    assert answers.recall(Answers([["a", "b"], ["c", "d"]]), Answers([["b", "a"], ["x", "y"]])) == 0.5


VECTOR = np.ones(embed.DIMENSION, dtype=np.float32)
WRITTEN = {"version": 7, "attributes": {"a": 1}, "text": "text", "vectors": {embed.MODEL.name: VECTOR}}


@pytest.mark.parametrize(
    ("changed", "equal"),
    [
        ({}, True),
        ({"version": 8}, False),
        ({"attributes": {"a": 2}}, False),
        ({"attributes": {}}, False),
        ({"text": "another"}, False),
        ({"text": None}, False),
        ({"vectors": {}}, False),
        ({"vectors": {embed.MODEL.name: np.nextafter(VECTOR, 2)}}, False),
    ],
)
def test_a_document_is_as_written_only_when_all_of_it_is(changed, equal, console):
    """The comparison after the restart overlooks nothing."""
    entry = Entry("id", "module", "kind", "name", "text", "text")
    stage = Stage(console, Checks(), Cast(), None, None, attributes={"id": {"a": 1}}, versions={"id": 7})
    document = Document(id="id", written_at=datetime.now(UTC), **(WRITTEN | changed))
    assert scene_restart._is_as_written(stage, entry, VECTOR, document) is equal
    assert not scene_restart._is_as_written(stage, entry, VECTOR, None)


def status(*, lifecycle="SERVING", alive=True, log_seq=9, **replica):
    held = {
        "member": "m", "state": "in-sync", "reachable": True, "phase": "serving", "message": "", "durable_seq": 9,
        "searchable_seq": 9, "documents": 1, "index_versions": (), "disk_bytes": 1,
    }  # fmt: skip
    member = MemberStatus("m", "shard", ADDRESS, alive, lifecycle, 1, "1", None)
    shard = ShardStatus(0, "open", 1, log_seq, 1, (ReplicaStatus(**(held | replica)),), "")
    return ClusterStatus("c", 1, 1, "ok", "", (member,), (CollectionStatus("stdlib", (shard,)),))


@pytest.mark.parametrize(
    ("seen", "in_sync"),
    [
        (status(), True),
        (status(alive=False), False),
        (status(lifecycle="REPLAYING"), False),
        (status(state="out-of-sync"), False),
        (status(reachable=False, phase=""), False),
        (status(phase="bootstrapping"), False),
        (status(durable_seq=8), False),
        (status(searchable_seq=8), False),
        (status(member="another"), False),
    ],
)
def test_a_server_is_back_only_when_its_replicas_hold_and_serve_all_of_the_log(seen, in_sync):
    """Being started is not being back."""
    assert (scene_kill.what_lacks(seen, ADDRESS) == "") is in_sync
    assert scene_kill.what_lacks(seen, "127.0.0.1:2")


def found(ids, *, documents=20, answered=2):
    hits = tuple(Hit(doc_id, 1.0, 1, "m") for doc_id in ids)
    return SearchResult(hits, Coverage(2, answered, 20, documents))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (found(range(10)), True),
        (found([*range(9), 99]), True),
        (found([*range(8), 98, 99]), False),
        (found(range(10), documents=19), False),
        (found(range(10), answered=1), False),
        (found([]), False),
    ],
)
def test_an_answer_is_right_when_it_is_complete_and_finds_what_is_there(answer, right):
    """The index may miss one of ten; nothing else is forgiven."""
    assert Asked(VECTOR, list(range(10)), 20).is_right(answer) is right


def amid_upgrade(own, projected=(), answered=2):
    hits = tuple(Hit(doc_id, 1.0, 1, "m", projected=doc_id in projected) for doc_id in [*own, *projected])
    return SearchResult(hits, Coverage(2, answered, 20, 20))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (amid_upgrade(range(10)), True),
        (amid_upgrade([*range(9), 99]), True),
        (amid_upgrade([*range(8), 98, 99]), False),
        (amid_upgrade(range(8), projected=["x", "y"]), True),
        (amid_upgrade([*range(6), 98, 99], projected=["x", "y"]), False),
        (amid_upgrade([], projected=range(10)), False),
        (amid_upgrade(range(9)), False),
        (amid_upgrade(range(10), answered=1), False),
    ],
)
def test_amid_an_upgrade_newcomers_may_take_places_and_nobody_else(answer, right):
    """Of what has a vector of the old model, its clients find what they found before."""
    assert AskedAmidUpgrade(VECTOR, list(range(10))).is_right(answer) is right


def test_amid_an_upgrade_new_answers_must_be_complete():
    """What clients of the new model find in between is measured, not judged one by one."""
    assert AskedAmidUpgrade(VECTOR).is_right(amid_upgrade([], projected=range(10)))
    assert not AskedAmidUpgrade(VECTOR).is_right(amid_upgrade(range(9)))


class Searcher:
    """Answers in turn what it is given, then always the last one."""

    def __init__(self, *given):
        self.given = list(given)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None

    async def search(self, *_):
        await asyncio.sleep(0)
        answer = self.given.pop(0) if len(self.given) > 1 else self.given[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_traffic_counts_every_failure_and_every_wrong_answer():
    """One failure among many answers is what the demo is about."""
    asked = [Asked(VECTOR, list(range(10)), 20)]
    searchers = [Searcher(found(range(10)), Unavailable("shard 1 is gone"), found(range(10))), Searcher(found([1]))]
    async with Traffic("any", asked, searchers) as traffic:
        assert await traffic.more(30, 10.0)
        assert not await traffic.more(10**9, 0.0)
    assert traffic.failures == ["shard 1 is gone"]
    assert 0 < traffic.wrong < traffic.answered


async def test_a_defect_of_a_searcher_ends_the_demo():
    """An error that is not the cluster's must not look like quiet traffic."""
    with pytest.raises(ZeroDivisionError):
        async with Traffic("any", [Asked(VECTOR, [1], 1)], [Searcher(ZeroDivisionError())]) as traffic:
            await traffic.more(1, 0.2)
