"""Which segments of the log are kept, and what has to be logged so that others can go.

The log keeps the newest segments, as many as the retention allows, so that a
follower that was away catches up from them. Of older ones it lets go: what
lies in them and is not needed by its own group any more is compacted, and
what still is moves into the next record. All of that is items of ordinary
records, so recovery knows it, and a segment is free only once they are durable.
"""

import logging
from collections.abc import Callable

from eraft import limits
from eraft._impl import log as entry_log
from eraft.storage.index import GroupIndex, LogIndex, Row
from eraft.storage.items import Item, compact_item, copy_item
from eraft.storage.segments import Segment

Read = Callable[[int, int, int, int], tuple[bytes, int]]
"""`WriteAheadLog.read`."""

WHOLE = 1 << 62
"""As a limit of bytes: none."""

_logger = logging.getLogger(__name__)


def first_retained(segments: dict[int, Segment], retention_bytes: int) -> int:
    """Return the sequence of the oldest segment that the retention keeps.

    That of the newest one at least; `segments` are in the order of their sequences.
    """
    size_bytes = 0
    first = 0
    for sequence, segment in reversed(segments.items()):
        size_bytes += segment.size_bytes
        if first and size_bytes > retention_bytes:
            break
        first = sequence
    return first


def first_needed(index: LogIndex, newest: int) -> int:
    """Return the sequence of the oldest segment with an entry that counts, at most `newest`."""
    needed = newest
    for group in index.groups.values():
        first = group.first_sequence
        if first is not None:
            needed = min(needed, first)
    return needed


def compaction(
    index: LogIndex, first: int, read: Read, allowed_bytes: int, *, move: bool
) -> tuple[list[Item], bool]:
    """Return items so that nothing in a segment before `first` counts any more, and if more follow.

    A group that did not release what it has there pins it. With `move` those
    entries are copied, and so lie in the newest segment; else they stay, since
    a busy group will release soon. So do those of groups with which all copies
    would have more than `allowed_bytes`.

    For one call at most `limits.COMPACTION_SLICE_BYTES` of entries and
    `limits.COMPACTION_SLICE_ROWS` rows of the index are read, but one row. It
    is complete by itself: the next call, with the items noted in the index,
    goes on.
    """
    items: list[Item] = []
    budget_bytes = limits.COMPACTION_SLICE_BYTES
    pinning: list[GroupIndex] = []
    for group in index.groups.values():
        if group.released is None:
            continue
        pinned_bytes = group.pinned_bytes(first) if move else 0
        moves = move and pinned_bytes <= allowed_bytes
        if moves:
            allowed_bytes -= pinned_bytes
        rows = group.old_rows(first)
        if not rows:
            continue
        if budget_bytes <= 0:
            return items, True
        last = max(min(rows[-1].last_index, group.released), group.base_index)
        if last > group.base_index and (moves or last >= rows[0].last_index):
            items.append(compact_item(group.state.gid, last, _term(group, last, read)))
            budget_bytes -= _cost(group.find(last))
        rows = [row for row in rows if row.last_index > last]
        while moves and rows and budget_bytes > 0:
            item, cost = _copy(group, last + 1, rows, budget_bytes, read)
            items.append(item)
            budget_bytes -= cost
        if rows and moves:
            return items, True
        if rows and move:
            pinning.append(group)
    for group in pinning:
        _logger.warning(
            "group %d: entries %d to %d are not applied and keep old segments of the log, "
            "%d MiB are too much to copy",
            group.state.gid,
            (group.released or 0) + 1,
            group.last_index,
            group.pinned_bytes(first) // limits.MIB,
        )
    return items, False


def _copy(
    group: GroupIndex, first_index: int, rows: list[Row], limit_bytes: int, read: Read
) -> tuple[Item, int]:
    """Take rows that follow each other, up to the limit or one; return their copy and its cost."""
    row = rows.pop(0)
    first_index = max(first_index, row.first_index)
    last_index = row.last_index
    cost = _cost(row)
    while rows and rows[0].first_index == last_index + 1 and cost + _cost(rows[0]) <= limit_bytes:
        row = rows.pop(0)
        last_index = row.last_index
        cost += _cost(row)
    gid = group.state.gid
    return copy_item(gid, first_index, read(gid, first_index, last_index, WHOLE)[0]), cost


def _cost(row: Row) -> int:
    """What reading a row takes of `limits.COMPACTION_SLICE_BYTES`.

    Those of a quiet group in a busy log have few entries far apart.
    """
    return max(row.size_bytes, limits.COMPACTION_SLICE_BYTES // limits.COMPACTION_SLICE_ROWS)


def _term(group: GroupIndex, index: int, read: Read) -> int:
    if index == group.base_index:
        return group.base_term
    probe = entry_log.EntryLog(index - 1)
    probe.extend(index, read(group.state.gid, index, index, 0)[0])
    return probe.last_term
