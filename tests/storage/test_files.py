"""Both kinds of files behave alike; those in memory lose what was not synced."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from eraft.storage.files import DiskFiles, Files, fill_with_zeros
from eraft.storage.memory_files import SECTOR_BYTES, MemoryFiles


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    if request.param == "memory":
        yield MemoryFiles()
        return
    disk = DiskFiles(str(tmp_path))
    yield disk
    disk.close()


def test_read_and_write(files: Files) -> None:
    file = files.create("a")
    file.pwrite(b"hello", 10)
    file.pwrite(bytearray(b"J"), 10)
    file.sync()
    assert file.size() == 15
    assert file.pread(100, 8) == b"\0\0Jello"
    assert file.pread(2, 11) == b"el"
    assert file.pread(5, 15) == b""
    assert file.pread(0, 0) == b""
    buffer = bytearray(b"?" * 7)
    file.pread_into(memoryview(buffer)[1:6], 9)
    assert buffer == b"?\0Jell?"
    with pytest.raises(OSError, match="ends too early"):
        file.pread_into(memoryview(buffer), 9)
    assert file.fileno() != files.open("a").fileno()
    assert files.open("a").pread(5, 10) == b"Jello"
    file.close()


def test_zeros(files: Files) -> None:
    file = files.create("a")
    file.pwrite(b"x" * 20, 0)
    fill_with_zeros(file, 3_000_000, 10)
    assert file.size() == 3_000_000
    assert file.pread(20, 0) == b"x" * 10 + bytes(10)


def test_names(files: Files) -> None:
    for name in ("b", "a"):
        files.create(name).close()
    assert files.names() == ["a", "b"]
    files.remove("a")
    assert files.names() == ["b"]
    with pytest.raises(FileNotFoundError):
        files.open("a")


def test_of_two_that_publish_the_first_wins(files: Files) -> None:
    for name in ("one", "two"):
        files.create(name).pwrite(name.encode(), 0)
    assert files.publish("one", "final")
    assert not files.publish("two", "final")
    assert files.names() == ["final"]
    assert files.open("final").pread(10, 0) == b"one"


def test_creating_again_empties(files: Files) -> None:
    files.create("a").pwrite(b"x", 0)
    assert files.create("a").size() == 0


def test_a_crash_keeps_what_was_synced_and_part_of_the_rest() -> None:
    kept: set[bytes] = set()
    sizes: set[int] = set()
    for seed in range(200):
        files = MemoryFiles()
        file = files.create("tmp")
        file.pwrite(b"s" * 3 * SECTOR_BYTES, 0)
        file.sync()
        files.publish("tmp", "a")
        file = files.open("a")
        file.pwrite(b"n" * 3 * SECTOR_BYTES, 0)
        file.pwrite(b"n" * SECTOR_BYTES, 5 * SECTOR_BYTES)
        files.crash(random.Random(seed))
        after = files.open("a").pread(1 << 20, 0)
        sectors = [after[place * SECTOR_BYTES :][:SECTOR_BYTES] for place in range(6)]
        assert all(len(set(sector)) <= 1 for sector in sectors)
        kept.add(b"".join(sector[:1] for sector in sectors[:3]))
        sizes.add(len(after))
    assert len(kept) == 8
    assert sizes == {3 * SECTOR_BYTES, 6 * SECTOR_BYTES}


def test_a_crash_keeps_everything_that_was_synced() -> None:
    for seed in range(20):
        files = MemoryFiles()
        file = files.create("tmp")
        file.pwrite(b"x" * 5000, 100)
        file.sync()
        files.publish("tmp", "a")
        files.crash(random.Random(seed))
        assert files.open("a").pread(9999, 0) == bytes(100) + b"x" * 5000


def test_a_crash_may_lose_names_that_were_not_made_durable() -> None:
    outcomes = set()
    for seed in range(30):
        files = MemoryFiles()
        files.create("tmp")
        files.crash(random.Random(seed))
        outcomes.add(tuple(files.names()))
    assert outcomes == {(), ("tmp",)}
