"""Each check of the demo fails when its promise is broken, and no other one does.

The demo plays with few documents and real processes; somebody of its cast breaks a promise.
"""

import dataclasses
import io
from dataclasses import dataclass

import numpy as np
import pytest
from rich.console import Console

from kintsugi import AsyncClient, Client, Unavailable
from kintsugi.demo import embed, film
from kintsugi.demo.checks import Checks, Promise
from kintsugi.demo.corpus import Entry
from kintsugi.demo.material import Material, Successor
from kintsugi.demo.scene_kill import VICTIM
from kintsugi.demo.stage import COLLECTION, NO_RETRIES, SHARDS, Cast
from kintsugi.limits import MAX_ATTRIBUTES_BYTES
from kintsugi.local.cluster import LocalCluster
from kintsugi.registry.records import Defaults

pytestmark = pytest.mark.cluster

DOCUMENTS = 300
QUESTIONS = 5
NEWCOMERS = 2
PROBES = 60
# What documents are about; the old model sees a part of it.
MEANING, SEEN = 32, 20


def few_documents(_console, _questions, embeds=lambda vectors: vectors):
    """Documents and queries of random meanings, which both models turn into vectors; each question is close to one document.
    `embeds`: what the new model makes of its vectors when documents are re-embedded."""
    random = np.random.default_rng(3)
    meanings = random.normal(size=(DOCUMENTS + NEWCOMERS + 2 * PROBES, MEANING))
    meanings[-QUESTIONS:] = meanings[:QUESTIONS] + 0.01 * meanings[QUESTIONS : 2 * QUESTIONS]
    old_axes = random.normal(size=(SEEN, embed.DIMENSION))
    new_axes = random.normal(size=(MEANING, embed.NEW_MODEL.dimension))
    old, new = unit(meanings[:, :SEEN] @ old_axes), unit(meanings @ new_axes)
    entries = [Entry(f"d{n}", "module", "function", f"d{n}", "line", f"text {n}") for n in range(DOCUMENTS)]
    newcomers = [Entry(f"n{n}", "kintsugi", "module", f"n{n}", "line", f"text {n}") for n in range(NEWCOMERS)]
    known = dict(zip([one.id for one in (*entries, *newcomers)], new[: DOCUMENTS + NEWCOMERS], strict=True))
    successor = Successor(
        vectors=new[:DOCUMENTS],
        samples=(old[-PROBES:], new[-PROBES:]),
        probes=(old[-2 * PROBES : -PROBES], new[-2 * PROBES : -PROBES]),
        newcomers=newcomers,
        embed=lambda ids, _texts: embeds(np.stack([known[doc_id] for doc_id in ids])),
        question_vectors=new[-QUESTIONS:],
    )
    questions = [f"question {n}" for n in range(QUESTIONS)]
    return Material(entries, old[:DOCUMENTS], questions, old[-QUESTIONS:], successor)


def wrongly_embedded(console, questions):
    """The workers embed with something that is not the new model."""
    material = few_documents(console, questions)
    rolled = few_documents(console, questions, embeds=lambda vectors: np.roll(vectors, 1, axis=1))
    # What newcomers should have got is known.
    truth = material.successor.embed

    def embeds(ids, texts):
        return (truth if ids[0].startswith("n") else rolled.successor.embed)(ids, texts)

    return dataclasses.replace(material, successor=dataclasses.replace(material.successor, embed=embeds))


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def play(tmp_path, **cast) -> Checks:
    """Plays the film and returns its checks."""
    checks = Checks()
    console = Console(file=io.StringIO(), width=200)
    with_defaults = {"material": few_documents, "patience_s": 30.0, "backfill_s": 1.0, **cast}
    code = film.run(tmp_path / "data", (), console, Cast(**with_defaults), checks)
    assert code == (0 if checks.all_held else 1)
    print(console.file.getvalue())
    return checks


class LosesOne(Client):
    """One document of the import is too large to be taken."""

    def bulk_upsert(self, collection, ids, vectors, *, attributes, texts):
        attributes[-1] = {"large": "x" * MAX_ATTRIBUTES_BYTES}
        return super().bulk_upsert(collection, ids, vectors, attributes=attributes, texts=texts)


class Tampers(Client):
    """Exact scores are slightly off, the index finds something else, and one document was not looked at."""

    def search(self, *arguments, **options):
        found = super().search(*arguments, **options)
        seen = found.coverage.documents_covered - 1
        return dataclasses.replace(found, coverage=dataclasses.replace(found.coverage, documents_covered=seen))

    def search_batch(self, *arguments, exact=False, **options):
        found = super().search_batch(*arguments, exact=exact, **options)
        if exact:
            return dataclasses.replace(found, scores=found.scores + 0.001)
        return dataclasses.replace(found, ids=np.roll(found.ids, 1, axis=0))


