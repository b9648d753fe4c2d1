"""The index of one model in a replica, the thread that keeps it, and the one that searches it: opened and closed together."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kintsugi.durable import remove_folder, write_file
from kintsugi.registry.records import Model
from shard.checkpoint import IndexedModel
from shard.crossing import Crossings
from shard.effective import EffectiveSource
from shard.indexer import Indexer, IndexerSettings
from shard.rebuilder import Outside, Wanted
from shard.recall_samples import RecallSamples, samples_per_window
from shard.search_call import SearchCall, ShardHits
from shard.searcher import Observe, Searcher, SearcherSettings
from shard.settings import ShardSettings
from shard.upgrade_quality import QualitySamples

# Beside the checkpoints: the projection whose vectors are in them.
_PROJECTION = "projection"


@dataclass(frozen=True, slots=True)
class Around:
    """What the searches of an index ask of their replica, and tell it; what its builds have to do with the rest of the server."""

    outside: Outside
    crossings: Crossings
    observe: Observe


@dataclass(frozen=True, slots=True)
class ModelIndex:
    model: Model
    folder: Path
    source: EffectiveSource
    indexer: Indexer
    searcher: Searcher
    recall: RecallSamples
    quality: QualitySamples

    @classmethod
    def open(
        cls,
        model: Model,
        folder: Path,
        source: EffectiveSource,
        wanted: Wanted,
        settings: ShardSettings,
        around: Around,
    ) -> "ModelIndex":
        """Starts both threads; the index is then on its way."""
        indexer = Indexer(
            source,
            IndexedModel(model.number, model.dimension, model.metric),
            folder,
            wanted=wanted,
            settings=IndexerSettings(
                checkpoint_changes=settings.checkpoint_every_changes, checkpoint_s=settings.checkpoint_every_s
            ),
            outside=around.outside,
        )
        recall = RecallSamples(samples_per_window(settings.recall_samples_per_minute))
        quality = QualitySamples()
        waiting = SearcherSettings(max_waiting_queries=settings.max_queued_searches)

        def observed(call: SearchCall, hits: ShardHits) -> None:
            recall.observe(call, hits)
            quality.observe(call, hits)
            around.observe(call, hits)

        searcher = Searcher(source, indexer, settings=waiting, observe=observed, crossings=around.crossings)
        indexer.start()
        searcher.start()
        return cls(model, folder, source, indexer, searcher, recall, quality)

    @property
    def is_serving(self) -> bool:
        return self.indexer.serving is not None

    def close(self) -> None:
        """Saves a checkpoint and ends the threads, whatever of it fails. Blocks."""
        with ExitStack() as closing:
            closing.callback(self.indexer.close)
            closing.callback(self.searcher.close)

    def discard(self) -> None:
        """Closes it for good: its files are removed."""
        self.close()
        remove_folder(self.folder)


def prepare_folder(folder: Path, projection: str) -> None:
    """Makes the folder of an index that is to hold vectors of this projection, '' for none, where it lacks its own. What was
    made by another one is worth nothing. One that was made by a projection stays right when there is none any more: every
    document has got its own vector by then."""
    marker = folder / _PROJECTION
    made_by = marker.read_text() if marker.exists() else ""
    if projection and made_by != projection and folder.exists():
        remove_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if projection and made_by != projection:
        write_file(marker, projection.encode())
