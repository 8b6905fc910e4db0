"""Rows above RocksDB that were read lately.

RocksDB's own cache holds blocks of files, not what is still in its memory
tables, and a call into it costs twenty times as much as a dict. What is only
written does not come in: followers, which nobody reads, need no room for it.
"""

from collections.abc import Iterable
from typing import Final

from eraft import limits

ABSENT: Final = object()
"""What a lookup in `RowCache.rows` gives for a row that is not cached."""

_ENTRY_BYTES = 160
"""About what Python needs for a key and a row beside their bytes."""


class RowCache:
    """Maps keys to their rows, None for those known not to exist.

    When it is full everything goes: rows that are wanted come back by
    themselves, and a hit costs nothing but a lookup.
    """

    def __init__(self, limit_bytes: int = limits.ROW_CACHE_BYTES) -> None:
        self.rows: dict[bytes, bytes | None] = {}
        self._limit_bytes = limit_bytes
        self._size_bytes = 0

    def remember(self, key: bytes, row: bytes | None) -> None:
        """The store has this row, which is not cached yet."""
        size_bytes = _size_bytes(key, row)
        if size_bytes > limits.CACHED_ROW_BYTES:
            return
        if self._size_bytes + size_bytes > self._limit_bytes:
            self.clear()
        self._size_bytes += size_bytes
        self.rows[key] = row

    def written(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """The store has got these rows: those that are cached change."""
        cached = self.rows
        for key, row in rows:
            if key in cached:
                self._size_bytes -= _size_bytes(key, cached.pop(key))
                self.remember(key, row)

    def clear(self) -> None:
        """Forget everything."""
        self.rows.clear()
        self._size_bytes = 0


def _size_bytes(key: bytes, row: bytes | None) -> int:
    return _ENTRY_BYTES + len(key) + (0 if row is None else len(row))
