"""What is inside COMMANDS entries, and the rows that plain commands read and write.

A payload is `u64 timestamp in ms` (little-endian, the leader's), then RESP
arrays of bulk strings in canonical form, command name in upper case.

The row of a key (integers big-endian): prefix (generation and kind), u16
bucket, u32 crc32(key), key -> u8 flags (0), u64 version (index of the last
write), u64 deadline in ms (0 for none), value.

The digest of what a replica has changed is the CRC-32 of all changes in their
order, each `u32 size of the key, u32 size of the row` (little-endian, 2**32-1
for a deletion), key, row; the key without its generation, which is another
number on every replica.
"""

import re
import struct
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from eraft._pure.hashing import bucket_of
from eraft._pure.reply import OK, Reply, encode_null
from eraft.errors import InvariantViolation
from eraft.types import BUCKETS

__all__ = [
    "COMMANDS_OFFSET",
    "IMPL",
    "ROW_HEADER_BYTES",
    "apply_sets",
    "data_key",
    "decode_row",
    "digest_change",
    "encode_row",
    "encode_values",
    "read_command",
    "timestamp",
]

IMPL: Final = "python"

COMMANDS_OFFSET: Final = 8
"""Where the commands of a payload start."""
ROW_HEADER_BYTES: Final = 17

_TIMESTAMP = struct.Struct("<Q")
_KEY = struct.Struct(">HI")
_ROW = struct.Struct(">BQQ")
_SIZES = struct.Struct("<II")
_DELETED = 2**32 - 1
_GENERATION_BYTES = 4
_SET = re.compile(rb"\*3\r\n\$3\r\nSET\r\n\$(0|[1-9]\d{0,17})\r\n")
_NEXT = re.compile(rb"\r\n\$(0|[1-9]\d{0,17})\r\n")
_COUNT = re.compile(rb"\*([1-9]\d{0,17})\r\n")
_BULK = re.compile(rb"\$(0|[1-9]\d{0,17})\r\n")
_OWNED = 1


def data_key(prefix: bytes, key: bytes | bytearray | memoryview) -> bytes:
    """Return the row key of a client's key; `prefix` is generation and kind."""
    return b"".join((prefix, _KEY.pack(bucket_of(key), crc32(key)), key))


def encode_row(version: int, deadline_ms: int, value: bytes | bytearray | memoryview) -> bytes:
    """Return the row of a value; OverflowError if a number does not fit 64 bits."""
    try:
        return b"".join((_ROW.pack(0, version, deadline_ms), value))
    except struct.error:
        raise OverflowError(f"version {version} or deadline {deadline_ms} is not a u64") from None


def decode_row(row: bytes | bytearray | memoryview) -> tuple[int, int, bytes]:
    """Return version, deadline in ms (0 for none) and value of a row.

    Raises:
        InvariantViolation: the store holds something that is not a row.
    """
    if len(row) < ROW_HEADER_BYTES:
        raise InvariantViolation(f"a row has at least {ROW_HEADER_BYTES} bytes, not {len(row)}")
    flags, version, deadline_ms = _ROW.unpack_from(row)
    if flags:
        raise InvariantViolation(f"a row has unknown flags {flags:#04x}")
    return version, deadline_ms, bytes(row[ROW_HEADER_BYTES:])


def digest_change(digest: int, key: bytes, row: bytes | None) -> int:
    """Return the digest after one more change: the row at a full key, None where deleted.

    `digest` is the one of all changes before, 0 at the start.
    """
    size = len(key) - _GENERATION_BYTES
    if size < 0:
        raise ValueError(f"a key begins with a generation, but it has only {len(key)} bytes")
    sizes = _SIZES.pack(size, _DELETED if row is None else len(row))
    return crc32(b"".join((sizes, key[_GENERATION_BYTES:], row or b"")), digest)


