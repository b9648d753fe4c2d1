"""Tunes a collection of a cluster: reads documents, measures encodings on them, and says what it found.

Reads only, and a fair sample only: what the cluster serves is neither slowed by indexes nor changed.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from kintsugi.ann.spec import EncodingSpec, parse_name, problem_of
from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.metrics import Metric
from kintsugi.sdk.blocking import Client
from kintsugi.sdk.types import Collection
from kintsugi.tuning import grid, tuner
from kintsugi.tuning.front import Need, advise
from kintsugi.tuning.ground import Ground, held_out, prepare
from kintsugi.tuning.queries import read_queries
from kintsugi.tuning.result import Subject, Tuning
from kintsugi.tuning.sampling import Advance, Sample, draw
from kintsugi.tuning.tuner import Watch

# Given how much there is to do, something that is told what is done.
Reading = Callable[[int], AbstractContextManager[Advance]]
Measuring = Callable[[int], AbstractContextManager[Watch]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured, and what is needed. `memory`: bytes for the indexes of one copy of the collection, None for
    any. `queries_file` None takes documents out of the sample as queries. `encodings` empty means grid.encodings."""

    memory: int | None = None
    recall: float = 0.98
    throughput: float = 0.25
    k: int = 10
    model: str = ""
    sample: int = 50_000
    queries: int = 500
    queries_file: Path | None = None
    encodings: tuple[str, ...] = ()
    seed: int = 1


def tune(client: Client, name: str, wanted: Wanted, reading: Reading, measuring: Measuring) -> Tuning:
    """Raises FailedPrecondition when the collection is too small or has no such model."""
    found = client.collection(name)
    model, dimension = _model(found, wanted.model)
    specs = _specs(wanted.encodings, dimension, Metric(found.metric))
    sample = _draw(client, name, model, wanted, reading)
    ground = _ground(found, dimension, sample, wanted)
    with measuring(tuner.steps(ground, specs)) as watch:
        settings = tuner.measure(ground, specs, wanted.seed, watch)
    vectors = sample.collection_vectors
    need = Need(wanted.recall, None if wanted.memory is None else wanted.memory / vectors, wanted.throughput)
    subject = Subject(
        collection=name,
        model=model,
        metric=found.metric,
        dimension=dimension,
        shards=found.shards,
        replicas=found.replicas,
        vectors=vectors,
        sampled=len(ground.vectors),
        queries=len(ground.queries),
        queries_from="documents" if wanted.queries_file is None else wanted.queries_file.name,
        k=ground.k,
        seed=wanted.seed,
        extrapolated=not ground.is_whole,
    )
    return Tuning(subject, need, settings, advise(settings, need))


def _model(found: Collection, wanted: str) -> tuple[str, int]:
    name = wanted or found.serving_model
    for model in found.models:
        if model.name == name:
            return name, model.dimension
    known = ", ".join(model.name for model in found.models)
    raise FailedPrecondition(f"collection {found.name} has no model {name}, it has {known}")


def _specs(names: tuple[str, ...], dimension: int, metric: Metric) -> list[EncodingSpec]:
    if not names:
        return grid.encodings(dimension, metric)
    specs = [parse_name(name) for name in names]
    for spec in specs:
        if spec.is_automatic:
            raise InvalidArgument("encoding", "is auto", "must be one that can be measured")
        if problem := problem_of(spec, dimension, metric):
            raise InvalidArgument("encoding", f"is {spec.name}, whose {problem[0]} {problem[1]}", problem[2])
    return [grid.REFERENCE, *(spec for spec in dict.fromkeys(specs) if spec != grid.REFERENCE)]


def _draw(client: Client, name: str, model: str, wanted: Wanted, reading: Reading) -> Sample:
    total = client.count(name)
    size = wanted.sample + (wanted.queries if wanted.queries_file is None else 0)
    # A collection that is sampled is walked through for its ids first.
    with reading(total if total <= size else total + size) as advance:
        return draw(client, name, model, size, wanted.seed, advance)


def _ground(found: Collection, dimension: int, sample: Sample, wanted: Wanted) -> Ground:
    metric = Metric(found.metric)
    if wanted.queries_file is None:
        sample, queries = held_out(sample, wanted.queries)
    else:
        queries = read_queries(wanted.queries_file, dimension, metric, wanted.queries, wanted.seed)
    try:
        return prepare(sample, queries, metric=metric, shards=found.shards, k=wanted.k)
    except ValueError as error:
        raise FailedPrecondition(f"collection {found.name} is too small to be tuned: {error}") from error
