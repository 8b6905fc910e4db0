"""The frames by which snapshots go from node to node, on the bulk connection.

All begin with (little-endian) u32 gid, u64 id of the sending replica, u64 id
of the receiving one, u64 id of the snapshot. A REQUEST goes on with u8 again
and the receiver's cursor (see `eraft.storage.snapshots`), a CHUNK with the
chunk, an END with a u8 reason.

The receiver is in charge: each request tells how far it is, which lets the
sender go on; with `again` it wants to have what comes after the cursor once
more, because something was lost or could not be taken.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from eraft._impl import frames
from eraft.errors import ProtocolError
from eraft.storage.snapshots import Cursor

_HEADER = struct.Struct("<IQQQ")
_ID = struct.Struct("<Q")


class Reason(IntEnum):
    """Why a transfer ends."""

    INSTALLED = 1
    """The receiver has it, durably, or has come as far by itself."""
    REFUSED = 2
    """The receiver does not want it (any more)."""
    GONE = 3
    """The sender does not have it (any more)."""


@dataclass(slots=True, frozen=True)
class Parcel:
    """Which snapshot a frame is about; `source` and `target` are replica ids."""

    gid: int
    source: int
    target: int
    snapshot_id: int

    def encode(self, kind: int, rest: bytes) -> bytes:
        """The frame with this in front of the rest."""
        header = _HEADER.pack(self.gid, self.source, self.target, self.snapshot_id)
        return frames.encode_frame(kind, header + rest)

    def request(self, again: bool, cursor: Cursor) -> bytes:
        """The frame that asks for what comes after the cursor."""
        return self.encode(frames.SNAPSHOT_REQUEST, bytes((again,)) + cursor.encode())

    def end(self, reason: Reason) -> bytes:
        """The frame that ends the transfer."""
        return self.encode(frames.SNAPSHOT_END, bytes((reason,)))


def decode(body: bytes) -> tuple[Parcel, bytes]:
    """Which snapshot a frame is about, and the rest of it; ProtocolError if it is too short."""
    if len(body) <= _HEADER.size:
        raise ProtocolError(f"snapshot frame of {len(body)} bytes")
    return Parcel(*_HEADER.unpack_from(body)), body[_HEADER.size :]


def decode_request(rest: bytes) -> tuple[bool, Cursor]:
    """Whether to begin again, and where; ProtocolError if it is malformed."""
    if rest[0] > 1:
        raise ProtocolError(f"snapshot request: again is {rest[0]}, not 0 or 1")
    return rest[0] == 1, Cursor.decode(rest[1:])


def decode_end(rest: bytes) -> Reason:
    """Why the transfer ends; ProtocolError if it is malformed."""
    if len(rest) != 1 or rest[0] not in _REASONS:
        raise ProtocolError(f"snapshot end: unknown reason {rest[:8]!r}")
    return Reason(rest[0])


def encode_id(snapshot_id: int) -> bytes:
    """The metadata of an offer."""
    return _ID.pack(snapshot_id)


def decode_id(metadata: bytes) -> int:
    """The id of the offered snapshot; ProtocolError if it is malformed."""
    if len(metadata) != _ID.size:
        raise ProtocolError(f"snapshot offer: an id of {len(metadata)} bytes")
    found: int = _ID.unpack(metadata)[0]
    return found


_REASONS = frozenset(int(reason) for reason in Reason)
