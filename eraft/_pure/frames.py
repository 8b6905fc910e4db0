"""Frames between nodes.

On the wire, little-endian: `u32 length, u32 CRC-32`, both of all that follows
them, `u8 kind`, body. The body of a RAFT frame is made and read here; that
of every other kind belongs to its users.

RAFT body: `u64 version of the config table, u32 count`, then the messages:
a header (`_MESSAGE`) and the encoded entries whose size it tells.
"""

import struct
import sys
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from eraft.errors import ChecksumMismatch, EraftError, FrameTooLarge, ProtocolError
from eraft.types import Message, MessageKind

__all__ = [
    "DIGEST",
    "FRAME_HEADER_BYTES",
    "HELLO",
    "IMPL",
    "LEADS",
    "MESSAGE_HEADER_BYTES",
    "META_REPLY",
    "META_REQUEST",
    "RAFT",
    "SNAPSHOT_CHUNK",
    "SNAPSHOT_END",
    "SNAPSHOT_REQUEST",
    "TABLE",
    "TABLE_REQUEST",
    "FrameReader",
    "decode_messages",
    "encode_frame",
    "encode_messages",
]

IMPL: Final = "python"

HELLO: Final = 1
RAFT: Final = 2
LEADS: Final = 3
TABLE_REQUEST: Final = 4
TABLE: Final = 5
META_REQUEST: Final = 6
META_REPLY: Final = 7
DIGEST: Final = 8
SNAPSHOT_REQUEST: Final = 9
SNAPSHOT_CHUNK: Final = 10
SNAPSHOT_END: Final = 11
_KINDS = range(HELLO, SNAPSHOT_END + 1)

FRAME_HEADER_BYTES: Final = 8
"""Length and checksum; the kind counts as the first byte after it."""
MESSAGE_HEADER_BYTES: Final = 74

_FRAME = struct.Struct("<II")
_BATCH = struct.Struct("<QI")
# kind, reject, gid, sender, to, term, index, log_term, commit, context, hint, size of entries
_MESSAGE = struct.Struct("<BBIQQQQQQQQI")
_MESSAGE_KINDS = frozenset(int(kind) for kind in MessageKind)
_KIND_BYTES = [bytes([kind]) for kind in range(256)]


def encode_frame(kind: int, body: bytes | bytearray | memoryview) -> bytes:
    """Return a whole frame; ValueError if the kind is unknown."""
    if kind not in _KINDS:
        raise ValueError(f"unknown frame kind {kind}")
    mark = _KIND_BYTES[kind]
    return b"".join((_FRAME.pack(1 + len(body), crc32(body, crc32(mark))), mark, body))


def encode_messages(table_version: int, messages: Sequence[Message]) -> bytes:
    """Return a whole RAFT frame; ValueError if a number does not fit its field."""
    pack = _MESSAGE.pack
    try:
        parts: list[bytes] = [b"", b"\x02" + _BATCH.pack(table_version, len(messages))]
    except struct.error:
        raise ValueError(f"table version {table_version} does not fit its field") from None
    for message in messages:
        entries = message.entries
        try:
            parts.append(
                pack(
                    message.kind,
                    message.reject,
                    message.gid,
                    message.sender,
                    message.to,
                    message.term,
                    message.index,
                    message.log_term,
                    message.commit,
                    message.context,
                    message.hint,
                    len(entries),
                )
            )
        except struct.error:
            raise ValueError(
                f"a number of a message of group {message.gid} from {message.sender} "
                f"to {message.to} does not fit its field"
            ) from None
        if entries:
            parts.append(entries)
    crc = 0
    size = 0
    for part in parts:
        crc = crc32(part, crc)
        size += len(part)
    parts[0] = _FRAME.pack(size, crc)
    return b"".join(parts)


