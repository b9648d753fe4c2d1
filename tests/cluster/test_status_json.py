"""`kintsugi status --json` of a real cluster keeps to its schema, and its exit code tells the health."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from kintsugi import Client, Model
from kintsugi.cli.main import run

pytestmark = pytest.mark.cluster

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "status-1.schema.json").read_text())
PATIENCE_S = 60.0


def test_real_status_keeps_to_the_schema_whatever_is_dead(new_cluster, capsys):
    """Healthy, with one shard server gone, with all of them gone, and with Redis gone."""
    cluster = new_cluster(servers=2, env={"KINTSUGI_OUT_OF_SYNC_AFTER_S": "3600"})
    with Client(cluster.address) as client:
        client.create_collection("docs", Model("m", 4), shards=2, replicas=2)
        client.upsert("docs", range(50), np.ones((50, 4)), acknowledgement="searchable")

    def status(expected_code):
        """The document, once the exit code is as expected."""
        end = time.monotonic() + PATIENCE_S
        while True:
            capsys.readouterr()
            code = run(["status", "--json", "--address", cluster.address])
            told = json.loads(capsys.readouterr().out)
            assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(told)] == []
            if code == expected_code:
                return told
            assert time.monotonic() < end, (code, told["problems"])
            time.sleep(0.1)

    healthy = status(0)
    assert (healthy["health"], healthy["problems"]) == ("ok", [])
    assert [collection["name"] for collection in healthy["collections"]] == ["docs"]
    replicas = [replica for shard in healthy["collections"][0]["shards"] for replica in shard["replicas"]]
    assert sum(replica["documents"] for replica in replicas) == 100
    assert all(member["machine"]["disk_total_bytes"] > 0 for member in healthy["members"])
    cluster.kill("shard-1")
    degraded = status(3)
    assert any("does not answer" in problem["message"] for problem in degraded["problems"])
    cluster.kill("shard-0")
    failing = status(4)
    assert failing["problems"][0] == {
        "health": "failing", "subject": "docs/0", "message": "no replica in sync answers, searches are refused",
    }  # fmt: skip
    cluster.kill("valkey")
    while status(4)["registry"]["state"] != "unreachable":
        pass
    assert status(4)["collections"][0]["shards"][0]["log"]["seq"] is None
