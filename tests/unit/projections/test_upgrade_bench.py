"""The bench of upgrades, on data small enough for a test: what it prints is what it measured."""

import json

import numpy as np

from bench.upgrade import FRACTIONS, main


def write_world(folder, count=900, topics=40, dimension=16):
    """Two models' views of documents about topics, the new one clearer, and which documents answer which query."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((topics, dimension))
    about = random.integers(0, topics, count)
    documents = centres[about] + 0.3 * random.standard_normal((count, dimension))
    views = {"old": 0.8, "new": 0.05}
    arrays = {
        f"{part}_{model}": (vectors + noise * random.standard_normal(vectors.shape)).astype(np.float32)
        for model, noise in views.items()
        for part, vectors in (("doc", documents), ("query", centres))
    }
    np.savez(folder / "world.npz", **arrays)
    # Half of the documents are judged, so that the others are left to fit projections on.
    relevant = [np.flatnonzero((about == topic) & (np.arange(count) % 2 == 0)).tolist() for topic in range(topics)]
    (folder / "world.json").write_text(json.dumps({"relevant": relevant}))


def test_the_bench_prints_every_row_and_a_curve_from_old_to_new(tmp_path, capsys):
    """All ways start where their projection starts and end at full re-embedding; raw mixing of native spaces is a baseline."""
    write_world(tmp_path)
    flags = ["--npz", str(tmp_path / "world.npz"), "--relevance", str(tmp_path / "world.json"), "--pair", "old", "new"]
    assert main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    table = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("|")}
    assert {"old model alone", "bridged", "bridged, rescored", "gallery mapped", "full re-embedding"} <= set(table)
    curves = {name: cells for name, cells in table.items() if len(cells) == len(FRACTIONS) + 2 and "/" in cells[1]}
    assert {"alias swap", "raw mixing", "rank fusion", "both-vectors, quantiles", "gallery-map, raw"} <= set(curves)
    full = curves["alias swap"][-2].strip()
    assert {cells[-2].strip() for cells in curves.values()} == {full}
    start = float(curves["alias swap"][1].split("/")[0])
    assert float(full.split("/")[0]) > start
    assert float(curves["both-vectors, quantiles"][1].split("/")[0]) == start
