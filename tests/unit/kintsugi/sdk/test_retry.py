"""Which failures are tried again, and when."""

import pytest

from kintsugi.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    KintsugiError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from kintsugi.sdk.retry import RetryPolicy, is_retryable


@pytest.mark.parametrize("error", [Unavailable("x"), ResourceExhausted("x"), ResourceExhausted("x", retry_delay_s=1)])
def test_trouble_that_passes_is_retried(error):
    """What the cluster promises to get over is tried again."""
    assert is_retryable(error)


@pytest.mark.parametrize("kind", [Aborted, AlreadyExists, DeadlineExceeded, FailedPrecondition, Internal, NotFound])
def test_lasting_failures_are_not_retried(kind: type[KintsugiError]):
    """What would fail again, or whose outcome is open, is the caller's to decide."""
    assert not is_retryable(kind("x"))


def test_a_message_that_is_too_large_is_not_retried():
    """gRPC's own refusal of a large message has the status of an overload, but will never pass."""
    assert not is_retryable(ResourceExhausted("CLIENT: Sent message larger than max (50 vs. 10)"))


def test_waits_grow_to_their_bound_with_jitter():
    """The n-th wait lies in the upper half of the exponential, which stops at max_delay_s."""
    policy = RetryPolicy(first_delay_s=0.1, max_delay_s=1.0)
    assert [policy.delay_s(n, None, lambda: 1.0) for n in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])
    assert policy.delay_s(2, None, lambda: 0.0) == pytest.approx(0.2)
    assert policy.delay_s(10_000, None, lambda: 1.0) == 1.0


def test_the_servers_delay_is_a_lower_bound():
    """A RetryInfo longer than the backoff is honoured; a shorter one does not shorten it."""
    policy = RetryPolicy(first_delay_s=0.1)
    assert policy.delay_s(0, ResourceExhausted("x", retry_delay_s=3), lambda: 1.0) == 3
    assert policy.delay_s(0, ResourceExhausted("x", retry_delay_s=0.01), lambda: 1.0) == pytest.approx(0.1)
