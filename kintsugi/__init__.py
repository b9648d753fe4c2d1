"""Kintsugi: a sharded vector search cluster that changes embedding models while it serves.

    from kintsugi import Client, Model

    with Client("127.0.0.1:7700") as client:
        client.create_collection("books", Model("my-model", dimension=384))
        client.bulk_upsert("books", ids, vectors)
        for hit in client.search("books", query):
            print(hit.id, hit.score)

The names below are imported when they are first used, so that servers, which share this package, do not load the SDK.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kintsugi.errors import (
        Aborted,
        AlreadyExists,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        KintsugiError,
        NotFound,
        OutOfRange,
        ResourceExhausted,
        Unavailable,
    )
    from kintsugi.sdk.aio import AsyncClient
    from kintsugi.sdk.blocking import Client
    from kintsugi.sdk.retry import RetryPolicy
    from kintsugi.sdk.types import (
        AcceptedLoss,
        BatchResult,
        BulkResult,
        Collection,
        Coverage,
        DeletedByFilter,
        Document,
        ExportResult,
        GetResult,
        Hit,
        ImportResult,
        Model,
        Outcome,
        Page,
        SearchResult,
        WriteResult,
    )
    from kintsugi.sdk.upgrade_types import (
        DocumentToEmbed,
        NextDocuments,
        PutVectorsResult,
        Upgrade,
        UpgradePlan,
        UpgradeProgress,
        UpgradeStatus,
    )
    from kintsugi.sdk.verifying import Agreement, ReplicaCheck, ShardVerdict, verdicts

__all__ = [
    "Aborted",
    "AcceptedLoss",
    "Agreement",
    "AlreadyExists",
    "AsyncClient",
    "BatchResult",
    "BulkResult",
    "Client",
    "Collection",
    "Coverage",
    "DeadlineExceeded",
    "DeletedByFilter",
    "Document",
    "DocumentToEmbed",
    "ExportResult",
    "FailedPrecondition",
    "GetResult",
    "Hit",
    "ImportResult",
    "Internal",
    "InvalidArgument",
    "KintsugiError",
    "Model",
    "NextDocuments",
    "NotFound",
    "OutOfRange",
    "Outcome",
    "Page",
    "PutVectorsResult",
    "ReplicaCheck",
    "ResourceExhausted",
    "RetryPolicy",
    "SearchResult",
    "ShardVerdict",
    "Unavailable",
    "Upgrade",
    "UpgradePlan",
    "UpgradeProgress",
    "UpgradeStatus",
    "WriteResult",
    "verdicts",
]

_MODULES = (
    "kintsugi.errors",
    "kintsugi.sdk.types",
    "kintsugi.sdk.upgrade_types",
    "kintsugi.sdk.verifying",
    "kintsugi.sdk.retry",
    "kintsugi.sdk.aio",
    "kintsugi.sdk.blocking",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = getattr(importlib.import_module(module), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
