"""The table. Rows that several rpcs share are made once per rpc; those of BulkUpsert follow from those of Upsert."""

from dataclasses import replace

from harness.bad_input import upgrades
from harness.bad_input.case import EXISTS, NOT_FOUND, PRECONDITION, Bad, bad
from harness.bad_input.filters import cannot_be_bad, filter_rows
from harness.bad_input.good import block, documents, floats, integer, model, request_for
from harness.bad_input.shared import (
    INF,
    LOGGED,
    MIB,
    MOST,
    NAN,
    batch_of_ids,
    collection_name,
    doc_id,
    model_fields,
    search_options,
    strict_name,
    token,
    vector_block,
    vector_values,
    write_options,
)
from kintsugi.v1 import collections_pb2, documents_pb2, search_pb2, types_pb2

BF16, I8, BINARY, RECURRENT = (
    collections_pb2.EncodingKind.Value(f"ENCODING_KIND_{kind}") for kind in ("BF16", "I8", "BINARY", "RECURRENT")
)
IF_VERSION = documents_pb2.WRITE_CONDITION_IF_VERSION
INSERT_ONLY = documents_pb2.WRITE_CONDITION_INSERT_ONLY
_DEEP = "[" * 30_000 + "]" * 30_000


def create() -> list[Bad]:
    rpc, one = "Collections.Create", "spec.models[0]"
    return [
        bad(rpc, "spec", "not set", None, "spec.name", "''", "1 to 64"),
        *strict_name(rpc, "spec.name"),
        bad(rpc, "spec.name", "taken", "good", "spec.name", "'good'", code=EXISTS, also=(("spec.shards", 3),)),
        bad(rpc, "spec.shards", "too many", 257, "spec.shards", "257", "1 to 256"),
        bad(rpc, "spec.shards", "huge", MOST, "spec.shards", str(MOST), "1 to 256"),
        bad(rpc, "spec.replicas", "too many", 9, "spec.replicas", "is 9", "1 to 8"),
        bad(rpc, "spec.replicas", "more than servers", 3, "spec.replicas", "3", "2", code=PRECONDITION),
        bad(rpc, "spec.metric", "not set", 0, "spec.metric", "is 0", "COSINE, DOT or L2"),
        bad(rpc, "spec.metric", "unknown", 9, "spec.metric", "is 9", "COSINE, DOT or L2"),
        bad(rpc, "spec.stored_element_type", "unknown", 9, "spec.stored_element_type", "is 9", "F32 or F16"),
        bad(rpc, "spec.models", "none", [], "spec.models", "0 entries", "exactly one"),
        bad(rpc, "spec.models", "two", [model("a"), model("b")], "spec.models", "2 entries", "exactly one"),
        *model_fields(rpc, one),
        bad(rpc, "spec.encoding", "taken", collections_pb2.Encoding(kind=BF16), "spec.name", "'good'", code=EXISTS,
            also=(("spec.name", "good"),)),
        bad(rpc, "spec.encoding.kind", "of directions, for points", BINARY, "spec.encoding.kind", "is binary",
            "with metric l2", also=(("spec.metric", types_pb2.METRIC_L2),)),
        *encoding(rpc, "spec.encoding"),
    ]  # fmt: skip


def encoding(rpc: str, path: str) -> list[Bad]:
    """An encoding of vectors of 4 elements, where no prefix and no number of components is enough."""
    kind, bits, over = f"{path}.kind", f"{path}.bits", f"{path}.oversampling"
    with_i8, recurrent = ((kind, I8),), ((kind, RECURRENT),)
    reduced = [
        row
        for field in ("prefix", "pca")
        for at in (f"{path}.{field}",)
        for row in (
            bad(rpc, at, "too short", 4, at, "is 4", "must be 8 to 4", also=with_i8),
            bad(rpc, at, "too long", 5, at, "is 5", "must be 8 to 4", also=with_i8),
            bad(rpc, at, "huge", MOST, at, str(MOST), "must be 8 to 4", also=with_i8),
            bad(rpc, at, "without a kind", 8, kind, "not set", "must be set", also=((kind, 0),)),
        )
    ]
    return [
        bad(rpc, kind, "unknown", 99, kind, "is 99", "EncodingKind"),
        bad(rpc, bits, "of a kind without", 2, bits, "is 2", "must be 0 with encoding i8", also=with_i8),
        bad(rpc, bits, "too few", 1, bits, "is 1", "must be 2 to 4", also=recurrent),
        bad(rpc, bits, "too many", 5, bits, "is 5", "must be 2 to 4", also=recurrent),
        bad(rpc, bits, "huge", MOST, bits, str(MOST), "must be 2 to 4", also=recurrent),
        *reduced,
        bad(rpc, f"{path}.pca", "with a prefix", 8, f"{path}.pca", "is 8", "must be 0 when prefix is set",
            also=(*with_i8, (f"{path}.prefix", 8))),
        *(bad(rpc, over, f"{value}", value, over, f"{value:g}", "1 to 100", also=with_i8)
          for value in (0.5, 101.0, -1.0, NAN, INF)),
        bad(rpc, over, "without a kind", 3.0, kind, "not set", "must be set", also=((kind, 0),)),
    ]  # fmt: skip


