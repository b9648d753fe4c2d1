"""What a search of one replica asks for, and what it answers with. Knows nothing of queues, indexes or RPC."""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kintsugi.filters.tree import Filter, Value
from kintsugi.metrics import FloatArray
from shard.grouping import Group
from shard.reader import Fields
from shard.search_times import UNKNOWN, SearchTimes


@dataclass(frozen=True, slots=True)
class Grouping:
    """Hits are wanted by the value of an attribute: the `size` best of each group. `only`: of these groups, however many
    they are."""

    attribute: str
    size: int
    only: tuple[Group, ...] = ()


# What calls must have in common to be searched together.
Kind: TypeAlias = tuple[int, float | None, Fields, Filter | None, float | None, Grouping | None]


@dataclass(frozen=True, slots=True)
class SearchCall:
    """One search. `queries` is n x d float32. `k` counts groups when there is a grouping. `deadline` in the searcher's
    clock, None for none. `oversampling`: candidates per hit, None for the encoding's default. `is_live`: a client asks,
    not the replica itself."""

    queries: FloatArray
    k: int
    exact: bool = False
    oversampling: float | None = None
    deadline: float | None = None
    fields: Fields = field(default_factory=Fields)
    is_live: bool = True
    filter: Filter | None = None
    min_score: float | None = None
    group: Grouping | None = None

    @property
    def kind(self) -> Kind:
        return self.k, self.oversampling, self.fields, self.filter, self.min_score, self.group


@dataclass(frozen=True, slots=True)
class ShardHits:
    """Columns of hits: those of the first query best first, then those of the second, and so on. `ids` in their
    ordered encoding; attributes, texts and groups are empty unless asked for."""

    counts: list[int]
    ids: list[bytes]
    scores: npt.NDArray[np.float64]
    versions: npt.NDArray[np.uint64]
    attributes: list[str]
    texts: list[str]
    documents: int
    documents_with_vector: int
    index_version: int
    times: SearchTimes = UNKNOWN
    groups: list[Value] = field(default_factory=list)
