"""Where in the log the entries of each group are, in little memory."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from eraft import limits
from eraft._impl import log as entry_log
from eraft._impl import wal as codec
from eraft.errors import InvariantViolation, LogCompacted, LogCorrupt
from eraft.storage.items import (
    Item,
    checkpoint_item,
    decode_group_state,
    decode_hard_state,
    decode_term,
    node_item,
    tombstone_item,
)
from eraft.types import GroupState

ROW_ENTRIES_BYTES = 64 * limits.KIB
"""One row of the index stands for about this much of a group's entries."""
ROW_DISTANCE_BYTES = 1 * limits.MIB
"""...or for this much of the log, so that a quiet group's entries are found in a busy log."""


class Row(NamedTuple):
    """Entries `first_index` to `last_index` begin in that item of that record.

    They have at most `size_bytes`, less where some were superseded.
    """

    first_index: int
    last_index: int
    sequence: int
    offset: int
    item: int
    size_bytes: int


class GroupIndex:
    """What the log says of one group, and where its entries are.

    A row tells the item of a record with which the entries from some index on
    begin; they go on in the items after it, in the same segment, up to the
    row's last one. Where entries replace others a row begins: between two rows
    nothing is superseded. A copy, which takes the place of older rows, is one
    row and one item.

    The rows are in the order of their indexes, one behind the other. Only
    while the log is read from a later segment on, entries are missing; in the
    end they must be compacted, or there as copies.
    """

    __slots__ = (
        "_copied",
        "_firsts",
        "_items",
        "_lasts",
        "_offsets",
        "_sequences",
        "_sizes",
        "base_index",
        "base_term",
        "hard_state",
        "last_index",
        "released",
        "state",
    )

    def __init__(self, state: GroupState, last_index: int = 0) -> None:
        self.state = state
        self.hard_state = state.hard_state
        self.base_index = state.base_index
        self.base_term = state.base_term
        self.last_index = max(state.base_index, last_index)
        self.released: int | None = None
        """The group itself needs no entry up to here any more; None as long as it has not said."""
        self._firsts = array("Q")
        self._lasts = array("Q")
        self._sequences = array("Q")
        self._offsets = array("Q")
        self._items = array("I")
        self._sizes = array("Q")
        self._copied = array("B")

    @property
    def log_bytes(self) -> int:
        """About how many bytes of entries the log holds for the group."""
        return sum(self._sizes)

    @property
    def first_sequence(self) -> int | None:
        """Sequence of the oldest segment that has an entry which counts, None without entries."""
        return min(self._sequences, default=None)

    @property
    def rows(self) -> int:
        """Rows of the index."""
        return len(self._firsts)

    @property
    def missing(self) -> tuple[int, int] | None:
        """First and last index of the first entries that are not there, None if all are."""
        end = self.base_index
        for first, last in zip(self._firsts, self._lasts, strict=True):
            if first > end + 1:
                return end + 1, first - 1
            end = last
        return (end + 1, self.last_index) if end < self.last_index else None

    def add(self, first_index: int, entries: bytes, sequence: int, offset: int, item: int) -> None:
        """Note that an item of the record at `offset` of a segment holds entries.

        Raises:
            InvariantViolation: they leave a gap, reach below the base or are none.
            ProtocolError: they are malformed.
        """
        count = entry_log.check_entries(entries)
        if not self.base_index < first_index <= self.last_index + 1 or not count:
            raise InvariantViolation(
                f"log of group {self.state.gid}: {count} entries from index {first_index} on do "
                f"not fit the log of {self.base_index + 1}..{self.last_index}"
            )
        self.last_index = first_index + count - 1
        keep = bisect_left(self._firsts, first_index)
        if keep and self._lasts[keep - 1] >= first_index:
            self._lasts[keep - 1] = first_index - 1
            if first_index - 1 == self.base_index:
                keep = 0  # nothing is left of it
        elif (
            keep == len(self._firsts) > 0
            and self._lasts[-1] == first_index - 1
            and self._sequences[-1] == sequence
            and self._sizes[-1] < ROW_ENTRIES_BYTES
            and offset - self._offsets[-1] < ROW_DISTANCE_BYTES
            and not self._copied[-1]
        ):
            self._lasts[-1] = self.last_index
            self._sizes[-1] += len(entries)
            return
        for column in self._columns():
            del column[keep:]
        self._insert(keep, first_index, self.last_index, sequence, offset, item, len(entries), 0)

    def add_copy(
        self, first_index: int, entries: bytes, sequence: int, offset: int, item: int
    ) -> None:
        """Note that an item holds entries once more; where they were before does not count.

        Raises:
            InvariantViolation: it is not the whole of some rows, or of what is missing.
            ProtocolError: they are malformed.
        """
        last_index = first_index + entry_log.check_entries(entries) - 1
        start = bisect_left(self._lasts, first_index)
        end = bisect_right(self._firsts, last_index)
        if (
            not self.base_index < first_index <= last_index <= self.last_index
            or (start < end and max(self._firsts[start], self.base_index + 1) < first_index)
            or (start < end and self._lasts[end - 1] > last_index)
        ):
            raise InvariantViolation(
                f"log of group {self.state.gid}: the copy of entries {first_index} to "
                f"{last_index} does not fit the log of {self.base_index + 1}..{self.last_index}"
            )
        for column in self._columns():
            del column[start:end]
        self._insert(start, first_index, last_index, sequence, offset, item, len(entries), 1)

    def compact(self, index: int, term: int) -> None:
        """Make entry `index`, of that term, the base.

        Raises:
            InvariantViolation: it is below the base or beyond the last entry.
        """
        if not self.base_index <= index <= self.last_index:
            raise InvariantViolation(
                f"log of group {self.state.gid}: compaction to {index} does not fit the log of "
                f"{self.base_index + 1}..{self.last_index}"
            )
        gone = bisect_right(self._lasts, index)
        for column in self._columns():
            del column[:gone]
        self.base_index, self.base_term = index, term

    def old_rows(self, sequence: int) -> list[Row]:
        """Return the rows in segments before that one, in the order of their indexes."""
        return [self._row(at) for at, found in enumerate(self._sequences) if found < sequence]

    def pinned_bytes(self, sequence: int) -> int:
        """Return about how many bytes of entries that are not released lie in old segments.

        Before that one, that is, or would if they had not been copied.
        """
        first = bisect_right(self._lasts, self.released or 0)
        places = range(first, len(self._lasts))
        return sum(
            self._sizes[at] for at in places if self._copied[at] or self._sequences[at] < sequence
        )

    def current_state(self) -> GroupState:
        """Return the group's state with its hard state and base as they are now."""
        return replace(
            self.state,
            hard_state=self.hard_state,
            base_index=self.base_index,
            base_term=self.base_term,
        )

    def find(self, index: int) -> Row:
        """Return the row that holds the entry.

        Raises:
            LogCompacted: the entry is at or below the log's base.
            InvariantViolation: the entry is beyond the last one.
        """
        if index <= self.base_index:
            raise LogCompacted(
                f"log of group {self.state.gid}: entry {index} is compacted, "
                f"the first one is {self.base_index + 1}"
            )
        if index > self.last_index:
            raise InvariantViolation(
                f"log of group {self.state.gid}: entry {index} is beyond the last one, "
                f"{self.last_index}"
            )
        return self._row(bisect_left(self._lasts, index))

    def _row(self, at: int) -> Row:
        return Row(
            self._firsts[at],
            self._lasts[at],
            self._sequences[at],
            self._offsets[at],
            self._items[at],
            self._sizes[at],
        )

    def _insert(self, at: int, *row: int) -> None:
        for column, value in zip(self._columns(), row, strict=True):
            column.insert(at, value)

    def _columns(self) -> tuple["array[int]", ...]:
        return (
            self._firsts,
            self._lasts,
            self._sequences,
            self._offsets,
            self._items,
            self._sizes,
            self._copied,
        )


