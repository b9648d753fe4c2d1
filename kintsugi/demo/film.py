"""The demo: a cluster of real processes, the standard library's documentation imported, searched, restarted, verified.

Ends with a list of its checks, each [ok] or [FAILED]. Leaves no process and no file behind, also after a failure or
Ctrl-C. Uses the public SDK only.
"""

import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np
from rich.console import Console
from rich.markup import escape

from kintsugi.demo import corpus, embed
from kintsugi.demo.corpus import CorpusUnavailable, Entry
from kintsugi.demo.embed import EmbeddingUnavailable, Vectors
from kintsugi.errors import KintsugiError
from kintsugi.local.cluster import LocalCluster
from kintsugi.registry.records import Defaults
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.types import BatchResult, BulkResult, SearchResult

COLLECTION = "stdlib"
SHARDS = 2
REPLICAS = 2
K = 10
SHOWN = 3
MIN_RECALL = 0.99
READY_S = 60.0
QUERIES = (
    "match a regular expression against a string",
    "compress data with gzip",
    "how to send an email over SMTP",
    "secure hash digest of a message",
    "schedule a coroutine on the event loop",
    "random number from a normal distribution",
    "parse an XML document",
    "terminate a child process",
    "trace memory allocations",
    "set a breakpoint in the debugger",
)


