"""The registry as a process keeps it on disk."""

import msgspec
import pytest

from kintsugi.durable import Disk
from kintsugi.registry.file import FORMAT_VERSION, RegistryFile, RegistryFileCorrupt, parse, serialise
from kintsugi.registry.records import Defaults, Snapshot, encode_record

SNAPSHOT = Snapshot("cluster", 2, 7, "digest", {"defaults": encode_record(Defaults(3, 2))})


def test_the_registry_file_returns_what_was_saved(tmp_path):
    """What was saved last is loaded; before the first save there is nothing."""
    file = RegistryFile(tmp_path / "registry.json")
    assert file.load() is None
    file.save(Snapshot("cluster", 1, 1, "", {}))
    file.save(SNAPSHOT)
    assert file.load() == SNAPSHOT


@pytest.mark.parametrize("length", [0, 1, 20, -1])
def test_a_torn_registry_file_is_refused(tmp_path, length):
    """A file that is cut anywhere is never taken for a registry, nor for none."""
    path = tmp_path / "registry.json"
    path.write_bytes(serialise(SNAPSHOT)[:length])
    with pytest.raises(RegistryFileCorrupt, match="cannot be read"):
        RegistryFile(path).load()


def test_a_registry_file_of_a_later_release_says_so():
    """Fields that this release does not know do not hide that the format is too new."""
    contents = msgspec.json.decode(serialise(SNAPSHOT)) | {"format_version": FORMAT_VERSION + 1, "later": True}
    with pytest.raises(RegistryFileCorrupt, match=f"format {FORMAT_VERSION + 1}, this release reads up to"):
        parse(msgspec.json.encode(contents), "shard-1")


def test_a_registry_with_unreadable_records_is_refused():
    """A record of an unknown kind is found when the file is read, not when somebody acts on it."""
    with pytest.raises(RegistryFileCorrupt, match="cannot be read"):
        parse(serialise(Snapshot("cluster", 1, 1, "", {"oracle/1": b"{}"})), "shard-1")


def test_a_registry_file_is_synced_before_it_gets_its_name(tmp_path):
    """The new content is on disk before it replaces the old, and the replacement before save returns."""
    calls = []
    disk = Disk(
        sync_file=lambda path: calls.append(("file", path.name)),
        sync_folder=lambda path: calls.append(("folder", path.name)),
        rename=lambda source, target: (calls.append(("rename", target.name)), source.replace(target)),
    )
    RegistryFile(tmp_path / "registry.json", disk).save(SNAPSHOT)
    assert calls == [("file", "registry.json.tmp"), ("rename", "registry.json"), ("folder", tmp_path.name)]
