"""Records of the write-ahead log, and the thread that makes them durable.

A record is a header, a body of items and zeros up to a multiple of 8 bytes.
Header, little-endian: u32 CRC-32 of the rest of the header, u32 CRC-32 of the
body, u32 length of the body, u32 item count, u64 segment sequence, u64
position of the record in the log (1, 2, 3...), u64 position that was known
durable when it was written, u64 salt of the segment. Both checksums start
from the salt. Nobody outside the node ever sees a salt: bytes that a client
wrote cannot pass for a record, wherever a reader happens to look, nor can a
record that an earlier use of the file left behind.

An item is u32 gid, u8 kind, u64 first index, u32 length, payload.
"""

import errno
import os
import queue
import struct
import threading
import zlib
from collections.abc import Sequence
from mmap import mmap
from typing import Final

from eraft.errors import InvariantViolation, StorageError

__all__ = [
    "BAD_BODY",
    "BAD_HEADER",
    "BAD_ITEMS",
    "CHECKPOINT",
    "COMPACT",
    "COPY",
    "EMPTY",
    "ENTRIES",
    "GROUP_STATE",
    "HARD_STATE",
    "IMPL",
    "ITEM_HEADER_BYTES",
    "NODE",
    "QUEUE_REQUESTS",
    "RECORD_ALIGN_BYTES",
    "RECORD_HEADER_BYTES",
    "SALT_OFFSET",
    "TOMBSTONE",
    "VALID",
    "LogWriter",
    "encode_record",
    "record_size",
    "scan",
]

IMPL: Final = "python"

GROUP_STATE = 1
"""Identity and base of a replica; replaces everything earlier of its group."""
HARD_STATE = 2
"""Term, vote and commit index."""
ENTRIES = 3
"""Encoded entries that replace the group's log from the item's first index on."""
NODE = 4
"""What belongs to the node and no group; replaces the NODE item before it."""
CHECKPOINT = 5
"""State of a replica as the segments before this one leave it, up to the item's first index."""
COMPACT = 6
"""The item's first index is the group's new base, of the term in the payload."""
TOMBSTONE = 7
"""The group's replica ids up to the item's first index never come back on this node."""
COPY = 8
"""Entries of the group's log once more, from the item's first index on, and nothing behind them."""

VALID = 0
EMPTY = 1
"""Zeros, or no room for a header: nothing was written here."""
BAD_HEADER = 2
BAD_BODY = 3
BAD_ITEMS = 4

RECORD_HEADER_BYTES = 48
ITEM_HEADER_BYTES = 17
RECORD_ALIGN_BYTES = 8
SALT_OFFSET = 40
"""Where in a record's header the salt stands; searching for it finds records."""
QUEUE_REQUESTS = 16

_HEADER = struct.Struct("<IIIIQQQQ")
_ITEM = struct.Struct("<IBQI")
_NO_RECORD = bytes(RECORD_HEADER_BYTES)

Item = tuple[int, int, int, bytes]
"""gid, kind, first index, payload."""
Scanned = tuple[int, int, int, list[Item], int]
"""VALID or the kind of badness, position, durable position, items, offset after the record."""