@dataclass(slots=True)
class Checks:
    """What the demo promises, and whether it held."""

    done: list[tuple[str, bool]] = field(default_factory=list)

    def add(self, text: str, held: bool) -> None:
        self.done.append((text, held))

    @property
    def all_held(self) -> bool:
        return bool(self.done) and all(held for _, held in self.done)

    def show(self, console: Console) -> None:
        console.print("\n[bold]Checks[/bold]")
        for text, held in self.done:
            mark = "[green]\\[ok][/green]" if held else "[red]\\[FAILED][/red]"
            console.print(f"  {mark} {escape(text)}", highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Material:
    """The corpus with its vectors, and the questions with theirs."""

    entries: Sequence[Entry]
    vectors: Vectors
    questions: Sequence[str]
    question_vectors: Vectors


def run(data: Path | None = None, questions: Sequence[str] = QUERIES, console: Console | None = None) -> int:
    """Plays the demo in `data`, by default a temporary folder. Returns 0 when every check held, 1 otherwise."""
    console = console or Console()
    checks = Checks()
    started = time.monotonic()
    try:
        with _terminable(), _folder(data) as folder:
            _play(console, checks, folder, _prepare(console, questions))
    except (KintsugiError, CorpusUnavailable, EmbeddingUnavailable, OSError) as error:
        checks.add(f"the demo runs to its end: {error}", held=False)
    except KeyboardInterrupt:
        console.print("\ninterrupted; the cluster is stopped")
        return 130
    checks.show(console)
    console.print(f"\n{'all checks held' if checks.all_held else 'the demo FAILED'} in {_since(started)}")
    return 0 if checks.all_held else 1


def _prepare(console: Console, questions: Sequence[str]) -> Material:
    started = time.monotonic()
    entries = corpus.load()
    console.print(f"read {len(entries):,} documents from the Python standard library in {_since(started)}")
    started = time.monotonic()
    texts = [embed.document_text(entry) for entry in entries]
    embedder = embed.train(texts)
    material = Material(entries, embedder.embed(texts), questions, embedder.embed(questions))
    console.print(f"embedded them with TF-IDF and SVD to {embed.DIMENSION} dimensions in {_since(started)}")
    return material


def _play(console: Console, checks: Checks, folder: Path, material: Material) -> None:
    cluster = LocalCluster(folder, servers=SHARDS, coordinators=1, defaults=Defaults(shards=SHARDS, replicas=REPLICAS))
    with _running(console, cluster):
        with Client(cluster.addresses, timeout_s=30) as client:
            imported = _import(console, checks, client, material)
            before = _search(console, checks, client, material, imported.token)
        started = time.monotonic()
        codes = cluster.stop()
        checks.add("every process drains and exits with status 0", not any(codes.values()))
        console.print(f"stopped the cluster in {_since(started)}")
        _start(console, cluster)
        with Client(cluster.addresses, timeout_s=30) as client:
            _verify(console, checks, client, material, imported)
            _compare(checks, before, _ask(client, material, exact=True), _ask(client, material))


def _import(console: Console, checks: Checks, client: Client, material: Material) -> BulkResult:
    collection = client.create_collection(COLLECTION, embed.MODEL, metric="cosine")
    console.print(f"created collection {COLLECTION}: {collection.shards} shards x {collection.replicas} replicas")
    entries = material.entries
    result = client.bulk_upsert(
        COLLECTION,
        [entry.id for entry in entries],
        material.vectors,
        attributes=[entry.attributes for entry in entries],
        texts=[entry.text for entry in entries],
    )
    rate = result.applied / result.elapsed_s
    console.print(
        f"imported {result.applied:,} documents in {result.elapsed_s:.1f} s ({rate:,.0f} per second), durably"
    )
    for item in result.unapplied[:SHOWN]:
        console.print(f"  not applied: {item.id}: {item.message}", markup=False)
    checks.add(f"all {len(entries):,} documents are imported", result.applied == len(entries))
    count = client.count(COLLECTION, at_least=result.token)
    checks.add(f"the collection counts {len(entries):,} documents", count == len(entries))
    return result


def _search(console: Console, checks: Checks, client: Client, material: Material, token: bytes) -> BatchResult:
    """Answers the questions one by one, then all at once for the checks. Returns the exact answers."""
    latencies_ms = []
    complete = True
    for question, vector in zip(material.questions, material.question_vectors, strict=True):
        started = time.perf_counter()
        found = client.search(COLLECTION, vector, SHOWN, attributes=True, at_least=token)
        latencies_ms.append((time.perf_counter() - started) * 1e3)
        _show(console, question, found, latencies_ms[-1])
        complete &= found.coverage.complete and found.coverage.documents_covered == len(material.entries)
    checks.add(f"{len(latencies_ms)} questions are answered, each by all shards and documents", complete)
    console.print(f"\nmedian latency {np.median(latencies_ms):.1f} ms")
    exact, indexed = _ask(client, material, exact=True), _ask(client, material)
    oracle = _oracle(material, exact)
    checks.add(f"exact search gives the answers that numpy gives (ids and scores of the best {K})", oracle)
    recall = _recall(exact, indexed)
    checks.add(f"the index finds what exact search finds: recall@{K} {recall:.3f}", recall >= MIN_RECALL)
    return exact


def _show(console: Console, question: str, found: SearchResult, latency_ms: float) -> None:
    coverage = found.coverage
    console.print(
        f"\n[cyan]{escape(question)}[/cyan]  ({latency_ms:.1f} ms; {coverage.shards_answered}/{coverage.shards_total} "
        f"shards, {coverage.documents_covered:,}/{coverage.documents_total:,} documents)",
        highlight=False,
        soft_wrap=True,
    )
    for hit in found:
        first_line = str((hit.attributes or {}).get("first_line", ""))
        line = f"  {hit.score:.3f}  [bold]{escape(f'{hit.id!s:<42}')}[/bold]  {escape(first_line[:70])}"
        console.print(line, highlight=False, soft_wrap=True)


def _verify(console: Console, checks: Checks, client: Client, material: Material, imported: BulkResult) -> None:
    """Compares every document with what was imported."""
    started = time.monotonic()
    entries = material.entries
    read = client.get(COLLECTION, [entry.id for entry in entries], attributes=True, text=True, vectors=True)
    by_id = {document.id: document for document in read}
    equal = 0
    for entry, vector, version in zip(entries, material.vectors, imported.versions, strict=True):
        document = by_id.get(entry.id)
        equal += (
            document is not None
            and document.attributes == entry.attributes
            and document.text == entry.text
            and document.version == version
            and np.array_equal((document.vectors or {}).get(embed.MODEL.name, ()), vector)
        )
    console.print(f"read and compared {len(read):,} documents in {_since(started)}")
    text = "after the restart every document is there, equal in text, attributes, vector and version"
    checks.add(text, equal == len(entries) and not read.missing)
    count = client.count(COLLECTION)
    checks.add(f"after the restart the collection counts {len(entries):,} documents", count == len(entries))


def _compare(checks: Checks, before: BatchResult, exact: BatchResult, indexed: BatchResult) -> None:
    same = np.array_equal(before.ids, exact.ids) and np.allclose(before.scores, exact.scores, rtol=1e-6, atol=0)
    checks.add("after the restart the same questions have the same answers", bool(same))
    recall = _recall(exact, indexed)
    checks.add(f"after the restart the index still finds them: recall@{K} {recall:.3f}", recall >= MIN_RECALL)


def _ask(client: Client, material: Material, *, exact: bool = False) -> BatchResult:
    return client.search_batch(COLLECTION, material.question_vectors, K, exact=exact)


def _oracle(material: Material, exact: BatchResult) -> bool:
    """Whether the answers are the best of all documents, allowing either order where scores are equal."""
    scores = material.question_vectors.astype(np.float64) @ material.vectors.astype(np.float64).T
    best = -np.sort(-scores, axis=1)[:, :K]
    place = {entry.id: i for i, entry in enumerate(material.entries)}
    theirs = np.array([[scores[q, place[doc_id]] for doc_id in ids] for q, ids in enumerate(exact.ids)])
    return bool(np.allclose(exact.scores, best, atol=1e-5) and np.allclose(theirs, best, atol=1e-5))


def _recall(exact: BatchResult, indexed: BatchResult) -> float:
    found = [len(set(wanted) & set(got)) / len(wanted) for wanted, got in zip(exact.ids, indexed.ids, strict=True)]
    return float(np.mean(found))


# --- The cluster ----------------------------------------------------------------------------------------------------


@contextmanager
def _running(console: Console, cluster: LocalCluster) -> Iterator[None]:
    """The cluster runs inside, and nothing of it is left outside, however that is left."""
    try:
        _start(console, cluster)
        yield
    except KintsugiError:
        _show_logs(console, cluster)
        raise
    finally:
        try:
            cluster.stop()
        except BaseException:
            cluster.kill_all()
            raise


def _start(console: Console, cluster: LocalCluster) -> None:
    started = time.monotonic()
    cluster.start()
    cluster.wait_ready(READY_S)
    console.print(f"started {', '.join(cluster.names())} in {_since(started)}")


def _show_logs(console: Console, cluster: LocalCluster) -> None:
    """The last words of each process: the folder is about to go."""
    for name in cluster.names():
        path = cluster.log_path(name)
        if path.exists():
            console.print(f"--- {name}", markup=False)
            for line in path.read_text(errors="replace").splitlines()[-5:]:
                console.print(line[:300], markup=False, highlight=False)


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="kintsugi-demo-") as made:
        yield Path(made)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the demo the way Ctrl-C does. Only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.1f} s"
