"""The keys of the state store: where each kind of row lives.

One database serves all replicas of a node. Every key begins with the
generation of the replica's state (u32) and the kind of the row (u8), both
big-endian so that keys sort by generation, then kind, then what follows.
Generation 0 belongs to the node itself. The DATA keys are made by
`batch.data_key`, at apply and for reads alike.
"""

import struct

META = 1
"""Name -> value: the applied index, moves and whatever a state machine keeps."""
BUCKET = 2
"""u16 bucket -> state, epoch, peer gid of that bucket and of those up to the next row."""
DATA = 3
"""u16 bucket, u32 crc32(key), key -> flags, version, deadline, value."""
ONCE = 4
"""u16 bucket, key, token -> digest of the request, deadline, reply."""
DIRTY = 5
"""u16 bucket, kind, row key -> index of the write, while the bucket is copied away."""
EXPIRY = 6
"""u64 deadline_ms, then a DATA key without its prefix -> nothing (a hint)."""

KINDS = (META, BUCKET, DATA, ONCE, DIRTY, EXPIRY)
GENERATION_BYTES = 4
PREFIX_BYTES = 5
NODE_GENERATION = 0

_PREFIX = struct.Struct(">IB")
_BUCKET = struct.Struct(">IBH")
_EXPIRY = struct.Struct(">IBQ")
_APPLIED = struct.Struct(">QQQI")
_APPLIED_NAME = b"applied"
_CONF_NAME = b"conf"


def prefix(generation: int, kind: int) -> bytes:
    """Return what every key of this kind in this generation begins with."""
    return _PREFIX.pack(generation, kind)


def prefix_end(start: bytes) -> bytes:
    """Return the smallest key above every key that begins with `start`."""
    stripped = start.rstrip(b"\xff")
    if not stripped:
        raise ValueError("a prefix of only 0xff bytes has no end")
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def generation_range(generation: int) -> tuple[bytes, bytes]:
    """Return start and end (exclusive) of all rows of a generation."""
    start = generation.to_bytes(4, "big")
    return start, prefix_end(start)


def kind_range(generation: int, kind: int) -> tuple[bytes, bytes]:
    """Return start and end (exclusive) of the rows of one kind."""
    return _PREFIX.pack(generation, kind), _PREFIX.pack(generation, kind + 1)


def bucket_range(generation: int, kind: int, bucket: int) -> tuple[bytes, bytes]:
    """Return start and end (exclusive) of the rows of one bucket.

    For the kinds whose keys go on with the bucket: BUCKET, DATA, ONCE, DIRTY.
    """
    start = _BUCKET.pack(generation, kind, bucket)
    return start, prefix_end(start)


def meta_key(generation: int, name: bytes) -> bytes:
    """Return the key of a META row."""
    return _PREFIX.pack(generation, META) + name


def bucket_key(generation: int, bucket: int) -> bytes:
    """Return the key of a bucket's BUCKET row."""
    return _BUCKET.pack(generation, BUCKET, bucket)


def expiry_key(generation: int, deadline_ms: int, row_key: bytes) -> bytes:
    """Return the key of the hint that `row_key`, a DATA key, expires at `deadline_ms`."""
    return _EXPIRY.pack(generation, EXPIRY, deadline_ms) + row_key[PREFIX_BYTES:]


def applied_key(generation: int) -> bytes:
    """Return the key of the row that tells how far the replica has applied."""
    return meta_key(generation, _APPLIED_NAME)


def conf_key(generation: int) -> bytes:
    """Return the key of the row that has the group's configuration as of the applied index."""
    return meta_key(generation, _CONF_NAME)


def encode_applied(index: int, term: int, clock_ms: int, digest: int) -> bytes:
    """Return the value of the row at `applied_key`."""
    return _APPLIED.pack(index, term, clock_ms, digest)


def decode_applied(row: bytes | None) -> tuple[int, int, int, int]:
    """Return index, term, clock and digest of an `encode_applied` row; all 0 without a row."""
    if row is None:
        return 0, 0, 0, 0
    index, term, clock_ms, digest = _APPLIED.unpack(row)
    return index, term, clock_ms, digest