def encode() -> list[Bad]:
    rpc = "Collections.Encode"
    return [
        *named_collection(rpc),
        bad(rpc, "encoding", "not set", None, "encoding", "not set", "must be set"),
        *encoding(rpc, "encoding"),
    ]


def named_collection(rpc: str) -> list[Bad]:
    return [*strict_name(rpc, "name"), bad(rpc, "name", "unknown", "nobody", "name", "nobody", code=NOT_FOUND)]


def attributes() -> list[Bad]:
    rpc, path = "Documents.Upsert", "documents[1].attributes"
    is_json, most = "must be a JSON object", "at most 65536"
    broken = {
        "not json": "{",
        "empty": "",
        "nan": '{"a": NaN}',
        "infinite": '{"a": 1e999}',
        "half a surrogate": '{"a": "\\ud800"}',
        "a number too long to read back": f'{{"a": {"9" * 5000}}}',
        "more behind it": "{} {}",
    }
    kinds = {"array": "[]", "string": '"x"', "number": "1", "boolean": "true", "null": "null"}
    size = 64 * 1024
    return [
        *(bad(rpc, path, what, value, path, "not JSON", is_json, alone=True) for what, value in broken.items()),
        *(
            bad(rpc, path, f"a {kind}", value, path, f"JSON {kind}", is_json, alone=True)
            for kind, value in kinds.items()
        ),
        bad(rpc, path, "too long", f'{{"a":"{"x" * size}"}}', path, str(size + 8), most, alone=True),
        bad(rpc, path, "too deep", '{"a":' * 17 + "1" + "}" * 17, path, "deeper than 16", "at most 16", alone=True),
        bad(rpc, path, "far too deep", f'{{"a":{_DEEP}}}', path, "deeper than 16", "at most 16", alone=True),
        bad(rpc, path, "nothing to write", None, path, "not set", "no vector", alone=True, also=(("vectors", []),)),
    ]


def document_fields() -> list[Bad]:
    rpc, at = "Documents.Upsert", "documents[1]"
    logged = (("acknowledgement", LOGGED),)
    inserted = ((f"{at}.condition", INSERT_ONLY),)
    large = [documents_pb2.DocumentWrite(id=integer(n), text="x" * 250_000) for n in range(1000, 1068)]
    for_large = (("vectors[0].block", block(68)),)
    return [
        bad(rpc, "documents", "none", [], "documents", "0 entries", "1 to 1000"),
        bad(rpc, "documents", "too many", documents(1000, 1001), "documents", "1001", "1 to 1000"),
        bad(rpc, "documents", "too large", large, "documents", "17", str(16 * MIB), also=for_large),
        *doc_id(rpc, f"{at}.id", twin="documents[0].id"),
        *attributes(),
        bad(rpc, f"{at}.text", "too long", "x" * (256 * 1024 + 1), f"{at}.text", "262145", "at most 262144", alone=True),
        bad(rpc, f"{at}.text", "without vector", "x", f"{at}.text", "without a vector", alone=True, also=(("vectors", []),)),
        bad(rpc, f"{at}.condition", "unknown", 9, f"{at}.condition", "is 9", "INSERT_ONLY", alone=True),
        bad(rpc, f"{at}.condition", "logged", INSERT_ONLY, "acknowledgement", "LOGGED", "DURABLE", alone=True, also=logged),
        bad(rpc, f"{at}.expected_version", "alone", 3, f"{at}.expected_version", "is 3", "must be 0", alone=True),
        bad(rpc, f"{at}.expected_version", "zero", 0, f"{at}.expected_version", "is 0", "at least 1", alone=True,
            also=((f"{at}.condition", IF_VERSION),)),
        bad(rpc, f"{at}.expected_version", "with another condition", 3, f"{at}.expected_version", "is 3", "must be 0",
            alone=True, also=inserted),
    ]  # fmt: skip


