"""The column codecs: round trips, and refusal of everything malformed with the path of the field."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi import columns, ids
from kintsugi.errors import InvalidArgument
from kintsugi.metrics import Metric
from kintsugi.v1 import types_pb2

DOC_IDS = st.one_of(st.integers(0, ids.MAX_INTEGER), st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable()))


@given(st.lists(DOC_IDS, max_size=20))
def test_ids_survive_a_round_trip(doc_ids):
    """Packing and unpacking keeps ids, kinds and order, decoded or encoded."""
    column = columns.pack_ids(doc_ids)
    assert columns.unpack_ids(column, "ids") == doc_ids
    assert columns.unpack_encoded(column, "ids") == [ids.encode(doc_id) for doc_id in doc_ids]
    assert columns.id_count(column) == len(doc_ids)


@pytest.mark.parametrize(
    ("column", "field"),
    [
        (types_pb2.IdColumn(integers=b"1234567"), "ids.integers"),
        (types_pb2.IdColumn(integers=bytes(8), texts=["a"]), "ids.kinds"),
        (types_pb2.IdColumn(integers=bytes(8), texts=["a"], kinds=b"\x00\x00"), "ids.kinds"),
        (types_pb2.IdColumn(integers=bytes(8), texts=["a"], kinds=b"\x00\x01\x02"), "ids.kinds"),
        (types_pb2.IdColumn(texts=["a", ""]), "ids.texts[1]"),
        (types_pb2.IdColumn(texts=["x" * 513]), "ids.texts[0]"),
    ],
)
@pytest.mark.parametrize("unpack", [columns.unpack_ids, columns.unpack_encoded])
def test_malformed_id_columns_are_refused_by_field(column, field, unpack):
    """A column whose parts do not fit each other names the part at fault."""
    with pytest.raises(InvalidArgument) as caught:
        unpack(column, "ids")
    assert caught.value.field == field


def test_an_id_without_a_kind_is_refused():
    """A DocumentId must be one of its two kinds; 0 is an id."""
    assert columns.unpack_id(columns.pack_id(0), "id") == 0
    assert columns.unpack_id(columns.pack_id("0"), "id") == "0"
    with pytest.raises(InvalidArgument, match=r"^documents\[3\]\.id is not set"):
        columns.unpack_id(types_pb2.DocumentId(), "documents[3].id")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_vectors_survive_a_round_trip(dtype):
    """A block keeps shape, element type and values."""
    matrix = np.arange(12, dtype=dtype).reshape(3, 4)
    unpacked = columns.unpack_vectors(columns.pack_vectors(matrix), "block", dimension=4, max_count=3)
    assert unpacked.dtype == dtype
    np.testing.assert_array_equal(unpacked, matrix)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "block.count is 0, must be 1 to 3"),
        ({"count": 4}, "block.count is 4, must be 1 to 3"),
        ({"dimension": 3}, "block.dimension is 3, must be 4, the dimension of the model"),
        ({"data": b"123"}, "block.data has 3 bytes, must have 32: 2 x 4 elements of 4 bytes"),
        ({"element_type": 7}, "block.element_type is 7, must be f32 or f16"),
    ],
)
def test_malformed_blocks_are_refused_by_field(changes, message):
    """The error names the field, its value and its bound."""
    block = columns.pack_vectors(np.ones((2, 4), np.float32))
    for name, value in changes.items():
        setattr(block, name, value)
    with pytest.raises(InvalidArgument) as caught:
        columns.unpack_vectors(block, "block", dimension=4, max_count=3)
    assert caught.value.message == message


def test_value_problems_name_rows_and_elements():
    """Elements that are not finite and zero vectors under cosine are found by row."""
    matrix = np.array([[1, 2], [np.nan, 0], [0, 0], [1, -np.inf]], np.float32)
    assert [row for row, _, _ in columns.value_problems(matrix, Metric.COSINE)] == [1, 2, 3]
    assert [row for row, _, _ in columns.value_problems(matrix, Metric.DOT)] == [1, 3]
    with pytest.raises(InvalidArgument, match=r"^v\[1\] is nan at element 0, must be finite$"):
        columns.check_values(matrix, Metric.DOT, "v")


def test_huge_finite_values_are_no_problem():
    """Vectors whose sum would overflow f32 are still finite."""
    columns.check_values(np.full((4, 8), np.finfo(np.float32).max, np.float32), Metric.COSINE, "v")


def test_infinities_that_cancel_are_found():
    """Infinities of both signs do not hide each other."""
    matrix = np.array([[np.inf, -np.inf]], np.float32)
    assert len(columns.value_problems(matrix, Metric.L2)) == 1
