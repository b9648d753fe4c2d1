"""The demo's documents are the standard library's, the same every time."""

import sys

import pytest

from kintsugi import ids
from kintsugi.demo import corpus


def test_corpus_holds_thousands_of_documents_in_a_stable_order():
    """Two collections give the same documents, sorted by id, none twice, each within the bounds of a document."""
    first, second = corpus.load(), corpus.load()
    assert first == second
    names = [entry.id for entry in first]
    assert names == sorted(set(names))
    assert len(names) > 3000
    for entry in first:
        ids.check(entry.id)
        assert entry.text.splitlines()[0] == entry.first_line
        assert len(entry.text.encode()) < 256 * 1024


def test_corpus_names_modules_classes_functions_and_methods():
    """Well-known members of each kind are there, with their attributes."""
    by_id = {entry.id: entry for entry in corpus.load()}
    assert by_id["json"].kind == "module"
    assert by_id["gzip.compress"].kind == "function"
    assert by_id["collections.Counter"].kind == "class"
    most_common = by_id["collections.Counter.most_common"]
    assert most_common.attributes == {
        "module": "collections",
        "kind": "method",
        "name": "Counter.most_common",
        "first_line": most_common.text.splitlines()[0],
    }


def test_corpus_leaves_out_modules_with_side_effects():
    """Nothing that opens a browser or a window, or that prints, is imported."""
    names = set(corpus.module_names())
    assert not names & {"antigravity", "this", "tkinter", "turtle", "turtledemo", "idlelib", "test"}
    assert "os.path" not in names
    assert "xml.sax" in names


def test_collecting_happens_in_another_process():
    """Loading the corpus imports nothing of the standard library here that was not imported before."""
    before = set(sys.modules)
    corpus.load()
    assert {name for name in set(sys.modules) - before if name.partition(".")[0] in sys.stdlib_module_names} == set()


def test_a_library_that_cannot_be_read_is_said_in_words():
    """When the collecting process fails, the error names its exit code."""
    with pytest.raises(corpus.CorpusUnavailable, match="failed with 1"):
        corpus.load("/bin/false")