def upsert() -> list[Bad]:
    rpc, one = "Documents.Upsert", "vectors[0]"
    two = [types_pb2.ModelVectors(model="m", block=block(2))] * 2
    owners = f"{one}.documents"
    return [
        *collection_name(rpc, "collection"),
        *document_fields(),
        bad(rpc, "vectors", "a model twice", two, "vectors[1].model", "'m' again", "at most once"),
        bad(rpc, f"{one}.model", "unknown", "nobody", f"{one}.model", "'nobody'", "m", code=PRECONDITION),
        *vector_block(rpc, f"{one}.block", 2),
        *vector_values(rpc, f"{one}.block.data", f"{one}.block[1]", rows=2),
        bad(rpc, f"{one}.block.count", "fewer than documents", 1, f"{one}.block.count", "is 1", "must be 2",
            also=((f"{one}.block.data", floats(1, 2, 3, 4)),)),
        bad(rpc, owners, "too many", [0, 1, 1], owners, "3 entries", "must have 2"),
        bad(rpc, owners, "too few", [0], owners, "1 entries", "must have 2"),
        bad(rpc, owners, "no such document", [0, 2], f"{owners}[1]", "is 2", "below 2"),
        bad(rpc, owners, "huge", [0, MOST], f"{owners}[1]", str(MOST), "below 2"),
        bad(rpc, owners, "twice", [1, 1], f"{owners}[1]", "1 again", "once"),
        bad(rpc, "acknowledgement", "logged attributes", LOGGED, "acknowledgement", "LOGGED", "DURABLE", alone=True,
            also=(("vectors", []),)),
        *write_options(rpc),
    ]  # fmt: skip


def bulk_upsert() -> list[Bad]:
    """The rows of Upsert, one level deeper, and the number of the chunk."""
    rpc = "Documents.BulkUpsert"
    deeper = [
        replace(
            row,
            rpc=rpc,
            changes=tuple((f"upsert.{path}", value) for path, value in row.changes),
            violation=f"upsert.{row.violation}",
            about=f"upsert.{row.about}",
        )
        for row in upsert()
    ]
    return [
        *deeper,
        bad(rpc, "chunk", "not the first", 1, "chunk", "is 1", "must be 0"),
        bad(rpc, "chunk", "huge", 2**64 - 1, "chunk", str(2**64 - 1), "must be 0"),
        bad(rpc, "upsert", "not set", None, "upsert.collection", "0 characters", "1 to 64"),
    ]


def delete() -> list[Bad]:
    rpc = "Documents.Delete"
    logged = (("acknowledgement", LOGGED),)
    versions = "expected_versions"
    return [
        *collection_name(rpc, "collection"),
        *batch_of_ids(rpc, "ids"),
        *doc_id(rpc, "ids[1]", twin="ids[0]"),
        bad(rpc, versions, "too few", [1], versions, "1 entries", "2, one per id"),
        bad(rpc, versions, "too many", [1, 2, 3], versions, "3 entries", "2, one per id"),
        bad(rpc, versions, "logged", [1, 1], "acknowledgement", "LOGGED", "DURABLE", also=logged),
        *write_options(rpc),
    ]


def delete_by_filter() -> list[Bad]:
    rpc, level, copies = "Documents.DeleteByFilter", "acknowledgement", "durable_replicas"
    return [
        *collection_name(rpc, "collection"),
        bad(rpc, "filter", "not set", None, "filter", "no condition", "exactly one"),
        *filter_rows(rpc, "filter"),
        bad(rpc, "limit", "too many", 100_001, "limit", "100001", "1 to 100000"),
        bad(rpc, "limit", "huge", MOST, "limit", str(MOST), "1 to 100000"),
        bad(rpc, level, "logged", LOGGED, level, "is LOGGED", "DURABLE or above"),
        bad(rpc, level, "unknown", 9, level, "is 9", "LOGGED, DURABLE or SEARCHABLE"),
        bad(rpc, copies, "too many", 9, copies, "is 9", "1 to 8"),
        bad(rpc, copies, "huge", MOST, copies, str(MOST), "1 to 8"),
        *token(rpc, "at_least"),
    ]


