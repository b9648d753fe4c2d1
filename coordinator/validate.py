"""Checks write requests against exactly what the proto comments promise, before anything is written. Pure.

Guarantees: what passes can be logged and replayed without a second look; what does not is refused with the path of the
field, the value and the bound. A unary call is refused as a whole; in a bulk call a bad item is refused alone, but what
concerns the whole chunk (shapes, models, sizes) still refuses the call.
"""

import secrets
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from coordinator.operations import Level, Operation, Options, Write
from kintsugi import columns, ids, limits
from kintsugi.errors import FailedPrecondition, InvalidArgument
from kintsugi.internal.v1 import log_pb2
from kintsugi.log import records
from kintsugi.metrics import FloatArray, Metric, StoredType
from kintsugi.registry.records import Collection, Model
from kintsugi.v1 import documents_pb2, types_pb2, upgrades_pb2

# Told of a bad item; raises to refuse the whole request, returns to refuse the item alone.
OnBadItem = Callable[[int, InvalidArgument], None]
# The vectors of one document: model number to stored bytes.
DocumentVectors = dict[int, bytes]

_LEVELS = {
    types_pb2.ACKNOWLEDGEMENT_UNSPECIFIED: Level.DURABLE,
    types_pb2.ACKNOWLEDGEMENT_LOGGED: Level.LOGGED,
    types_pb2.ACKNOWLEDGEMENT_DURABLE: Level.DURABLE,
    types_pb2.ACKNOWLEDGEMENT_SEARCHABLE: Level.SEARCHABLE,
}
_CONDITIONS = {
    documents_pb2.WRITE_CONDITION_UNSPECIFIED: log_pb2.CONDITION_UNSPECIFIED,
    documents_pb2.WRITE_CONDITION_INSERT_ONLY: log_pb2.CONDITION_INSERT_ONLY,
    documents_pb2.WRITE_CONDITION_UPDATE_ONLY: log_pb2.CONDITION_UPDATE_ONLY,
    documents_pb2.WRITE_CONDITION_IF_VERSION: log_pb2.CONDITION_IF_VERSION,
}


def refuse_request(_index: int, error: InvalidArgument) -> None:
    """One bad item refuses the whole request."""
    raise error


def upsert(request: documents_pb2.UpsertRequest, collection: Collection) -> Write:
    """Refuses the whole request for one bad item."""
    options = write_options(request.acknowledgement, request.durable_replicas, request.request_id)
    operations = _upsert_operations(request, collection, options.level, refuse_request)
    return Write(collection, options, len(request.documents), operations, {})


def bulk_upsert(request: documents_pb2.UpsertRequest, collection: Collection) -> Write:
    """Refuses bad items alone, and the call for what concerns the whole chunk."""
    options = write_options(request.acknowledgement, request.durable_replicas, request.request_id)
    refused: dict[int, str] = {}

    def refuse_item(index: int, error: InvalidArgument) -> None:
        refused.setdefault(index, error.message)

    operations = _upsert_operations(request, collection, options.level, refuse_item)
    good = [operation for operation in operations if operation.index not in refused]
    return Write(collection, options, len(request.documents), good, refused)


def delete(request: documents_pb2.DeleteRequest, collection: Collection) -> Write:
    options = write_options(request.acknowledgement, request.durable_replicas, request.request_id)
    columns.check_count(len(request.ids), "ids")
    versions = request.expected_versions
    if versions and len(versions) != len(request.ids):
        raise InvalidArgument(
            "expected_versions", f"has {len(versions)} entries", f"must have none or {len(request.ids)}, one per id"
        )
    if versions and options.level is Level.LOGGED:
        raise InvalidArgument(
            "acknowledgement", "is LOGGED", "must be DURABLE or above when expected_versions are given"
        )
    operations = []
    for index, encoded in enumerate(_encoded_ids(request.ids, "ids[{}]", refuse_request)):
        expected = versions[index] if versions else 0
        shard = ids.shard_of_encoded(encoded, collection.shards)
        body = records.delete(ids.decode(encoded), expected_version=expected)
        operations.append(Operation(index, shard, body, is_delete=True))
    return Write(collection, options, len(request.ids), operations, {})


