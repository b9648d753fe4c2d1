"""What documents say of themselves, and what is asked of them: random attributes, filters that hold for any part of them from
none to all, and the attributes that hits are grouped by.

Values are few, so that they repeat; some are odd on purpose: mixed kinds under one name, the same name written twice, numbers
at the edge of binary64, strings beyond what a filter may name.
"""

import json
import math
import random
from collections.abc import Callable
from typing import Any

from kintsugi.filters.tree import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Range

NUMBERS = 1000
# Not "pair.x": of an attribute that is written twice, a group search may overlook documents.
GROUPED = ("lang", "author.name", "n", "draft", "kind", "täg", "absent")

_TAGS = ("red", "green", "blue", "it's", "é", "\N{MUSICAL SYMBOL G CLEF}", "")
_LANGS = ("de", "en", "fr", True, False, 1, 1.0, 0, ["de", "en"], ["en", 7, None, "fr"], [], None, "x" * 1100)
_NAMES = ("ann", "bob", "Émile", "zoe", "zoë", "")
_EDGES = (0, -0.0, 2**53, 2**53 + 1, 5e-324, -1e300, 10**400, 0.1)
_DEEPEST = 3


class World:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    # --- Attributes

    def attributes(self) -> str:
        """A JSON object. Each attribute is sometimes absent."""
        chance = self._chance
        found: dict[str, Any] = {}
        if chance.random() < 0.9:
            found["n"] = chance.randrange(NUMBERS) if chance.random() < 0.9 else chance.choice(_EDGES)
        if chance.random() < 0.8:
            found["lang"] = chance.choice(_LANGS)
        if chance.random() < 0.7:
            found["tags"] = chance.sample(_TAGS, chance.randrange(4))
        if chance.random() < 0.6:
            found["draft"] = chance.random() < 0.2
        if chance.random() < 0.7:
            found["kind"] = chance.choices(("book", "film", "map", "score"), (60, 30, 9, 1))[0]
        if chance.random() < 0.5:
            found["author"] = self._author()
        if chance.random() < 0.2:
            found |= {"pair.x": chance.randrange(3), "pair": {"x": chance.choice(("a", "b", 1))}}
        if chance.random() < 0.1:
            found["täg"] = chance.choice(({}, {"b": None}, 1.5, "ü"))
        return json.dumps(found, ensure_ascii=chance.random() < 0.5)

    def _author(self) -> dict[str, Any]:
        return {"name": self._chance.choice(_NAMES), "born": {"year": self._chance.randrange(1900, 2000)}}

    # --- Filters

    def filter(self, depth: int = 1) -> Filter:
        chance = self._chance
        joined = chance.random()
        if depth > _DEEPEST or joined < 0.5:
            leaves: tuple[Callable[[], Filter], ...] = (
                self._equality,
                self._membership,
                self._interval,
                self._interval,
                self._text_range,
                self._presence,
            )
            return chance.choice(leaves)()
        if joined < 0.7:
            return Not(self.filter(depth + 1))
        filters = tuple(self.filter(depth + 1) for _ in range(chance.randint(1, 3)))
        return AllOf(filters) if joined < 0.85 else AnyOf(filters)

    def narrow(self) -> Filter:
        """Holds for about one document in fifty, or fewer."""
        window = self._window(self._chance.uniform(1, 30))
        return window if self._chance.random() < 0.6 else AllOf((window, self.filter()))

    def most(self) -> Filter:
        """Holds for about two documents of three, or more."""
        return Not(Range("n", above=self._chance.uniform(0.5, 0.9) * NUMBERS))

    def grouping(self) -> str:
        return self._chance.choice(GROUPED)

    def _equality(self) -> Filter:
        name, values = self._chance.choice(
            (
                ("lang", ("de", "fr", True, 1, 0.0, "nobody", "")),
                ("tags", _TAGS),
                ("draft", (True, False)),
                ("kind", ("book", "film", "map", "score")),
                ("pair.x", ("a", 1, 2)),
                ("author.name", _NAMES),
                ("n", (*range(5), 2.0**53, -0.0, 0.1)),
                ("absent", (1,)),
            )
        )
        return Equals(name, self._chance.choice(values))

    def _membership(self) -> Filter:
        chance = self._chance
        match chance.randrange(4):
            case 0:
                numbers = range(NUMBERS) if chance.random() < 0.2 else range(50)
                return OneOf("n", tuple(chance.sample(numbers, chance.choice((1, 5, len(numbers))))))
            case 1:
                return OneOf("tags", tuple(chance.sample(_TAGS, chance.randint(1, 3))))
            case 2:
                return OneOf("lang", tuple(chance.sample(("de", "en", "fr", True, 1.0, 0, "nobody"), 3)))
            case _:
                return OneOf("author.born.year", tuple(chance.sample(range(1900, 2000), chance.randint(1, 60))))

    def _interval(self) -> Filter:
        """Of numbers; its width has any order of magnitude."""
        window = self._window(math.exp(self._chance.uniform(0, math.log(2 * NUMBERS))))
        match self._chance.randrange(4):
            case 0:
                return Range("n", above=window.at_least)
            case 1:
                return Range("n", at_most=window.below)
            case 2:
                year = self._chance.randrange(1900, 2000)
                return Range("author.born.year", at_least=year, below=year + self._chance.choice((0, 1, 10, 100)))
            case _:
                return window

    def _window(self, width: float) -> Range:
        start = self._chance.uniform(-width / 2, NUMBERS - width / 2)
        return Range("n", at_least=start, below=start + width)

    def _text_range(self) -> Filter:
        name, values = self._chance.choice((("tags", _TAGS), ("author.name", _NAMES), ("lang", ("a", "de", "xx"))))
        low, high = self._chance.choice(values), self._chance.choice(values)
        match self._chance.randrange(3):
            case 0:
                return Range(name, at_least=low)
            case 1:
                return Range(name, below=high)
            case _:
                return Range(name, above=min(low, high), at_most=max(low, high))

    def _presence(self) -> Filter:
        return Exists(self._chance.choice(("lang", "tags", "draft", "author", "author.born", "täg", "täg.b", "absent")))