def reads() -> list[Bad]:
    get, count, scroll = "Documents.Get", "Documents.Count", "Documents.Scroll"
    page = "page_token"
    return [
        *collection_name(get, "collection"),
        *batch_of_ids(get, "ids"),
        *doc_id(get, "ids[1]"),
        *token(get, "at_least"),
        *collection_name(count, "collection"),
        *token(count, "at_least"),
        *filter_rows(count, "filter"),
        *collection_name(scroll, "collection"),
        bad(scroll, page, "garbage", b"garbage", page, "not a page token"),
        bad(scroll, page, "one byte", b"\x01", page, "not a page token"),
        bad(scroll, page, "a write's token", lambda world: world.token, page, "not a page token"),
        bad(scroll, page, "of another", lambda world: world.other_page_token, page, "another collection", "good"),
        bad(scroll, page, "long", b"x" * MIB, page, "not a page token"),
        bad(scroll, "limit", "too many", 1001, "limit", "1001", "1 to 1000"),
        bad(scroll, "limit", "huge", MOST, "limit", str(MOST), "1 to 1000"),
        *token(scroll, "at_least"),
    ]


def search() -> list[Bad]:
    rpc, one = "Search.Search", "vectors[0]"
    vector = search_pb2.QueryVector(data=floats(1, 2, 3, 4))
    values, violation = f"{one}.values.values", f"{one}.values"
    return [
        *collection_name(rpc, "collection"),
        bad(rpc, "vectors", "none", [], "vectors", "0 entries", "must have 1"),
        bad(rpc, "vectors", "two", [vector, vector], "vectors[1].model", "is m", "another one than that of vectors[0]"),
        bad(rpc, "vectors", "three", [vector] * 3, "vectors", "3 entries", "must have 1"),
        bad(rpc, f"{one}.model", "unknown", "nobody", f"{one}.model", "nobody", "m", code=PRECONDITION),
        bad(rpc, f"{one}.data", "not set", None, one, "no vector", "data or values"),
        bad(rpc, f"{one}.data", "empty", b"", f"{one}.data", "0 bytes", "must have 16"),
        bad(rpc, f"{one}.data", "a byte short", bytes(15), f"{one}.data", "15 bytes", "must have 16"),
        bad(rpc, f"{one}.data", "f16", bytes(8), f"{one}.data", "8 bytes", "must have 16"),
        bad(rpc, f"{one}.data", "huge", bytes(4 * MIB), f"{one}.data", str(4 * MIB), "must have 16"),
        *vector_values(rpc, f"{one}.data", one),
        bad(rpc, f"{one}.values", "empty", search_pb2.FloatList(), violation, "0 elements", "must have 4"),
        bad(rpc, values, "too few", [1.0, 2.0, 3.0], violation, "3 elements", "must have 4"),
        bad(rpc, values, "too many", [1.0] * 5, violation, "5 elements", "must have 4"),
        bad(rpc, values, "nan", [1.0, NAN, 3.0, 4.0], one, "nan at element 1", "must be finite"),
        bad(rpc, values, "inf", [INF, 1.0, 3.0, 4.0], one, "inf at element 0", "must be finite"),
        bad(rpc, values, "zero", [0.0] * 4, one, "zero vector", "under cosine"),
        *search_options(rpc),
    ]


def search_batch() -> list[Bad]:
    rpc, one = "Search.SearchBatch", "vectors[0]"
    given = types_pb2.ModelVectors(block=block(2))
    many = (("vectors[0].block.data", floats(1, 2, 3, 4) * 257),)
    return [
        *collection_name(rpc, "collection"),
        bad(rpc, "vectors", "none", [], "vectors", "0 entries", "must have 1"),
        bad(rpc, "vectors", "two", [given, given], "vectors[1].model", "is m", "another one than that of vectors[0]"),
        bad(rpc, "vectors", "three", [given] * 3, "vectors", "3 entries", "must have 1"),
        bad(rpc, f"{one}.model", "unknown", "nobody", f"{one}.model", "nobody", "m", code=PRECONDITION),
        bad(rpc, f"{one}.documents", "not empty", [0, 1], f"{one}.documents", "2 entries", "must be empty"),
        bad(rpc, f"{one}.block.count", "many", 257, f"{one}.block.count", "257", "1 to 256", also=many),
        *vector_block(rpc, f"{one}.block", 2),
        *vector_values(rpc, f"{one}.block.data", f"{one}.block[1]", rows=2),
        *search_options(rpc),
    ]


