"""Samples of live searches, and the recall that is kept of them."""

from collections import Counter

import numpy as np
import pytest

from kintsugi.filters.tree import Exists
from shard.recall import Found, Probe
from shard.recall_samples import LiveRecall, RecallSamples, VersionRecall, samples_per_window, window_s
from shard.search_call import Grouping, SearchCall

HITS = None


def call(*numbers, **options):
    return SearchCall(np.array(numbers, dtype=np.float32).reshape(-1, 1), 10, **options)


def probe(**options):
    return Probe(np.zeros(1, dtype=np.float32), 10, **options)


def numbers_of(probes):
    return [int(one.query[0]) for one in probes]


def test_a_window_holds_a_fair_draw():
    """Each of 40 queries, single or batched, has the same chance to be among the 10 samples."""
    chosen = Counter()
    samples = RecallSamples(10, np.random.default_rng(1))
    for _ in range(2000):
        for first in range(20):
            samples.observe(call(first), HITS)
        samples.observe(call(*range(20, 40)), HITS)
        taken = numbers_of(samples.take())
        assert len(taken) == len(set(taken)) == 10
        chosen.update(taken)
    assert all(400 < chosen[number] < 600 for number in range(40))


def test_a_sample_is_what_was_asked():
    """With the options that decide what is found, and without holding the message it came in."""
    samples = RecallSamples(10)
    asked = call(7, oversampling=5.0, filter=Exists("a"), min_score=0.5, ef_search=40)
    samples.observe(asked, HITS)
    (taken,) = samples.take()
    assert (taken.k, taken.oversampling, taken.filter, taken.min_score) == (10, 5.0, Exists("a"), 0.5)
    assert taken.ef_search == 40
    assert not np.shares_memory(taken.query, asked.queries)
    assert samples.take() == []


def test_the_replicas_own_searches_and_groups_are_left_out():
    """A measurement must not measure itself."""
    samples = RecallSamples(10)
    samples.observe(call(1, is_live=False), HITS)
    samples.observe(call(1, group=Grouping("a", 1)), HITS)
    assert samples.take() == []


def test_none_are_taken_when_it_is_off():
    """Capacity 0."""
    samples = RecallSamples(0)
    samples.observe(call(1, 2, 3), HITS)
    assert samples.take() == []


def test_recall_is_a_mean_that_forgets():
    """Of few searches the mean; of many, the last hundreds decide."""
    samples = RecallSamples(10)
    assert samples.recall.all is None
    assert samples.note([(probe(), Found(recall, 1)) for recall in (1.0, 0.5, None)]) == 2
    assert samples.recall.plain == LiveRecall(0.75, 2)
    samples.note([(probe(), Found(0.2, 1))] * 5000)
    assert samples.recall.plain.recall == pytest.approx(0.2, abs=1e-3)
    assert samples.recall.plain.queries == 500


def test_filtered_searches_are_told_apart():
    """Together they weigh as many as they are."""
    samples = RecallSamples(10)
    samples.note([(probe(filter=Exists("a")), Found(0.4, 1)), *[(probe(), Found(1.0, 1))] * 3])
    known = samples.recall
    assert (known.filtered, known.plain.recall) == (LiveRecall(0.4, 1.0), 1.0)
    assert known.all == LiveRecall(pytest.approx(0.85), 4)


def test_a_new_index_version_begins_anew():
    """And what is then found of the old one is dropped."""
    samples = RecallSamples(10)
    samples.note([(probe(), Found(0.5, 1)), (probe(), Found(1.0, 2)), (probe(), Found(0.5, 1))])
    assert samples.recall == VersionRecall(2, LiveRecall(1.0, 1.0))


def test_an_index_that_has_grown_is_another_one():
    """Not at each insertion, nor when it shrinks: a quarter more than when its recall began."""
    samples = RecallSamples(10)
    for vectors in (100, 125, 60):
        samples.note([(probe(), Found(1.0, 1))], vectors)
    assert (samples.recall.plain.queries, samples.recall.vectors) == (3, 100)
    samples.note([(probe(), Found(0.5, 1)), (probe(), Found(0.5, 1))], 126)
    assert samples.recall == VersionRecall(1, LiveRecall(0.5, 2), vectors=126)


@pytest.mark.parametrize(
    ("per_minute", "seconds", "samples"),
    [(0, 60, 0), (0.5, 60, 1), (10, 60, 10), (30, 40, 20), (600, 2, 20), (6000, 1, 100)],
)
def test_windows_gather_enough_for_a_scan(per_minute, seconds, samples):
    """About twenty samples, but within a second and a minute."""
    assert (window_s(per_minute), samples_per_window(per_minute)) == (seconds, samples)
