"""The write-ahead log of a node: one stream of records for all its groups.

The log does no direct I/O while it runs: `append` returns what to write
where, somebody else writes and syncs it and says so with `durable`. Segments
are prepared by whoever runs `Preparation.run`, off the event loop.
"""

import errno
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eraft import limits
from eraft._impl import log as entry_log
from eraft._impl import wal as codec
from eraft.errors import DiskFull, InvariantViolation, LogCorrupt, ProtocolError, StorageError
from eraft.storage.files import File, Files
from eraft.storage.index import GroupIndex
from eraft.storage.items import Item, group_state_item
from eraft.storage.reading import read_entries
from eraft.storage.recovery import Recovered, recover
from eraft.storage.retention import Sweep, first_retained
from eraft.storage.segments import (
    HEADER_BYTES,
    TEMPORARY_SUFFIX,
    Preparation,
    Segment,
    SegmentHeader,
    open_segment,
    segment_name,
)
from eraft.types import GroupState

LOAD_BYTES = 4 * limits.MIB

_logger = logging.getLogger(__name__)


def _random_u64() -> int:
    return secrets.randbits(64)


@dataclass(slots=True, frozen=True)
class LogOptions:
    """How a node's log is kept.

    `store_id`: 32 hexadecimal digits, in every segment. `segment_size_bytes`
    holds for segments made from now on. `retention_bytes` of segments are kept
    for followers that were away, and more only while something in them is
    needed. `free_disk_bytes`: see
    `WriteAheadLog.refuses`. `random_u64` draws the salts; clients must not be
    able to guess it.
    """

    store_id: str
    segment_size_bytes: int = limits.SEGMENT_SIZE_BYTES
    retention_bytes: int = limits.LOG_RETENTION_BYTES
    free_disk_bytes: int = limits.FREE_DISK_BYTES
    random_u64: Callable[[], int] = _random_u64


@dataclass(slots=True, frozen=True)
class WriteRequest:
    """Write all of `data` to `file` at `offset`, sync the file, then report `position` durable.

    Requests are carried out one after the other, in the order they were made.
    """

    file: File
    offset: int
    data: bytes
    position: int


def format_log(files: Files, options: LogOptions, states: Sequence[GroupState]) -> None:
    """Make a new log whose first record, if there are states, founds those groups.

    Raises:
        DiskFull: there is no room for the first segment.
        OSError: the disk fails otherwise.
    """
    _prepare(_preparation(options, 1, options.segment_size_bytes, 1, 1, 0), files)
    if states:
        log = WriteAheadLog.open(files, options)
        request = log.append([group_state_item(state) for state in states])
        request.file.pwrite(request.data, request.offset)
        request.file.sync()
        log.close()


