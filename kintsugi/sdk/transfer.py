"""Bulk import and export as the clients offer them: options in, a run of Import or Export, its result out."""

from pathlib import Path
from typing import TYPE_CHECKING

from kintsugi.errors import InvalidArgument
from kintsugi.limits import MAX_BATCH_ITEMS, MAX_SCROLL_LIMIT
from kintsugi.sdk import bounds, progress
from kintsugi.sdk.bulk import DEFAULT_BATCH
from kintsugi.sdk.exporting import Export, ExportPlan
from kintsugi.sdk.files.opening import open_source
from kintsugi.sdk.files.source import ImportBatch, ImportSource
from kintsugi.sdk.importing import DEFAULT_MAX_REFUSED, Import, ImportPlan, ImportState, dimension_of
from kintsugi.sdk.options import CallOptions, ExportOptions, FieldOptions, ImportOptions, check_options
from kintsugi.sdk.types import AcknowledgementName, BulkResult, ExportResult, ImportResult, Page

if TYPE_CHECKING:
    from kintsugi.sdk.aio import AsyncClient


class _Passed(CallOptions, total=False):
    """The options of an import that concern its writes."""

    window: int
    acknowledgement: AcknowledgementName
    durable_replicas: int


async def import_into(
    client: "AsyncClient", name: str, source: str | Path | ImportSource, options: ImportOptions
) -> ImportResult:
    check_options("bulk_import", options, ImportOptions)
    collection = await client.collection(name)  # a wrong name is told before anything is read
    plan = _import_plan(name, source, options)
    opened = open_source(Path(source)) if isinstance(source, str | Path) else source
    passed = _Passed()
    for key in _Passed.__optional_keys__ & options.keys():
        passed[key] = options[key]  # type: ignore[literal-required]

    async def upsert(batch: ImportBatch, state: ImportState) -> BulkResult:
        request_id = f"{state.request_id}-{batch.first.place}"
        return await client.bulk_upsert(
            name, batch.ids, batch.vectors, attributes=batch.attributes, texts=batch.texts,
            **passed, model=state.model, batch=state.batch, request_id=request_id, progress=False,
        )  # fmt: skip

    with progress.transfer(f"importing into {name}", opened.length, options.get("progress")) as advance:
        return await Import(
            opened, collection, plan, upsert, lambda here, documents: advance(here.offset, documents)
        ).run()


def _import_plan(name: str, source: str | Path | ImportSource, options: ImportOptions) -> ImportPlan:
    files = {"state": options.get("state"), "rejects": options.get("rejects")}
    for field, suffix in (("state", "import.json"), ("rejects", "rejects.jsonl")):
        if files[field] is None:
            if not isinstance(source, str | Path):
                raise InvalidArgument(field, "is not given", "must be, for a source that is no file")
            files[field] = Path(f"{source}.{name}.{suffix}")
    return ImportPlan(
        state=Path(str(files["state"])),
        rejects=Path(str(files["rejects"])),
        model=options.get("model", ""),
        batch=bounds.bounded(options.get("batch", DEFAULT_BATCH), "batch", MAX_BATCH_ITEMS),
        restart=options.get("restart", False),
        max_refused=bounds.unsigned(options.get("max_refused", DEFAULT_MAX_REFUSED), "max_refused", most=2**63 - 1),
    )


async def export_from(client: "AsyncClient", name: str, path: str | Path, options: ExportOptions) -> ExportResult:
    check_options("bulk_export", options, ExportOptions)
    collection = await client.collection(name)
    model = options.get("model") or collection.serving_model
    plan = ExportPlan(
        path=Path(path),
        state=Path(options.get("state") or f"{path}.export.json"),
        model=model,
        dimension=dimension_of(collection, model),
        attributes=options.get("attributes", True),
        text=options.get("text", True),
        restart=options.get("restart", False),
        overwrite=options.get("overwrite", False),
    )
    total = await client.count(name)
    wanted = FieldOptions(attributes=plan.attributes, text=plan.text, vectors=True)
    if "timeout_s" in options:
        wanted["timeout_s"] = options["timeout_s"]

    async def read(token: bytes) -> Page:
        return await client.scroll_page(name, token, options.get("page", MAX_SCROLL_LIMIT), **wanted)

    with progress.transfer(f"exporting {name}", total, options.get("progress")) as advance:
        return await Export(collection, plan, read, lambda documents: advance(documents, documents)).run()
