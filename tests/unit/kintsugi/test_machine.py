"""What the operating system allows is read as it stands."""

import resource

from kintsugi.machine import filesystem_of, machine_status, memory_limit_bytes


def test_this_machine_is_told(tmp_path):
    """Limits, disk and clock are those of this process, also for a folder that is not there yet."""
    told = machine_status(tmp_path / "not" / "there" / "yet")
    assert told.open_files_limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert 0 < told.disk_free_bytes <= told.disk_total_bytes
    assert told.clock.seconds > 1_700_000_000


def test_the_tightest_control_group_counts(tmp_path):
    """A pod's bound holds for its containers; the numbers that mean no bound are none."""
    membership = tmp_path / "cgroup"
    membership.write_text("0::/pod/container\n4:memory:/docker/x\n")
    assert memory_limit_bytes(tmp_path, membership) == 0
    for path, text in (
        ("pod/container/memory.max", "max"),
        ("pod/memory.max", "1000"),
        ("memory/docker/x/memory.limit_in_bytes", "9223372036854771712"),
        ("memory/docker/memory.limit_in_bytes", "2000"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")
    assert memory_limit_bytes(tmp_path, membership) == 1000


def test_the_innermost_mount_names_the_file_system(tmp_path):
    """Also when its name holds a blank, and when something is mounted over something."""
    data = tmp_path / "my data"
    data.mkdir()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        f"2 1 0:9 / {str(data).replace(' ', chr(92) + '040')} rw shared:1 - tmpfs tmpfs rw\n"
        f"3 1 0:9 / {str(data).replace(' ', chr(92) + '040')} rw shared:1 - nfs4 server:/x rw\n"
    )
    assert filesystem_of(data, mounts) == "nfs4"
    assert filesystem_of(tmp_path, mounts) == "ext4"
    assert filesystem_of(tmp_path, tmp_path / "absent") == ""
