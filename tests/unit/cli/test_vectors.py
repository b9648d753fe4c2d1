"""Files of vectors are read, and wrong ones refused by name and line."""

import numpy as np
import pytest

from kintsugi.cli.vectors import LINES_AT_ONCE, parse_vector, read
from kintsugi.errors import InvalidArgument

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_npy_numbers_its_rows(tmp_path):
    """Ids are 0 to n-1."""
    np.save(tmp_path / "v.npy", VECTORS)
    (batch,) = read(tmp_path / "v.npy")
    assert np.array_equal(batch.vectors, VECTORS)
    assert batch.ids.tolist() == [0, 1, 2, 3]


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


def test_jsonl_carries_attributes_and_text(tmp_path):
    """What a line leaves out is empty; empty lines are skipped."""
    file = tmp_path / "v.jsonl"
    file.write_text(
        '{"id": 1, "vector": [1, 2]}\n\n{"id": "b", "vector": [3, 4], "attributes": {"x": [1]}, "text": "hi"}\n'
    )
    (batch,) = read(file)
    assert batch.ids == [1, "b"]
    assert batch.vectors.tolist() == [[1, 2], [3, 4]]
    assert batch.attributes == [{}, {"x": [1]}]
    assert batch.texts == ["", "hi"]


def test_long_jsonl_comes_in_parts(tmp_path):
    """Memory is bounded whatever the file."""
    file = tmp_path / "v.jsonl"
    file.write_text('{"id": 1, "vector": [1]}\n' * (LINES_AT_ONCE + 1))
    assert [len(batch.ids) for batch in read(file)] == [LINES_AT_ONCE, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 1}', "missing required field `vector`"),
        ('{"id": 1, "vector": [1], "vektor": 2}', "unknown field `vektor`"),
        ('{"id": 1.5, "vector": [1]}', r"\$.id"),
        ("nonsense", "malformed"),
        ('{"id": 2, "vector": [1, 2, 3]}', "has 3 elements, must have 2"),
    ],
)
def test_malformed_line_is_named(tmp_path, line, message):
    """The error can be fixed with an editor."""
    file = tmp_path / "v.jsonl"
    file.write_text('{"id": 1, "vector": [1, 2]}\n' + line)
    with pytest.raises(InvalidArgument, match=f"line 2.*{message}"):
        list(read(file))


def test_arrays_of_the_wrong_shape_or_kind_are_refused(tmp_path):
    """Objects would run code, and one dimension is no table."""
    for name, content in (
        ("a.npy", np.arange(3)),
        ("b.npy", np.array([["x"]])),
        ("c.npy", np.array([[{}]], dtype=object)),
    ):
        np.save(tmp_path / name, content)
        with pytest.raises(InvalidArgument, match=name):
            list(read(tmp_path / name))
    np.savez(tmp_path / "d.npz", other=VECTORS)
    with pytest.raises(InvalidArgument, match="must hold vectors"):
        list(read(tmp_path / "d.npz"))
    (tmp_path / "e.csv").write_text("1,2")
    with pytest.raises(InvalidArgument, match="must end with .npy, .npz, .jsonl"):
        list(read(tmp_path / "e.csv"))


@pytest.mark.parametrize("text", ["1,2.5,-3", "[1, 2.5, -3]", "1 2.5 -3"])
def test_vector_is_read_as_people_type_it(text):
    """Brackets and blanks do not matter."""
    assert parse_vector(text).tolist() == [1, 2.5, -3]


def test_vector_of_words_is_refused():
    """A typing error names what was typed."""
    with pytest.raises(InvalidArgument, match="^vector is '1,two', must be numbers"):
        parse_vector("1,two")
