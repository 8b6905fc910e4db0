"""Which segments of the log are kept, and what has to be logged so that others can go.

The log keeps the newest segments, as many as the retention allows, so that a
follower that was away catches up from them. Of older ones it lets go: what
lies in them and is not needed by its own group any more is compacted, and
what still is moves into the next record. All of that is items of ordinary
records, so recovery knows it, and a segment is free only once they are durable.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from eraft import limits
from eraft._impl import log as entry_log
from eraft.storage.index import GroupIndex, LogIndex
from eraft.storage.items import Item, compact_item, entries_item, group_state_item
from eraft.storage.segments import Segment

Read = Callable[[int, int, int, int], tuple[bytes, int]]
"""`WriteAheadLog.read`."""

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


def compaction(index: LogIndex, first: int, read: Read, *, move: bool) -> list[Item]:
    """Return the items after which nothing in a segment before `first` counts any more.

    A group that did not release what it has there pins it. With `move` the
    group's state and remaining entries are among the items, in place of all
    that was logged of it; else it is left alone, since a busy group will
    release soon.
    """
    items: list[Item] = []
    budget_bytes = limits.REWRITE_BYTES
    for gid, group in index.groups.items():
        last = group.last_before(first)
        if not last or group.released is None:
            continue
        if last <= group.released:
            items.append(compact_item(gid, last, _term(group, last, read)))
        elif move:
            moved, size_bytes = _moved(group, budget_bytes, read)
            budget_bytes -= size_bytes
            items += moved
    return items


def _moved(group: GroupIndex, limit_bytes: int, read: Read) -> tuple[list[Item], int]:
    """Return the items that replace all that was logged of a group, none beyond the limit."""
    gid = group.state.gid
    base = max(group.released or 0, group.base_index)
    if group.bytes_from(base + 1) > limit_bytes:
        _logger.warning(
            "group %d: entries %d to %d are not applied and keep old segments of the log: "
            "more than %d bytes to move",
            gid,
            base + 1,
            group.last_index,
            limit_bytes,
        )
        return [], 0
    blob, _ = read(gid, base + 1, group.last_index, limit_bytes)
    state = replace(group.current_state(), base_index=base, base_term=_term(group, base, read))
    return [group_state_item(state), entries_item(gid, base + 1, blob)], len(blob)


def _term(group: GroupIndex, index: int, read: Read) -> int:
    if index == group.base_index:
        return group.base_term
    probe = entry_log.EntryLog(index - 1)
    probe.extend(index, read(group.state.gid, index, index, 0)[0])
    return probe.last_term
