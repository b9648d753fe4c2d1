"""Builds that run while documents arrive."""

import numpy as np

from kintsugi.ann.spec import parse_name
from kintsugi.ann.vector_index import GraphParameters
from shard.build import Build, BuildPlan
from shard.code_files import CodeFiles


def test_a_document_that_arrives_during_a_build_is_added_once(open_replica, tmp_path):
    """The scan leaves the newer rows to the journal: it ends although they never do, and wears out no graph."""
    # Of this size, a block of the scan holds 1,024 vectors: there is more than one.
    replica = open_replica(dimension=2048)
    random = np.random.default_rng(1)
    replica.put({i: random.standard_normal(2048) for i in range(1200)})
    followed = replica.storage.position.seq
    plan = BuildPlan(1, parse_name("i8"), reason="")
    build = Build(replica.storage, replica.model, plan, GraphParameters(), CodeFiles(tmp_path))
    steps, done = 0, False
    while not done:
        assert steps < 20
        # As the indexer does: the journal's next slice, then a step.
        first = 1200 + 600 * steps
        replica.put({i: random.standard_normal(2048) for i in range(first, first + 600)})
        changes = replica.storage.changed_rows(followed, 10_000)
        followed = changes.position.seq
        present, vectors = replica.storage.vectors(1, changes.rows)
        build.apply(changes.rows[present], vectors[present], changes.rows[~present])
        assert build.is_ready(30)
        done = build.step()
        steps += 1
    assert len(build.version.index) == 1200 + 600 * steps
    assert build.version.index.removals == 0
