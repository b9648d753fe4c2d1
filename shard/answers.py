"""From candidates to hits: exact scores, columns, ranks, groups.

Guarantees: everything told of a hit is of the one state of the documents that is given. Does not know where candidates come
from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from kintsugi.ann.vector_index import Rows
from kintsugi.filters.matching import group_value
from kintsugi.filters.tree import Value
from kintsugi.limits import MAX_HITS
from kintsugi.metrics import FloatArray
from shard.attributes.lookup import Matches
from shard.attributes.terms import decode_attributes
from shard.grouping import Group, chosen, group_of
from shard.reader import Fields, HitColumns
from shard.rescore import Ranked, rank, rows_of
from shard.scoring import NO_FLAGS, Mask, Scorer
from shard.search_call import Grouping, SearchCall, ShardHits
from shard.search_times import UNKNOWN, SearchTimes, Stage, StageClock
from shard.source import DocumentsSnapshot


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries of one kind, as the scorer takes them, and the rows that fulfil the call's filter. `documents`: those that can be
    found. `in_order`: candidates come in the order of their supposed scores, and need not all be scored."""

    queries: FloatArray
    call: SearchCall
    matches: Matches | None
    documents: int
    in_order: bool
    scorer: Scorer


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
    flags: Mask = field(default_factory=lambda: NO_FLAGS)
    lacking: Sequence[Rows] = ()
    unmigrated: Sequence[Sequence[bytes]] = ()
    documents_with_other: int = 0
    other_model: str = ""

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
            projected=self.flags[places] if len(self.flags) else NO_FLAGS,
            lacking=_together(self.lacking[start:end]),
            unmigrated=list(dict.fromkeys(chain.from_iterable(self.unmigrated[start:end])))[:MAX_HITS],
            documents_with_other=self.documents_with_other,
            other_model=self.other_model,
        )


def answer(snapshot: DocumentsSnapshot, asked: Asked, candidates: Sequence[Rows], clock: StageClock) -> Answers:
    """Scores each query's candidates and keeps its hits."""
    call = asked.call
    # Of groups all hits are ranked: which are kept depends on their attributes.
    kept = call.k if call.group is None else max(1, *map(len, candidates))
    in_order = asked.in_order and call.group is None
    scored = asked.scorer.score(snapshot, asked.queries, candidates, kept, in_order=in_order)
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
    answers = Answers(ranked, columns, groups, short, asked.documents)
    flags = asked.scorer.flags(snapshot, columns.rows)
    if len(flags):
        answers = _with_flags(answers, snapshot, asked, candidates, flags)
    clock.lap(Stage.COLUMNS)
    return answers


def _with_flags(
    answers: Answers, snapshot: DocumentsSnapshot, asked: Asked, candidates: Sequence[Rows], flags: Mask
) -> Answers:
    """With the rows that lack a vector of the model: of each query those of its hits, then the other candidates."""
    lacking = []
    for one, rows in zip(answers.ranked, candidates, strict=True):
        places = np.array(one.places, dtype=np.intp)
        hits = answers.columns.rows[places[flags[places]]]
        others = rows[asked.scorer.flags(snapshot, rows)]
        lacking.append(np.concatenate([hits, others[~np.isin(others, hits)]])[:MAX_HITS])
    unmigrated = [snapshot.hits(rows, Fields()).ids for rows in lacking] if asked.call.tell_unmigrated else []
    return replace(answers, flags=flags, lacking=lacking, unmigrated=unmigrated)


def _together(lacking: Sequence[Rows]) -> Rows:
    """The rows of some queries, each query's in its order."""
    if len(lacking) == 1:
        return lacking[0]
    return np.concatenate(lacking) if lacking else np.empty(0, dtype=np.uint64)


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
