"""What a worker writes and asks for: ids of all kinds, vectors some of which are twins, items with conditions that hold or not,
and questions with every option of a search. Depends on the seed and on what the oracle knows, on nothing else.
"""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.model.oracle import Condition, Item, Kind, Oracle
from harness.model.ranking import Question, between_scores
from harness.model.world import World
from kintsugi.filters.tree import AllOf, Filter

# No search may reach deeper.
_DEEPEST = 1000


@dataclass(frozen=True, slots=True)
class Shape:
    """A collection of the test. `pool` ids are written; `seeded` of them in one bulk call at the start. It is encoded anew,
    now and then, in one of `encodings`."""

    name: str
    metric: str
    stored: str
    dimension: int
    shards: int
    replicas: int
    pool: int
    seeded: int
    share: float
    encodings: tuple[str, ...]


class Content:
    def __init__(self, shape: Shape, oracle: Oracle, chance: random.Random) -> None:
        self._shape = shape
        self._oracle = oracle
        self._random = chance
        self._numbers = np.random.default_rng(chance.getrandbits(64))
        self._world = World(chance)
        self.ids = [self._new_id(number) for number in range(shape.pool)]
        self._base = self._numbers.standard_normal((8, shape.dimension))
        self._twins = [self._new_vector() for _ in range(12)]

    # --- What is written

    def _new_id(self, number: int) -> int | str:
        match self._random.randrange(6):
            case 0:
                return 2**64 - 1 - number
            case 1:
                return str(number)  # another document than the integer
            case 2:
                return f"héllo/{number} \N{SNOWMAN}"
            case 3:
                return f"{number}:".ljust(512, "x")
            case _:
                return number

    def pick(self, count: int) -> list[int | str]:
        """Different ids, half of them of existing documents."""
        existing = self._oracle.columns.ids
        picked = [
            self._random.choice(existing) if existing and self._random.random() < 0.5 else self._random.choice(self.ids)
            for _ in range(count)
        ]
        return list(dict.fromkeys(picked))

    def _new_vector(self) -> Any:
        mixed = self._numbers.standard_normal(8) @ self._base + 0.1 * self._numbers.standard_normal(
            self._shape.dimension
        )
        return mixed.astype(np.float32)

    def _vector(self) -> Any:
        """A vector as it is sent. Some are twins of others, so that scores tie."""
        vector = self._random.choice(self._twins) if self._random.random() < 0.15 else self._new_vector()
        return vector.astype(np.float16) if self._random.random() < 0.2 else vector

    def _stored(self, vector: Any) -> Any:
        return vector.astype("<f2" if self._shape.stored == "f16" else "<f4")

    def item(self, doc_id: int | str, kind: Kind, step: int, *, plain: bool) -> Item:
        condition, version = (Condition.ALWAYS, 0) if plain else self._condition(doc_id, kind)
        if kind is Kind.DELETE:
            return Item(doc_id, kind, condition, version)
        attributes = self._world.attributes() if kind is Kind.PATCH or self._random.random() < 0.7 else None
        if kind is Kind.PATCH:
            return Item(doc_id, kind, condition, version, attributes=attributes)
        text = f"text {step}" if self._random.random() < 0.5 else ""
        return Item(doc_id, kind, condition, version, self._stored(self._vector()), attributes, text)

    def _condition(self, doc_id: int | str, kind: Kind) -> tuple[Condition, int]:
        wanted = self._random.choices(list(Condition), [5, 2, 2, 3])[0]
        if kind is Kind.DELETE and wanted is not Condition.VERSION:
            return Condition.ALWAYS, 0
        if wanted is not Condition.VERSION:
            return wanted, 0
        known = self._oracle.documents.get(doc_id)
        right = known.version if known is not None else 0
        version = right if right and self._random.random() < 0.7 else max(1, right + self._random.choice([-1, 1, 7]))
        return wanted, version

    # --- What is asked

    def query(self) -> Any:
        return self._random.choice(self._twins) if self._random.random() < 0.2 else self._new_vector()

    def filter(self) -> Filter:
        return self._world.filter()

    def doomed(self) -> Filter:
        """A filter to delete by: mostly of a few documents, so that some are left to be searched."""
        broad = self._world.filter()
        share = self._oracle.columns.fulfilling(broad).mean() if self._oracle.documents else 0.0
        spared = share > 0.05 and (self._shape.pool > 100 or self._random.random() < 0.9)
        return AllOf((broad, self._world.narrow())) if spared else broad

    def purge(self) -> Filter:
        """A filter to delete most documents by."""
        return self._world.most()

    def question(self, query: Any) -> Question:
        """Half of them with a filter, some with one or more of the other options; `query` is the first to be asked."""
        chance = self._random
        k = chance.choice([1, 3, 10, 10, 10, 30, 100, _DEEPEST])
        exact = chance.random() < 0.5
        condition = self._world.filter() if chance.random() < 0.5 else None
        least = between_scores(self._oracle, query, condition, chance.random()) if chance.random() < 0.15 else None
        cut = chance.random()
        if cut < 0.15:
            size = chance.choice([1, 1, 2, 5, 10])
            return Question(min(k, 50), exact, condition, least, 0, self._world.grouping(), size)
        offset = min(chance.choice([1, 7, 30, 200]), _DEEPEST - k) if cut < 0.3 else 0
        return Question(k, exact, condition, least, offset)
