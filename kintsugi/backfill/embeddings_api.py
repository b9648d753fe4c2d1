"""Embeds with an HTTP service that speaks the embeddings API of OpenAI, as many servers of models do.

POST {"model": ..., "input": [texts], "encoding_format": "float"} -> {"data": [{"index": 0, "embedding": [...]}, ...]}.

Guarantees: 429 and 5xx, and a service that cannot be reached, may be tried again, no earlier than it asks; everything else
is final and told with the service's own words. The key goes to the address that was given and nowhere else: redirects are not
followed. The key is in no message.
"""

import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage
from typing import Any

import msgspec

from kintsugi.backfill.embedder import EmbedFailed, EmbedRefused, F32Matrix, matrix_of
from kintsugi.sdk.upgrade_types import DocumentToEmbed

_SHOWN_BYTES = 300


class _Embedding(msgspec.Struct):
    embedding: list[float]
    index: int = -1


class _Answer(msgspec.Struct):
    data: list[_Embedding]


_ANSWERS = msgspec.json.Decoder(_Answer)

# Sends a request and returns the body; raises what urllib raises.
Send = Callable[[urllib.request.Request, float], bytes]


class ApiEmbedder:
    """`model` is how the service calls it. `key`: '' for a service that wants none."""

    needs_text = True

    def __init__(self, url: str, model: str, key: str, timeout_s: float, send: Send | None = None) -> None:
        self._url = url
        self._model = model
        self._key = key
        self._timeout_s = timeout_s
        self._send = send or _send

    def embed(self, documents: Sequence[DocumentToEmbed]) -> F32Matrix:
        texts = [document.text for document in documents]
        body = msgspec.json.encode({"model": self._model, "input": texts, "encoding_format": "float"})
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, data=body, headers=headers)  # noqa: S310 -- embedder_of checks the scheme
        try:
            answer = _ANSWERS.decode(self._send(request, self._timeout_s))
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from error
        except (OSError, HTTPException) as error:
            raise EmbedFailed(f"{self._url} cannot be reached: {error}") from error
        except msgspec.DecodeError as error:
            raise EmbedRefused(f"{self._url} does not answer as an embeddings API does: {error}") from error
        return matrix_of(_in_order(answer.data), len(documents), self._url)

    def close(self) -> None:
        """There is nothing to close: each batch has a connection of its own."""

    def _refusal(self, error: urllib.error.HTTPError) -> EmbedFailed | EmbedRefused:
        with error:
            said = error.read(_SHOWN_BYTES).decode(errors="replace").strip()
        message = f"{self._url} answered {error.code}{f': {said}' if said else ''}"
        if self._key:
            message = message.replace(self._key, "***")
        if error.code == HTTPStatus.TOO_MANY_REQUESTS or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return EmbedFailed(message, retry_delay_s=_seconds(error.headers.get("Retry-After")))
        return EmbedRefused(message)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """The answer that redirects is then the error."""


_OPENER = urllib.request.build_opener(_NoRedirects)


def _send(request: urllib.request.Request, timeout_s: float) -> bytes:
    with _OPENER.open(request, timeout=timeout_s) as response:
        body: bytes = response.read()
        return body


def _in_order(data: list[_Embedding]) -> list[list[float]]:
    if sorted(one.index for one in data) == list(range(len(data))):
        data = sorted(data, key=lambda one: one.index)
    return [one.embedding for one in data]


def _seconds(retry_after: str | None) -> float | None:
    """None for a date, which services of models do not give."""
    return float(retry_after) if retry_after is not None and retry_after.strip().isdigit() else None
