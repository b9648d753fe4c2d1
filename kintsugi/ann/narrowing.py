"""Chooses among many candidates of coarse codes by finer ones, before stored vectors are read: the steps of a cascade.

`by_planes`: the symmetric distance of recurrent codes, which are in memory. `by_scan_codes`: int8 codes of whole vectors;
where the coarse codes were of a prefix, along a funnel: compared by a longer prefix, the better half goes on to one
twice as long. Each returns rows best first, in the order of the codes it compared last. Pure but for what is gathered:
one call for many queries, never more than about a block at once.
"""

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numkong import cdist

from kintsugi.ann.encoding import Encoded, Encoding
from kintsugi.ann.recurrent import Planes
from kintsugi.ann.row_codes import Rows
from kintsugi.metrics import FloatArray

GatherCodes = Callable[[Rows], Encoded]
GatherPlanes = Callable[[Rows], Planes]

# Codes gathered together: those of a query stay in the caches until they are compared.
_BLOCK_BYTES = 2**22
# numkong's names of usearch's measures.
_DISTANCE: dict[str, Literal["angular", "dot", "sqeuclidean"]] = {"cos": "angular", "ip": "dot", "l2sq": "sqeuclidean"}


def by_planes(
    encoding: Encoding, queries: FloatArray, candidates: Sequence[Rows], kept: int, gather: GatherPlanes
) -> list[Rows]:
    """Of each query's candidates the `kept` best by the symmetric distance. `gather` gives the planes of rows, as
    `encoding.planes` puts them together."""
    asked = encoding.planes_of_queries(queries)
    found: list[Rows] = []
    for first, block in _blocks(candidates, encoding.code_bytes):
        planes = gather(np.concatenate(block))
        start = 0
        for query, rows in enumerate(block, first):
            nearness = encoding.nearness(asked, query, planes, start, start + len(rows))
            found.append(rows[_first(-nearness, kept)])
            start += len(rows)
    return found


def by_scan_codes(
    encoding: Encoding, queries: FloatArray, candidates: Sequence[Rows], kept: int, gather: GatherCodes
) -> list[Rows]:
    """Of each query's candidates the `kept` best by scan codes. `encoding` is that of the index; `gather` gives rows' codes
    by its `scan`."""
    scan = encoding.scan
    assert scan is not None, "there are no scan codes without a scan encoding"
    distance, codes_of_queries = _DISTANCE[scan.usearch_metric], scan.encode_queries(queries)
    found: list[Rows] = []
    for first, block in _blocks(candidates, scan.code_bytes):
        codes = gather(np.concatenate(block))
        start = 0
        for query, rows in enumerate(block, first):
            mine = codes[start : start + len(rows)]
            order = _funnelled(distance, codes_of_queries[query], mine, kept, encoding.prefix)
            found.append(rows[order])
            start += len(rows)
    return found


def _funnelled(
    distance: Literal["angular", "dot", "sqeuclidean"], query: Encoded, codes: Encoded, kept: int, prefix: int
) -> npt.NDArray[np.intp]:
    """The places of the `kept` best, best first. No prefix: compared in full at once."""
    whole, chosen = codes.shape[1], np.arange(len(codes))
    compared = min(2 * prefix, whole) if prefix else whole
    while compared < whole and len(chosen) > kept:
        values = _distances(distance, query[:compared], codes[:, :compared])
        better = _first(values, max(kept, ceil(len(chosen) / 2)))
        chosen, codes = chosen[better], codes[better]
        compared = min(2 * compared, whole)
    return chosen[_first(_distances(distance, query, codes), kept)]


def _distances(
    distance: Literal["angular", "dot", "sqeuclidean"], query: Encoded, codes: Encoded
) -> npt.NDArray[np.float64]:
    """Less is nearer."""
    if not len(codes):
        return np.empty(0)
    values: npt.NDArray[np.float64] = np.asarray(cdist(query[np.newaxis], codes, distance), dtype=np.float64)[0]
    if distance == "dot":
        np.negative(values, out=values)
    return values


def _blocks(candidates: Sequence[Rows], code_bytes: int) -> Iterator[tuple[int, list[Rows]]]:
    """Queries whose candidates' codes make a block, with the place of the first of them."""
    first, block, size = 0, list[Rows](), 0
    for place, rows in enumerate(candidates):
        if block and size + len(rows) * code_bytes > _BLOCK_BYTES:
            yield first, block
            first, block, size = place, [], 0
        block.append(rows)
        size += len(rows) * code_bytes
    if block:
        yield first, block


def _first(values: npt.NDArray[Any], count: int) -> npt.NDArray[np.intp]:
    """The places of the smallest values, in ascending order of them."""
    if len(values) <= count:
        return np.argsort(values, kind="stable")
    chosen = np.argpartition(values, count - 1)[:count]
    return chosen[np.argsort(values[chosen], kind="stable")]
