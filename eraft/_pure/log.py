"""The part of a group's log that is in memory.

An encoded entry is `u32 payload size, u8 kind, u64 term`, little-endian, and
the payload. The same bytes are here, in the write-ahead log and in peer
frames; the indexes follow from the place in a run of entries (a "blob").

Every blob is checked before it changes anything. Terms never fall along a
log, so they can be searched by bisection.
"""

import struct
import sys
from bisect import bisect_right
from typing import Final

from eraft.errors import InvariantViolation, LogCompacted, ProtocolError
from eraft.types import EntryKind

__all__ = ["ENTRY_HEADER_BYTES", "IMPL", "EntryLog", "check_entries", "encode_entry"]

IMPL: Final = "python"
ENTRY_HEADER_BYTES: Final = 13

_HEADER = struct.Struct("<IBQ")
_KINDS = frozenset(int(kind) for kind in EntryKind)


def encode_entry(term: int, kind: int, payload: bytes | bytearray | memoryview) -> bytes:
    """Return the bytes of one entry; ValueError if kind, term or size is out of range."""
    return _header(term, kind, len(payload)) + payload


def _header(term: int, kind: int, size: int) -> bytes:
    if term and kind in _KINDS:
        # Anything else that is out of range does not fit its field.
        try:
            return _HEADER.pack(size, kind, term)
        except struct.error:
            pass
    raise ValueError(f"no entry can have term {term}, kind {kind} and {size} bytes")


def check_entries(blob: bytes | bytearray | memoryview) -> int:
    """Return the number of entries in `blob`.

    Raises ProtocolError naming the offset if a header or payload is cut off,
    a kind is unknown, a term is 0 or lower than the one before it.
    """
    return len(_scan(blob, 0)[0])


def _scan(blob: bytes | bytearray | memoryview, position: int) -> tuple[list[int], list[int]]:
    """Terms of all entries of `blob`, and where they end if it is put at `position`."""
    unpack, kinds = _HEADER.unpack_from, _KINDS
    terms: list[int] = []
    ends: list[int] = []
    offset, total, previous = 0, len(blob), 1
    while offset < total:
        if total - offset < ENTRY_HEADER_BYTES:
            raise ProtocolError(f"entry at offset {offset}: {total - offset} bytes of its header")
        size, kind, term = unpack(blob, offset)
        if kind not in kinds:
            raise ProtocolError(f"entry at offset {offset}: unknown kind {kind}")
        if term < previous:
            raise ProtocolError(
                f"entry at offset {offset}: term {term} follows term {previous}"
                if term
                else f"entry at offset {offset}: term 0"
            )
        end = offset + ENTRY_HEADER_BYTES + size
        if end > total:
            raise ProtocolError(
                f"entry at offset {offset}: payload of {size} bytes, {total - end + size} are left"
            )
        previous = term
        offset = end
        terms.append(term)
        ends.append(position + end)
    return terms, ends


