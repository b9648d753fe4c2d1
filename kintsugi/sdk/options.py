"""The keyword arguments of the SDK's calls, typed for checkers and checked again at run time.

The same names and defaults hold for AsyncClient and Client.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from kintsugi.ann.spec import EncodingSpec
from kintsugi.ids import DocId
from kintsugi.sdk.filtering import FilterLike
from kintsugi.sdk.types import AcknowledgementName, StoredName

Condition: TypeAlias = Literal["insert", "update"] | Sequence[int] | npt.NDArray[np.integer[Any]] | None


class CallOptions(TypedDict, total=False):
    """timeout_s: the time for the whole call, retries included. Default: the client's."""

    timeout_s: float


class CollectionOptions(CallOptions, total=False):
    """shards: 1 to 256. Default: the cluster's.
    replicas: of each shard, 1 to 8. Default: the cluster's.
    stored: the number format of stored vectors, "f32" (default) or "f16".
    encoding: how vectors are held in memory, such as "f32", "i8", "binary", "recurrent-2", "i8+pca-96" or
        "binary+prefix-256". Default: "auto", which is f32 for small indexes and i8 from about 1000 vectors on.
    oversampling: with an encoding: candidates per hit, 1 to 100. Default: the encoding's own.
    timeout_s: default 60, because the call waits until every replica serves."""

    shards: int | None
    replicas: int | None
    stored: StoredName
    encoding: str | EncodingSpec
    oversampling: float | None


class WriteOptions(CallOptions, total=False):
    """acknowledgement: when to answer: "logged", "durable" (default) or "searchable".
    durable_replicas: the replicas per shard that must have synced the write, 1 to 8. Default 1.
    request_id: makes a repetition harmless for 10 minutes, at most 64 bytes. Default: drawn."""

    acknowledgement: AcknowledgementName
    durable_replicas: int
    request_id: str


class DeleteByFilterOptions(CallOptions, total=False):
    """limit: the most documents to delete, 1 or more. Default: all that fulfil the filter.
    acknowledgement: when a delete counts as done: "durable" (default) or "searchable".
    durable_replicas: as in WriteOptions.
    at_least: as in ReadOptions.
    on_deleted: called with the number of documents deleted since it was last called. Default: nobody.
    timeout_s: the time for each of the calls that it takes, retries included. Default: the client's."""

    limit: int | None
    acknowledgement: AcknowledgementName
    durable_replicas: int
    at_least: bytes
    on_deleted: Callable[[int], None]


class UpdateOptions(WriteOptions, total=False):
    """condition: None (always written), "insert" (only new documents), "update" (only existing ones), or a sequence of
    versions, one per item, that the documents must have."""

    condition: Condition


class UpsertOptions(UpdateOptions, total=False):
    """model: the model that made the vectors; may be left out when the collection has one."""

    model: str


class BulkOptions(UpsertOptions, total=False):
    """batch: the most items per chunk, 1 to 1000. Default 500.
    window: the chunks in flight at once, 1 or more. Default 8.
    progress: whether to draw a progress bar on stderr. Default: only when it is a terminal.
    request_id: the chunks use it with their number; repeating a whole call with it is harmless. At most 48 bytes.
    timeout_s: the longest time without any chunk being answered. Default 60."""

    batch: int
    window: int
    progress: bool | None


class ImportOptions(CallOptions, total=False):
    """state: the file that remembers how far the import is. Default: beside the source.
    rejects: the file for the items that were refused, one JSON object per line. Default: beside the source.
    restart: forget an earlier run of this import instead of going on with it. Default false.
    max_refused: give up when more items than this were refused. Default 1000.
    model, batch, window, acknowledgement, durable_replicas, progress, timeout_s: as in BulkOptions."""

    state: Path | str | None
    rejects: Path | str | None
    restart: bool
    max_refused: int
    model: str
    batch: int
    window: int
    acknowledgement: AcknowledgementName
    durable_replicas: int
    progress: bool | None


class ExportOptions(CallOptions, total=False):
    """state: the file that remembers how far the export is. Default: beside the file that is made.
    restart: forget an earlier run of this export instead of going on with it. Default false.
    overwrite: replace the file when it is there. Default false.
    model: the model whose vectors are exported. Default: the serving one.
    attributes, text: export them, too. Default true.
    page: documents per call, 1 to 1000. Default 1000.
    progress: whether to draw a progress bar on stderr. Default: only when it is a terminal."""

    state: Path | str | None
    restart: bool
    overwrite: bool
    model: str
    attributes: bool
    text: bool
    page: int
    progress: bool | None


class ReadOptions(CallOptions, total=False):
    """at_least: the token of a write that must be seen. Default: whatever the answering replicas hold."""

    at_least: bytes


class CountOptions(ReadOptions, total=False):
    """filter: count only the documents that fulfil it: a dict, an expression such as "year >= 2000", or a tree of
    kintsugi.filters. Default: all."""

    filter: FilterLike | None


class NextDocumentsOptions(CallOptions, total=False):
    """lease_s: for how long no other worker gets the documents, 1 to 3600. Default 60.
    first: ids to serve first if they still lack a vector, at most 1000, as searches report them. Default: none."""

    lease_s: float | None
    first: Sequence[DocId] | npt.NDArray[Any] | None


class PutVectorsOptions(CallOptions, total=False):
    """acknowledgement: when to answer: "durable" (default) or "searchable".
    request_id: makes a repetition harmless for 10 minutes, at most 64 bytes. Default: drawn."""

    acknowledgement: AcknowledgementName
    request_id: str


class FieldOptions(ReadOptions, total=False):
    """attributes, text, vectors: what to return beside id and version. Default: nothing."""

    attributes: bool
    text: bool
    vectors: bool


class SearchOptions(ReadOptions, total=False):
    """model: the model that made the query; may be left out when the collection has one.
    exact: compare with every document instead of using the index. Default false.
    oversampling: candidates per hit wanted before exact rescoring, 1 to 100. Default: that of the index's encoding.
    ef_search: candidates that a search of the graph looks at, 1 to 10000: fewer are faster and find less of the true best.
        Default: at least 128, and as many as measured recall has shown to be needed.
    min_coverage: the smallest fraction of shards that must answer, above 0 and at most 1. Default 1.
    filter: find only documents that fulfil it: a dict, an expression such as "year >= 2000", or a tree of
        kintsugi.filters. Default: all documents.
    min_score: return only hits of at least this score. Default: all.
    offset: the best hits to skip, for pages: offset + k is at most 1000. Default 0.
    group_by: return the best hits of the k best groups, which are the values of this attribute. Default: no groups.
    group_size: with group_by: the hits per group, 1 to 100; k x group_size is at most 1000. Default 1.
    attributes, text: return them with the hits. Default false.
    tell_unmigrated: while the collection is upgraded, tell the candidates that lack a vector of the model. Default false."""

    model: str
    exact: bool
    oversampling: float | None
    ef_search: int | None
    min_coverage: float | None
    filter: FilterLike | None
    min_score: float | None
    offset: int
    group_by: str | None
    group_size: int | None
    attributes: bool
    text: bool
    tell_unmigrated: bool


def check_options(call: str, options: Mapping[str, object], kind: type) -> None:
    """Raises TypeError for a keyword that `kind` does not have, as Python does for a plain signature."""
    for name in options:
        if name not in kind.__optional_keys__:  # type: ignore[attr-defined]
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}")
