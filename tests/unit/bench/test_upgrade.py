"""`python -m bench upgrade`, on data small enough for a test: what it prints is what it measured."""

import json

import numpy as np
import pytest

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
    assert main([*flags, "--output", str(tmp_path / "results")], lambda _what: None) == 0
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
    promised = [cells for cells in table.values() if len(cells) == 4 and cells[-1].strip() in {"yes", "NO"}]
    assert len(promised) == len(FRACTIONS)
    (written,) = (tmp_path / "results").glob("*-upgrade.json")
    (one,) = json.loads(written.read_text())["sets"]
    assert one["findings"]["strategy"] in {"gallery-map", "query-bridge", "both-vectors"}
    assert len(one["curves"]) == len(curves)
    assert written.with_suffix(".md").exists()


def test_a_model_that_retrieves_worse_is_refused_and_its_curve_only_told(tmp_path, capsys):
    """Nothing is promised of an upgrade that the planner is against."""
    write_world(tmp_path)
    flags = ["--npz", str(tmp_path / "world.npz"), "--relevance", str(tmp_path / "world.json"), "--pair", "new", "old"]
    assert main([*flags, "--output", str(tmp_path / "results")], lambda _what: None) == 0
    printed = capsys.readouterr().out
    assert "\nrefused\n" in printed
    assert "retrieves worse" in printed
    assert printed.count("not promised") == len(FRACTIONS)


def test_without_anything_to_upgrade_the_command_says_what_it_needs(capsys):
    """No file and no demo is a mistake of the command line."""
    with pytest.raises(SystemExit):
        main([], lambda _what: None)
    assert "nothing to upgrade" in capsys.readouterr().err


def test_a_model_that_the_file_does_not_have_is_named(tmp_path):
    """The error tells what is there."""
    write_world(tmp_path)
    flags = ["--npz", str(tmp_path / "world.npz"), "--pair", "old", "newest"]
    with pytest.raises(ValueError, match="no arrays doc_newest, query_newest, it has doc_new, doc_old"):
        main(flags, lambda _what: None)