class WriteAheadLog:
    """All that the node's groups have to remember, and where the entries are.

    `append` makes one record of any number of items, atomic and in order.
    Positions count records from 1 and never repeat.
    """

    def __init__(self, files: Files, options: LogOptions, recovered: Recovered) -> None:
        """Use what `recovery.recover` returned; see `open`."""
        self.options = options
        self.position = recovered.position
        """Position of the last record appended."""
        self.durable_position = recovered.position
        """Position up to which every record is known to be durable."""
        self.segments_awaited = 0
        """How often a segment had to be made on the spot because none was ready."""
        self.appended_bytes = 0
        """Size of all records appended since the log was opened."""
        self._files = files
        self._index = recovered.index
        self._segments = {segment.sequence: segment for segment in recovered.segments}
        self._current = recovered.segments[-1]
        self._spare = recovered.spare
        self._oldest_sequence = recovered.oldest_sequence
        self._oldest_position = recovered.oldest_position
        self._retired = recovered.retired
        self._sweep: Sweep | None = None
        self._sweep_due = True
        self._move_due = False
        self._needed = self._oldest_sequence
        """Segments before that one go once everything is durable."""
        self._preparing = False
        self._failing = False
        self._retry_awaited = False
        self._leftover: list[str] = []
        self._prepared = 0

    @classmethod
    def open(cls, files: Files, options: LogOptions) -> "WriteAheadLog":
        """Recover the log: read all of it, mend a torn tail, index the entries.

        Raises:
            LogCorrupt: something that had been durable cannot be read; the
                log is left as it is, and the node's replicas are quarantined.
            StorageError: the log is of a newer format or another store, or
                the disk fails.
        """
        try:
            return cls(files, options, recover(files, options.store_id))
        except OSError as error:
            raise StorageError(f"the log cannot be read: {error}") from error

    @property
    def groups(self) -> Mapping[int, GroupIndex]:
        """What the log says of each group: identity, hard state, first and last entry."""
        return self._index.groups

    @property
    def node(self) -> bytes:
        """Payload of the last NODE item, empty before the first."""
        return self._index.node

    @property
    def segments(self) -> int:
        """Segments on disk, spare and retired ones included."""
        return len(self._segments) + len(self._retired) + (self._spare is not None)

    @property
    def size_bytes(self) -> int:
        """Bytes that the segments take on disk, spare and retired ones included."""
        segments = [*self._segments.values(), *self._retired]
        if self._spare:
            segments.append(self._spare)
        return sum(segment.size_bytes for segment in segments)

    @property
    def tombstones(self) -> Mapping[int, int]:
        """By group: no replica with this id or a smaller one may be founded on this node."""
        return self._index.tombstones

    def log_bytes(self, gid: int) -> int:
        """Return about how many bytes of entries the log holds for the group.

        None of a group whose first record is still to come.
        """
        group = self._index.groups.get(gid)
        return group.log_bytes if group else 0

    def append(self, items: Sequence[Item]) -> WriteRequest:
        """Make the next record of the items (see `eraft.storage.items`).

        If it has no room in the segment it goes to the next one; if that was
        not prepared in time it is made on the spot, which blocks. What the log
        itself has to note, so that old segments can go, is put before the items.

        Raises:
            InvariantViolation: the items contradict the log, or there are none.
            LogCorrupt: an old record cannot be read any more.
            DiskFull: a segment had to be made and there is no room.
            StorageError: a segment had to be made and the disk fails.
        """
        if not items:
            raise InvariantViolation("log: a record without items")
        sweep = self._next_sweep()
        if sweep is not None:
            items = [*sweep.step(self.read), *items]
        size = codec.record_size(items)
        segment = self._current
        if not segment.fits(size):
            items = [*self._index.checkpoint(), *items]
            size = codec.record_size(items)
            segment = self._next_segment(size)
            self._sweep_due = True
        offset = segment.end
        try:
            self._index.add(items, segment.sequence, offset)
        except ProtocolError as error:
            raise InvariantViolation(f"log: {error}") from error
        if sweep is not None:
            sweep.noted()
            if sweep.over:
                self._needed, self._sweep = sweep.needed, None
        self.position += 1
        if not segment.first_position:
            segment.first_position = self.position
        data = codec.encode_record(
            segment.salt, segment.sequence, self.position, self.durable_position, items
        )
        segment.end = offset + size
        self.appended_bytes += size
        return WriteRequest(segment.file, offset, data, self.position)

    def durable(self, position: int) -> None:
        """Note that every record up to `position` is written and synced."""
        if not self.durable_position <= position <= self.position:
            raise InvariantViolation(
                f"log: position {position} reported durable, known is {self.durable_position} "
                f"and the last one is {self.position}"
            )
        self.durable_position = position
        if self._needed > self._oldest_sequence and position == self.position:
            self._retire()

    def release(self, released: Sequence[tuple[int, int, int]]) -> None:
        """Note up to where groups do not need their own entries any more.

        Call it after every finished flush of the state store, with (gid,
        generation, index) of every group: what was applied, and handed to the
        store, when the flush began. It allows compaction; that takes place
        with the records after it, as the retention asks for. A group whose
        generation has changed meanwhile is left out.

        Raises:
            InvariantViolation: an index is beyond the end of its log.
        """
        for gid, generation, index in released:
            group = self._index.groups.get(gid)
            if group is None or group.state.generation != generation:
                continue
            if index > group.last_index:
                raise InvariantViolation(
                    f"log of group {gid}: applied up to {index}, but it ends at {group.last_index}"
                )
            group.released = max(index, group.released or 0)
        self._sweep_due = self._move_due = True

    def read(
        self, gid: int, first_index: int, last_index: int, limit_bytes: int
    ) -> tuple[bytes, int]:
        """Return encoded entries from `first_index` on, and the index of the last one.

        At least one entry, else no more than `limit_bytes`, up to
        `last_index`. For entries that are durable. Reads the disk.

        Raises:
            LogCompacted: `first_index` is at or below the group's base.
            LogCorrupt: a record cannot be read any more.
            StorageError: the disk fails.
        """
        group = self._index.groups[gid]
        try:
            return read_entries(self._segments, group, first_index, last_index, limit_bytes)
        except (ProtocolError, InvariantViolation) as error:
            raise LogCorrupt(f"log of group {gid}: {error}") from error
        except OSError as error:
            raise StorageError(f"log of group {gid}: cannot be read: {error}") from error

    def load(self, gid: int, applied_index: int, applied_term: int) -> entry_log.EntryLog:
        """Return the entries after the last applied one, for a replica that starts.

        The entries up to it stay on disk, for `read`.

        Raises:
            LogCorrupt: the applied state and the log contradict each other.
            StorageError: the disk fails.
        """
        group = self._index.groups[gid]
        where = f"log of group {gid}"
        if not group.base_index <= applied_index <= group.last_index:
            raise LogCorrupt(
                f"{where}: the applied index {applied_index} is outside of the log, "
                f"which goes from {group.base_index} to {group.last_index}"
            )
        if group.hard_state.commit > group.last_index:
            raise LogCorrupt(
                f"{where}: entry {group.hard_state.commit} was committed, "
                f"but the log ends at {group.last_index}"
            )
        term = group.base_term
        if applied_index > group.base_index:
            blob, _ = self.read(gid, applied_index, applied_index, 0)
            probe = entry_log.EntryLog(applied_index - 1)
            probe.extend(applied_index, blob)
            term = probe.last_term
        if term != applied_term:
            raise LogCorrupt(
                f"{where}: entry {applied_index} was applied in term {applied_term}, "
                f"the log has it in term {term}"
            )
        log = entry_log.EntryLog(applied_index, applied_term)
        while log.last_index < group.last_index:
            first = log.last_index + 1
            blob, _ = self.read(gid, first, group.last_index, LOAD_BYTES)
            try:
                log.extend(first, blob)
            except ProtocolError as error:
                raise LogCorrupt(f"{where}: {error}") from error
        return log

    def preparations(self) -> list[Preparation]:
        """Return the segments to make now, at most one; each is returned once.

        Whoever takes it runs it in a thread, then calls `prepared` or
        `prepare_failed`. After a failure there is none until `retry_preparation`.
        """
        if self._preparing or self._spare or self._retry_awaited:
            return []
        self._preparing = True
        return [self._preparation(self.options.segment_size_bytes)]

    def prepared(self, preparation: Preparation) -> None:
        """Take over the segment that `preparation.run` made."""
        self._preparing = False
        self._failing = False
        if self._spare is None and preparation.header.sequence == self._current.sequence + 1:
            self._spare = self._open(preparation.header.sequence)

    def prepare_failed(self, preparation: Preparation, error: Exception) -> None:
        """Note that `preparation.run` failed; `retry_preparation` lets it be tried again."""
        self._preparing = False
        self._retry_awaited = True
        self._leftover += [*preparation.removed, preparation.recycled, preparation.temporary]
        if not self._failing:
            _logger.error("log segment %s cannot be prepared: %s", preparation.name, error)
        self._failing = True

    def retry_preparation(self) -> None:
        """Let `preparations` try again; call it about once a second."""
        self._retry_awaited = False

    def refuses(self, free_bytes: int) -> DiskFull | None:
        """Return the error to answer writes with while the disk has only that much room.

        Above the mark there is room for what the groups still have to log
        when clients are refused already.
        """
        mark = self.options.free_disk_bytes
        if free_bytes >= mark:
            return None
        return DiskFull(
            f"the disk has {free_bytes // limits.MIB} MiB left, "
            f"writes are refused below {mark // limits.MIB} MiB"
        )

    def close(self) -> None:
        """Close the files; nothing is written or synced."""
        for segment in self._segments.values():
            segment.file.close()
        if self._spare:
            self._spare.file.close()

    def _next_sweep(self) -> Sweep | None:
        """Return what frees the segments beyond the retention, if something has changed.

        Only while everything is durable: it reads entries.
        """
        if self.durable_position != self.position:
            return None
        if self._sweep is None and self._sweep_due:
            self._sweep = Sweep(
                self._index,
                first_retained(self._segments, self.options.retention_bytes),
                self._current.sequence,
                self.options.retention_bytes // limits.COPIED_SHARE,
                move=self._move_due,
            )
            self._sweep_due = self._move_due = False
        return self._sweep

    def _retire(self) -> None:
        """Everything is durable: part with the segments in which nothing counts any more."""
        for sequence in range(self._oldest_sequence, self._needed):
            segment = self._segments.pop(sequence)
            segment.file.close()
            self._retired.append(segment)
        self._oldest_sequence = self._needed
        self._oldest_position = self._segments[self._needed].first_position

    def _next_segment(self, size: int) -> Segment:
        """Go on to the next segment; make it on the spot if it is not ready or too small."""
        sequence = self._current.sequence + 1
        segment = self._spare
        while segment is None or not segment.fits(size):
            if segment is not None:
                segment.file.close()
            self.segments_awaited += 1
            _logger.warning("log segment %s is made on the spot", segment_name(sequence))
            needed = max(self.options.segment_size_bytes, HEADER_BYTES + size)
            try:
                _prepare(self._preparation(needed, replaces=segment is not None), self._files)
            except OSError as error:
                raise StorageError(f"a log segment cannot be made: {error}") from error
            segment = self._open(sequence)
        self._spare = None
        self._segments[sequence] = segment
        self._current = segment
        return segment

    def _preparation(self, size_bytes: int, replaces: bool = False) -> Preparation:
        """Return how to make the next segment, out of a retired one if there is one."""
        recycled = ""
        removed, self._leftover = [name for name in self._leftover if name], []
        # The others have to stay: after a crash the newest header would ask for them.
        marked = self._current.oldest_sequence
        for segment in self._retired:
            if segment.sequence < marked and segment.size_bytes == size_bytes and not recycled:
                recycled = segment.file.name
            elif segment.sequence < marked:
                removed.append(segment.file.name)
        self._retired = [segment for segment in self._retired if segment.sequence >= marked]
        self._prepared += 1
        return _preparation(
            self.options,
            self._current.sequence + 1,
            size_bytes,
            self._oldest_sequence,
            self._oldest_position,
            self._prepared,
            recycled,
            tuple(removed),
            replaces,
        )

    def _open(self, sequence: int) -> Segment:
        try:
            return open_segment(self._files, sequence, self.options.store_id)[0]
        except OSError as error:
            raise StorageError(f"{segment_name(sequence)} cannot be opened: {error}") from error


def _preparation(
    options: LogOptions,
    sequence: int,
    size_bytes: int,
    oldest_sequence: int,
    oldest_position: int,
    number: int,
    recycled: str = "",
    removed: tuple[str, ...] = (),
    replaces: bool = False,
) -> Preparation:
    """Return how to make a segment; `number` tells two attempts at the same one apart."""
    header = SegmentHeader(
        store_id=options.store_id,
        sequence=sequence,
        # Never 0: zeros are what an unused part of a segment consists of.
        salt=options.random_u64() | 1,
        size_bytes=max(size_bytes, HEADER_BYTES),
        oldest_sequence=oldest_sequence,
        oldest_position=oldest_position,
    )
    temporary = f"{segment_name(sequence)}.{number}{TEMPORARY_SUFFIX}"
    return Preparation(header, temporary, recycled, removed, replaces)


def _prepare(preparation: Preparation, files: Files) -> None:
    """Run a preparation; DiskFull if there is no room."""
    try:
        preparation.run(files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room for log segment {preparation.name}: {error}") from error
        raise