def search_stream() -> list[Bad]:
    """A message is refused as its call would have been."""
    rpc, time = "Search.SearchStream", "timeout_s"
    times = [
        bad(rpc, time, f"{value}", value, time, f"is {value:g}", "finite and at least 0") for value in (-1.0, NAN, INF)
    ]
    return [*times, *_streamed(rpc, "search", search()), *_streamed(rpc, "batch", search_batch())]


def _streamed(rpc: str, field: str, rows: list[Bad]) -> list[Bad]:
    whole = (field, request_for(rows[0].rpc))
    return [
        replace(
            row,
            rpc=rpc,
            changes=(whole, *((f"{field}.{path}", value) for path, value in row.changes)),
            about=f"{field}.{row.about}",
        )
        for row in rows
    ]


def cluster() -> list[Bad]:
    rpc, verify = "Cluster.AcceptLoss", "Cluster.Verify"
    return [
        *collection_name(verify, "collection"),
        bad(verify, "queries", "too many", 1001, "queries", "1001", "1 to 1000"),
        bad(verify, "queries", "huge", MOST, "queries", str(MOST), "1 to 1000"),
        bad(verify, "k", "too many", 101, "k", "101", "1 to 100"),
        bad(verify, "k", "huge", MOST, "k", str(MOST), "1 to 100"),
        *strict_name(rpc, "collection"),
        bad(rpc, "collection", "unknown", "nobody", "collection", "nobody", code=NOT_FOUND),
        bad(rpc, "shard", "unknown", 2, "shard", "is 2", "has 2 shards", code=NOT_FOUND),
        bad(rpc, "shard", "huge", MOST, "shard", str(MOST), "has 2 shards", code=NOT_FOUND),
        bad(rpc, "shard", "not recovering", 0, "", "shard 0", "nothing waits", code=PRECONDITION),
    ]


def all_rows() -> list[Bad]:
    return [
        *create(),
        *named_collection("Collections.Get"),
        *named_collection("Collections.Delete"),
        *encode(),
        *upsert(),
        *bulk_upsert(),
        *delete(),
        *delete_by_filter(),
        *reads(),
        *search(),
        *search_batch(),
        *search_stream(),
        *cluster(),
        *upgrades.rows(),
    ]


_FLAG = "both values of a flag are good"
_ANY_INTEGER = "every unsigned 64-bit integer is an id"
_FLAGS = ("attributes", "text", "vectors")

# Fields that cannot be bad, and why. (As bytes on the wire every string can: see the test of malformed messages.)
CANNOT_BE_BAD = {
    **upgrades.CANNOT_BE_BAD,
    "Collections.Create spec.models.normalised": _FLAG,
    "Documents.Get ids.integer": _ANY_INTEGER,
    "Documents.Get fields": "every combination of flags is good, none is the default",
    "Documents.Scroll fields": "every combination of flags is good, none is the default",
    **{f"Documents.{rpc} fields.{flag}": _FLAG for rpc in ("Get", "Scroll") for flag in _FLAGS},
    **{
        f"Search.{place}{path}": reason
        for place in ("Search ", "SearchBatch ", "SearchStream search.", "SearchStream batch.")
        for path, reason in {
            "options": "left out, all defaults hold",
            "options.exact": _FLAG,
            "options.tell_unmigrated": _FLAG,
            "options.fields": "left out, nothing more is returned",
            "options.fields.attributes": _FLAG,
            "options.fields.text": _FLAG,
        }.items()
    },
    **cannot_be_bad("Documents.Count", "filter"),
    **cannot_be_bad("Documents.DeleteByFilter", "filter"),
    **cannot_be_bad("Search.Search", "options.filter"),
    **cannot_be_bad("Search.SearchBatch", "options.filter"),
    **cannot_be_bad("Search.SearchStream", "search.options.filter"),
    **cannot_be_bad("Search.SearchStream", "batch.options.filter"),
    "Search.SearchStream number": "any that is not in work: see the tests of streams",
    "Search.SearchStream search": "without search and batch, the message gives a search up",
    "Search.SearchStream batch": "without search and batch, the message gives a search up",
    "Search.SearchStream headers": "what is not known is ignored, as metadata is",
    "Search.SearchStream headers.key": "what is not known is ignored, as metadata is",
    "Search.SearchStream headers.value": "what is not known is ignored, as metadata is",
    "Cluster.GetStatus collection": "a filter: a name that nobody has matches nothing, and the call never fails",
}
