"""Where in the log the entries of each group are, in little memory."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from eraft import limits
from eraft._impl import log as entry_log
from eraft._impl import wal as codec
from eraft.errors import InvariantViolation, LogCompacted
from eraft.storage.items import Item, decode_group_state, decode_hard_state
from eraft.types import GroupState

ROW_ENTRIES_BYTES = 64 * limits.KIB
"""One row of the index stands for about this much of a group's entries."""
ROW_DISTANCE_BYTES = 1 * limits.MIB
"""...or for this much of the log, so that a quiet group's entries are found in a busy log."""


class Row(NamedTuple):
    """Entries `first_index` to `last_index` begin in that item of that record."""

    first_index: int
    last_index: int
    sequence: int
    offset: int
    item: int


class GroupIndex:
    """What the log says of one group, and where its entries are.

    A row tells the item of a record with which the entries from some index on
    begin; they go on in the items after it, in the same segment, up to the
    next row's. Where entries replace others a row begins: between two rows nothing
    is superseded.
    """

    __slots__ = (
        "_bytes_in_row",
        "_firsts",
        "_items",
        "_offsets",
        "_sequences",
        "base_index",
        "base_term",
        "hard_state",
        "last_index",
        "log_bytes",
        "state",
    )

    def __init__(self, state: GroupState) -> None:
        self.state = state
        self.hard_state = state.hard_state
        self.base_index = state.base_index
        self.base_term = state.base_term
        self.last_index = state.base_index
        self.log_bytes = 0
        """Bytes of the group's entries in the log, superseded ones included."""
        self._firsts = array("Q")
        self._sequences = array("Q")
        self._offsets = array("Q")
        self._items = array("I")
        self._bytes_in_row = 0

    @property
    def rows(self) -> int:
        """Rows of the index."""
        return len(self._firsts)

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
        if first_index <= self.last_index:
            keep = bisect_left(self._firsts, first_index)
            for column in (self._firsts, self._sequences, self._offsets, self._items):
                del column[keep:]
            begin = True
        else:
            begin = (
                not self._firsts
                or self._sequences[-1] != sequence
                or self._bytes_in_row >= ROW_ENTRIES_BYTES
                or offset - self._offsets[-1] >= ROW_DISTANCE_BYTES
            )
        if begin:
            self._firsts.append(first_index)
            self._sequences.append(sequence)
            self._offsets.append(offset)
            self._items.append(item)
            self._bytes_in_row = 0
        self.last_index = first_index + count - 1
        self._bytes_in_row += len(entries)
        self.log_bytes += len(entries)

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
        row = bisect_right(self._firsts, index) - 1
        last = self._firsts[row + 1] - 1 if row + 1 < len(self._firsts) else self.last_index
        return Row(
            self._firsts[row], last, self._sequences[row], self._offsets[row], self._items[row]
        )


class LogIndex:
    """What the log says of all groups and of the node itself."""

    def __init__(self) -> None:
        self.groups: dict[int, GroupIndex] = {}
        self.node = b""
        """Payload of the last NODE item, empty before the first."""

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
            if kind == codec.GROUP_STATE:
                state = decode_group_state(payload)
                if state.gid != gid:
                    raise InvariantViolation(f"log: state of group {state.gid} as group {gid}")
                self.groups[gid] = GroupIndex(state)
                continue
            group = self.groups.get(gid)
            if group is None:
                raise InvariantViolation(f"log: item of group {gid}, which was never founded")
            if kind == codec.ENTRIES:
                group.add(first_index, payload, sequence, offset, item)
            elif kind == codec.HARD_STATE:
                group.hard_state = decode_hard_state(payload)
            else:
                raise InvariantViolation(f"log: item of unknown kind {kind}")
