"""`python -m bench overload` and `tail`, the parts that need no processes: arrivals, and what is made of outcomes."""

import numpy as np
import pytest

from bench.offering import NOT_SENT, Offer, Outcomes, arrivals
from bench.origin import Origin
from bench.overload import OverloadReport, Phase, row_of
from bench.overload import Plan as OverloadPlan
from bench.overload import markdown as overload_markdown
from bench.scrape import summed
from bench.tail import Plan as TailPlan
from bench.tail import TailReport, rise_ms, window_of
from bench.tail import markdown as tail_markdown
from bench.workloads import SMOKE_DATASET

FEW = np.zeros((0, 10), dtype=np.int64)


def outcomes(latencies_ms, failures=None, cpu_s=None):
    return Outcomes(
        seconds=2.0,
        calls=len(latencies_ms) + sum((failures or {}).values()),
        latencies_ms=np.array(latencies_ms, dtype=np.float64),
        failures=failures or {},
        lag_ms=np.zeros(1),
        found=FEW,
        cpu_s=cpu_s or {},
        cores_elsewhere=0.0,
    )


def test_arrivals_have_their_rate_and_no_rhythm():
    """Even gaps would never let two searches meet, as those of independent users do."""
    at = arrivals(Offer(rate=200.0, deadline_s=1.0, seconds=5.0, seed=1))
    gaps = np.diff(at)
    assert len(at) == 1000
    assert 0.0 <= at[0] <= at[-1] <= 5.0
    assert (gaps >= 0).all()
    # Gaps of a Poisson process scatter as much as they last.
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1.0, rel=0.15)
    assert at == arrivals(Offer(200.0, 1.0, 5.0, seed=1)) != arrivals(Offer(200.0, 1.0, 5.0, seed=2))


def test_an_answer_behind_its_deadline_is_no_goodput():
    """Work that came too late was wasted, however much of it there was."""
    found = outcomes([10.0] * 60 + [700.0] * 40, {"RESOURCE_EXHAUSTED": 100})
    capacity = row_of(None, outcomes([10.0] * 80), None, float("inf"), 1.0, 0.9)
    row = row_of(2.0, found, capacity, 0.5, 1.0, 0.9)
    assert (capacity.goodput_per_s, capacity.of_capacity) == (40.0, 1.0)
    assert (row.offered_per_s, row.goodput_per_s, row.of_capacity) == (100.0, 30.0, 0.75)
    assert row.failures_per_s == {"RESOURCE_EXHAUSTED": 50.0}


def test_a_refusal_costs_what_answers_leave():
    """Answers are taken to cost what they did at capacity; of few refusals nothing can be told."""
    capacity = row_of(None, outcomes([10.0] * 100, cpu_s={"client": 0.1}), None, float("inf"), 1.0, 1.0)
    many = outcomes([10.0] * 100, {"RESOURCE_EXHAUSTED": 90, NOT_SENT: 10}, {"client": 0.12})
    few = outcomes([10.0] * 100, {"RESOURCE_EXHAUSTED": 3}, {"client": 0.12})
    assert row_of(2.0, many, capacity, 0.5, 1.0, 1.0).refusal_cpu_ms == pytest.approx({"client": 0.2})
    assert row_of(1.0, few, capacity, 0.5, 1.0, 1.0).refusal_cpu_ms is None


def test_samples_are_summed_over_processes_and_labels():
    """A server of each shard, a label of each stage."""
    one = '# TYPE kintsugi_x histogram\nkintsugi_x_sum{stage="a"} 1.5\nkintsugi_x_sum{stage="b"} 2.0\n'
    other = "# TYPE kintsugi_y counter\nkintsugi_y_total 4\n"
    assert summed([one, one, other]) == {"kintsugi_x_sum": 7.0, "kintsugi_y_total": 4.0}


def test_the_table_of_an_overload_tells_ratio_codes_and_processor_time():
    """One line for each window of a phase; the median of its rounds."""
    capacity = row_of(None, outcomes([10.0] * 100, cpu_s={"client": 0.1}), None, float("inf"), 1.0, 0.98)
    twice = row_of(2.0, outcomes([20.0] * 95, {"RESOURCE_EXHAUSTED": 105}, {"client": 0.12}), capacity, 0.5, 1.0, 0.99)
    plan = OverloadPlan(SMOKE_DATASET, 2, 5, 8, 500.0, 128, 2, 2.0, 0.2, 1)
    phase = Phase(5, 8, [[capacity, twice]] * 2)
    text = overload_markdown(OverloadReport(Origin.of(["overload"]), plan, [phase]))
    assert "## 5 ms injected per batch, at most 8 queries running" in text
    assert "| 2 x | 100 | 48 | 0.95 (0.95..0.95) | RESOURCE_EXHAUSTED 52 | 20.0 (20.0..20.0) |" in text
    assert "| closed loop, per answer | 1.000 |" in text
    assert "| 2 x, per refusal | 0.238 |" in text


def test_the_table_of_a_tail_tells_the_rise_round_by_round():
    """A window and the one beside it, so that a disturbance of minutes hits both."""
    plan = TailPlan(SMOKE_DATASET, 1, 50.0, 200, 2000.0, 2, 2.0, 0.5, 1)
    well = [window_of(outcomes([p99] * 100), 100, 1, 101, 1.0) for p99 in (3.0, 9.0)]
    slow = [window_of(outcomes([p99] * 100), 100, 4, 103, 1.0) for p99 in (13.0, 21.0)]
    report = TailReport(Origin.of(["tail"]), plan, well, slow)
    assert rise_ms(report).median == 11.0
    text = tail_markdown(report)
    assert "p99 rises by 11.0 ms (10.0..12.0)." in text
    assert "| 4.00% (4.00%..4.00%) | 3.00% (3.00%..3.00%) |" in text
