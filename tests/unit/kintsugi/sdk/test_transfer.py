"""Imports and exports go on where they were interrupted, and lose and repeat nothing."""

import asyncio
import json
from contextlib import suppress

import numpy as np
import pytest

from kintsugi import AsyncClient, DeadlineExceeded, FailedPrecondition, InvalidArgument, Model, Unavailable
from kintsugi.sdk.importing import PART_CHUNKS

ITEMS = 250
PART = 5 * PART_CHUNKS


@pytest.fixture
async def client(address):
    async with AsyncClient(address, timeout_s=2) as client:
        await client.create_collection("docs", Model("m", 3))
        yield client


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "docs.npz"
    vectors = np.arange(ITEMS * 3, dtype=np.float32).reshape(ITEMS, 3)
    np.savez(path, vectors=vectors, ids=np.arange(1000, 1000 + ITEMS), texts=[f"text {i}" for i in range(ITEMS)])
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


async def break_off(client, fake, source):
    """An import that ends in its second part."""
    fake.faults["chunk"].extend([None] * (PART_CHUNKS + 4) + [InvalidArgument("x", "is broken")] * 50)
    with pytest.raises(InvalidArgument, match="x is broken"):
        await client.bulk_import("docs", source, batch=5)
    fake.faults["chunk"].clear()


async def test_a_file_is_imported_and_leaves_nothing_behind(client, fake, source):
    """All documents are there, and no state file."""
    result = await client.bulk_import("docs", source, batch=5)
    assert (result.items, result.applied, result.refused) == (ITEMS, ITEMS, 0)
    assert (result.resumed_at, result.rejects) == (0, None)
    assert set(fake.documents) == set(range(1000, 1000 + ITEMS))
    assert fake.documents[1007].text == "text 7"
    assert result.token
    assert list(source.parent.iterdir()) == [source]


async def test_an_interrupted_import_goes_on_and_writes_nothing_twice(client, fake, source):
    """The second run begins with the part that was not saved, and repeats its request ids."""
    await break_off(client, fake, source)
    assert 0 < len(fake.documents) < ITEMS
    before = fake.applications.copy()
    result = await client.bulk_import("docs", source, batch=7)  # the first cut stands
    assert (result.items, result.applied, result.resumed_at) == (ITEMS, ITEMS, PART)
    assert len(fake.applications) == len(set(fake.applications)) == ITEMS // 5
    assert fake.applications[: len(before)] == before
    assert fake.seq == ITEMS


async def test_a_cancelled_import_goes_on(client, fake, source):
    """Ctrl-C during a part leaves a state from which the next run goes on."""
    importing = asyncio.ensure_future(client.bulk_import("docs", source, batch=5))
    await fake.streaming.wait()
    importing.cancel()
    with suppress(asyncio.CancelledError):
        await importing
    result = await client.bulk_import("docs", source, batch=5)
    assert result.items == result.applied == ITEMS
    assert fake.seq == ITEMS


async def test_refused_items_stand_once_in_the_rejects(client, fake, tmp_path):
    """With their line, also when the part that holds them is repeated after an interruption."""
    source = tmp_path / "docs.jsonl"
    rows = [json.dumps({"id": i, "vector": [i, 1, 1]}) for i in range(ITEMS)]
    rows[3], rows[120] = "nonsense", json.dumps({"id": 2**70, "vector": [1, 1, 1]})
    source.write_text("\n".join(rows))
    await break_off(client, fake, source)
    rejects = tmp_path / "docs.jsonl.docs.rejects.jsonl"
    with rejects.open("a") as stream:  # written and not counted, as a kill between the two leaves it
        stream.write(rejects.read_text())
    result = await client.bulk_import("docs", source, batch=5)
    assert (result.items, result.applied, result.refused, result.rejects) == (ITEMS, ITEMS - 2, 2, rejects)
    assert [(item["place"], item["where"]) for item in lines(rejects)] == [(3, "line 4"), (120, "line 121")]


async def test_too_many_refused_items_stop_the_import(client, tmp_path):
    """A file of the wrong kind is not refused line by line to its end; a higher bound goes on."""
    source = tmp_path / "docs.jsonl"
    source.write_text("nonsense\n" * ITEMS)
    with pytest.raises(FailedPrecondition, match="100 items were refused, max_refused is 99; .*goes on from line 101"):
        await client.bulk_import("docs", source, batch=5, max_refused=99)
    result = await client.bulk_import("docs", source, batch=5)
    assert (result.refused, result.resumed_at) == (ITEMS, PART)


