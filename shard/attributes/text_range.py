"""A range of texts, as the span of keys that holds them. Pure.

Within the span the order of keys decides, but for texts that do not fit into a key and begin like a bound that does not
either: of those the whole text is compared.
"""

from kintsugi.filters.matching import decisive
from kintsugi.filters.tree import Range
from shard.attributes.layout import PAST_CUT, TEXT_KEY_BYTES, behind_text, cut_text, raised


class TextRange:
    """`start` is where the span begins and `stop` where it has ended, behind the prefix of the keys; b"" for no bound.
    The bounds of `condition` must be strings."""

    def __init__(self, condition: Range) -> None:
        bounds = {name: decisive(str(bound)) for name, bound in condition.bounds.items()}
        lows = [behind_text(bounds[name], itself=name == "above") for name in ("above", "at_least") if name in bounds]
        highs = [_stop(bounds[name], itself=name == "at_most") for name in ("below", "at_most") if name in bounds]
        self.start = max(lows, default=b"")
        self.stop = min(highs, default=b"")
        self._raised = {name: raised(bound) for name, bound in bounds.items() if len(bound) > TEXT_KEY_BYTES}

    def holds(self, key: bytes, rest: bytes) -> bool:
        """Whether a cut text, whose key is in the span, is in the range. `rest` is what is not in the key."""
        if not self._raised:
            return True
        text = cut_text(key) + raised(rest)
        fulfilled = {
            "above": text.__gt__,
            "at_least": text.__ge__,
            "below": text.__lt__,
            "at_most": text.__le__,
        }
        return all(fulfilled[name](bound) for name, bound in self._raised.items())


def _stop(text: bytes, *, itself: bool) -> bytes:
    """Behind all that may be in the range, cut texts that begin like a cut bound included."""
    return behind_text(text, itself=itself) + (PAST_CUT if len(text) > TEXT_KEY_BYTES else b"")
