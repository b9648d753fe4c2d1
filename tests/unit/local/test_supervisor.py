"""Crashes are restarted with growing delays."""

import signal

from kintsugi.local.supervisor import HEALTHY_AFTER_S, MAX_DELAY_S, Supervisor, delay_s


class FakeCluster:
    """Processes as exit codes."""

    def __init__(self) -> None:
        self.codes = {"shard-0": None, "shard-1": None}
        self.starts = []

    def names(self):
        return list(self.codes)

    def exit_code(self, name):
        return self.codes[name]

    def start_process(self, name):
        self.starts.append(name)
        self.codes[name] = None


def supervise():
    """A cluster, a list of reports, a function that polls at a time."""
    cluster, reports, now = FakeCluster(), [], [0.0]
    supervisor = Supervisor(cluster, reports.append, lambda: now[0])

    def poll_at(time_s):
        now[0] = time_s
        supervisor.poll()

    poll_at(0)
    return cluster, reports, poll_at


def test_crash_is_reported_at_once_and_restarted_after_its_delay():
    """The other processes are left alone."""
    cluster, reports, poll_at = supervise()
    cluster.codes["shard-1"] = -signal.SIGKILL
    poll_at(1)
    poll_at(1.4)
    assert cluster.starts == []
    poll_at(1.5)
    assert cluster.starts == ["shard-1"]
    assert reports == ["shard-1 exited with status -9, restarting in 0.5 s", "shard-1 restarted"]


def test_repeated_crashes_wait_longer_up_to_a_bound():
    """A process that cannot live must not burn the machine."""
    assert [delay_s(n) for n in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert delay_s(50) == MAX_DELAY_S
    cluster, reports, poll_at = supervise()
    for time_s in (1, 10, 20):
        cluster.codes["shard-0"] = 1
        poll_at(time_s)
        poll_at(time_s + 5)
    assert reports[-2] == "shard-0 exited with status 1, restarting in 2 s"


def test_long_healthy_life_resets_the_delay():
    """A crash per week is not a crash loop."""
    cluster, reports, poll_at = supervise()
    for time_s in (HEALTHY_AFTER_S, 3 * HEALTHY_AFTER_S):
        cluster.codes["shard-0"] = 1
        poll_at(time_s)
        poll_at(time_s + 1)
    assert reports[2] == "shard-0 exited with status 1, restarting in 0.5 s"
