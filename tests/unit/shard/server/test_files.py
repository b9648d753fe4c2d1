"""The data folder of a shard server: swaps that a crash interrupts, the member id."""

import dataclasses

import pytest

from kintsugi.durable import DISK, Disk
from kintsugi.errors import FailedPrecondition
from shard.folders import Folders
from shard.identity import claim, member_id


class PowerCut(Exception):
    """The process ends here."""


def test_a_swap_that_a_crash_interrupts_anywhere_ends_with_the_old_or_the_new_database(tmp_path):
    """Whichever call to the disk is the last, the next start finds the old database or the verified copy, whole."""
    ends = set()
    for survived_calls in range(40):
        folder = Folders(tmp_path / str(survived_calls)).replica("c", 0)
        folder.prepare()
        for path, content in ((folder.database, "old"), (folder.index, "old index"), (folder.incoming, "new")):
            path.mkdir()
            (path / "data.mdb").write_text(content)
        finished = _crash_after(survived_calls, folder)
        folder.prepare()
        found = (folder.database / "data.mdb").read_text()
        ends.add(found)
        assert found == "old" or not folder.index.exists(), "an index must not outlive the database it was built from"
        assert {path.name for path in folder.path.iterdir()} <= {"db", "index"}
        if finished:
            assert found == "new"
            break
    else:
        pytest.fail("the swap never ended")
    assert ends == {"old", "new"}


def _crash_after(calls, folder):
    """Takes the copy over with a disk that fails after so many calls. Whether it came to its end."""
    left = iter(range(calls))

    def counted(call):
        def run(*arguments):
            if next(left, None) is None:
                raise PowerCut
            call(*arguments)

        return run

    disk = Disk(**{field.name: counted(getattr(DISK, field.name)) for field in dataclasses.fields(Disk)})
    failing = dataclasses.replace(folder, disk=disk)
    try:
        failing.accept_copy()
        failing.prepare()
    except PowerCut:
        return False
    return True


def test_what_a_crash_leaves_behind_is_cleared(tmp_path):
    """Half a copy from a peer and half a copy for a peer are worth nothing at the next start."""
    folder = Folders(tmp_path).replica("c", 0)
    for name in ("incoming", "snapshot-x1", "snapshot-x2", "db"):
        (folder.path / name).mkdir(parents=True)
        (folder.path / name / "data.mdb").touch()
    folder.prepare()
    assert [path.name for path in folder.path.iterdir()] == ["db"]


def test_what_is_set_aside_keeps_its_name_and_its_content(tmp_path):
    """A database set aside is found again under its collection and shard."""
    root = Folders(tmp_path)
    database = root.replica("c", 4).database
    database.mkdir(parents=True)
    (database / "data.mdb").write_text("torn")
    target = root.set_aside(database, "corrupt")
    assert target.parent == tmp_path / "corrupt"
    assert target.name.startswith("c-4-db-")
    assert (target / "data.mdb").read_text() == "torn"
    assert root.replicas() == [("c", 4)]


def test_a_member_keeps_its_id(tmp_path):
    """The id is drawn once per folder; something else in its file is refused, not replaced."""
    first = member_id(tmp_path)
    assert member_id(tmp_path) == first
    (tmp_path / "other").mkdir()
    assert member_id(tmp_path / "other") != first
    (tmp_path / "member-id").write_text("shard-7")
    with pytest.raises(FailedPrecondition, match="'shard-7', which is not a member id"):
        member_id(tmp_path)


def test_a_data_folder_has_one_server(tmp_path):
    """A second server on the same folder is refused for as long as the first one runs."""
    with claim(tmp_path), pytest.raises(FailedPrecondition, match="cannot be claimed") as refused:
        claim(tmp_path)
    assert refused.value.reason == "FOLDER_IN_USE"
    claim(tmp_path).close()
