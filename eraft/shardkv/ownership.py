"""Which buckets a group owns, by its own applied log: the BUCKET rows.

Neighbours are mostly alike, so a row stands for its bucket and all behind it
up to the next row; before the first row nothing has ever been owned.
"""

import re
import struct
from enum import IntEnum

from eraft._impl import resp
from eraft.shardkv.syntax import parse_int
from eraft.storage import rows as layout
from eraft.storage.state import ReplicaRows
from eraft.types import BUCKETS

_ROW = struct.Struct(">BQI")
_FIRST_EPOCH = 1
_OWNED_RUN = re.compile(b"\x01+")
_MALFORMED = resp.ReplyError(b"ERR malformed _OWN")
_REFUSED = resp.ReplyError(b"ERR some bucket has been owned before, or the epoch is not the first")


class State(IntEnum):
    """What a bucket is to a group."""

    NONE = 0
    """Never anything else."""
    OWNED = 1
    """Served."""
    EXPORTING = 2
    """Served while it is copied to another group."""
    FROZEN = 3
    """Not served: the last rows are on their way to the other group."""
    IMPORTING = 4
    """Not served yet: its rows are arriving."""
    GONE = 5
    """Handed over to another group."""


_NOBODYS = _ROW.pack(State.NONE, 0, 0)
_STATES = frozenset(int(state) for state in State)


def load(rows: ReplicaRows) -> bytearray:
    """Return the state of every bucket."""
    states = bytearray(BUCKETS)
    for key, row in rows.scan(*layout.kind_range(rows.generation, layout.BUCKET)):
        bucket = key[-2] << 8 | key[-1]
        states[bucket:] = bytes((row[0],)) * (BUCKETS - bucket)
    return states


def readable(row: bytes) -> bool:
    """Tell whether this can be a BUCKET row."""
    return len(row) == _ROW.size and row[0] in _STATES


def owned_runs(states: bytearray) -> list[tuple[int, int]]:
    """Return first and last bucket of each run of owned neighbours, in order."""
    return [(run.start(), run.end() - 1) for run in _OWNED_RUN.finditer(states)]


def own(rows: ReplicaRows, states: bytearray, args: list[bytes]) -> bytes:
    """`_OWN epoch start end [start end ...]`: own buckets that nobody has owned before.

    All of them or, if one has ever been anything else here, none.
    """
    numbers = [parse_int(arg) for arg in args[1:]]
    if len(numbers) < 3 or not len(numbers) % 2:
        return _MALFORMED
    epoch, *bounds = (-1 if number is None else number for number in numbers)
    runs = list(zip(bounds[::2], bounds[1::2], strict=True))
    if not all(0 <= start <= end < BUCKETS for start, end in runs):
        return _MALFORMED
    if epoch != _FIRST_EPOCH or any(any(states[start : end + 1]) for start, end in runs):
        return _REFUSED
    for start, end in runs:
        behind = layout.bucket_key(rows.generation, end + 1)
        if end + 1 < BUCKETS and rows.get(behind) is None:
            rows.put(behind, _NOBODYS)
        # There is no row between: what has never been owned begins behind something else.
        rows.put(layout.bucket_key(rows.generation, start), _ROW.pack(State.OWNED, epoch, 0))
        states[start : end + 1] = bytes((State.OWNED,)) * (end + 1 - start)
    return resp.OK
