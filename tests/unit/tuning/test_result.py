"""What is told of a tuning: in words, as JSON, as a plot."""

import re

import pytest

from kintsugi.ann.spec import parse_name
from kintsugi.errors import InvalidArgument
from kintsugi.tuning import plot
from kintsugi.tuning.front import Need, Setting, advise
from kintsugi.tuning.result import Subject, Tuning

F32 = Setting(parse_name("f32"), 2.0, 1536, 1700.0, 384.0, 0.999, 0.998, 1.0, 9.0)
I8 = Setting(parse_name("i8"), 3.0, 384, 600.0, 384.0, 0.995, 0.99, 2.0, 4.0)
BINARY = Setting(parse_name("binary"), 30.0, 48, 250.0, 384.0, 0.97, 0.95, 1.5, 2.0)


def tuning(need, settings=(F32, I8, BINARY), *, replicas=2, extrapolated=True):
    subject = Subject(
        "books", "m", "cosine", 384, 4, replicas, 1_000_000, 50_000, 500, "documents", 10, 1, extrapolated
    )
    return Tuning(subject, need, list(settings), advise(settings, need))


def test_the_recommendation_tells_what_it_costs_and_gives():
    """For a copy and for all replicas, expected and at worst."""
    assert tuning(Need(0.98)).sentence == (
        "recommended: i8 with oversampling 3: 600 MB for a copy of 1,000,000 vectors, 1.2 GB for all 2 replicas; "
        "recall@10 0.9950 (0.9900 at worst); 2.00 x the throughput of f32"
    )
    assert tuning(Need(0.98), replicas=1, extrapolated=False).sentence == (
        "recommended: i8 with oversampling 3: 600 MB for a copy of 1,000,000 vectors; recall@10 0.9950; "
        "2.00 x the throughput of f32"
    )


def test_a_need_that_nothing_meets_is_told_with_what_comes_nearest():
    """What the memory gives at best, and what the recall takes at least."""
    told = tuning(Need(0.98, memory_bytes=300.0)).sentence
    assert told.startswith(
        "no setting meets recall 0.98, 300 MB of memory together; the best within the memory is binary"
    )
    assert "the cheapest that is good enough is i8" in told
    assert tuning(Need(0.98, memory_bytes=100.0)).sentence.count("none fits the memory") == 1
    assert "the highest recall has f32" in tuning(Need(0.9999)).sentence
    assert "3 x the throughput" in tuning(Need(0.9, throughput=3.0)).sentence


def test_the_front_always_shows_what_is_recommended():
    """Even where another setting beats it on what nobody asked for."""
    beaten = Setting(parse_name("e4m3"), 3.0, 384, 600.0, 384.0, 0.99, 0.985, 2.3, 4.0)
    settings = (F32, I8, beaten)
    shown = tuning(Need(0.98), settings).front
    assert tuning(Need(0.98), settings).advice.chosen in shown
    assert [one.memory_bytes for one in shown] == sorted(one.memory_bytes for one in shown)


def test_json_has_every_setting_and_marks_the_front():
    """With memory of a copy and of all replicas in bytes."""
    told = tuning(Need(0.98)).as_json()
    assert [one["encoding"] for one in told["settings"]] == ["f32", "i8", "binary"]
    assert all(one["on_front"] for one in told["settings"])
    assert told["recommended"]["copy_bytes"] == 600_000_000
    assert told["recommended"]["total_bytes"] == 1_200_000_000
    assert told["subject"]["sampled"] == 50_000
    assert told["need"] == {"recall": 0.98, "memory_bytes": None, "throughput": 0.0}
    assert tuning(Need(0.9999)).as_json()["recommended"] is None


def test_the_stairs_are_the_most_recall_for_the_memory():
    """The line of the plot: throughput is not drawn."""
    better = Setting(parse_name("binary"), 50.0, 48, 250.0, 384.0, 0.98, 0.96, 0.5, 2.0)
    worse = Setting(parse_name("e4m3"), 3.0, 384, 610.0, 384.0, 0.99, 0.98, 2.0, 4.0)
    assert plot.stairs([F32, worse, I8, BINARY, better]) == [better, I8, F32]


@pytest.mark.parametrize("need", [Need(0.98, memory_bytes=700.0), Need(0.99999)], ids=["met", "not met"])
def test_a_plot_is_drawn_and_the_same_again(tmp_path, need):
    """Every encoding has its name in it, and the recommended setting its mark."""
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg", "c.png"):
        plot.draw(tuning(need), tmp_path / name)
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    texts = set(re.findall(r"<!-- (.*?) -->", drawn))
    assert {"f32", "i8", "binary"} <= texts
    assert ("recommended: i8 x 3" in texts) == (need.recall < 0.99)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_an_unknown_kind_is_refused_before_anything_is_measured(tmp_path):
    """An hour into a run is too late."""
    with pytest.raises(InvalidArgument, match=r"must end in \.svg"):
        plot.check(tmp_path / "plot.gif")
