"""What `kintsugi recover` shows and asks."""

from harness.statuses import replica, shard, silent, status

from kintsugi.cli.waiting import find, waiting

RECOVERING = shard(silent("s0"), replica("s1", durable_seq=70), log_state="recovering", message="recovery waits for s0")


def test_a_healthy_shard_waits_for_nobody():
    """There is nothing to give up where somebody in sync answers."""
    assert waiting(status(shard(replica("s0"), silent("s1")))) == ()


def test_the_question_names_what_is_given_up():
    """Nobody accepts a loss without having read whose, and of what."""
    found = waiting(status(RECOVERING))
    one = find(found, "books", 0)
    assert (one.silent, one.kept_seq, one.message) == (("s0 (s0:1)",), 70, "recovery waits for s0")
    assert "shard 0 of collection books would recover without s0 (s0:1)" in one.question
    assert "Every write after sequence number 70" in one.question
    assert find(found, "books", 1) is None


def test_a_shard_that_lost_all_in_sync_replicas_waits_too():
    """Its log is open, and only the operator's word brings it back; a failed replica cannot be heard either."""
    lost = shard(replica("s0", phase="failed"), silent("s1"), replica("s2", state="out-of-sync", durable_seq=30))
    (one,) = waiting(status(lost))
    assert (one.silent, one.kept_seq) == (("s0 (s0:1)", "s1 (s1:1)"), 30)
    assert one.message == "no replica in sync answers"