def put_vectors(request: upgrades_pb2.PutVectorsRequest, collection: Collection) -> Write:
    """Refuses the whole request for one bad vector."""
    options = write_options(request.acknowledgement, 0, request.request_id)
    if options.level is Level.LOGGED:
        raise InvalidArgument("acknowledgement", "is LOGGED", "must be DURABLE or above for vectors")
    count = len(request.ids)
    columns.check_count(count, "ids")
    _check_size(request, "ids")
    if len(request.versions) != count:
        raise InvalidArgument("versions", f"has {len(request.versions)} entries", f"must have {count}, one per id")
    for index, version in enumerate(request.versions):
        if not version:
            raise InvalidArgument(f"versions[{index}]", "is 0", "must be at least 1")
    if not request.model:
        names = ", ".join(one.name for one in collection.live_models)
        raise InvalidArgument("model", "is empty", f"must name one of the models {names}")
    model = _model(request.model, collection, "model")
    encoded_ids = _encoded_ids(request.ids, "ids[{}]", refuse_request)
    matrix = columns.unpack_vectors(request.block, "block", dimension=model.dimension, max_count=count)
    if len(matrix) != count:
        raise InvalidArgument("block.count", f"is {len(matrix)}", f"must be {count}, one per id")
    stored, problems = to_stored(matrix, collection.metric, collection.stored)
    for row, problem, bound in problems:
        raise InvalidArgument(f"block[{row}]", problem, bound)
    operations = []
    for index, (encoded, version) in enumerate(zip(encoded_ids, request.versions, strict=True)):
        vectors = {model.number: stored[index].tobytes()}
        body = records.embed(ids.decode(encoded), vectors, expected_version=version)
        operations.append(Operation(index, ids.shard_of_encoded(encoded, collection.shards), body))
    return Write(collection, options, count, operations, {})


def write_options(acknowledgement: int, durable_replicas: int, request_id: str) -> Options:
    if acknowledgement not in _LEVELS:
        raise InvalidArgument("acknowledgement", f"is {acknowledgement}", "must be LOGGED, DURABLE or SEARCHABLE")
    if durable_replicas > limits.MAX_REPLICAS:
        raise InvalidArgument("durable_replicas", f"is {durable_replicas}", f"must be 1 to {limits.MAX_REPLICAS}")
    size = len(request_id.encode())
    if size > limits.MAX_REQUEST_ID_BYTES:
        raise InvalidArgument("request_id", f"has {size} bytes", f"must have at most {limits.MAX_REQUEST_ID_BYTES}")
    level = Level(_LEVELS[types_pb2.Acknowledgement.ValueType(acknowledgement)])
    return Options(level, durable_replicas or 1, request_id or secrets.token_hex(16))


def _upsert_operations(
    request: documents_pb2.UpsertRequest, collection: Collection, level: Level, on_bad_item: OnBadItem
) -> list[Operation]:
    documents = request.documents
    columns.check_count(len(documents), "documents")
    _check_size(request, "documents")
    encoded_ids = _encoded_ids([document.id for document in documents], "documents[{}].id", on_bad_item)
    vectors = _vectors(request.vectors, collection, len(documents), on_bad_item)
    operations = []
    for index, (document, encoded) in enumerate(zip(documents, encoded_ids, strict=True)):
        try:
            if encoded:
                body = _body(document, ids.decode(encoded), vectors.get(index, {}), f"documents[{index}]", level)
                operations.append(Operation(index, ids.shard_of_encoded(encoded, collection.shards), body))
        except InvalidArgument as error:
            on_bad_item(index, error)
    return operations


def _check_size(request: documents_pb2.UpsertRequest | upgrades_pb2.PutVectorsRequest, field: str) -> None:
    size = request.ByteSize()
    if size > limits.MAX_BATCH_BYTES:
        raise InvalidArgument(
            field, f"have {size} bytes with their vectors", f"must have at most {limits.MAX_BATCH_BYTES}"
        )


