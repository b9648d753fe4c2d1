"""The safe shell around usearch: replacing, removing, saving, and its lock."""

import threading
import time

import numpy as np
import pytest

from kintsugi.ann.elements import prepare
from kintsugi.ann.encoding import f32
from kintsugi.ann.fitting import fit
from kintsugi.ann.spec import EncodingKind, EncodingSpec
from kintsugi.ann.vector_index import GraphParameters, TurnLock, VectorIndex
from kintsugi.metrics import Metric


def rows(*numbers):
    return np.array(numbers, dtype=np.uint64)


def data(count, dimension=16, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def i8(metric, sample):
    return fit(EncodingSpec(EncodingKind.I8), metric, sample.shape[1], sample, len(sample))


GRAPH = GraphParameters(exact_below=0)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("parameters", [GraphParameters(), GRAPH])
def test_added_rows_are_found_and_replaced_rows_are_found_anew(metric, parameters):
    """Adding a row again moves it; removed rows are not found; counters tell."""
    vectors = data(200) / np.linalg.norm(data(200), axis=1, keepdims=True)
    index = VectorIndex(i8(metric, vectors), parameters)
    index.add(np.arange(200, dtype=np.uint64), vectors)
    assert [found[0] for found in index.search(vectors[:5], 3)] == [0, 1, 2, 3, 4]
    index.add(rows(7), vectors[:1] * 1.0)
    assert len(index) == 200
    assert set(index.search(vectors[:1], 2)[0].tolist()) == {0, 7}
    index.remove(rows(0, 3, 999))
    assert len(index) == 198
    assert index.search(vectors[:1], 1)[0].tolist() == [7]
    assert index.removals == 3
    assert index.tombstones == 2


def test_fewer_rows_than_asked_for_come_without_padding():
    """usearch fills its answers up with zeros; those are not rows."""
    index = VectorIndex(f32(Metric.L2, 16), GRAPH)
    assert [len(found) for found in index.search(data(2), 5)] == [0, 0]
    index.add(rows(4, 5), data(2))
    for queries in (1, 3):
        assert [sorted(found.tolist()) for found in index.search(data(queries), 5)] == [[4, 5]] * queries
    index.remove(rows(4, 5))
    assert [len(found) for found in index.search(data(2), 5)] == [0, 0]


def test_a_loaded_index_equals_the_saved_one(tmp_path):
    """Results, counters and expansion settings survive, which usearch resets."""
    vectors = data(300)
    parameters = GraphParameters(expansion_add=40, expansion_search=50, exact_below=0)
    index = VectorIndex(i8(Metric.COSINE, vectors), parameters)
    index.add(np.arange(300, dtype=np.uint64), vectors)
    index.remove(rows(1, 2))
    counters = index.save(tmp_path / "file")
    loaded = VectorIndex.load(tmp_path / "file", index.encoding, parameters, counters)
    for before, after in zip(index.search(vectors[:20], 10), loaded.search(vectors[:20], 10), strict=True):
        assert before.tolist() == after.tolist()
    assert (len(loaded), loaded.tombstones, loaded.removals) == (298, 2, 2)
    assert (loaded._index.expansion_add, loaded._index.expansion_search) == (40, 50)
    loaded.add(rows(1), vectors[1:2])
    assert loaded.search(vectors[1:2], 1)[0].tolist() == [1]


def test_loading_another_file_is_refused(tmp_path):
    """A file that holds other numbers than the manifest says is not taken."""
    index = VectorIndex(f32(Metric.L2, 16), GRAPH)
    index.add(rows(1), data(1))
    counters = index.save(tmp_path / "one")
    index.add(rows(2), data(1))
    index.save(tmp_path / "two")
    with pytest.raises(ValueError, match="expected 1 x 16"):
        VectorIndex.load(tmp_path / "two", index.encoding, GRAPH, counters)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_inner_products_do_not_depend_on_the_length_of_the_query(factor):
    """Queries much shorter or longer than the documents find the same rows."""
    vectors = data(500)
    index = VectorIndex(i8(Metric.DOT, vectors), GraphParameters())
    index.add(np.arange(500, dtype=np.uint64), vectors)
    query = data(1, seed=4)
    (found,) = index.search(query * np.float32(factor), 30)
    truth = np.argsort(-(vectors @ query[0]))[:10]
    assert set(truth.tolist()) <= set(found.tolist())


def test_cosine_is_blind_to_length_and_to_overflow():
    """Preparation for cosine normalises in float64."""
    vectors = data(4)
    assert np.allclose(prepare(Metric.COSINE, vectors * np.float32(1e30)), prepare(Metric.COSINE, vectors), atol=1e-6)


def test_the_lock_serves_in_order_of_coming():
    """A thread that re-acquires in a loop gets its next turn behind those who came before it."""
    lock, order = TurnLock(), []
    lock.__enter__()
    threads = []
    for place in range(5):

        def take(place=place):
            with lock:
                order.append(place)

        threads.append(threading.Thread(target=take))
        threads[-1].start()
        deadline = time.monotonic() + 10
        while len(lock._waiting) <= place and time.monotonic() < deadline:
            pass
    lock.__exit__(None, None, None)
    with lock:
        order.append("again")
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, "again"]


def test_searches_get_in_between_chunks_of_adds():
    """While one thread adds and replaces thousands of rows, another's searches go on, and find no unknown rows."""
    vectors = data(6000, 64)
    index = VectorIndex(i8(Metric.COSINE, vectors), GRAPH)
    index.add(np.arange(500, dtype=np.uint64), vectors[:500])
    failures, done = [], threading.Event()

    def write():
        try:
            index.add(np.arange(500, 6000, dtype=np.uint64), vectors[500:])
            index.add(np.arange(0, 1000, dtype=np.uint64), vectors[:1000])
            index.remove(np.arange(5000, 6000, dtype=np.uint64))
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    searches = 0
    while not done.is_set():
        (found,) = index.search(vectors[:1], 10)
        assert len(found) == 10
        assert found.max() < 6000
        assert found[0] == 0
        searches += 1
    writer.join()
    assert not failures
    # Many more chunks than that are added; without turns a search or two would get in.
    assert searches > 20
    assert len(index) == 5000


def test_saves_during_writes_load_whole(tmp_path):
    """Whatever is saved while another thread writes can be loaded with the counters of that moment."""
    vectors = data(2000, 32)
    index = VectorIndex(i8(Metric.DOT, vectors), GRAPH)
    index.add(np.arange(64, dtype=np.uint64), vectors[:64])
    writer = threading.Thread(target=lambda: index.add(np.arange(2000, dtype=np.uint64), vectors))
    writer.start()
    saves = 0
    while writer.is_alive() or not saves:
        counters = index.save(tmp_path / "file")
        loaded = VectorIndex.load(tmp_path / "file", index.encoding, GRAPH, counters)
        assert len(loaded.search(vectors[:1], 10)[0]) == 10
        saves += 1
    writer.join()