def apply_sets(
    payload: bytes | bytearray | memoryview,
    offset: int,
    prefix: bytes,
    owned: bytes | bytearray | memoryview,
    version: int,
    rows: dict[bytes, bytes | None],
    replies: list[Reply] | None,
    digest: int,
) -> tuple[int, int]:
    """Apply a run of plain SETs, from `offset` of the payload on.

    Each `SET key value` of a bucket whose byte in `owned` is 1 puts its row into
    `rows` and, if there is a list, OK into `replies`.

    Returns:
        The offset of the first command that is anything else, or the payload's
        size; and what `digest`, that of all changes before, has become.
    """
    try:
        header = _ROW.pack(0, version, 0)
    except struct.error:
        raise OverflowError(f"version {version} is not a u64") from None
    if len(owned) != BUCKETS:
        raise ValueError(f"owned has {len(owned)} bytes, not one for each of {BUCKETS} buckets")
    if not 0 <= offset <= len(payload):
        raise ValueError(f"offset {offset} is outside the payload of {len(payload)} bytes")
    payload = bytes(payload)
    match_set, match_next, pack = _SET.match, _NEXT.match, _KEY.pack
    count = 0
    while True:
        match = match_set(payload, offset)
        if match is None:
            break
        start = match.end()
        end = start + int(match[1])
        match = match_next(payload, end)
        if match is None:
            break
        key = payload[start:end]
        start = match.end()
        end = start + int(match[1])
        if payload[end : end + 2] != b"\r\n":
            break
        bucket = bucket_of(key)
        if owned[bucket] != _OWNED:
            break
        row_key = b"".join((prefix, pack(bucket, crc32(key)), key))
        row = header + payload[start:end]
        rows[row_key] = row
        digest = digest_change(digest, row_key, row)
        offset = end + 2
        count += 1
    if replies is not None:
        replies += [OK] * count
    return offset, digest


def read_command(payload: bytes | bytearray | memoryview, offset: int) -> tuple[list[bytes], int]:
    """Return the command at `offset` of the payload and the offset after it.

    Raises:
        InvariantViolation: there is no command in canonical form; the log is eraft's own.
    """
    if not isinstance(payload, bytes):
        payload = bytes(payload)
    match = _COUNT.match(payload, offset) if offset >= 0 else None
    if match is None:
        raise _malformed(offset)
    args = []
    place = match.end()
    for _ in range(int(match[1])):
        match = _BULK.match(payload, place)
        if match is None:
            raise _malformed(place)
        start = match.end()
        end = start + int(match[1])
        if payload[end : end + 2] != b"\r\n":
            raise _malformed(start)
        args.append(payload[start:end])
        place = end + 2
    return args, place


def _malformed(offset: int) -> InvariantViolation:
    return InvariantViolation(
        f"an entry's commands are canonical RESP, but not at byte {offset} of its payload"
    )


def timestamp(payload: bytes | bytearray | memoryview) -> int:
    """Return the leader's timestamp in ms; InvariantViolation if the payload is too short."""
    if len(payload) < COMMANDS_OFFSET:
        raise InvariantViolation(
            f"a payload begins with a timestamp, but it has only {len(payload)} bytes"
        )
    stamp: int = _TIMESTAMP.unpack_from(payload)[0]
    return stamp


def encode_values(
    rows: Sequence[bytes | None],
    start: int,
    stop: int,
    clock_ms: int,
    wall_ms: int,
    protocol: int,
) -> bytes | None:
    """Encode the replies to GETs that found `rows[start:stop]`.

    A row whose deadline is at or before `clock_ms`, the state machine's clock,
    does not exist.

    Returns:
        The replies; None if a deadline is after `clock_ms` and at or before
        `wall_ms`: the clock in the log has to pass it first.

    Raises:
        InvariantViolation: as `decode_row`.
    """
    if not 0 <= start <= stop <= len(rows):
        raise ValueError(f"rows {start} to {stop} of {len(rows)}")
    null = encode_null(protocol)
    parts = []
    for row in rows[start:stop]:
        if row is None:
            parts.append(null)
            continue
        _, deadline_ms, value = decode_row(row)
        if not deadline_ms or deadline_ms > max(clock_ms, wall_ms):
            parts.append(b"$%d\r\n%b\r\n" % (len(value), value))
        elif deadline_ms <= clock_ms:
            parts.append(null)
        else:
            return None
    return b"".join(parts)