class LogIndex:
    """What the log says of all groups and of the node itself."""

    def __init__(self) -> None:
        self.groups: dict[int, GroupIndex] = {}
        self.node = b""
        """Payload of the last NODE item, empty before the first."""
        self.tombstones: dict[int, int] = {}
        """By group: no replica with this id or a smaller one may be founded here."""
        self._begun = False

    def checkpoint(self) -> list[Item]:
        """Return the items that a new segment begins with, so that it can be the oldest one."""
        items = [node_item(self.node)] if self.node else []
        items += [tombstone_item(gid, replica_id) for gid, replica_id in self.tombstones.items()]
        for group in self.groups.values():
            items.append(checkpoint_item(group.current_state(), group.last_index))
        return items

    def check_complete(self) -> None:
        """After reading: raise LogCorrupt if entries are missing that were not compacted."""
        for gid, group in self.groups.items():
            missing = group.missing
            if missing is not None:
                raise LogCorrupt(
                    f"log of group {gid}: the segments with the entries {missing[0]} to "
                    f"{missing[1]} are gone, but they were not compacted"
                )

    def add(self, items: Sequence[Item], sequence: int, offset: int) -> None:
        """Note the items of the record at `offset` of a segment.

        Raises:
            InvariantViolation: they contradict what is noted already.
            ProtocolError: they are malformed.
        """
        for item, (gid, kind, first_index, payload) in enumerate(items):
            if kind == codec.NODE:
                self.node = bytes(payload)
                continue
            if kind == codec.GROUP_STATE or kind == codec.CHECKPOINT:
                self._add_state(gid, kind, first_index, payload)
                continue
            group = self.groups.get(gid)
            if kind == codec.TOMBSTONE:
                self.tombstones[gid] = max(first_index, self.tombstones.get(gid, 0))
                if group is not None and group.state.replica_id <= first_index:
                    del self.groups[gid]
                continue
            if group is None:
                raise InvariantViolation(f"log: item of group {gid}, which was never founded")
            if kind == codec.ENTRIES:
                group.add(first_index, payload, sequence, offset, item)
            elif kind == codec.COPY:
                group.add_copy(first_index, payload, sequence, offset, item)
            elif kind == codec.HARD_STATE:
                group.hard_state = decode_hard_state(payload)
            elif kind == codec.COMPACT:
                group.compact(first_index, decode_term(payload))
            else:
                raise InvariantViolation(f"log: item of unknown kind {kind}")
        self._begun = True

    def _add_state(self, gid: int, kind: int, last_index: int, payload: bytes) -> None:
        """Note a GROUP_STATE, or a CHECKPOINT: that one only repeats what is known.

        In the first record of all it tells what the segments before it held.
        """
        state = decode_group_state(payload)
        if state.gid != gid:
            raise InvariantViolation(f"log: state of group {state.gid} as group {gid}")
        if state.replica_id <= self.tombstones.get(gid, 0):
            raise InvariantViolation(
                f"log: replica {state.replica_id} of group {gid} was removed from this node"
            )
        if kind == codec.GROUP_STATE:
            self.groups[gid] = GroupIndex(state)
        elif not self._begun:
            self.groups[gid] = GroupIndex(state, last_index)
        else:
            group = self.groups.get(gid)
            if group is None or (group.current_state(), group.last_index) != (state, last_index):
                raise InvariantViolation(
                    f"log: the checkpoint of group {gid} contradicts what was logged before"
                )
