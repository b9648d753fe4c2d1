"""Checks of a collection: how they come, and what they mean."""

import pytest

from kintsugi import AsyncClient, Client, InvalidArgument, NotFound, Unavailable
from kintsugi.sdk.verifying import Agreement, ReplicaCheck, verdicts


@pytest.fixture
async def client(address):
    async with AsyncClient(address) as client:
        yield client


def check(member="s0", **values):
    """A check that found nothing wrong, but for what the test says."""
    good = {"shard": 0, "replicas": 2, "failure": "", "seq": 7, "log_digest": b"l", "content_digest": b"c",
            "documents": 3, "index_version": 1, "encoding": "i8", "queries": 10, "recall": 0.9}  # fmt: skip
    return ReplicaCheck(member=member, **(good | values))


@pytest.mark.parametrize(
    ("checks", "agreement", "message"),
    [
        ((check(), check("s1")), Agreement.AGREE, ""),
        ((check(),), Agreement.ALONE, ""),
        (
            (check(), check("s1", content_digest=b"x")),
            Agreement.DIFFER,
            "s0 and s1 hold different contents at sequence number 7",
        ),
        (
            (check(), check("s1", documents=4, content_digest=b"x")),
            Agreement.DIFFER,
            "s0 and s1 hold different contents (3 and 4 documents) at sequence number 7",
        ),
        (
            (check(), check("s1", log_digest=b"x")),
            Agreement.DIFFER,
            "s0 and s1 hold different logs at sequence number 7",
        ),
        ((check(), check("s1", seq=8)), Agreement.NOT_COMPARED, "positions differ: s0 at 7, s1 at 8"),
        (
            (check(), check("s1", failure="no answer", recall=None)),
            Agreement.UNCHECKED,
            "s1 could not be checked: no answer",
        ),
        (
            (check("s2", seq=8), check("s1", content_digest=b"x"), check(), check("s3", failure="gone")),
            Agreement.DIFFER,
            "s0 and s1 hold different contents at sequence number 7",
        ),
    ],
)
def test_a_verdict_is_the_worst_that_was_found(checks, agreement, message):
    """Replicas at one sequence number hold the same; what was not compared or not checked is not called good."""
    (verdict,) = verdicts(checks)
    assert (verdict.agreement, verdict.message) == (agreement, message)


def test_each_shard_has_its_verdict_and_lowest_recall():
    """Shards come in order; a replica without vectors has no recall."""
    found = verdicts([check(shard=1, recall=None), check(recall=0.95), check("s1", recall=0.8)])
    assert [(one.shard, one.recall) for one in found] == [(0, 0.8), (1, None)]


async def test_checks_come_as_they_are_made(client, fake):
    """The first is there though the second one never is; leaving ends the call."""
    fake.silent_after["Verify second"] = 0
    answers = client.verify("docs", queries=5, k=3)
    assert await anext(answers) == check(queries=5)
    assert (fake.requests["Verify"][0].queries, fake.requests["Verify"][0].k) == (5, 3)
    await answers.aclose()


async def test_all_checks_come_once(client):
    """The iteration ends with the last replica, of which only the failure is told."""
    first, second = [one async for one in client.verify("docs")]
    assert (first.member, first.recall) == ("s0", 0.9)
    assert (second.member, second.failure, second.recall) == ("s1", "no answer", None)


def test_the_synchronous_client_gives_each_check_at_once(served, fake):
    """A slow replica does not hold back the findings of the others."""
    fake.silent_after["Verify second"] = 0
    with Client(served(fake)) as client:
        assert next(client.verify("docs")).member == "s0"


async def test_a_check_is_begun_again_but_not_continued(client, fake):
    """Before its first answer a call is retried; a break after it is the caller's to know."""
    fake.faults["Verify"].append(Unavailable("draining"))
    fake.faults["Verify second"].append(Unavailable("gone"))
    answers = client.verify("docs")
    assert (await anext(answers)).member == "s0"
    with pytest.raises(Unavailable, match="gone"):
        await anext(answers)


async def test_what_is_wrong_with_a_check_is_told(client, fake):
    """By the client for what it knows, by the cluster for the rest."""
    with pytest.raises(InvalidArgument, match="k is 101"):
        await anext(client.verify("docs", k=101))
    fake.faults["Verify"].append(NotFound("there is no collection docs"))
    with pytest.raises(NotFound):
        await anext(client.verify("docs"))
