"""Keeps indexes on disk, so that a restart follows the journal from there and builds nothing.

A checkpoint is a folder with the graph's file, the encoding and a manifest, in this order: written under a temporary
name, synced, their checksums noted in the manifest, the manifest synced, the folder renamed, its parent synced. Hence
what bears a final name is whole or was damaged later, and all checksums are verified on reading.
The codes by row are too large to be written anew for each checkpoint: their files lie beside the folders, are synced before
a checkpoint names them, and may be newer than it.

Guarantees: `load_newest` yields whole checkpoints only, newest first, and removes the others it meets; the two newest
are kept, with the codes of their versions; version numbers are never handed out twice, not even after a crash. Does not
know whether a checkpoint fits the storage: that is the indexer's question.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import usearch

from kintsugi import failpoints
from kintsugi.ann import artifact
from kintsugi.ann.encoded_index import PLANES_DTYPE, EncodedIndex, planes_path, scan_path, vectors_path
from kintsugi.ann.encoding import Encoding
from kintsugi.ann.row_codes import RowCodes, RowCodesIdentity
from kintsugi.ann.scan_codes import ScanCodes
from kintsugi.ann.vector_index import Counters, GraphParameters, VectorIndex
from kintsugi.durable import DISK, Disk, publish_folder, remove_folder, write_file
from kintsugi.metrics import Metric
from kintsugi.position import Position
from kintsugi.telemetry import LogEvent, logger
from shard.code_files import CodeFiles

FORMAT_VERSION = 2

_KEPT = 2
_MANIFEST = "manifest.json"
_INDEX = "index.usearch"
_ENCODING = "encoding.bin"
_LAST_NUMBER = "last-number"
# Held while a number is taken: the indexers of a replica are threads of one process.
_NUMBERS = threading.Lock()
_FOLDER_NAME = re.compile(r"v(\d{8})-(\d{20})")
_TEMPORARY_PREFIX = "tmp-"

_log = logger("checkpoint")


class CheckpointTorn(Exception):
    """A checkpoint that is not whole, or not of this model, format or usearch."""


@dataclass(frozen=True, slots=True)
class IndexedModel:
    """Whose vectors an index holds. `number` is the model's within its collection."""

    number: int
    dimension: int
    metric: Metric


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """One built index. `number` grows with every index this replica builds for the model."""

    number: int
    index: EncodedIndex

    @property
    def encoding(self) -> str:
        return self.index.encoding.name


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a checkpoint folder holds. `parameters` are those the graph was built with; `scan`, `planes` and `vectors` are
    the files of codes and vectors beside the folder; `vectors_dtype` is that of the latter, in numpy's letters."""

    format_version: int
    usearch_version: str
    model: IndexedModel
    number: int
    encoding: str
    encoding_sha256: str
    scan: RowCodesIdentity | None
    planes: RowCodesIdentity | None
    parameters: GraphParameters
    counters: Counters
    epoch: int
    seq: int
    digest: str
    index_sha256: str
    # Checkpoints of earlier builds have none.
    vectors: RowCodesIdentity | None = None
    vectors_dtype: str = ""

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.seq, bytes.fromhex(self.digest))


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifest: msgspec.Raw
    sha256: str


