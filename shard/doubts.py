"""How unsure an upgrade's gallery map is of documents, read from their old vectors in pieces."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from kintsugi.ann.vector_index import Rows
from shard.storage import Storage
from shard.upgrading import LoadedUpgrade

_PIECE: Final = 1000


def doubts(
    storage: Storage, upgrade_now: Callable[[], LoadedUpgrade | None], model: int, rows: Rows
) -> npt.NDArray[np.float64] | None:
    """Higher is less sure. None when the upgrade has no predictor for vectors of the model that are missing."""
    upgrade = upgrade_now()
    if upgrade is None or upgrade.uncertainty is None or model != upgrade.new_number:
        return None
    found = np.empty(len(rows), dtype=np.float64)
    for at in range(0, len(rows), _PIECE):
        piece = slice(at, at + _PIECE)
        there, old = storage.vectors(upgrade.old_number, rows[piece])
        # What has neither vector cannot be found at all.
        found[piece] = np.where(there, upgrade.uncertainty.of(old), np.inf)
    return found