class Impatient(Client):
    """Does not wait for a server that is gone."""

    def __init__(self, addresses):
        super().__init__(addresses, timeout_s=3)


class Misleads(AsyncClient):
    """A searcher that gets some other answer."""

    async def search(self, *arguments, **options):
        found = await super().search(*arguments, **options)
        return dataclasses.replace(found, hits=(*found.hits[2:], *found.hits[-2:]))


class FailsOnce(AsyncClient):
    """A searcher of the new model whose first search fails."""

    failed = False

    async def search(self, *arguments, **options):
        if options.get("model") == embed.NEW_MODEL.name and not self.failed:
            self.failed = True
            raise Unavailable("the new model is away")
        return await super().search(*arguments, **options)


class StaysOld(Client):
    """Nobody cuts over."""

    def upgrade_cut_over(self, _collection):
        pass


class StaysAway(LocalCluster):
    """The killed server does not come back before everything is restarted."""

    def start_process(self, name, extra_env=None):
        if name == VICTIM and self.exit_code(name) == -9:
            return
        super().start_process(name, extra_env)


def stays_away(folder, replicas):
    return StaysAway(folder, servers=SHARDS, defaults=Defaults(shards=SHARDS, replicas=replicas))


def misleading(addresses):
    return Misleads(addresses, retry=NO_RETRIES)


def failing_once(addresses):
    return FailsOnce(addresses, retry=NO_RETRIES)


def alter_one(scene, stage):
    """One word of one document is changed, by somebody who may write."""
    if scene == "verify":
        with stage.client() as client:
            client.update_attributes(COLLECTION, ["d42"], [{**stage.attributes["d42"], "name": "altered"}])


def kill_and_delete(scene, stage):
    """A process is killed just before all are to drain; later an answer to a question disappears."""
    if scene == "restart":
        stage.cluster.kill("shard-0")
    if scene == "verify":
        with stage.client() as client:
            client.delete(COLLECTION, ["d0"])


@dataclass(frozen=True, slots=True)
class Sabotage:
    """Who breaks the film, and which promises are broken by it."""

    cast: dict[str, object]
    breaks: set[Promise]


SABOTAGES = {
    "a document is lost at the import": Sabotage(
        {"client": LosesOne},
        {
            Promise.IMPORTED,
            Promise.COUNTED,
            Promise.ANSWERED,
            Promise.RIGHT_THROUGHOUT,
            Promise.SAME_DOCUMENTS,
            Promise.SAME_COUNT,
            Promise.OLD_DOCUMENTS,
        },
    ),
    "answers are tampered with": Sabotage(
        {"client": Tampers},
        {
            Promise.ANSWERED,
            Promise.EXACT,
            Promise.FOUND,
            Promise.STILL_FOUND,
            Promise.CURVE,
            Promise.REEMBEDDED,
        },
    ),
    "there is one replica instead of two": Sabotage(
        # What was logged and not acknowledged is applied when the server returns.
        {"replicas": 1, "client": Impatient},
        {Promise.NO_FAILURE, Promise.WRITABLE, Promise.SAME_DOCUMENTS, Promise.OLD_DOCUMENTS},
    ),
    "the killed server stays away": Sabotage(
        {"cluster": stays_away, "patience_s": 5.0}, {Promise.BACK_IN_SYNC, Promise.DRAINED}
    ),
    "searchers get other answers, and a document is altered": Sabotage(
        {"searcher": misleading, "before_scene": alter_one},
        {Promise.RIGHT_THROUGHOUT, Promise.SAME_DOCUMENTS, Promise.OLD_RIGHT, Promise.OLD_DOCUMENTS},
    ),
    "a process is killed while draining, and an answer is deleted": Sabotage(
        {"before_scene": kill_and_delete},
        {
            Promise.DRAINED,
            Promise.SAME_DOCUMENTS,
            Promise.SAME_COUNT,
            Promise.SAME_ANSWERS,
            Promise.OLD_ANSWERS,
            Promise.OLD_DOCUMENTS,
        },
    ),
    "documents are re-embedded wrongly, a search of the new model fails, and nobody cuts over": Sabotage(
        {"material": wrongly_embedded, "searcher": failing_once, "client": StaysOld},
        {Promise.CURVE, Promise.REEMBEDDED, Promise.BOTH_SERVED, Promise.CUT_OVER},
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SABOTAGES)
def test_a_broken_promise_fails_its_check_and_no_other(name, tmp_path):
    """A check that cannot fail proves nothing."""
    sabotage = SABOTAGES[name]
    assert play(tmp_path, **sabotage.cast).broken == sabotage.breaks


def test_every_promise_is_broken_by_somebody():
    """A promise that no test breaks might not be checked at all."""
    assert set().union(*(sabotage.breaks for sabotage in SABOTAGES.values())) == set(Promise)
