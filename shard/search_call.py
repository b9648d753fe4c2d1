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
Kind: TypeAlias = tuple[
    int, float | None, Fields, Filter | None, float | None, Grouping | None, int | None, bool, bool, bool
]


@dataclass(frozen=True, slots=True)
class SearchCall:
    """One search. `queries` is n x d float32. `k` counts groups when there is a grouping. `deadline` in the searcher's
    clock, None for none. `oversampling`: candidates per hit, None for the encoding's default. `ef_search`:
    candidates that the graph looks at, None for as many as were learned to be needed. `is_live`: a client asks,
    not the replica itself, which asks for what the model's own index holds. `other_queries`: the same by the other model of an
    upgrade. `tell_unmigrated`: tell the candidates that lack a vector of the model."""

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
    other_queries: FloatArray | None = None
    tell_unmigrated: bool = False
    ef_search: int | None = None

    @property
    def kind(self) -> Kind:
        has_others = self.other_queries is not None
        options = self.k, self.oversampling, self.fields, self.filter, self.min_score, self.group, self.ef_search
        return *options, self.is_live, has_others, self.tell_unmigrated


@dataclass(frozen=True, slots=True)
class ShardHits:
    """Columns of hits: those of the first query best first, then those of the second, and so on. `ids` in their
    ordered encoding; attributes, texts and groups are empty unless asked for.

    Outside of upgrades the rest is empty. `projected`: one flag per hit. `lacking`: the rows of candidates that lack a vector of the
    model, those of hits first; `unmigrated` their ids, when asked for. `documents_with_other`: those with a vector of
    `other_model`."""

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
    projected: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    lacking: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    unmigrated: list[bytes] = field(default_factory=list)
    documents_with_other: int = 0
    other_model: str = ""
