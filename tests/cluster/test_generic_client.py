"""A generic client, built from server reflection alone in a process of its own, does everything a newcomer would try."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kintsugi.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

CLIENT = Path(__file__).parent.parent / "harness" / "generic_client.py"


def test_a_client_built_from_reflection_uses_the_whole_surface(new_cluster: Callable[..., LocalCluster]):
    """It finds the services, creates, writes, searches with floats and with bytes, reads, and understands errors."""
    cluster = new_cluster(servers=2)
    done = subprocess.run(
        [sys.executable, "-P", str(CLIENT), cluster.address], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["imported"] == []
    services = {name.removeprefix("kintsugi.v1."): methods for name, methods in found["services"].items()}
    assert {"Collections", "Documents", "Search", "Cluster", "grpc.health.v1.Health"} <= services.keys()
    assert {"Upsert", "BulkUpsert", "Delete", "DeleteByFilter", "Get", "Count", "Scroll"} == set(services["Documents"])
    assert found["health"] == {"": "SERVING", "kintsugi.v1.Search": "SERVING"}

    assert found["created"]["spec"]["shards"] == 2
    assert found["created"]["serving_model"] == "tiny"
    assert [result["outcome"] for result in found["written"]["results"]] == ["WRITE_OUTCOME_APPLIED"] * 2
    assert found["bulk"][0]["response"]["results"][0]["outcome"] == "WRITE_OUTCOME_APPLIED"

    hits = found["by_floats"]["hits"]
    assert [hit["id"] for hit in hits] == [{"integer": "1"}, {"text": "two"}]
    assert hits[0]["score"] == pytest.approx(1 / 1.01**0.5, rel=1e-6)
    assert hits[0]["attributes"] == '{"colour": "red"}'
    assert hits[1]["text"] == "the second"
    assert found["by_bytes"]["hits"] == hits
    assert found["by_floats"]["coverage"]["shards_answered"] == 2

    assert [document["id"] for document in found["got"]["documents"]] == [{"integer": "1"}, {"text": "two"}]
    assert found["got"]["documents"][0]["vectors"][0]["block"]["dimension"] == 3
    assert found["got"]["missing"] == [{"text": "nobody"}]
    assert found["walked"] == [{"integer": "1"}, {"integer": "3"}, {"text": "two"}]
    assert found["count"] == {"count": "3"}

    assert found["refused"]["code"] == "INVALID_ARGUMENT"
    assert found["refused"]["BadRequest"]["fieldViolations"][0]["field"] == "options.k"
    assert "5000" in found["refused"]["message"]
    assert found["unknown"]["code"] == "NOT_FOUND"
    assert found["unknown"]["ErrorInfo"] == {"reason": "COLLECTION_NOT_FOUND", "domain": "kintsugi"}
