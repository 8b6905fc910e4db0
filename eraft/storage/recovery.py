"""Reading the log after a stop: what counts, what is a torn tail, what is corruption."""

import itertools
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

from eraft._impl import wal as codec
from eraft.errors import InvariantViolation, LogCorrupt, ProtocolError
from eraft.storage.files import Files, fill_with_zeros
from eraft.storage.index import LogIndex
from eraft.storage.items import Item
from eraft.storage.segments import (
    HEADER_BYTES,
    TEMPORARY_SUFFIX,
    Segment,
    SegmentHeader,
    open_segment,
    segment_name,
    segment_sequence,
)

_logger = logging.getLogger(__name__)

PADDING_BYTES = 1
"""Before Python 3.11.5 `mmap.find` reads one byte too many, which may be of a page that is not
there (https://github.com/python/cpython/issues/105235)."""


@dataclass(slots=True)
class Recovered:
    """The log as it was found and put in order.

    Records go on at `segments[-1].end` after position `position`; `spare` is
    the segment after it, if one was prepared already. Those in `retired` are
    closed and not needed, but the header of the last one in use still asks for them.
    """

    segments: list[Segment]
    spare: Segment | None
    retired: list[Segment]
    index: LogIndex
    position: int
    oldest_sequence: int
    oldest_position: int


@dataclass(slots=True)
class _Record:
    segment: Segment
    offset: int
    end: int
    position: int
    durable: int
    items: list[Item] | None
    """None where only the header is good, or not even that."""


def recover(files: Files, store_id: str) -> Recovered:
    """Read all segments, judge what is bad, mend a torn tail.

    Positions are consecutive, so a record that cannot be read is missed,
    wherever it was. If any valid record, or only a valid header, says that the
    missing one was durable when it was written itself, that is corruption.
    Otherwise nobody was told
    of the missing record: it and all after it are a torn tail, overwritten
    with zeros. (Of the very last record no later one can speak: if that
    rots, it is taken for torn.) What is kept is durable afterwards.

    Raises:
        LogCorrupt: a record that had been durable, a header or a whole
            segment is missing or damaged. No segment was changed.
        StorageError: the log is of a newer format or of another store.
        OSError: the disk cannot be read or written.
    """
    opened = _open_segments(files, store_id)
    try:
        newest = max((header for _, header in opened), key=lambda header: header.oldest_sequence)
        needed = [segment for segment, _ in opened if segment.sequence >= newest.oldest_sequence]
        for sequence, segment in enumerate(needed, newest.oldest_sequence):
            if segment.sequence != sequence:
                raise LogCorrupt(f"log segment {segment_name(sequence)} is missing")
        reader = _Reader(newest.oldest_position, needed[0])
        needed[0].file.read_ahead()
        for segment, following in itertools.zip_longest(needed, needed[1:]):
            if following is not None:
                following.file.read_ahead()  # while the processor is busy with this one
            reader.read(segment)
        reader.judge()
        reader.index.check_complete()
        reader.mend(needed)
        unneeded = [segment for segment, _ in opened[: -len(needed)]]
        return _arrange(files, needed, unneeded, reader, newest)
    except BaseException:
        for segment, _ in opened:
            segment.file.close()
        raise


