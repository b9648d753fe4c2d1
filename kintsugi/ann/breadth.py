"""How many candidates a search of the graph looks at: as few as find what is wanted, learned from the recall of searches. Pure.

How broad a search must be depends on the queries more than on the vectors: queries that are unlike every document, as
questions are, lie far from all of them, and the graph leads to their neighbours less surely than from one document to the
next. On 30,000 dictionary glosses and questions about them, 128 candidates found 0.973 of the true best 10, 512 found 0.996;
of documents as queries 64 found 0.999. No sample of the documents tells that: the queries themselves must.
"""

# What searches shall find of the true best.
TARGET = 0.995
# Twice as broad takes almost twice as long; beyond this more candidates hardly find more.
MOST = 512

_GROWTH = 1.5
# Hits that are compared before a change: the error of a mean of 0.995 is then 0.0035.
_ENOUGH = 400
# Far above the target, for long: there is time to be gained.
_PLENTY, _LONG = 0.9995, 4000


class Breadth:
    """`value` begins with `least`, and is never below. Written by one thread, read by any."""

    def __init__(self, least: int) -> None:
        self.value = least
        self._least = least
        self._hits = 0
        self._found = 0.0

    def note(self, recall: float, hits: int) -> None:
        """Takes the part of its true best `hits` that a search found, which asked for nothing else than the value."""
        self._hits += hits
        self._found += recall * hits
        if self._hits < _ENOUGH:
            return
        mean = self._found / self._hits
        if mean < TARGET:
            self._change(min(MOST, round(self.value * _GROWTH)))
        elif self._hits >= _LONG:
            self._change(max(self._least, round(self.value / _GROWTH)) if mean >= _PLENTY else self.value)

    def _change(self, value: int) -> None:
        """What was found with another value tells nothing of this one."""
        self.value = max(value, self._least)
        self._hits, self._found = 0, 0.0