class EntryLog:
    """Consecutive entries of one group's log.

    The entry before the first one is the base: (0, 0) at the very start of a
    log, else the last entry that was compacted away. Its term is still known.
    """

    __slots__ = ("_base", "_bounds", "_data", "_terms")

    def __init__(self, base_index: int = 0, base_term: int = 0) -> None:
        """ValueError if the base is out of range: 0 <= index < 2**62, 0 <= term < 2**64."""
        if not 0 <= base_index < 1 << 62 or not 0 <= base_term < 1 << 64:
            raise ValueError(f"no log can have base ({base_index}, {base_term})")
        self._base = base_index
        # Item i belongs to entry base + i, so the base itself is item 0.
        self._terms = [base_term]
        # Where each entry ends, counted from some earlier point of the log;
        # _data begins at _bounds[0].
        self._bounds = [0]
        self._data = bytearray()

    @property
    def base_index(self) -> int:
        """Index of the entry before the first one."""
        return self._base

    @property
    def base_term(self) -> int:
        """Term of the entry before the first one."""
        return self._terms[0]

    @property
    def first_index(self) -> int:
        """Index of the first entry, `base_index + 1` even if there is none."""
        return self._base + 1

    @property
    def last_index(self) -> int:
        """Index of the last entry, `base_index` if there is none."""
        return self._base + len(self._terms) - 1

    @property
    def last_term(self) -> int:
        """Term of the last entry, `base_term` if there is none."""
        return self._terms[-1]

    @property
    def size_bytes(self) -> int:
        """Encoded size of all entries."""
        return len(self._data)

    def __sizeof__(self) -> int:
        """Memory held, in bytes: falls when entries are compacted away."""
        return object.__sizeof__(self) + sum(
            sys.getsizeof(part) for part in (self._terms, self._bounds, self._data)
        )

    def append(self, term: int, kind: int, payload: bytes | bytearray | memoryview) -> int:
        """Append one entry and return its index.

        Raises InvariantViolation if the term is lower than the last one,
        ValueError as `encode_entry` does.
        """
        header = _header(term, kind, len(payload))
        if term < self._terms[-1]:
            raise InvariantViolation(
                f"terms never fall along the log: term {term} after {self._terms[-1]}"
            )
        self._data += header
        self._data += payload
        self._terms.append(term)
        self._bounds.append(self._bounds[0] + len(self._data))
        return self._base + len(self._terms) - 1

    def extend(self, first_index: int, blob: bytes | bytearray | memoryview) -> int:
        """Append encoded entries and return the new last index.

        Raises InvariantViolation if `first_index` is not the next index, and
        ProtocolError if `blob` is malformed or its terms go below the last
        one; then nothing has changed.
        """
        if first_index != self._base + len(self._terms):
            raise InvariantViolation(
                f"entries of a log are consecutive: {first_index} after {self.last_index}"
            )
        terms, ends = _scan(blob, self._bounds[-1])
        if terms:
            self._check_order(first_index, terms[0], self._terms[-1])
            self._data += blob
            self._terms += terms
            self._bounds += ends
        return self._base + len(self._terms) - 1

    @staticmethod
    def _check_order(index: int, term: int, previous: int) -> None:
        if term < previous:
            raise ProtocolError(f"entry {index}: term {term} follows term {previous}")

    def term(self, index: int) -> int:
        """Return the term of entry `index`, which may be the base.

        Raises LogCompacted below the base and IndexError beyond the end.
        """
        item = index - self._base
        if item < 0:
            raise LogCompacted(f"entry {index} is gone from memory, the base is {self._base}")
        if item >= len(self._terms):
            raise IndexError(f"entry {index} is beyond the last one, {self.last_index}")
        return self._terms[item]

    def conflict(self, first_index: int, blob: bytes | bytearray | memoryview) -> int:
        """Return the index of the first entry of `blob` that the log does not have.

        An entry of another term at the same index is not the same entry;
        entries at or below the base are. If all are there, the result is the
        index after the last entry of `blob`. Raises ProtocolError if `blob` is
        malformed or its terms go below the term before it in this log, so what
        this method has accepted cannot fail later.
        """
        terms, _ = _scan(blob, 0)
        item = first_index - self._base
        known = min(max(1 - item, 0), len(terms))
        theirs = terms[known:] if known else terms
        if not theirs:
            return first_index + known
        item += known
        first_index += known
        if item <= len(self._terms):
            self._check_order(first_index, theirs[0], self._terms[item - 1])
        ours = self._terms[item : item + len(theirs)]
        if ours == theirs:
            return first_index + len(theirs)
        for same, (our, their) in enumerate(zip(ours, theirs, strict=False)):
            if our != their:
                return first_index + same
        return first_index + len(ours)

    @staticmethod
    def skip(first_index: int, blob: bytes | bytearray | memoryview, index: int) -> bytes:
        """Return the part of `blob`, which begins at `first_index`, from entry `index` on.

        All of it if `index` is not beyond `first_index`. Raises IndexError
        if `blob` ends before the entry before `index`, ProtocolError if it is
        malformed.
        """
        if index <= first_index:
            return bytes(blob)
        _, ends = _scan(blob, 0)
        count = index - first_index
        if count > len(ends):
            raise IndexError(f"entry {index} is beyond the last one, {first_index + len(ends) - 1}")
        return bytes(memoryview(blob)[ends[count - 1] :])

    def truncate(self, index: int) -> None:
        """Drop entry `index` and everything after it.

        Raises InvariantViolation at or below the base.
        """
        item = index - self._base
        if item <= 0:
            raise InvariantViolation(
                f"what is compacted is committed: truncation at {index}, the base is {self._base}"
            )
        if item < len(self._terms):
            del self._data[self._bounds[item - 1] - self._bounds[0] :]
            del self._terms[item:]
            del self._bounds[item:]

    def compact(self, index: int) -> None:
        """Drop entry `index` and everything before it; `index` is the new base.

        Nothing changes at or below the base. Raises InvariantViolation
        beyond the last entry.
        """
        item = index - self._base
        if item >= len(self._terms):
            raise InvariantViolation(
                f"only what is in the log is compacted: {index}, the last entry is "
                f"{self.last_index}"
            )
        if item > 0:
            del self._data[: self._bounds[item] - self._bounds[0]]
            del self._terms[:item]
            del self._bounds[:item]
            self._base = index

    def slice(self, first: int, last: int, limit_bytes: int) -> tuple[bytes, int]:
        """Return the encoded entries from `first` on, and the index of the last one given.

        No further than `last`, no more than `limit_bytes`, but at least one
        entry; with `last` below `first` none, and `first - 1`. Raises
        LogCompacted at or below the base, IndexError beyond the last entry.
        """
        item = first - self._base
        if item <= 0:
            raise LogCompacted(f"entry {first} is gone from memory, the base is {self._base}")
        end = last - self._base + 1
        bounds = self._bounds
        if end > len(bounds):
            raise IndexError(f"entry {last} is beyond the last one, {self.last_index}")
        if end <= item:
            return b"", first - 1
        start = bounds[item - 1]
        if bounds[end - 1] - start > limit_bytes:
            end = bisect_right(bounds, start + limit_bytes, item + 1, end)
        origin = bounds[0]
        view = memoryview(self._data)[start - origin : bounds[end - 1] - origin]
        return bytes(view), self._base + end - 1

    def size_from(self, index: int) -> int:
        """Return the encoded size of entry `index` and all after it, 0 beyond the last entry.

        Raises LogCompacted at or below the base.
        """
        item = index - self._base
        if item <= 0:
            raise LogCompacted(f"entry {index} is gone from memory, the base is {self._base}")
        bounds = self._bounds
        return bounds[-1] - bounds[item - 1] if item < len(bounds) else 0

    def payload(self, index: int) -> bytes:
        """Return the payload of entry `index`.

        Raises LogCompacted at or below the base, IndexError beyond the end.
        """
        start, end = self._place(index)
        return bytes(memoryview(self._data)[start + ENTRY_HEADER_BYTES : end])

    def kind(self, index: int) -> int:
        """Return the kind of entry `index`; raises as `payload` does."""
        return self._data[self._place(index)[0] + 4]

    def _place(self, index: int) -> tuple[int, int]:
        item = index - self._base
        if item <= 0:
            raise LogCompacted(f"entry {index} is gone from memory, the base is {self._base}")
        if item >= len(self._bounds):
            raise IndexError(f"entry {index} is beyond the last one, {self.last_index}")
        origin = self._bounds[0]
        return self._bounds[item - 1] - origin, self._bounds[item] - origin

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """Return the largest (i, term of i) with i <= `index` and term of i <= `term`.

        The term is 0 if it is not known here: below the base. (etcd-io/raft,
        `raftLog.findConflictByTerm`: lets leader and follower step back over
        whole terms.)
        """
        item = min(index - self._base, len(self._terms) - 1)
        if item < 0:
            return index, 0
        item = bisect_right(self._terms, term, 0, item + 1) - 1
        if item < 0:
            return self._base - 1, 0
        return self._base + item, self._terms[item]