def _encoded_ids(messages: Sequence[types_pb2.DocumentId], path: str, on_bad_item: OnBadItem) -> list[bytes]:
    """The encoded ids, empty where the item is bad. Of two equal ids the second one is bad."""
    first_at: dict[bytes, int] = {}
    encoded_ids = []
    for index, message in enumerate(messages):
        field = path.format(index)
        try:
            doc_id = columns.unpack_id(message, field)
            encoded = ids.encode(doc_id)
            if first_at.setdefault(encoded, index) != index:
                raise InvalidArgument(  # noqa: TRY301 -- one handler decides what a bad item means
                    field, f"is {doc_id!r} again", f"is already the id of {path.format(first_at[encoded])}"
                )
        except InvalidArgument as error:
            on_bad_item(index, error)
            encoded = b""
        encoded_ids.append(encoded)
    return encoded_ids


def _body(
    document: documents_pb2.DocumentWrite, doc_id: ids.DocId, vectors: DocumentVectors, field: str, level: Level
) -> bytes:
    """The record of a document, without its time."""
    condition = _condition(document, field, level)
    expected_version = document.expected_version
    has_attributes = document.HasField("attributes")
    attributes = _attributes(document.attributes, f"{field}.attributes") if has_attributes else b""
    if vectors:
        text = _text(document.text, f"{field}.text")
        return records.put(
            doc_id, vectors, attributes=attributes, text=text, condition=condition, expected_version=expected_version
        )
    if document.HasField("text"):
        raise InvalidArgument(f"{field}.text", "is set without a vector", "must come with a vector")
    if not has_attributes:
        raise InvalidArgument(f"{field}.attributes", "is not set", "must be set when the document has no vector")
    if level is Level.LOGGED:
        raise InvalidArgument("acknowledgement", "is LOGGED", f"must be DURABLE or above when {field} has no vector")
    return records.patch(doc_id, attributes, condition=condition, expected_version=expected_version)


def _condition(document: documents_pb2.DocumentWrite, field: str, level: Level) -> log_pb2.Condition.ValueType:
    condition = document.condition
    if condition not in _CONDITIONS:
        raise InvalidArgument(
            f"{field}.condition", f"is {condition}", "must be INSERT_ONLY, UPDATE_ONLY, IF_VERSION or not set"
        )
    needs_version = condition == documents_pb2.WRITE_CONDITION_IF_VERSION
    if needs_version != (document.expected_version > 0):
        bound = "must be at least 1 with IF_VERSION" if needs_version else "must be 0 without IF_VERSION"
        raise InvalidArgument(f"{field}.expected_version", f"is {document.expected_version}", bound)
    if level is Level.LOGGED and condition != documents_pb2.WRITE_CONDITION_UNSPECIFIED:
        raise InvalidArgument("acknowledgement", "is LOGGED", f"must be DURABLE or above when {field}.condition is set")
    return _CONDITIONS[condition]


def _text(text: str, field: str) -> str:
    # A character has at most 4 bytes: short texts are not encoded twice.
    if len(text) * 4 > limits.MAX_TEXT_BYTES and (size := len(text.encode())) > limits.MAX_TEXT_BYTES:
        raise InvalidArgument(field, f"has {size} bytes", f"must have at most {limits.MAX_TEXT_BYTES}")
    return text


def _attributes(text: str, field: str) -> bytes:
    data = text.encode()
    if len(data) > limits.MAX_ATTRIBUTES_BYTES:
        raise InvalidArgument(field, f"has {len(data)} bytes", f"must have at most {limits.MAX_ATTRIBUTES_BYTES}")
    too_deep = InvalidArgument(
        field, f"is nested deeper than {limits.MAX_ATTRIBUTES_DEPTH}", f"must be at most {limits.MAX_ATTRIBUTES_DEPTH}"
    )
    try:
        parsed = msgspec.json.decode(data)
    except RecursionError as error:
        raise too_deep from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(field, f"is not JSON ({error})", "must be a JSON object") from error
    if not isinstance(parsed, dict):
        raise InvalidArgument(field, f"is a JSON {_json_kind(parsed)}", "must be a JSON object")
    # Most attributes hold fewer brackets than the bound: then they cannot be too deep.
    brackets = data.count(b"{") + data.count(b"[")
    if brackets > limits.MAX_ATTRIBUTES_DEPTH and _is_deeper(parsed, limits.MAX_ATTRIBUTES_DEPTH):
        raise too_deep
    return data


