"""Reading entries back from the log's segments."""

import struct
from collections.abc import Iterator

from eraft import limits
from eraft._impl import log as entry_log
from eraft._impl import wal as codec
from eraft.errors import LogCorrupt
from eraft.storage.index import GroupIndex, Row
from eraft.storage.items import Item
from eraft.storage.segments import Segment

WINDOW_BYTES = 128 * limits.KIB

_LENGTH = struct.Struct("<8xI")


def read_entries(
    segments: dict[int, Segment],
    index: GroupIndex,
    first_index: int,
    last_index: int,
    limit_bytes: int,
) -> tuple[bytes, int]:
    """Return encoded entries from `first_index` on, and the index of the last one.

    At least one entry, else no more than `limit_bytes`, up to `last_index`.

    Raises:
        LogCompacted: `first_index` is at or below the log's base.
        LogCorrupt: a record cannot be read any more.
        OSError: the disk cannot be read.
    """
    parts: list[bytes] = []
    size = 0
    place = first_index
    while place <= last_index:
        row = index.find(place)
        last = min(row.last_index, last_index)
        run = _read_row(segments[row.sequence], index.state.gid, row, last)
        blob, end = run.slice(place, last, max(limit_bytes - size, 0))
        if parts and size + len(blob) > limit_bytes:
            break
        parts.append(blob)
        size += len(blob)
        place = end + 1
        if end < last:
            break
    return b"".join(parts), place - 1


def _read_row(segment: Segment, gid: int, row: Row, last_index: int) -> entry_log.EntryLog:
    """Return the entries of one row of the index, at least up to `last_index`.

    What an item brings beyond the row's last entry is superseded.
    """
    run = entry_log.EntryLog(row.first_index - 1)
    skip = row.item
    row_kind = None
    for items in _records(segment, row.offset):
        for item_gid, kind, item_first, payload in items[skip:]:
            row_kind = row_kind or kind
            if item_gid == gid and kind == row_kind:
                run.extend(item_first, payload)
                if run.last_index >= last_index:
                    return run
        skip = 0
    raise LogCorrupt(
        f"log segment {segment.file.name}: entries {row.first_index}..{last_index} of group {gid} "
        f"were written from offset {row.offset} on, but end at {run.last_index}"
    )


def _records(segment: Segment, offset: int) -> Iterator[list[Item]]:
    """Yield the items of each record from `offset` on, up to the first that is not valid."""
    window = segment.file.pread(WINDOW_BYTES, offset)
    place = 0
    while True:
        status, _, _, items, end = codec.scan(window, place, segment.salt, segment.sequence)
        if status == codec.VALID:
            yield items
            place = end
            continue
        if place == 0:
            window = _whole_record(segment, offset, window)
            if not window:
                return
        else:
            offset += place
            place = 0
            window = segment.file.pread(WINDOW_BYTES, offset)


def _whole_record(segment: Segment, offset: int, window: bytes) -> bytes:
    """Return a record larger than the window, empty if that is not what is wrong."""
    if len(window) < codec.RECORD_HEADER_BYTES:
        return b""
    size: int = codec.RECORD_HEADER_BYTES + _LENGTH.unpack_from(window)[0]
    if not len(window) < size <= segment.size_bytes - offset:
        return b""
    return segment.file.pread(size, offset)
