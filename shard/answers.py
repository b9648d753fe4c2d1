"""From candidates to hits: exact scores, columns, ranks, groups.

Guarantees: everything told of a hit is of the one state of the documents that is given. Does not know where candidates come
from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from kintsugi.ann.vector_index import Rows
from kintsugi.filters.matching import group_value
from kintsugi.filters.tree import Value
from kintsugi.metrics import FloatArray
from shard.attributes.lookup import Matches
from shard.attributes.terms import decode_attributes
from shard.checkpoint import IndexedModel
from shard.grouping import Group, chosen, group_of
from shard.reader import HitColumns
from shard.rescore import Ranked, rank, rescore, rescore_in_order, rows_of
from shard.search_call import Grouping, SearchCall, ShardHits
from shard.search_times import UNKNOWN, SearchTimes, Stage, StageClock
from shard.source import DocumentsSnapshot


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries of one kind, as the call has them, and the rows that fulfil its filter. `documents`: those with a vector.
    `in_order`: candidates come in the order of their supposed scores, and need not all be scored."""

    queries: FloatArray
    call: SearchCall
    matches: Matches | None
    documents: int
    in_order: bool


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to a batch of queries, whose hits share columns; `groups` is one of them. `short`: the queries with
    fewer hits than there are documents to find."""

    ranked: list[Ranked]
    columns: HitColumns
    groups: list[Value]
    short: npt.NDArray[np.bool_]
    documents_with_vector: int
    documents: int = 0
    index_version: int = 0
    times: SearchTimes = UNKNOWN

    def hits(self, start: int, end: int) -> ShardHits:
        """The columns of some consecutive queries."""
        mine, columns = self.ranked[start:end], self.columns
        places = [place for one in mine for place in one.places]
        return ShardHits(
            counts=[len(one.places) for one in mine],
            ids=[columns.ids[place] for place in places],
            scores=mine[0].scores if len(mine) == 1 else np.concatenate([one.scores for one in mine]),
            versions=columns.versions[places],
            attributes=[columns.attributes[place] for place in places] if columns.attributes else [],
            texts=[columns.texts[place] for place in places] if columns.texts else [],
            documents=self.documents,
            documents_with_vector=self.documents_with_vector,
            index_version=self.index_version,
            times=self.times,
            groups=[self.groups[place] for place in places] if self.groups else [],
        )


def answer(
    snapshot: DocumentsSnapshot, model: IndexedModel, asked: Asked, candidates: Sequence[Rows], clock: StageClock
) -> Answers:
    """Scores each query's candidates and keeps its hits."""
    call = asked.call
    # Of groups all hits are ranked: which are kept depends on their attributes.
    kept = call.k if call.group is None else max(1, *map(len, candidates))
    scoring = rescore_in_order if asked.in_order and call.group is None else rescore
    scored = scoring(snapshot, model.number, model.metric, asked.queries, candidates, kept)
    clock.lap(Stage.RESCORE)
    fields = call.fields if call.group is None else replace(call.fields, attributes=True)
    columns = snapshot.hits(rows_of(scored), fields)
    ranked = rank(scored, columns, kept)
    groups: list[Value] = []
    if call.group is None:
        short = _short(ranked, asked)
    else:
        ranked, columns, groups = _grouped(ranked, columns, call, call.group)
        # Candidates of groups are the hits themselves: whoever lost one lost its place among them.
        short = np.array(
            [len(one.places) < len(rows) for one, rows in zip(ranked, candidates, strict=True)], dtype=np.bool_
        )
    if call.min_score is not None:
        ranked = [one.reaching(call.min_score) for one in ranked]
    clock.lap(Stage.COLUMNS)
    return Answers(ranked, columns, groups, short, asked.documents)


def groups_of(columns: HitColumns, attribute: str) -> list[Group | None]:
    """The group of each row of the columns, which must have attributes."""
    return [group_of(group_value(decode_attributes(text.encode()), attribute)) for text in columns.attributes]


def _short(ranked: Sequence[Ranked], asked: Asked) -> npt.NDArray[np.bool_]:
    wanted = min(asked.call.k, asked.documents if asked.matches is None else len(asked.matches))
    return np.array([len(one.places) < wanted for one in ranked], dtype=np.bool_)


def _grouped(
    ranked: Sequence[Ranked], columns: HitColumns, call: SearchCall, grouping: Grouping
) -> tuple[list[Ranked], HitColumns, list[Value]]:
    groups = groups_of(columns, grouping.attribute)
    most = len(grouping.only) or call.k
    kept = [chosen([groups[place] for place in one.places], most, grouping.size) for one in ranked]
    # Rows without a group are in no answer: what stands for them is never read.
    values = ["" if group is None else group[1] for group in groups]
    return (
        [Ranked([one.places[at] for at in some], one.scores[some]) for one, some in zip(ranked, kept, strict=True)],
        columns if call.fields.attributes else replace(columns, attributes=[]),
        values,
    )