def record_size(items: Sequence[Item]) -> int:
    """Return how many bytes `encode_record` makes of the items."""
    size = RECORD_HEADER_BYTES + ITEM_HEADER_BYTES * len(items)
    for item in items:
        size += len(item[3])
    return -(-size // RECORD_ALIGN_BYTES) * RECORD_ALIGN_BYTES


def encode_record(
    salt: int, segment_seq: int, position: int, durable_position: int, items: Sequence[Item]
) -> bytes:
    """Return a whole record; payloads may be any bytes-like objects."""
    parts: list[bytes] = []
    for gid, kind, first_index, payload in items:
        parts.append(_ITEM.pack(gid, kind, first_index, len(payload)))
        parts.append(payload)
    body = b"".join(parts)
    seed = _seed(salt)
    header = _HEADER.pack(
        0,
        zlib.crc32(body, seed),
        len(body),
        len(items),
        segment_seq,
        position,
        durable_position,
        salt,
    )
    checksum = zlib.crc32(header[4:], seed).to_bytes(4, "little")
    padding = bytes(-len(body) % RECORD_ALIGN_BYTES)
    return b"".join((checksum, header[4:], body, padding))


def scan(buffer: bytes | mmap, offset: int, salt: int, segment_seq: int) -> Scanned:
    """Return the record at `offset`, or what kind of badness is there.

    Without a valid record the items are empty and the last value is `offset`
    itself. With BAD_BODY the positions are those of the header, which is good
    by its own checksum, else 0. Any bytes may be there; nothing is raised.
    """
    end = offset + RECORD_HEADER_BYTES
    header = bytes(buffer[offset:end])
    if len(header) < RECORD_HEADER_BYTES or header == _NO_RECORD:
        return EMPTY, 0, 0, [], offset
    fields = _HEADER.unpack(header)
    checksum, body_checksum, length, count, sequence, position, durable, own_salt = fields
    seed = _seed(salt)
    if (
        own_salt != salt
        or sequence != segment_seq
        or checksum != zlib.crc32(header[4:], seed)
        or length > len(buffer) - end
    ):
        return BAD_HEADER, 0, 0, [], offset
    body = bytes(buffer[end : end + length])
    if zlib.crc32(body, seed) != body_checksum:
        return BAD_BODY, position, durable, [], offset
    items = _items(body, count)
    if items is None:
        return BAD_ITEMS, 0, 0, [], offset
    return VALID, position, durable, items, end + length + -length % RECORD_ALIGN_BYTES


def _seed(salt: int) -> int:
    """Return what the checksums of a segment start from."""
    return (salt ^ salt >> 32) & 0xFFFFFFFF


def _items(body: bytes, count: int) -> list[Item] | None:
    """Return the items of a body, None if they do not fill it exactly."""
    items: list[Item] = []
    offset = 0
    for _ in range(count):
        start = offset + ITEM_HEADER_BYTES
        if start > len(body):
            return None
        gid, kind, first_index, length = _ITEM.unpack_from(body, offset)
        offset = start + length
        if offset > len(body):
            return None
        items.append((gid, kind, first_index, body[start:offset]))
    return items if offset == len(body) else None


_Request = tuple[int, int, bytes, int]


class LogWriter:
    """One thread that writes, syncs and reports, one request after the other.

    After each request it publishes the position in `durable` and adds 1 to
    the eventfd. An error is published in `error`, rings too, and is final:
    what a file holds after a failed sync is unknown, so nothing is retried and
    nothing more is written.
    """

    def __init__(self, eventfd: int) -> None:
        """Start the thread; `eventfd` stays the caller's and must outlive the writer."""
        self._eventfd = eventfd
        self._submitted = 0
        self._done = 0
        self._position = 0
        self._durable = 0
        self._error = 0
        self._closed = False
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="eraft-log", daemon=True)
        self._thread.start()

    @property
    def durable(self) -> int:
        """Position of the last request that is written and synced, 0 before the first."""
        return self._durable

    @property
    def error(self) -> int:
        """The errno that ended the writer, 0 while it works."""
        return self._error

    @property
    def pending(self) -> int:
        """Requests that are neither done nor failed."""
        return 0 if self._error else self._submitted - self._done

    def submit(self, fd: int, offset: int, data: bytes, position: int) -> None:
        """Have all of `data` (any bytes-like object) written to `fd` at `offset` and synced.

        The data must not change until it is done.

        Raises:
            StorageError: the writer failed earlier or is closed.
            InvariantViolation: more than QUEUE_REQUESTS wait, or the position does not rise.
        """
        if self._error:
            raise StorageError(f"log writer: failed earlier: {os.strerror(self._error)}")
        if self._closed:
            raise StorageError("log writer: closed")
        if self.pending >= QUEUE_REQUESTS:
            raise InvariantViolation(f"log writer: more than {QUEUE_REQUESTS} requests wait")
        if position <= self._position:
            raise InvariantViolation(
                f"log writer: position {position} does not rise above {self._position}"
            )
        self._position = position
        self._submitted += 1
        self._queue.put((fd, offset, data, position))

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (request := self._queue.get()) is not None:
            fd, offset, data, position = request
            try:
                _write_all(fd, data, offset)
                os.fdatasync(fd)
            except OSError as error:
                self._error = error.errno or errno.EIO
                os.eventfd_write(self._eventfd, 1)
                return
            self._durable = position
            self._done += 1
            os.eventfd_write(self._eventfd, 1)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    with memoryview(data) as rest:
        written = 0
        while written < rest.nbytes:
            written += os.pwrite(fd, rest[written:], offset + written)
