"""Rows above RocksDB that were read or written lately.

RocksDB's own cache holds blocks of files, not what is still in its memory
tables, and a call into it costs twenty times as much as a dict.
"""

from collections.abc import Sequence
from itertools import chain
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
        """The store has this row."""
        size_bytes = len(key) + (len(row) if row is not None else 0)
        if size_bytes <= limits.CACHED_ROW_BYTES:
            self._make_room(size_bytes + _ENTRY_BYTES)
            self.rows[key] = row

    def written(self, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        """The store has got these rows."""
        size_bytes = len(rows) * _ENTRY_BYTES
        size_bytes += sum(map(len, filter(None, chain.from_iterable(rows))))
        if size_bytes > self._limit_bytes:
            self.clear()
            return
        self._make_room(size_bytes)
        self.rows.update(rows)

    def clear(self) -> None:
        """Forget everything."""
        self.rows.clear()
        self._size_bytes = 0

    def _make_room(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self._size_bytes > self._limit_bytes:
            self.rows.clear()
            self._size_bytes = size_bytes
