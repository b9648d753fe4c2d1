"""Deletes by filter, call after call until nothing is left to delete, and adds up what they did.

A call that fails in the middle tells what it deleted before; that counts, too, when it is repeated. Every repetition is
harmless: each document is deleted only in the version that was found to fulfil the filter.
"""

from collections.abc import Callable

import grpc.aio

from kintsugi import limits, tokens
from kintsugi.errors import KintsugiError
from kintsugi.rpc.errors import from_rpc_error
from kintsugi.sdk.connection import Connection, Stubs
from kintsugi.sdk.types import DeletedByFilter
from kintsugi.tokens import Token
from kintsugi.v1 import documents_pb2


class Deleting:
    """`advance` is called with the documents that each call deleted."""

    def __init__(
        self,
        connection: Connection,
        request: documents_pb2.DeleteByFilterRequest,
        timeout_s: float,
        advance: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._request = request
        self._timeout_s = timeout_s
        self._advance = advance
        self._deleted = 0
        self._changed = 0
        self._token: Token | None = None

    async def run(self, limit: int | None) -> DeletedByFilter:
        while True:
            left = limits.DEFAULT_DELETE_LIMIT if limit is None else limit - self._deleted
            self._request.limit = min(left, limits.DEFAULT_DELETE_LIMIT)
            try:
                answer = await self._connection.call(self._attempt, self._timeout_s, changes=True)
            except KintsugiError as error:
                raise self._told_by(error) from error
            self._add(answer.deleted, answer.changed)
            token = tokens.decode(answer.token)
            self._token = token = token if self._token is None else self._token.merge(token)
            if not answer.more or (limit is not None and self._deleted >= limit):
                return DeletedByFilter(self._deleted, self._changed, answer.more, token.encode())

    async def _attempt(self, stubs: Stubs, left_s: float) -> documents_pb2.DeleteByFilterResponse:
        try:
            return await stubs.documents.DeleteByFilter(self._request, timeout=left_s)
        except grpc.aio.AioRpcError as error:
            told = from_rpc_error(error).metadata
            self._add(int(told.get("deleted", 0)), int(told.get("changed", 0)))
            raise

    def _add(self, deleted: int, changed: int) -> None:
        self._deleted += deleted
        self._changed += changed
        if deleted:
            self._advance(deleted)

    def _told_by(self, error: KintsugiError) -> KintsugiError:
        """The error with what was done before it, by all calls."""
        if not self._deleted and not self._changed:
            return error
        last = f"; {error.metadata.get('deleted')} documents were deleted before"
        told = error.saying(f"{error.message.removesuffix(last)}; {self._deleted} documents were deleted before")
        told.metadata = {**error.metadata, "deleted": str(self._deleted), "changed": str(self._changed)}
        return told