class _Reader:
    """Reads the records of one segment after the other and notes those that count."""

    def __init__(self, oldest_position: int, oldest: Segment) -> None:
        self.index = LogIndex()
        self.expected = oldest_position
        self.last = oldest
        """The segment that the last record that counts is in."""
        self._proven = 0
        self._unproven: deque[_Record] = deque()
        self._begun_to: dict[int, int] = {}
        self._gap = ""
        self._data = mmap(-1, 1)
        """The segment that is read, and a byte of padding. All go to the same place, at the
        beginning of a page: to map new pages and to copy to an odd address each took the kernel
        longer than the reading."""

    def read(self, segment: Segment) -> None:
        """Note the records of the next segment."""
        if len(self._data) != segment.size_bytes + PADDING_BYTES:
            self._data = mmap(-1, segment.size_bytes + PADDING_BYTES)
        with memoryview(self._data) as whole, whole[: segment.size_bytes] as view:
            segment.file.pread_into(view, 0)
        for record in _records(self._data, segment):
            header_end = record.offset + codec.RECORD_HEADER_BYTES
            self._begun_to[segment.sequence] = max(record.end, header_end)
            if record.position == 0:
                continue
            self._proven = max(self._proven, record.durable)
            if not self._gap and record.position == self.expected:
                if record.items is not None:
                    self._note(record, record.items)
            elif not self._gap:
                self._gap = (
                    f"found record {record.position} at offset {record.offset} "
                    f"of segment {segment.file.name}"
                )
            while self._unproven and self._unproven[0].position <= self._proven:
                self._unproven.popleft()

    def judge(self) -> None:
        """Raise LogCorrupt if a missing record is known to have been durable."""
        if self._proven >= self.expected:
            raise LogCorrupt(
                f"log segment {self.last.file.name}: no record {self.expected} at offset "
                f"{self.last.end}, but {self._gap or 'a later record'} says that records "
                f"up to {self._proven} had been durable"
            )

    def mend(self, segments: list[Segment]) -> None:
        """Overwrite what does not count with zeros, and make durable what does.

        Zeros, because a record that is written over the torn one could end
        where the next torn one begins, which would then count. What has no
        header of this segment cannot count: a recycled file is full of it.

        The records of which nothing proves that they are durable are written
        once more: after a failed sync the kernel may hold them as clean pages
        that never reached the disk, and a sync alone would do nothing.
        """
        touched: dict[int, Segment] = {}
        for record in self._unproven:
            file = record.segment.file
            file.pwrite(file.pread(record.end - record.offset, record.offset), record.offset)
            touched[record.segment.sequence] = record.segment
        for segment in segments:
            used = self._begun_to.get(segment.sequence, 0)
            if segment.sequence < self.last.sequence or used <= segment.end:
                continue
            _logger.warning(
                "log segment %s: a torn tail of %d bytes at offset %d is dropped",
                segment.file.name,
                used - segment.end,
                segment.end,
            )
            fill_with_zeros(segment.file, used, segment.end)
            touched[segment.sequence] = segment
        for segment in touched.values():
            segment.file.sync()

    def _note(self, record: _Record, items: list[Item]) -> None:
        """Count a record; what contradicts itself cannot be trusted either."""
        try:
            self.index.add(items, record.segment.sequence, record.offset)
        except (InvariantViolation, ProtocolError) as error:
            raise LogCorrupt(
                f"log segment {record.segment.file.name}: record {record.position} at offset "
                f"{record.offset}: {error}"
            ) from error
        record.items = None
        if not record.segment.first_position:
            record.segment.first_position = record.position
        self.expected += 1
        self.last = record.segment
        self.last.end = record.end
        self._unproven.append(record)


def _open_segments(files: Files, store_id: str) -> list[tuple[Segment, SegmentHeader]]:
    """Open all segments in order; remove preparations that did not end."""
    sequences = []
    for name in files.names():
        sequence = segment_sequence(name)
        if sequence is not None:
            sequences.append(sequence)
        elif name.endswith(TEMPORARY_SUFFIX):
            files.remove(name)
    if not sequences:
        raise LogCorrupt("the log has no segments")
    opened: list[tuple[Segment, SegmentHeader]] = []
    try:
        opened.extend(open_segment(files, sequence, store_id) for sequence in sorted(sequences))
    except BaseException:
        for segment, _ in opened:
            segment.file.close()
        raise
    return opened


def _arrange(
    files: Files,
    segments: list[Segment],
    unneeded: list[Segment],
    reader: _Reader,
    newest: SegmentHeader,
) -> Recovered:
    """Part the segments in use from the prepared one after them and those before them.

    The newest header can be that of a prepared segment that does not stay; so
    only what the last one in use does not ask for may go.
    """
    retired = []
    for segment in unneeded:
        if segment.sequence < reader.last.oldest_sequence:
            _remove(files, segment)
        else:
            segment.file.close()
            retired.append(segment)
    used = [segment for segment in segments if segment.sequence <= reader.last.sequence]
    unused = segments[len(used) :]
    for segment in reversed(unused[1:]):
        _remove(files, segment)
    return Recovered(
        segments=used,
        spare=unused[0] if unused else None,
        retired=retired,
        index=reader.index,
        position=reader.expected - 1,
        oldest_sequence=newest.oldest_sequence,
        oldest_position=newest.oldest_position,
    )


def _remove(files: Files, segment: Segment) -> None:
    segment.file.close()
    files.remove(segment.file.name)


def _records(data: mmap, segment: Segment) -> Iterator[_Record]:
    """Yield every record of a segment that was begun, also those after something bad.

    After something bad the segment's salt is searched: it stands in every
    record's header and nowhere else. The position is 0 where the header is bad.
    """
    salt = segment.salt.to_bytes(8, "little")
    offset = HEADER_BYTES
    while True:
        status, position, durable, items, end = codec.scan(
            data, offset, segment.salt, segment.sequence
        )
        if status == codec.VALID:
            yield _Record(segment, offset, end, position, durable, items)
            offset = end
            continue
        if data[offset + codec.SALT_OFFSET : offset + codec.RECORD_HEADER_BYTES] == salt:
            yield _Record(segment, offset, offset, position, durable, None)
        found = data.find(salt, offset + codec.SALT_OFFSET + 1, segment.size_bytes)
        if found < 0:
            return
        offset = found - codec.SALT_OFFSET
