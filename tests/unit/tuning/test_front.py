"""The front of settings, and the advice drawn from it."""

from hypothesis import given
from hypothesis import strategies as st

from kintsugi.ann.spec import parse_name
from kintsugi.tuning.front import Need, Setting, advise, front


def setting(name="i8", memory=600.0, recall=0.99, throughput=1.0, at_worst=None):
    worst = recall if at_worst is None else at_worst
    return Setting(parse_name(name), 3.0, memory / 2, memory, 0.0, recall, worst, throughput, 1.0)


SETTINGS = st.lists(
    st.builds(
        setting,
        memory=st.integers(100, 110).map(float),
        recall=st.floats(0.9, 1.0),
        throughput=st.floats(0.1, 3.0),
    ),
    max_size=12,
)


@given(SETTINGS)
def test_nothing_on_the_front_is_beaten_and_all_else_is(settings):
    """At least as good in all three and clearly better in one: none on the front has such a rival anywhere."""
    kept = front(settings)
    assert bool(kept) == bool(settings)
    for one in kept:
        assert not any(
            other.memory_bytes <= one.memory_bytes
            and other.recall >= one.recall
            and other.throughput >= one.throughput
            and (other.memory_bytes, other.recall, other.throughput) != (one.memory_bytes, one.recall, one.throughput)
            for other in settings
        )
    for one in settings:
        near = [
            other for other in kept
            if other.memory_bytes <= one.memory_bytes
            and other.recall >= one.recall - 0.0005
            and other.throughput >= 0.9 * one.throughput
        ]  # fmt: skip
        assert near


def test_the_front_ignores_differences_within_the_noise_of_times():
    """Two encodings of one size whose times differ by 5 % are not both worth a line."""
    better, noise = setting("i8", recall=0.99, throughput=1.0), setting("e4m3", recall=0.97, throughput=1.05)
    assert front([noise, better]) == [better]


def test_the_cheapest_setting_that_meets_the_need_is_chosen():
    """Memory is what costs; a higher recall than asked for is worth nothing."""
    dear, cheap = setting("i8", 600.0, 0.999), setting("binary", 300.0, 0.981)
    poor = setting("binary", 300.0, 0.95, throughput=2.0)
    assert advise([dear, cheap, poor], Need(0.98)).chosen == cheap
    assert advise([dear, cheap, poor], Need(0.99)).chosen == dear


def test_of_one_size_the_fastest_is_chosen():
    """Oversamplings of one encoding take the same memory."""
    slow, fast = setting(recall=0.999, throughput=0.5), setting(recall=0.985, throughput=0.9)
    assert advise([slow, fast], Need(0.98)).chosen == fast


def test_a_setting_is_judged_by_its_worst_case():
    """An extrapolated recall that may be wrong promises nothing."""
    hopeful, safe = setting("binary", 300.0, 0.985, at_worst=0.97), setting("i8", 600.0, 0.99)
    assert advise([hopeful, safe], Need(0.98)).chosen == safe


def test_without_a_choice_the_advice_names_what_comes_nearest():
    """What the memory gives at best, and what the recall takes at least."""
    small, large = setting("binary", 300.0, 0.95), setting("i8", 600.0, 0.99)
    advice = advise([small, large], Need(0.98, memory_bytes=400.0))
    assert (advice.chosen, advice.best_in_memory, advice.cheapest_good) == (None, small, large)
    nothing = advise([small, large], Need(0.999, memory_bytes=100.0))
    assert (nothing.chosen, nothing.best_in_memory, nothing.cheapest_good) == (None, None, None)


def test_a_setting_that_is_too_slow_is_not_chosen():
    """A hundred candidates per hit reach any recall, at a price."""
    slow, fast = setting("binary", 300.0, 0.99, throughput=0.1), setting("i8", 600.0, 0.99)
    assert advise([slow, fast], Need(0.98, throughput=0.3)).chosen == fast
