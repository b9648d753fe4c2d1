"""The rows that several rpcs share: made once per rpc and path."""

from dataclasses import replace

from harness.bad_input.case import NOT_FOUND, PRECONDITION, Bad, bad
from harness.bad_input.filters import narrowing
from harness.bad_input.good import floats, integer
from kintsugi.v1 import types_pb2

NAN, INF = float("nan"), float("inf")
MIB = 2**20
MOST = 2**32 - 1
LOGGED = types_pb2.ACKNOWLEDGEMENT_LOGGED


def collection_name(rpc: str, path: str) -> list[Bad]:
    """A field that looks a collection up."""
    return [
        bad(rpc, path, "empty", "", path, "1 to 64"),
        bad(rpc, path, "too long", "x" * 65, path, "65", "1 to 64"),
        bad(rpc, path, "unknown", "nobody", path, "nobody", code=NOT_FOUND),
    ]


def strict_name(rpc: str, path: str) -> list[Bad]:
    """A name whose characters are checked."""
    return [
        bad(rpc, path, "empty", "", path, "''", "1 to 64"),
        bad(rpc, path, "too long", "x" * 65, path, "65", "1 to 64"),
        bad(rpc, path, "upper case", "Good", path, "'Good'", "a-z"),
        bad(rpc, path, "a path", "../x", path, "'../x'", "a-z"),
        bad(rpc, path, "starts with a dash", "-x", path, "'-x'", "starting with"),
        bad(rpc, path, "ends with a line feed", "x\n", path, r"'x\n'", "a-z"),
        bad(rpc, path, "not ascii", "é", path, "'é'", "a-z"),
    ]


def token(rpc: str, path: str) -> list[Bad]:
    return [
        bad(rpc, path, "garbage", b"garbage", path, "not a token"),
        bad(rpc, path, "one byte", b"\x01", path, "not a token"),
        bad(rpc, path, "cut off", lambda world: world.token[:-1], path, "not a token"),
        bad(rpc, path, "altered", lambda world: world.token[:-1] + b"\x00", path, "not a token"),
        bad(rpc, path, "too long", b"x" * (64 * 1024 + 1), path, "65537", "65536"),
        bad(rpc, path, "of another collection", lambda world: world.other_token, path, "is of collection", "good"),
    ]


def doc_id(rpc: str, path: str, twin: str = "") -> list[Bad]:
    """`twin`: the path of an equal id when ids must differ."""
    rows = [
        bad(rpc, path, "not set", types_pb2.DocumentId(), path, "not set", "integer or a text", alone=True),
        bad(rpc, f"{path}.text", "empty", "", path, "0 bytes", "1 to 512", alone=True),
        bad(rpc, f"{path}.text", "too long", "x" * 513, path, "513", "1 to 512", alone=True),
        bad(rpc, f"{path}.text", "too long in bytes", "é" * 257, path, "514", "1 to 512", alone=True),
    ]
    if twin:
        rows += [
            bad(
                rpc, f"{path}.{kind}", "twice", value, path, f"{value!r} again", twin, also=((f"{twin}.{kind}", value),)
            )
            for kind, value in (("integer", 77), ("text", "x"))
        ]
        rows = [replace(row, alone=True) for row in rows]
    return rows


def batch_of_ids(rpc: str, path: str) -> list[Bad]:
    return [
        bad(rpc, path, "none", [], path, "0 entries", "1 to 1000"),
        bad(rpc, path, "too many", [integer(n) for n in range(1001)], path, "1001", "1 to 1000"),
    ]


def write_options(rpc: str) -> list[Bad]:
    return [
        *acknowledgement_and_request(rpc),
        bad(rpc, "durable_replicas", "too many", 9, "durable_replicas", "is 9", "1 to 8"),
        bad(rpc, "durable_replicas", "huge", MOST, "durable_replicas", str(MOST), "1 to 8"),
        bad(rpc, "durable_replicas", "too few", 2, "durable_replicas", "is 2", "has 1 rep", code=PRECONDITION),
    ]


def acknowledgement_and_request(rpc: str) -> list[Bad]:
    """The options of every write."""
    level = "acknowledgement"
    return [
        bad(rpc, level, "unknown", 9, level, "is 9", "LOGGED, DURABLE or SEARCHABLE"),
        bad(rpc, "request_id", "too long", "x" * 65, "request_id", "65 bytes", "at most 64"),
        bad(rpc, "request_id", "too long in bytes", "é" * 33, "request_id", "66 bytes", "at most 64"),
        bad(rpc, "request_id", "used", lambda world: world.used_request_id, "request_id", "'used'", alone=True),
    ]


