"""Files of documents are read from any place of them, and wrong ones refused by name, line and field."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kintsugi.errors import InvalidArgument
from kintsugi.sdk.files.opening import open_source
from kintsugi.sdk.files.source import Cursor

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def read(path, size=100, start=Cursor(), dimension=3):  # noqa: B008 -- a value
    return list(open_source(path).read(start, size, dimension))


def test_npy_numbers_its_rows(tmp_path):
    """Ids are 0 to n-1."""
    np.save(tmp_path / "v.npy", VECTORS)
    (batch,) = read(tmp_path / "v.npy")
    assert np.array_equal(batch.vectors, VECTORS)
    assert batch.ids.tolist() == [0, 1, 2, 3]


def test_npy_takes_the_ids_beside_it(tmp_path):
    """An exported .npy keeps the ids of its documents."""
    np.save(tmp_path / "v.npy", VECTORS)
    np.save(tmp_path / "v.ids.npy", np.array(["a", "b", "c", "d"]))
    (batch,) = read(tmp_path / "v.npy")
    assert batch.ids.tolist() == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [(None, [0, 1, 2, 3]), (["a", "b", "c", "d"], ["a", "b", "c", "d"]), ([9, 8, 7, 6], [9, 8, 7, 6])],
)
def test_npz_takes_its_ids_along(tmp_path, ids, expected):
    """Integers and strings are both ids."""
    np.savez(tmp_path / "v.npz", vectors=VECTORS, **({} if ids is None else {"ids": ids}))
    (batch,) = read(tmp_path / "v.npz")
    assert np.array_equal(batch.vectors, VECTORS)
    assert batch.ids.tolist() == expected


def test_npz_carries_attributes_and_texts(tmp_path):
    """Attributes are JSON; one that is none is rejected by its row."""
    np.savez(
        tmp_path / "v.npz", vectors=VECTORS, attributes=['{"x": 1}', "", "nonsense", "{}"], texts=["a", "b", "c", "d"]
    )
    (batch,) = read(tmp_path / "v.npz")
    assert batch.attributes == [{"x": 1}, {}, {}]
    assert batch.texts == ["a", "b", "d"]
    assert batch.ids.tolist() == [0, 1, 3]
    assert batch.vectors.tolist() == VECTORS[[0, 1, 3]].tolist()
    (bad,) = batch.rejected
    assert (bad.place, bad.where, bad.id) == (2, "row 2", 2)
    assert bad.message.startswith("attributes are no JSON object")


def test_jsonl_carries_attributes_and_text(tmp_path):
    """What a line leaves out is empty; empty lines are skipped."""
    file = tmp_path / "v.jsonl"
    file.write_text(
        '{"id": 1, "vector": [1, 2]}\n\n{"id": "b", "vector": [3, 4], "attributes": {"x": [1]}, "text": "hi"}\n'
    )
    (batch,) = read(file, dimension=2)
    assert batch.ids == [1, "b"]
    assert batch.vectors.tolist() == [[1, 2], [3, 4]]
    assert batch.attributes == [{}, {"x": [1]}]
    assert batch.texts == ["", "hi"]
    assert batch.places == [0, 2]


@pytest.mark.parametrize(
    ("line", "doc_id", "message"),
    [
        ('{"id": 1}', 1, "missing required field `vector`"),
        ('{"id": 1, "vector": [1, 2], "vektor": 2}', 1, "unknown field `vektor`"),
        ('{"id": 1.5, "vector": [1, 2]}', None, "$.id"),
        ('{"id": 3, "vector": [1, "x"]}', 3, "$.vector[1]"),
        ("nonsense", None, "malformed"),
        ('{"id": 2, "vector": [1, 2, 3]}', 2, "vector has 3 elements, must have 2"),
    ],
)
def test_a_malformed_line_is_rejected_by_its_number_and_field(tmp_path, line, doc_id, message):
    """The line can be found with an editor, and the others are read."""
    file = tmp_path / "v.jsonl"
    file.write_text(f'{{"id": 7, "vector": [1, 2]}}\n{line}\n{{"id": 8, "vector": [1, 2]}}')
    (batch,) = read(file, dimension=2)
    assert batch.ids == [7, 8]
    (bad,) = batch.rejected
    assert (bad.place, bad.where, bad.id) == (1, "line 2", doc_id)
    assert message in bad.message


def parquet(path, rows, **columns):
    table = pa.table(
        {
            "id": pa.array(range(rows), pa.uint64()),
            "vector": pa.array([[float(i), 1.0, 2.0] for i in range(rows)], pa.list_(pa.float32())),
            **columns,
        }
    )
    pq.write_table(table, path, row_group_size=7)


def test_parquet_takes_structs_and_json_as_attributes(tmp_path):
    """Both ways in which people write objects are understood."""
    parquet(tmp_path / "a.parquet", 2, attributes=pa.array([{"x": 1}, None]), text=["t", None])
    parquet(tmp_path / "b.parquet", 2, attributes=pa.array(['{"x": 1}', None]))
    (first,), (second,) = read(tmp_path / "a.parquet"), read(tmp_path / "b.parquet")
    assert first.attributes == second.attributes == [{"x": 1}, {}]
    assert first.texts == ["t", ""]
    assert first.ids == [0, 1]
    assert first.vectors.tolist() == [[0, 1, 2], [1, 1, 2]]


def test_parquet_rejects_rows_by_their_number(tmp_path):
    """Nulls and vectors of another dimension do not stop the others."""
    vectors = pa.array([[1.0, 2, 3], None, [1.0], [1.0, None, 3], [4.0, 5, 6]], pa.list_(pa.float64()))
    table = pa.table({"id": pa.array(["a", "b", "c", "d", None]), "vector": vectors})
    pq.write_table(table, tmp_path / "v.parquet")
    (batch,) = read(tmp_path / "v.parquet")
    assert batch.ids == ["a"]
    assert [(bad.where, bad.id, bad.message) for bad in batch.rejected] == [
        ("row 1", "b", "vector is null or holds nulls"),
        ("row 2", "c", "vector has 1 elements, must have 3"),
        ("row 3", "d", "vector is null or holds nulls"),
        ("row 4", None, "id is null"),
    ]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".jsonl", ".parquet"])
def test_reading_goes_on_from_the_start_of_any_batch(tmp_path, suffix):
    """What an interrupted import reads again is cut as the first time."""
    file, rows = tmp_path / f"v{suffix}", 23
    vectors = np.stack([np.arange(rows), np.ones(rows), np.full(rows, 2)], axis=1).astype(np.float32)
    if suffix == ".jsonl":
        file.write_text("\n".join(f'{{"id": {i}, "vector": {row}}}' for i, row in enumerate(vectors.tolist())))
    elif suffix == ".parquet":
        parquet(file, rows)
    else:
        (np.save if suffix == ".npy" else lambda path, v: np.savez(path, vectors=v))(file, vectors)
    whole = read(file, size=5)
    assert [int(i) for batch in whole for i in batch.ids] == list(range(rows))
    assert whole[-1].next.offset == open_source(file).length
    for number, batch in enumerate(whole):
        again = read(file, size=5, start=batch.first)
        assert [(one.first, one.next) for one in again] == [(one.first, one.next) for one in whole[number:]]
        assert np.array_equal(again[0].vectors, batch.vectors)


def test_fingerprints_change_with_the_content_only(tmp_path):
    """A file that was moved or touched is the same source; one that was edited is not."""
    one, two = tmp_path / "one.npy", tmp_path / "two.npy"
    np.save(one, VECTORS)
    np.save(two, VECTORS)
    assert open_source(one).fingerprint == open_source(two).fingerprint
    np.save(two, VECTORS + 1)
    assert open_source(one).fingerprint != open_source(two).fingerprint


def test_arrays_of_the_wrong_shape_or_kind_are_refused(tmp_path):
    """Objects would run code, and one dimension is no table."""
    for name, content in (
        ("a.npy", np.arange(3)),
        ("b.npy", np.array([["x"]])),
        ("c.npy", np.array([[{}]], dtype=object)),
    ):
        np.save(tmp_path / name, content)
        with pytest.raises(InvalidArgument, match=name):
            open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": VECTORS}, "must hold vectors"),
        ({"vectors": VECTORS, "ids": [1, 2]}, "ids of .* have 2 entries, must have 4"),
        ({"vectors": VECTORS, "ids": [1.5] * 4}, "ids of .* are float64 .* must be n integers or strings"),
        ({"vectors": VECTORS, "texts": [1] * 4}, "texts of .* must be n strings"),
    ],
)
def test_npz_with_wrong_arrays_is_refused(tmp_path, arrays, message):
    """The error names the array and what it should be."""
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InvalidArgument, match=message):
        open_source(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1]}, "has the columns id, must have vector"),
        ({"id": [1.5], "vector": [[1.0]]}, "id of .* is double, must be integers or strings"),
        ({"id": [1], "vector": ["x"]}, "vector of .* is string, must be lists of numbers"),
        ({"id": [1], "vector": [[1.0]], "text": [1]}, "text of .* is int64, must be strings"),
        ({"id": [1], "vector": [[1.0]], "attributes": [1]}, "attributes of .* must be a struct or JSON"),
    ],
)
def test_parquet_with_wrong_columns_is_refused(tmp_path, columns, message):
    """The error names the column and what it should be."""
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    with pytest.raises(InvalidArgument, match=message):
        open_source(tmp_path / "d.parquet")


def test_what_is_no_file_of_documents_is_refused(tmp_path):
    """Another suffix, nothing there, something else inside, another dimension."""
    (tmp_path / "e.csv").write_text("1,2")
    with pytest.raises(InvalidArgument, match="must end with .npy, .npz, .jsonl, .parquet"):
        open_source(tmp_path / "e.csv")
    with pytest.raises(InvalidArgument, match="does not exist"):
        open_source(tmp_path / "absent.npy")
    (tmp_path / "f.parquet").write_text("nonsense")
    with pytest.raises(InvalidArgument, match="f.parquet cannot be read"):
        open_source(tmp_path / "f.parquet")
    np.save(tmp_path / "g.npy", VECTORS)
    with pytest.raises(InvalidArgument, match="vectors of .*g.npy have 3 elements, must have 8"):
        read(tmp_path / "g.npy", dimension=8)