async def test_a_state_of_something_else_is_not_continued(client, fake, source):
    """Another content of the file, or another collection of the name, must not be mixed with the first."""
    await break_off(client, fake, source)
    np.savez(source, vectors=np.ones((ITEMS, 3)))
    with pytest.raises(FailedPrecondition, match="since then the source has changed") as raised:
        await client.bulk_import("docs", source, batch=5)
    assert raised.value.reason == "STATE_OF_ANOTHER"
    result = await client.bulk_import("docs", source, batch=5, restart=True)
    assert (result.items, result.resumed_at) == (ITEMS, 0)


async def test_items_that_are_not_settled_end_the_import_and_are_repeated(client, fake, source):
    """What may still be written is neither refused nor taken for done."""
    fake.unsettled[1001] = 10**6
    with pytest.raises((Unavailable, DeadlineExceeded), match="the log is moving"):
        await client.bulk_import("docs", source, batch=5, timeout_s=0.2)
    fake.unsettled.clear()
    assert (await client.bulk_import("docs", source, batch=5)).applied == ITEMS


async def test_an_unreadable_state_file_is_named(client, source):
    """Nobody imports twice because of a torn file; people decide."""
    state = source.with_name("state.json")
    state.write_text("{")
    with pytest.raises(FailedPrecondition, match="state.json cannot be read"):
        await client.bulk_import("docs", source, state=state)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".jsonl", ".parquet"])
@pytest.mark.parametrize("ids", [range(40), [f"id {i:02}" for i in range(40)]])
async def test_what_is_exported_can_be_imported(client, fake, tmp_path, suffix, ids):
    """Ids, vectors, attributes and texts survive, as far as the format has them."""
    vectors = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    await client.upsert("docs", list(ids), vectors, attributes=[{"n": i} for i in range(40)], texts=["t"] * 40)
    path = tmp_path / f"out{suffix}"
    exported = await client.bulk_export("docs", path)
    assert (exported.documents, exported.skipped) == (40, 0)
    assert sorted(tmp_path.iterdir()) == sorted(exported.files)
    before = dict(fake.documents)
    fake.documents.clear()
    await client.bulk_import("docs", path)
    assert list(fake.documents) == list(before)
    for doc_id, document in before.items():
        assert fake.documents[doc_id].vectors[0].block == document.vectors[0].block
        if suffix != ".npy":
            assert fake.documents[doc_id].attributes == document.attributes
            assert fake.documents[doc_id].text == document.text


async def test_an_interrupted_export_goes_on(client, fake, tmp_path):
    """No document is in the file twice, and none is missing."""
    await client.upsert("docs", range(40), np.ones((40, 3)))
    fake.faults["Scroll"].extend([None, None, InvalidArgument("x", "is broken")])
    path = tmp_path / "out.jsonl"
    with suppress(InvalidArgument):
        await client.bulk_export("docs", path, page=10)
    assert not path.exists()
    with (tmp_path / "out.jsonl.spool").open("ab") as stream:  # a page that a kill cut off
        stream.write(b"\0\0\0\0\0\0\1\0half")
    result = await client.bulk_export("docs", path, page=10)
    assert (result.documents, result.resumed_at) == (40, 20)
    assert [line["id"] for line in lines(path)] == list(range(40))
    assert list(tmp_path.iterdir()) == [path]


async def test_an_export_replaces_a_file_only_when_asked(client, tmp_path):
    """An existing file is somebody's."""
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    with pytest.raises(FailedPrecondition, match="out.jsonl is there already"):
        await client.bulk_export("docs", path)
    await client.bulk_export("docs", path, overwrite=True)
    assert path.read_text() == ""


async def test_ids_of_two_kinds_need_jsonl(client, fake, tmp_path):
    """An array has one type: the error says which format has not; the other format then takes it."""
    await client.upsert("docs", [1, "a"], np.ones((2, 3)))
    with pytest.raises(FailedPrecondition, match="export to .jsonl"):
        await client.bulk_export("docs", tmp_path / "out.npz")
    assert (await client.bulk_export("docs", tmp_path / "out.jsonl")).documents == 2