def _json_kind(value: object) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")


def _is_deeper(value: object, depth: int) -> bool:
    """Whether `value` nests objects and arrays more than `depth` deep. Walks level by level, without recursion."""
    level = [value]
    for _ in range(depth):
        containers = [one for one in level if isinstance(one, dict | list)]
        level = [child for one in containers for child in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, dict | list) for one in level)


def _vectors(
    blocks: Sequence[types_pb2.ModelVectors], collection: Collection, documents: int, on_bad_item: OnBadItem
) -> dict[int, DocumentVectors]:
    """The stored vectors of each document that has any."""
    found: dict[int, DocumentVectors] = {}
    seen: set[int] = set()
    for position, block in enumerate(blocks):
        field = f"vectors[{position}]"
        model = _model(block.model, collection, f"{field}.model")
        if model.number in seen:
            raise InvalidArgument(f"{field}.model", f"is {model.name!r} again", "must name each model at most once")
        seen.add(model.number)
        matrix = columns.unpack_vectors(block.block, f"{field}.block", dimension=model.dimension, max_count=documents)
        owners = _owners(block, documents, field)
        stored, problems = to_stored(matrix, collection.metric, collection.stored)
        for row, problem, bound in problems:
            on_bad_item(owners[row], InvalidArgument(f"{field}.block[{row}]", problem, bound))
        data = stored.tobytes()
        size = model.dimension * stored.dtype.itemsize
        for row, owner in enumerate(owners):
            found.setdefault(owner, {})[model.number] = data[row * size : (row + 1) * size]
    return found


def _model(name: str, collection: Collection, field: str) -> Model:
    if not name and len(collection.live_models) > 1:
        names = ", ".join(model.name for model in collection.live_models)
        raise InvalidArgument(field, "is empty", f"must name one of the models {names}")
    model = collection.model(name)
    if model is None:
        names = ", ".join(model.name for model in collection.models)
        raise FailedPrecondition(
            f"{field} is {name!r}, collection {collection.name} has the models {names}",
            field=field,
            reason="MODEL_UNKNOWN",
        )
    if model.name in collection.retired:
        raise FailedPrecondition(
            f"{field} is {model.name!r}, which is retired, collection {collection.name} is served by the model "
            f"{collection.serving_model}",
            field=field,
            reason="MODEL_RETIRED",
        )
    return model


def _owners(block: types_pb2.ModelVectors, documents: int, field: str) -> Sequence[int]:
    """Which document each vector of a block belongs to."""
    count = block.block.count
    if not block.documents:
        if count != documents:
            raise InvalidArgument(
                f"{field}.block.count",
                f"is {count}",
                f"must be {documents}, one per document, without {field}.documents",
            )
        return range(documents)
    owners = list(block.documents)
    if len(owners) != count:
        raise InvalidArgument(f"{field}.documents", f"has {len(owners)} entries", f"must have {count}, one per vector")
    first_at: dict[int, int] = {}
    for row, owner in enumerate(owners):
        if owner >= documents:
            raise InvalidArgument(f"{field}.documents[{row}]", f"is {owner}", f"must be below {documents}")
        if first_at.setdefault(owner, row) != row:
            raise InvalidArgument(f"{field}.documents[{row}]", f"is {owner} again", "must name each document once")
    return owners


def to_stored(matrix: FloatArray, metric: Metric, stored: StoredType) -> tuple[FloatArray, list[tuple[int, str, str]]]:
    """Converts to the collection's number format. Also returns the rows that cannot be stored, as
    (row, problem, bound): not finite, zero under cosine, or either of these after conversion."""
    problems = columns.value_problems(matrix, metric)
    if matrix.dtype == stored.dtype:
        return matrix, problems
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        converted: FloatArray = matrix.astype(stored.dtype)
    if converted.dtype.itemsize < matrix.dtype.itemsize:
        bad = {row for row, _, _ in problems}
        problems += [
            (row, f"{problem} after conversion to {stored.value}", bound)
            for row, problem, bound in columns.value_problems(converted, metric)
            if row not in bad
        ]
    return converted, problems
