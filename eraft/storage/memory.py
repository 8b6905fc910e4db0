"""A state store in memory that can crash: the double of RocksStore in simulations."""

import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

from eraft.errors import StorageError

_Undo = list[tuple[bytes, bytes | None]]


class MemoryScan:
    """The rows of a range as they were when the scan was made."""

    def __init__(self, items: Iterator[tuple[bytes, bytes]]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._items

    def __next__(self) -> tuple[bytes, bytes]:
        return next(self._items)

    def close(self) -> None:
        """Let go of the rows; the scan is exhausted afterwards."""
        self._items = iter(())


class MemorySnapshot:
    """The rows of a range as they were when this was taken, to be read from any place."""

    def __init__(self, rows: dict[bytes, bytes], keys: list[bytes]) -> None:
        """Of rows that do not change any more, those with these keys."""
        self._rows: dict[bytes, bytes] | None = rows
        self._keys = keys
        self._next = 0

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        if self._rows is None or self._next >= len(self._keys):
            raise StopIteration
        key = self._keys[self._next]
        self._next += 1
        return key, self._rows[key]

    def seek(self, key: bytes) -> None:
        """Go on with the first row at or behind the key."""
        if self._rows is None:
            raise StorageError("the snapshot is closed")
        self._next = bisect_left(self._keys, key)

    def close(self) -> None:
        """Let go of the rows; nothing follows afterwards."""
        self._rows = None


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
        self._shared = False
        """Whether somebody reads these very rows, so that they must not change."""
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
        keys = self._share(start, end)
        return MemoryScan(zip(keys, map(self._rows.__getitem__, keys), strict=True))

    def snapshot(self, start: bytes, end: bytes) -> MemorySnapshot:
        """Return the rows with start <= key < end as of now, to be read in any order."""
        return MemorySnapshot(self._rows, self._share(start, end))

    def write(
        self,
        rows: Iterable[tuple[bytes, bytes | None]],
        ranges: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Atomically delete the ranges, then put (or, for None, delete) the rows."""
        self._own()
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
        self._own()
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

    def _share(self, start: bytes, end: bytes) -> list[bytes]:
        """Return the keys of a range whose rows somebody is about to read, and keep those."""
        self._shared = True
        return self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]

    def _own(self) -> None:
        """Before a change: whoever reads the rows as they are keeps them so."""
        if self._shared:
            self._rows, self._keys, self._shared = self._rows.copy(), self._keys.copy(), False

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