def decode_messages(body: bytes | bytearray | memoryview) -> tuple[int, list[Message]]:
    """Return the config table version and the messages of a RAFT frame's body.

    Raises ProtocolError naming the offset if it is malformed. Entries are
    checked only for lying inside the body.
    """
    total = len(body)
    if total < _BATCH.size:
        raise ProtocolError(f"RAFT body of {total} bytes, it takes at least {_BATCH.size}")
    table_version, count = _BATCH.unpack_from(body)
    offset = _BATCH.size
    if count > (total - offset) // MESSAGE_HEADER_BYTES:
        raise ProtocolError(f"RAFT body of {total} bytes announces {count} messages")
    unpack, kinds = _MESSAGE.unpack_from, _MESSAGE_KINDS
    messages: list[Message] = []
    for _ in range(count):
        if total - offset < MESSAGE_HEADER_BYTES:
            raise ProtocolError(f"message at offset {offset}: {total - offset} bytes of its header")
        # fmt: off
        (kind, reject, gid, sender, to, term, index, log_term, commit, context, hint,
         size) = unpack(body, offset)
        # fmt: on
        if kind not in kinds:
            raise ProtocolError(f"message at offset {offset}: unknown kind {kind}")
        if reject > 1:
            raise ProtocolError(f"message at offset {offset}: reject is {reject}")
        start = offset + MESSAGE_HEADER_BYTES
        end = start + size
        if end > total:
            raise ProtocolError(
                f"message at offset {offset}: {size} bytes of entries, {total - start} are left"
            )
        entries = bytes(body[start:end]) if size else b""
        # fmt: off
        messages.append(
            Message(kind, gid, sender, to, term, index, log_term, commit, context, hint,
                    reject == 1, entries)
        )
        # fmt: on
        offset = end
    if offset != total:
        raise ProtocolError(f"RAFT body: {total - offset} bytes after the last message")
    return table_version, messages


class FrameReader:
    """Cuts what arrives on one connection into frames."""

    __slots__ = ("_broken", "_limit", "_rest")

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes`: the longest frame, without its 8 bytes of length and checksum."""
        self._limit = limit_bytes
        self._rest = bytearray()
        self._broken: EraftError | None = None

    def __sizeof__(self) -> int:
        """Memory held, in bytes."""
        return object.__sizeof__(self) + sys.getsizeof(self._rest)

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[int, bytes]]:
        """Return (kind, body) of every frame that `data` completes.

        Raises FrameTooLarge, ChecksumMismatch or ProtocolError; the
        connection is then good for nothing: every further call raises the
        same error again. Of a frame that is not complete, no more than what
        has arrived is held.
        """
        if self._broken is not None:
            raise self._broken
        rest = self._rest
        if rest:
            rest += data
            view = memoryview(rest)
        else:
            view = memoryview(data)
        try:
            with view:
                frames, done = self._cut(view)
                if view.obj is not rest:
                    rest += view[done:]
                    return frames
        except ProtocolError as error:
            self._broken = error
            self._rest = bytearray()
            raise
        del rest[:done]
        return frames

    def _cut(self, view: memoryview) -> tuple[list[tuple[int, bytes]], int]:
        """The complete frames, and where the first incomplete one begins."""
        frames: list[tuple[int, bytes]] = []
        offset, total, limit = 0, len(view), self._limit
        while total - offset >= FRAME_HEADER_BYTES:
            length, crc = _FRAME.unpack_from(view, offset)
            if length > limit:
                raise FrameTooLarge(f"frame of {length} bytes, the limit is {limit}")
            if not length:
                raise ProtocolError("frame of 0 bytes")
            start = offset + FRAME_HEADER_BYTES
            end = start + length
            if end > total:
                break
            payload = view[start:end]
            actual = crc32(payload)
            if actual != crc:
                raise ChecksumMismatch(
                    f"frame of {length} bytes: checksum {actual:#010x} instead of {crc:#010x}"
                )
            kind = payload[0]
            if kind not in _KINDS:
                raise ProtocolError(f"unknown frame kind {kind} (frame of {length} bytes)")
            frames.append((kind, bytes(payload[1:])))
            offset = end
        return frames, offset
