"""How much room the state store takes on disk while the same keys are overwritten without end.

All limits of the database grow with its write buffer, so a small one shows
with some MiB what a node does with some GiB.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rocksdict import Env

from eraft import limits
from eraft.errors import StoreStalled
from eraft.storage import rocks
from eraft.storage.rocks import RocksStore
from eraft.storage.rows import DATA, generation_range, prefix
from eraft.storage.snapshots import delete_generation
from tests.cli.local import wait_until

BUFFER = 256 * limits.KIB
ROW = 1000
FIXED = rocks.ROOM_BESIDE_ROWS * BUFFER


def size(path: Path, pattern: str = "*") -> int:
    """Bytes of the files; those that go meanwhile do not count."""
    found = 0
    for file in path.glob(pattern):
        try:
            found += file.stat().st_size
        except FileNotFoundError:
            continue
    return found


@contextmanager
def watched(path: Path) -> Iterator[list[int]]:
    """The list gets the most that the directory takes in one piece of time after the other."""
    sizes: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            sizes.append(size(path))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()


class Overwriter:
    """Writes rows of a generation, as fast as the store takes them."""

    def __init__(self, store: RocksStore, generation: int, live_bytes: int) -> None:
        self._store = store
        self._prefix = prefix(generation, DATA)
        self._keys = live_bytes // ROW
        self._random = random.Random(generation)
        self._bytes = self._random.randbytes(limits.MIB)
        self._written = 0

    def write(self, size_bytes: int, patience_s: float = 60.0) -> None:
        """Write so much: each key once, then any of them; less if the store takes no more."""
        end = self._written + size_bytes // ROW
        while self._written < end:
            due_s = time.monotonic() + patience_s
            rows = {}
            for _ in range(BUFFER // 8 // ROW):
                key = self._random.randrange(self._keys)
                if self._written < self._keys:
                    key = self._written
                start = self._random.randrange(limits.MIB - ROW)
                scattered = (key * 2654435761 % (1 << 32)).to_bytes(4, "big")
                rows[self._prefix + scattered] = self._bytes[start : start + ROW - 11]
                self._written += 1
            while True:
                try:
                    self._store.write(sorted(rows.items()))
                    break
                except StoreStalled:
                    if time.monotonic() > due_s:
                        return
                    time.sleep(0.002)


@contextmanager
def no_compactions() -> Iterator[None]:
    """They are due, but do not come; flushes do. For all databases of the process."""
    Env().set_low_priority_background_threads(0)
    try:
        yield
    finally:
        Env().set_low_priority_background_threads(1)


@pytest.mark.parametrize("buffers", [2, 32])
def test_endless_overwrites_take_a_bounded_room(tmp_path: Path, buffers: int) -> None:
    """However late compactions come: then writers wait for them."""
    live = buffers * BUFFER
    bound = 3 * live + FIXED
    store = RocksStore(str(tmp_path), BUFFER)
    rows = Overwriter(store, 1, live)
    with watched(tmp_path) as sizes:
        for _ in range(3):
            with no_compactions():
                rows.write(3 * bound // 2, patience_s=0.3)
            rows.write(2 * live)
    store.close()
    assert max(sizes) < bound


def test_so_they_do_if_much_is_to_be_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It need not be in the first level, where usually other limits come before this one."""
    monkeypatch.setattr(rocks, "LEVEL0_STALL", 1 << 20)
    buffer = 64 * limits.KIB
    live = rocks.COMPACTION_DEBT // 2 * buffer
    bound = 3 * live + rocks.ROOM_BESIDE_ROWS * buffer
    store = RocksStore(str(tmp_path), buffer)
    with watched(tmp_path) as sizes:
        with no_compactions():
            Overwriter(store, 1, live).write(3 * bound // 2, patience_s=0.3)
        store.close()
    assert max(sizes) < bound


def test_a_snapshot_keeps_what_it_sees_and_no_more(tmp_path: Path) -> None:
    live = 32 * BUFFER
    store = RocksStore(str(tmp_path), BUFFER)
    rows = Overwriter(store, 1, live)
    with watched(tmp_path) as sizes:
        rows.write(40 * limits.MIB)
        snapshot = store.snapshot(*generation_range(1))
        seen = size(tmp_path, "*.sst")
        rows.write(40 * limits.MIB)
        snapshot.close()
        most = max(sizes)
        assert most < seen + 3 * live + FIXED
        assert most > seen + live, "the snapshot kept nothing"
        rows.write(20 * limits.MIB)
        wait_until(lambda: sizes[-1] < 3 * live + FIXED, "the room is given back")
    store.close()


def test_what_a_deleted_generation_took_is_given_back(tmp_path: Path) -> None:
    """By the flush after it: nothing else has to be written for that."""
    live = 32 * BUFFER
    store = RocksStore(str(tmp_path), BUFFER)
    for generation in (1, 2):
        Overwriter(store, generation, live).write(live)
    store.flush()
    assert size(tmp_path, "*.sst") > 2 * live
    delete_generation(store, 1)
    store.flush()
    wait_until(lambda: size(tmp_path, "*.sst") < 1.2 * live, "the rows are gone from the disk")
    store.close()


def test_the_database_s_own_journals_stay_small(tmp_path: Path) -> None:
    buffer = 64 * limits.KIB
    store = RocksStore(str(tmp_path), buffer)
    rows = Overwriter(store, 1, buffer)
    manifests = set()
    while len(manifests) < 3:
        rows.write(20 * ROW)
        store.flush()
        manifests |= {file.name for file in tmp_path.glob("MANIFEST-*")}
        assert size(tmp_path, "MANIFEST-*") < buffer
        assert size(tmp_path, "LOG*") < buffer
    store.close()
