"""What the demo says about its checks, without a cluster."""

import io

import numpy as np
import pytest
from rich.console import Console

from kintsugi.demo import film


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=60)


def test_checks_hold_only_when_every_one_does():
    """One failed check fails the demo, and so does a demo that checked nothing."""
    checks = film.Checks()
    assert not checks.all_held
    checks.add("this", held=True)
    assert checks.all_held
    checks.add("that", held=False)
    assert not checks.all_held


def test_checks_are_listed_with_their_outcome(console):
    """The closing list names each check on one line, whatever the width."""
    checks = film.Checks()
    checks.add("a check whose text is longer than the console is wide, [brackets] included", held=True)
    checks.add("another", held=False)
    checks.show(console)
    assert console.file.getvalue().splitlines()[2:] == [
        "  [ok] a check whose text is longer than the console is wide, [brackets] included",
        "  [FAILED] another",
    ]


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

    assert film._recall(Answers([["a", "b"], ["c", "d"]]), Answers([["b", "a"], ["x", "y"]])) == 0.5
