"""Formatting and opening a data directory, and what is said when that cannot be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from eraft.errors import ConfigError, LogCorrupt, StorageError
from eraft.storage.directory import (
    DataDirectory,
    Identity,
    format_directory,
    open_directory,
    read_pid,
)
from eraft.storage.files import DiskFiles
from eraft.storage.segments import HEADER_BYTES
from eraft.storage.state import RocksStore
from eraft.storage.wal import LogOptions, WriteAheadLog
from eraft.types import ConfState, HardState, ReplicaAddress

METASERVER = {5: "a.example:16379", 2: "b:1", 9: "[::1]:65535"}
SEGMENT = HEADER_BYTES + 10_000
ROOT = os.geteuid() == 0


def formatted(path: Path, node_id: int = 2) -> Identity:
    return format_directory(str(path), "c1", node_id, METASERVER, segment_size_bytes=SEGMENT)


def open_log(directory: DataDirectory) -> WriteAheadLog:
    options = LogOptions(directory.identity.store_id, SEGMENT)
    return WriteAheadLog.open(DiskFiles(directory.log_path), options)


def test_identity_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    identity = formatted(path)
    assert identity.cluster_id == "c1"
    assert identity.node_id == 2
    assert list(identity.metaserver.items()) == list(METASERVER.items())
    with open_directory(str(path)) as directory:
        assert directory.identity == identity
        assert list(directory.identity.metaserver) == list(METASERVER)
        assert directory.free_bytes() > 0
    assert formatted(tmp_path / "other").store_id != identity.store_id


def test_a_founding_member_has_the_founding_state(tmp_path: Path) -> None:
    formatted(tmp_path / "data")
    with open_directory(str(tmp_path / "data")) as directory:
        log = open_log(directory)
        state = log.groups[0].state
        assert (state.gid, state.replica_id, state.conf) == (0, 1, ConfState((1, 2, 3)))
        assert state.members == (
            ReplicaAddress(1, 2),
            ReplicaAddress(2, 5),
            ReplicaAddress(3, 9),
        )
        assert state.hard_state == HardState()
        assert (state.base_index, state.base_term) == (0, 0)
        assert state.generation > 0
        assert log.position == 1
        log.close()


def test_another_node_begins_with_an_empty_log(tmp_path: Path) -> None:
    formatted(tmp_path / "data", node_id=7)
    with open_directory(str(tmp_path / "data")) as directory:
        log = open_log(directory)
        assert dict(log.groups) == {}
        assert log.position == 0
        assert log.segments == 1
        log.close()


@pytest.mark.parametrize(
    ("cluster_id", "node_id", "metaserver", "message"),
    [
        ("", 1, METASERVER, "cluster id"),
        ("c", 0, METASERVER, "node id 0"),
        ("c", 2**32, METASERVER, "node id 4294967296"),
        ("c", 1, {}, "founding list is empty"),
        ("c", 1, {0: "a:1"}, "metaserver node id 0"),
        ("c", 1, {1: "a"}, "'a' of node 1"),
        ("c", 1, {1: "a:"}, "'a:'"),
        ("c", 1, {1: ":1"}, "':1'"),
        ("c", 1, {1: "a:0"}, "'a:0'"),
        ("c", 1, {1: "a:65536"}, "'a:65536'"),
        ("c", 1, {1: "a:x"}, "'a:x'"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, cluster_id: str, node_id: int, metaserver: dict[int, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        format_directory(str(tmp_path / "data"), cluster_id, node_id, metaserver)
    assert not (tmp_path / "data").exists()


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        formatted(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    formatted(tmp_path / "data")
    with pytest.raises(ConfigError, match="not empty"):
        formatted(tmp_path / "data")


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file"):
        formatted(tmp_path / "file")
    with pytest.raises(ConfigError, match="not a directory"):
        open_directory(str(tmp_path / "file"))


def test_unformatted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not formatted.*eraft init"):
        open_directory(str(tmp_path))
    with pytest.raises(ConfigError, match="not a directory"):
        open_directory(str(tmp_path / "nothing"))


def rewrite(path: Path, **changes: object) -> None:
    file = path / "identity.json"
    file.write_bytes(orjson.dumps(orjson.loads(file.read_bytes()) | changes))


def test_a_newer_format(tmp_path: Path) -> None:
    formatted(tmp_path / "data")
    rewrite(tmp_path / "data", format_version=2, cluster_id=None)
    with pytest.raises(ConfigError, match=r"identity.json has format version 2.* knows 1"):
        open_directory(str(tmp_path / "data"))


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 0},
        {"format_version": "1"},
        {"format_version": None},
        {"cluster_id": 3},
        {"cluster_id": ""},
        {"node_id": "2"},
        {"node_id": True},
        {"store_id": "xyz"},
        {"store_id": "A" * 32},
        {"store_id": None},
        {"metaserver": []},
        {"metaserver": {}},
        {"metaserver": {"x": "a:1"}},
        {"metaserver": {"1": 5}},
    ],
)
def test_a_damaged_identity(tmp_path: Path, changes: dict[str, object]) -> None:
    formatted(tmp_path / "data")
    rewrite(tmp_path / "data", **changes)
    with pytest.raises(ConfigError, match=r"identity\.json is damaged"):
        open_directory(str(tmp_path / "data"))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"null", b"5"])
def test_an_identity_that_is_something_else(tmp_path: Path, text: bytes) -> None:
    formatted(tmp_path / "data")
    (tmp_path / "data" / "identity.json").write_bytes(text)
    with pytest.raises(ConfigError, match=r"identity\.json is damaged"):
        open_directory(str(tmp_path / "data"))


def test_an_identity_cut_at_any_byte(tmp_path: Path) -> None:
    formatted(tmp_path / "data")
    text = (tmp_path / "data" / "identity.json").read_bytes().rstrip()
    for end in range(len(text)):
        (tmp_path / "data" / "identity.json").write_bytes(text[:end])
        with pytest.raises(ConfigError, match=r"identity\.json is damaged"):
            open_directory(str(tmp_path / "data"))


def test_a_directory_in_use_names_the_process(tmp_path: Path) -> None:
    formatted(tmp_path / "data")
    code = (
        "import sys\n"
        "from eraft.storage.directory import open_directory\n"
        "directory = open_directory(sys.argv[1])\n"
        "directory.write_pid()\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        assert read_pid(str(tmp_path / "data")) == holder.pid
        with pytest.raises(ConfigError, match=f"in use by another process, pid {holder.pid}$"):
            open_directory(str(tmp_path / "data"))
        holder.kill()
    assert read_pid(str(tmp_path / "data")) == holder.pid
    with open_directory(str(tmp_path / "data")) as directory:
        directory.write_pid()
        assert read_pid(str(tmp_path / "data")) == os.getpid()
    assert read_pid(str(tmp_path / "data")) is None


def test_the_lock_is_released(tmp_path: Path) -> None:
    formatted(tmp_path / "data")
    for _ in range(3):
        directory = open_directory(str(tmp_path / "data"))
        with pytest.raises(ConfigError, match="in use"):
            open_directory(str(tmp_path / "data"))
        directory.close()
        directory.close()


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[list[Path]]:
    """Mount points to unmount at the end."""
    made: list[Path] = []
    yield made
    for path in made:
        subprocess.run(["umount", str(path)], check=True)


def mount_tmpfs(mounts: list[Path], path: Path, size: str) -> None:
    if not ROOT:
        pytest.skip("needs root to mount a small tmpfs")
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], check=True)
    mounts.append(path)


def test_a_full_disk(tmp_path: Path, mounts: list[Path]) -> None:
    mount_tmpfs(mounts, tmp_path / "disk", "1m")
    data = tmp_path / "disk" / "data"
    with pytest.raises(ConfigError, match=r"(?s)disk.* is full|no room"):
        format_directory(str(data), "c", 1, METASERVER, segment_size_bytes=2 << 20)
    assert list(data.iterdir()) == []
    formatted(data)
    with open_directory(str(data)) as directory:
        (tmp_path / "disk" / "filler").write_bytes(bytes(directory.free_bytes() // 4096 * 4096))
        with pytest.raises(StorageError, match="disk is full"):
            RocksStore(directory.state_path)
        with pytest.raises(ConfigError, match=r"disk of .* is full"):
            directory.write_pid()


def test_a_read_only_disk(tmp_path: Path, mounts: list[Path]) -> None:
    mount_tmpfs(mounts, tmp_path / "disk", "1m")
    data = tmp_path / "disk" / "data"
    formatted(data)
    subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
    with pytest.raises(ConfigError, match="Read-only file system"):
        open_directory(str(data))
    with pytest.raises(ConfigError, match="Read-only file system"):
        formatted(tmp_path / "disk" / "new")
    with pytest.raises(StorageError, match="not writable"):
        RocksStore(str(data / "state"))


def test_a_directory_without_permission(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    before = os.geteuid()
    if ROOT:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match="Permission denied"):
            formatted(tmp_path / "data")
    finally:
        os.seteuid(before)


def test_a_locked_database(tmp_path: Path) -> None:
    first = RocksStore(str(tmp_path / "db"))
    with pytest.raises(StorageError, match="in use by another process"):
        RocksStore(str(tmp_path / "db"))
    first.close()


def test_a_damaged_database(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "db"))
    store.write([(b"a", b"1")])
    store.close()
    (tmp_path / "db" / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(StorageError, match=str(tmp_path / "db")):
        RocksStore(str(tmp_path / "db"))
    (tmp_path / "db" / "CURRENT").write_text("junk")
    with pytest.raises(StorageError, match="damaged"):
        RocksStore(str(tmp_path / "db"))


def test_a_database_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("x")
    with pytest.raises(StorageError, match="cannot open"):
        RocksStore(str(tmp_path / "db"))


def test_a_corrupt_log_stays_a_corrupt_log(tmp_path: Path) -> None:
    formatted(tmp_path / "data")
    with open_directory(str(tmp_path / "data")) as directory:
        (segment,) = Path(directory.log_path).iterdir()
        with segment.open("r+b") as file:
            file.write(b"?")
        with pytest.raises(LogCorrupt, match=segment.name):
            open_log(directory)
