"""The endpoint that serves metrics, and the samples that are taken at a scrape."""

import urllib.request

import pytest

from kintsugi.errors import Unavailable
from kintsugi.telemetry import metric_names as names
from kintsugi.telemetry.metrics import Sample, StateCollector, collected, endpoint, one_of


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return response.read().decode()


def test_a_state_is_read_when_somebody_asks() -> None:
    """Gauges cost nothing between scrapes, and a metric without a value is announced all the same."""
    documents = [7]
    state = StateCollector(
        [names.DOCUMENTS, names.REPLAY_LAG], lambda: [Sample(names.DOCUMENTS, documents[0], ("docs", "0"))]
    )
    with endpoint("127.0.0.1:0") as port, collected(state):
        assert 'kintsugi_replica_documents{collection="docs",shard="0"} 7.0' in scraped(port)
        documents[0] = 8
        assert 'kintsugi_replica_documents{collection="docs",shard="0"} 8.0' in scraped(port)
        assert "# TYPE kintsugi_replay_lag_records gauge" in scraped(port)


def test_a_state_is_one_of_its_values() -> None:
    """Alerts compare with 1; the others are there, so that a series does not end when a state does."""
    samples = list(one_of(names.REPLICA_PHASE, ["opening", "serving"], "serving", "docs", "0"))
    assert [(sample.labels, sample.value) for sample in samples] == [
        (("docs", "0", "opening"), 0.0),
        (("docs", "0", "serving"), 1.0),
    ]


def test_no_address_means_no_endpoint() -> None:
    """Metrics are served only where somebody said so."""
    with endpoint("") as port:
        assert port == 0


@pytest.mark.parametrize("listen", ["127.0.0.1:nine", "127.0.0.1", "256.0.0.1:1"])
def test_an_address_that_cannot_be_is_refused(listen: str) -> None:
    """A process that nobody can watch should not look as if it were watched."""
    with pytest.raises(Unavailable, match="metrics_listen is"), endpoint(listen):
        pytest.fail("it was taken")


def test_a_taken_port_is_refused() -> None:
    """Two processes never answer for each other."""
    with endpoint("127.0.0.1:0") as port, pytest.raises(Unavailable), endpoint(f"127.0.0.1:{port}"):
        pytest.fail("it was taken twice")
