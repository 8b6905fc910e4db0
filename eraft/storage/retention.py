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


class Sweep:
    """One look at all groups, for what they still need of segments before `first`.

    A group that did not release what it has there pins it. With `move` those
    entries are copied, and so lie in the newest segment; else they stay, since
    a busy group will release soon. So do those of groups with which all copies
    would have more than `allowed_bytes`.

    It takes as many steps as it needs, each for one record, and a group that
    changes behind its back is seen by the next sweep.
    """

    def __init__(
        self, index: LogIndex, first: int, newest: int, allowed_bytes: int, *, move: bool
    ) -> None:
        self.needed = newest
        """Once it is over: the oldest segment with an entry that counts, or an older one."""
        self._index = index
        self._first = first
        self._allowed_bytes = allowed_bytes
        self._move = move
        self._left = list(reversed(index.groups))
        self._begun = False
        """Whether an earlier step has left something of the last group in `_left`."""
        self._moves = False
        self._done: list[int] = []

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return not self._left

    def step(self, read: Read) -> list[Item]:
        """Return the next items for the log; `noted` has to follow once its index has them.

        At most `limits.COMPACTION_SLICE_GROUPS` groups are looked at, and
        `limits.COMPACTION_SLICE_BYTES` of entries and `limits.COMPACTION_SLICE_ROWS`
        rows of the index are read, but one row.
        """
        items: list[Item] = []
        budget_bytes = limits.COMPACTION_SLICE_BYTES
        for _ in range(limits.COMPACTION_SLICE_GROUPS):
            if not self._left or budget_bytes <= 0:
                break
            group = self._index.groups.get(self._left[-1])
            if group is not None and group.released is not None:
                budget_bytes -= self._look(group, group.released, budget_bytes, items, read)
            if not self._begun:
                self._done.append(self._left.pop())
        return items

    def noted(self) -> None:
        """The index has the items of the last step."""
        for gid in self._done:
            group = self._index.groups.get(gid)
            first = group.first_sequence if group is not None else None
            if first is not None:
                self.needed = min(self.needed, first)
        self._done.clear()

    def _look(
        self, group: GroupIndex, released: int, budget_bytes: int, items: list[Item], read: Read
    ) -> int:
        """Add what has to be logged of one group; return what reading it took of the budget."""
        if not self._begun:
            pinned_bytes = group.pinned_bytes(self._first) if self._move else 0
            self._moves = self._move and pinned_bytes <= self._allowed_bytes
            if self._moves:
                self._allowed_bytes -= pinned_bytes
        self._begun = False
        rows = group.old_rows(self._first)
        if not rows:
            return 0
        cost = 0
        last = max(min(rows[-1].last_index, released), group.base_index)
        if last > group.base_index and (self._moves or last >= rows[0].last_index):
            items.append(compact_item(group.state.gid, last, _term(group, last, read)))
            cost = _cost(group.find(last))
        rows = [row for row in rows if row.last_index > last]
        while self._moves and rows and cost < budget_bytes:
            item, taken = _copy(group, last + 1, rows, budget_bytes - cost, read)
            items.append(item)
            cost += taken
        self._begun = self._moves and bool(rows)
        if rows and self._move and not self._moves:
            _logger.warning(
                "group %d: entries %d to %d are not applied and keep old segments of the log, "
                "%d MiB are too much to copy",
                group.state.gid,
                released + 1,
                group.last_index,
                group.pinned_bytes(self._first) // limits.MIB,
            )
        return cost


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