def model_fields(rpc: str, path: str) -> list[Bad]:
    """A new model for a collection under cosine."""
    size, metric, before = f"{path}.dimension", f"{path}.metric", f"{path}.document_prefix"
    return [
        *strict_name(rpc, f"{path}.name"),
        bad(rpc, size, "zero", 0, size, "is 0", "1 to 8192"),
        bad(rpc, size, "too many", 8193, size, "8193", "1 to 8192"),
        bad(rpc, size, "huge", MOST, size, str(MOST), "1 to 8192"),
        bad(rpc, metric, "another", types_pb2.METRIC_L2, metric, "is 3", "must be 1"),
        bad(rpc, metric, "unknown", 9, metric, "is 9", "must be 1"),
        bad(rpc, f"{path}.revision", "too long", "x" * 129, f"{path}.revision", "129", "at most 128"),
        bad(rpc, f"{path}.query_prefix", "too long", "x" * 1025, f"{path}.query_prefix", "1025", "at most 1024"),
        bad(rpc, before, "too long", "é" * 513, before, "1026", "at most 1024"),
        bad(rpc, f"{path}.pooling", "too long", "x" * 65, f"{path}.pooling", "65", "at most 64"),
    ]


def vector_values(rpc: str, path: str, violation: str, rows: int = 1) -> list[Bad]:
    """Values that no vector may have, in the last row of a block."""
    before = floats(1, 2, 3, 4) * (rows - 1)
    finite = "must be finite"
    return [
        bad(rpc, path, "nan", before + floats(1, NAN, 3, 4), violation, "nan at element 1", finite, alone=True),
        bad(rpc, path, "inf", before + floats(INF, 2, 3, 4), violation, "inf at element 0", finite, alone=True),
        bad(rpc, path, "-inf", before + floats(1, 2, 3, -INF), violation, "-inf at element 3", finite, alone=True),
        bad(rpc, path, "inf and -inf", before + floats(INF, -INF, 3, 4), violation, "inf", finite, alone=True),
        bad(rpc, path, "zero", before + floats(0, 0, 0, 0), violation, "zero vector", "under cosine", alone=True),
    ]


def vector_block(rpc: str, path: str, count: int) -> list[Bad]:
    """The shape of a block that must hold `count` vectors of 4 elements."""
    data, rows, size = f"{path}.data", f"{path}.count", f"{path}.dimension"
    wanted = count * 16
    return [
        bad(rpc, path, "not set", None, rows, "is 0"),
        bad(rpc, data, "empty", b"", data, "0 bytes", str(wanted)),
        bad(rpc, data, "a byte short", bytes(wanted - 1), data, str(wanted - 1), str(wanted)),
        bad(rpc, data, "a byte long", bytes(wanted + 1), data, str(wanted + 1), str(wanted)),
        bad(rpc, rows, "zero", 0, rows, "is 0"),
        bad(rpc, rows, "huge", MOST, rows, str(MOST)),
        bad(rpc, size, "zero", 0, size, "is 0", "must be 4"),
        bad(rpc, size, "another", 3, size, "is 3", "must be 4"),
        bad(rpc, size, "huge", MOST, size, str(MOST), "must be 4"),
        bad(rpc, f"{path}.element_type", "unknown", 9, f"{path}.element_type", "is 9", "f32 or f16"),
        bad(
            rpc,
            f"{path}.element_type",
            "twice as small",
            types_pb2.ELEMENT_TYPE_F16,
            data,
            str(wanted),
            str(wanted // 2),
        ),
    ]


def search_options(rpc: str) -> list[Bad]:
    k, over, least = "options.k", "options.oversampling", "options.min_coverage"
    ef = "options.ef_search"
    return [
        bad(rpc, k, "too many", 1001, k, "1001", "1 to 1000"),
        bad(rpc, k, "huge", MOST, k, str(MOST), "1 to 1000"),
        *(bad(rpc, over, f"{value}", value, over, f"{value:g}", "1 to 100") for value in (0.5, 101.0, -1.0, NAN, INF)),
        bad(rpc, ef, "too many", 10_001, ef, "10001", "1 to 10000"),
        *(bad(rpc, least, f"{value}", value, least, f"{value:g}", "at most 1") for value in (-0.5, 1.5, NAN, -INF)),
        *token(rpc, "options.at_least"),
        bad(rpc, "options.fields.vectors", "true", True, "options.fields.vectors", "is true", "must be false"),
        *narrowing(rpc),
    ]
