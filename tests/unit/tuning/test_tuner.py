"""Encodings are built, searched and compared in this process. Never a time: on a busy machine any would be wrong."""

import numpy as np
import pytest

from kintsugi.ann.spec import SIGNS, EncodingKind, EncodingSpec, parse_name
from kintsugi.metrics import Metric, scores
from kintsugi.tuning import grid, tuner
from kintsugi.tuning.ground import Ground, prepare
from kintsugi.tuning.sampling import Sample
from kintsugi.tuning.trial import Trial

DIMENSION = 24
I8 = parse_name("i8")


def sample(count, total=None, seed=1):
    random = np.random.default_rng(seed)
    inside = random.standard_normal((count, 6)) @ np.random.default_rng(0).standard_normal((6, DIMENSION))
    vectors = (inside + 0.1 * random.standard_normal((count, DIMENSION))).astype(np.float32)
    return Sample(list(range(count)), vectors, total or count)


def ground(count=4000, *, total=None, shards=2, metric=Metric.COSINE) -> Ground:
    return prepare(sample(count, total), sample(40, seed=2).vectors, metric=metric, shards=shards, k=5)


def unwatched(_encoding, _done):
    pass


@pytest.mark.parametrize("metric", list(Metric))
def test_a_trial_finds_nearly_all_that_is_there(metric, tmp_path):
    """Each part gives its candidates; what is answered are exact scores of real documents."""
    made = ground(metric=metric)
    with Trial(made, I8, tmp_path) as trial:
        assert trial.build(lambda _done: None) > 0
        assert trial.recalls(trial.oversampling).mean() > 0.97
        (answer,) = trial.answers(made.queries[:1], trial.oversampling)
        assert np.isin(answer, scores(metric, made.queries[0], made.vectors)).all()
        assert len(answer) == 5
        assert trial.queries_per_s(0.0, trial.oversampling) > 0
    assert not list(tmp_path.iterdir())


def test_all_candidates_are_scored_when_an_oversampling_is_named(tmp_path):
    """So more of them find no less."""
    made = ground()
    with Trial(made, I8, tmp_path) as trial:
        trial.build(lambda _done: None)
        few, many = (trial.recalls(tried, in_order=False).mean() for tried in (1.0, 20.0))
        assert few <= many
        assert trial.recalls(20.0, in_order=True).mean() <= many


def test_sizes_count_codes_links_and_files(tmp_path):
    """Codes as the encoding says, the whole by the formula for a shard of the real size, files beside it."""
    with Trial(ground(), I8, tmp_path) as trial:
        trial.build(lambda _done: None)
        sizes = trial.sizes()
    assert sizes.code == DIMENSION
    assert sizes.memory > sizes.code + 100
    assert sizes.mapped >= DIMENSION


def test_settings_are_those_of_the_grid_and_compared_with_f32():
    """One line for each oversampling; f32 at its own is the measure of throughput."""
    made = ground()
    seen = []
    settings = tuner.measure(made, [grid.REFERENCE, I8], 1, lambda encoding, done: seen.append((encoding, done)))
    assert {one.encoding for one in settings} == {grid.REFERENCE, I8}
    assert all(one.recall == one.recall_at_worst > 0.95 for one in settings)
    assert all(one.throughput > 0 for one in settings)
    assert settings[0].memory_bytes > settings[-1].memory_bytes
    assert sum(done for _, done in seen) == tuner.steps(made, [grid.REFERENCE, I8]) == 8000


def test_a_seed_gives_the_same_recalls_again():
    """Whatever the machine does meanwhile."""
    first, again = (
        [one.recall for one in tuner.measure(ground(2000), [grid.REFERENCE, I8], 3, unwatched)] for _ in range(2)
    )
    assert first == again


def test_a_sample_is_measured_twice_and_judged_by_its_worst():
    """A quarter of it tells how recall falls; the progress counts both."""
    made = ground(4000, total=400_000)
    seen = []
    settings = tuner.measure(made, [grid.REFERENCE, I8], 1, lambda _encoding, done: seen.append(done))
    assert not made.is_whole
    assert sum(seen) == tuner.steps(made, [grid.REFERENCE, I8]) == 10_000
    assert all(one.recall_at_worst < one.recall for one in settings)


def test_without_f32_nothing_can_be_compared():
    """It is measured whatever else is asked for."""
    with pytest.raises(ValueError, match="must be f32"):
        tuner.measure(ground(100), [I8], 1, unwatched)


def test_the_grid_fits_the_dimension():
    """Half and a quarter of it, unless that is too little to encode; every encoding once."""
    large, small = grid.encodings(384, Metric.COSINE), grid.encodings(12, Metric.DOT)
    assert large[0] == small[0] == grid.REFERENCE
    assert {spec.pca for spec in large} == {0, 192, 96}
    assert not any(spec.pca or spec.prefix for spec in small)
    assert len(set(large)) == len(large)
    assert {spec.kind for spec in small} == {*EncodingKind} - {EncodingKind.AUTOMATIC}
    assert {spec.kind for spec in grid.encodings(384, Metric.L2)}.isdisjoint(SIGNS)


def test_oversamplings_are_those_that_make_a_difference():
    """A graph that looks at 128 candidates anyway is not asked for 30; nobody may ask for more than the limit."""
    assert grid.oversamplings(I8, 3.0, 10, 128) == [3.0, 20.0, 40.0]
    assert grid.oversamplings(parse_name("binary"), 25.0, 10, 128) == [25.0, 30.0, 50.0, 100.0]
    assert grid.oversamplings(parse_name("binary"), 25.0, 1000, 128) == [25.0]
    assert grid.oversamplings(EncodingSpec(EncodingKind.I8, pca=16), 3.0, 1, 128) == [3.0]


def test_an_interrupt_within_usearch_is_one_outside_of_it():
    """usearch makes an error of its own of it; other errors stay what they are."""
    with pytest.raises(KeyboardInterrupt), tuner.interruptible():
        raise RuntimeError("Operation has been terminated")
    with pytest.raises(RuntimeError, match="full"), tuner.interruptible():
        raise RuntimeError("the disk is full")
