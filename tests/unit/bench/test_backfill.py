"""`python -m bench backfill`, on data small enough for a test: orders are played on the same traffic, and end at everything."""

import json

import numpy as np
import pytest

from bench.backfill import Plan, main, measure, reached
from bench.backfill_ground import Ground
from tests.unit.bench.test_upgrade import write_world

PLAN = Plan(candidates=20, searches_per_document=1.0, documents_per_s=10.0, warm_up_s=10.0, draws=3, seed=0)


def ground(queries=40, documents=600, seed=0):
    """Mapped scores that are blurred ones of the new model's; each query sees all documents."""
    random = np.random.default_rng(seed)
    native = random.standard_normal((queries, documents)).astype(np.float32)
    mapped = native + 0.8 * random.standard_normal(native.shape).astype(np.float32)
    true = np.zeros(native.shape, dtype=np.bool_)
    np.put_along_axis(true, np.argsort(-native, axis=1)[:, :10], values=True, axis=1)
    contenders = np.broadcast_to(np.arange(documents), native.shape)
    return Ground(contenders, native, mapped, true, documents, random.standard_normal(documents))


def test_traffic_first_beats_chance_and_the_oracle_beats_both():
    """What searches rank among their candidates brings quality sooner than any order that does not know the traffic."""
    found = measure("made up", ground(), PLAN, lambda _what: None)
    chance, ours, oracle = found.orders
    assert chance.area.mean < ours.area.mean < oracle.area.mean
    assert found.ratio.mean > 1
    assert found.needed.mean < 1


def test_every_order_begins_mapped_and_ends_at_full_reembedding():
    """The first point is the same for all, the last one is 1."""
    found = measure("made up", ground(), PLAN, lambda _what: None)
    assert len({order.quality[0] for order in found.orders}) == 1
    assert [order.quality[-1] for order in found.orders] == pytest.approx([1.0] * 3)


def test_the_fraction_that_is_needed_lies_between_points():
    """In straight lines; nothing is needed of what is good from the start, everything of what never is."""
    assert reached(np.array([0.8, 1.0, 1.0]), 0.9) == pytest.approx(0.25)
    assert reached(np.array([0.95, 1.0]), 0.9) == 0.0
    assert reached(np.array([0.1, 0.2]), 0.9) == 1.0


def test_the_command_writes_both_galleries(tmp_path, capsys):
    """From a file of two models to tables and JSON."""
    write_world(tmp_path)
    flags = ["--npz", str(tmp_path / "world.npz"), "--relevance", str(tmp_path / "world.json"), "--pair", "old", "new"]
    flags += ["--kind", "ridge", "--draws", "1", "--output", str(tmp_path / "results")]
    assert main(flags, lambda _what: None) == 0
    assert capsys.readouterr().out.count("| traffic first |") == 2
    (written,) = (tmp_path / "results").glob("*-backfill.json")
    assert [len(one["orders"]) for one in json.loads(written.read_text())["galleries"]] == [3, 3]