# Made once: msgspec crashes when two threads are the first to decode the same type.
_READ_MANIFEST = msgspec.json.Decoder(Manifest)
_READ_ENVELOPE = msgspec.json.Decoder(_Envelope)


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A saved index that does not count yet."""

    folder: Path
    version: IndexVersion
    position: Position
    counters: Counters


class Checkpoints:
    """The checkpoints of one (replica, model)."""

    def __init__(self, folder: Path, model: IndexedModel, parameters: GraphParameters, disk: Disk = DISK) -> None:
        self._folder = folder
        self._model = model
        self._parameters = parameters
        self._disk = disk
        folder.mkdir(parents=True, exist_ok=True)
        disk.sync_folder(folder.parent)
        for leftover in folder.glob(f"{_TEMPORARY_PREFIX}*"):
            remove_folder(leftover, disk)
        self.code_files = CodeFiles(folder)
        self.code_files.remove_all_but(self._numbers())

    def seqs(self) -> list[int]:
        """The sequence numbers of the checkpoints, newest first."""
        return [seq for seq, _, _ in self._present()]

    def next_number(self) -> int:
        """Takes the next version number, durably. The indexes of a replica, of which each has a folder beside the others',
        never take the same."""
        with _NUMBERS:
            others = (_last_number(path) for path in self._folder.parent.glob(f"*/{_LAST_NUMBER}"))
            number = 1 + max([0, *others, *self._numbers()])
            write_file(self._folder / _LAST_NUMBER, b"%d\n" % number, self._disk)
        return number

    def save(self, version: IndexVersion, position: Position) -> Unpublished:
        """Writes the graph's file. Quick: searches wait while usearch writes."""
        folder = self._folder / f"{_TEMPORARY_PREFIX}{_folder_name(version.number, position.seq)}"
        if folder.exists():
            remove_folder(folder, self._disk)
        folder.mkdir()
        counters = version.index.graph.save(folder / _INDEX)
        return Unpublished(folder, version, position, counters)

    def publish(self, saved: Unpublished) -> None:
        """Makes a saved index count, durably, and removes all but the newest two."""
        saved.version.index.sync_codes()
        (saved.folder / _ENCODING).write_bytes(artifact.pack(saved.version.index.encoding))
        for name in (_INDEX, _ENCODING):
            self._disk.sync_file(saved.folder / name)
        manifest = self._manifest(saved)
        (saved.folder / _MANIFEST).write_bytes(_sealed(manifest))
        self._disk.sync_file(saved.folder / _MANIFEST)
        target = self._folder / _folder_name(saved.version.number, saved.position.seq)
        failpoints.hit("checkpoint.before_rename")
        if target.exists():
            remove_folder(target, self._disk)
        publish_folder(saved.folder, target, self._disk)
        failpoints.hit("checkpoint.after_rename")
        for _, _, old in self._present()[_KEPT:]:
            remove_folder(old, self._disk)
        # A later version may be in the making, or serve without a checkpoint yet.
        self.code_files.remove_all_but(self._numbers(), below=saved.version.number)

    def load_newest(self) -> Iterator[tuple[IndexVersion, Position]]:
        """Loads the checkpoints, newest first; those that are not whole are removed."""
        for _, _, folder in self._present():
            try:
                yield self._load(folder)
            except CheckpointTorn as torn:
                _log.warning(LogEvent.CHECKPOINT_REMOVED, folder=folder.name, why=str(torn))
                remove_folder(folder, self._disk)

    def remove(self, version: IndexVersion, position: Position) -> None:
        """Forgets a checkpoint that does not fit the storage."""
        version.index.close()
        remove_folder(self._folder / _folder_name(version.number, position.seq), self._disk)

    def _present(self) -> list[tuple[int, int, Path]]:
        found = [(match, path) for path in self._folder.iterdir() if (match := _FOLDER_NAME.fullmatch(path.name))]
        return sorted(((int(match[2]), int(match[1]), path) for match, path in found), reverse=True)

    def _numbers(self) -> set[int]:
        return {number for _, number, _ in self._present()}

    def _manifest(self, saved: Unpublished) -> Manifest:
        index = saved.version.index
        return Manifest(
            format_version=FORMAT_VERSION,
            usearch_version=usearch.__version__,
            model=self._model,
            number=saved.version.number,
            encoding=index.encoding.name,
            encoding_sha256=_sha256(saved.folder / _ENCODING),
            scan=None if index.scan is None else index.scan.codes.identity,
            planes=None if index.planes is None else index.planes.identity,
            parameters=index.graph.parameters,
            counters=saved.counters,
            epoch=saved.position.epoch,
            seq=saved.position.seq,
            digest=saved.position.digest.hex(),
            index_sha256=_sha256(saved.folder / _INDEX),
            vectors=None if index.vectors is None else index.vectors.identity,
            vectors_dtype="" if index.vectors is None else index.vectors.dtype.str,
        )

    def _load(self, folder: Path) -> tuple[IndexVersion, Position]:
        manifest = self._read_manifest(folder)
        try:
            if _sha256(folder / _INDEX) != manifest.index_sha256:
                raise CheckpointTorn("the index file does not match its checksum")
            encoding = self._load_encoding(folder, manifest)
            graph = VectorIndex.load(folder / _INDEX, encoding, self._parameters, manifest.counters)
            codes = self._load_scan(manifest, graph), self._load_planes(manifest), self._load_vectors(manifest)
            index = EncodedIndex(graph, *codes)
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointTorn(f"the index cannot be loaded: {error}") from error
        return IndexVersion(manifest.number, index), manifest.position

    def _load_encoding(self, folder: Path, manifest: Manifest) -> Encoding:
        packed = (folder / _ENCODING).read_bytes()
        if hashlib.sha256(packed).hexdigest() != manifest.encoding_sha256:
            raise CheckpointTorn("the encoding does not match its checksum")
        return artifact.unpack(self._model.metric, self._model.dimension, packed)

    def _load_scan(self, manifest: Manifest, graph: VectorIndex) -> ScanCodes | None:
        encoding = graph.encoding.scan
        if manifest.scan is None or encoding is None:
            return None
        path = scan_path(self.code_files.stem(manifest.number))
        return ScanCodes.open(path, manifest.scan, encoding, graph.rows())

    def _load_planes(self, manifest: Manifest) -> RowCodes | None:
        if manifest.planes is None:
            return None
        path = planes_path(self.code_files.stem(manifest.number))
        return RowCodes.open(path, manifest.planes, PLANES_DTYPE, manifest.counters.past_last_row)

    def _load_vectors(self, manifest: Manifest) -> RowCodes | None:
        if manifest.vectors is None:
            return None
        path = vectors_path(self.code_files.stem(manifest.number))
        return RowCodes.open(path, manifest.vectors, manifest.vectors_dtype, manifest.counters.past_last_row)

    def _read_manifest(self, folder: Path) -> Manifest:
        try:
            envelope = _READ_ENVELOPE.decode((folder / _MANIFEST).read_bytes())
            if hashlib.sha256(envelope.manifest).hexdigest() != envelope.sha256:
                raise CheckpointTorn("the manifest does not match its checksum")
            manifest = _READ_MANIFEST.decode(envelope.manifest)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CheckpointTorn(f"the manifest cannot be read: {error}") from error
        if manifest.format_version != FORMAT_VERSION or manifest.usearch_version != usearch.__version__:
            raise CheckpointTorn(
                f"format {manifest.format_version} by usearch {manifest.usearch_version}, "
                f"expected {FORMAT_VERSION} by {usearch.__version__}"
            )
        if manifest.model != self._model or _links(manifest.parameters) != _links(self._parameters):
            raise CheckpointTorn(f"holds {manifest.model} with {manifest.parameters}, expected {self._model}")
        return manifest


def _folder_name(number: int, seq: int) -> str:
    return f"v{number:08d}-{seq:020d}"


def _sealed(manifest: Manifest) -> bytes:
    encoded = msgspec.json.encode(manifest)
    return msgspec.json.encode(_Envelope(msgspec.Raw(encoded), hashlib.sha256(encoded).hexdigest()))


def _last_number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _links(parameters: GraphParameters) -> tuple[int, int]:
    return parameters.connectivity, parameters.wide_connectivity


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
