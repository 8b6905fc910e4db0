"""A state store in memory that can crash: the double of RocksStore in simulations."""

import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

from eraft.errors import StorageError

_Undo = list[tuple[bytes, bytes | None]]


class MemoryScan:
    """The rows of a range as they were when the scan was made."""

    def __init__(self, items: list[tuple[bytes, bytes]]) -> None:
        self._items = iter(items)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._items

    def __next__(self) -> tuple[bytes, bytes]:
        return next(self._items)

    def close(self) -> None:
        """Let go of the rows; the scan is exhausted afterwards."""
        self._items = iter(())


class MemorySnapshot:
    """The rows of a range as they were when this was taken, to be read from any place."""

    def __init__(self, items: list[tuple[bytes, bytes]]) -> None:
        self._items: list[tuple[bytes, bytes]] | None = items
        self._next = 0

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        if self._items is None or self._next >= len(self._items):
            raise StopIteration
        self._next += 1
        return self._items[self._next - 1]

    def seek(self, key: bytes) -> None:
        """Go on with the first row at or behind the key."""
        if self._items is None:
            raise StorageError("the snapshot is closed")
        self._next = bisect_left(self._items, (key, b""))

    def close(self) -> None:
        """Let go of the rows; nothing follows afterwards."""
        self._items = None


class MemoryStore:
    """A `StateStore` whose `crash` forgets what no finished flush protects.

    RocksDB without its write-ahead log keeps, after a crash, some prefix of
    the batches: at least those of the last finished flush, at most all. Which
    prefix, the caller's generator chooses. Every batch since the last flush is
    remembered by what it overwrote.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self._undo: list[_Undo] = []
        self._flushed = 0

    @property
    def batches(self) -> int:
        """Batches written so far, those lost in crashes not counted."""
        return self._flushed + len(self._undo)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if there is none."""
        return self._rows.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none."""
        return [self._rows.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes) -> MemoryScan:
        """Return the rows with start <= key < end in key order, as of now."""
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        return MemoryScan([(key, self._rows[key]) for key in keys])

    def snapshot(self, start: bytes, end: bytes) -> MemorySnapshot:
        """Return the rows with start <= key < end as of now, to be read in any order."""
        return MemorySnapshot(list(self.scan(start, end)))

    def write(
        self,
        rows: Iterable[tuple[bytes, bytes | None]],
        ranges: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Atomically delete the ranges, then put (or, for None, delete) the rows."""
        undo: _Undo = []
        for start, end in ranges:
            first, after = bisect_left(self._keys, start), bisect_left(self._keys, end)
            for key in self._keys[first:after]:
                undo.append((key, self._rows.pop(key)))
            del self._keys[first:after]
        for key, row in rows:
            undo.append((key, self._put(key, row)))
        self._undo.append(undo)

    def flush(self) -> None:
        """Make everything written so far survive a crash."""
        self.flushed(self.batches)

    def flushed(self, batches: int) -> None:
        """Make the first `batches` batches survive a crash.

        A simulated flush that takes time notes `batches` when it starts and
        calls this when it ends.
        """
        count = max(batches - self._flushed, 0)
        del self._undo[:count]
        self._flushed += count

    def crash(self, rng: random.Random) -> None:
        """Fall back to a batch boundary not before the last finished flush."""
        for _ in range(rng.randint(0, len(self._undo))):
            for key, row in reversed(self._undo.pop()):
                self._put(key, row)
        self._flushed += len(self._undo)
        self._undo.clear()

    def stats(self) -> dict[str, int]:
        """Return figures for people."""
        return {"rows": len(self._keys), "batches": self.batches, "stalls": 0}

    def close(self) -> None:
        """Do nothing: the rows stay for the next life of the node."""

    def _put(self, key: bytes, row: bytes | None) -> bytes | None:
        """Set or remove one row; return the row it had."""
        old = self._rows.get(key)
        if row is None:
            if old is not None:
                del self._rows[key]
                del self._keys[bisect_left(self._keys, key)]
            return old
        if old is None:
            insort(self._keys, key)
        self._rows[key] = row
        return old
