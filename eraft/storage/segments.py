"""Segments: the files that the write-ahead log is cut into.

A segment is made complete before it is used: zeros, then its header, a sync,
and only then its name. So a segment without a valid header, or shorter than
its header says, is never the trace of a crash. Its records begin after the
header, back to back; from the first byte that is no valid record on, nothing
in it counts.

A segment may be recycled once nothing in it is needed: under a new sequence
and a new salt, so that the records of its earlier use are not valid any more.
What is still needed is written in the headers: the oldest sequence, as it was
when that segment was prepared; the largest one holds. So a file goes only
once the header of another one, durable, says that it is not needed, and it
loses its name before its header is touched.
"""

import contextlib
import struct
import zlib
from dataclasses import dataclass

from eraft import limits
from eraft.errors import LogCorrupt, StorageError
from eraft.storage.files import File, Files, fill_with_zeros

FORMAT_VERSION = 1
HEADER_BYTES = 4096
"""A page of its own: writing records never rewrites the header."""
SYNC_BYTES = 1 * limits.MIB
"""A preparation syncs so often: in one go it would hold up the log writer for 20 ms."""
SUFFIX = ".log"
TEMPORARY_SUFFIX = ".tmp"

_MAGIC = b"eraftlog"
_HEADER = struct.Struct("<8sI16sQQQQQ")
_CHECKSUM = struct.Struct("<I")
HEADER_USED_BYTES = _HEADER.size + _CHECKSUM.size


@dataclass(slots=True, frozen=True)
class SegmentHeader:
    """What identifies a segment.

    `oldest_sequence` is the first segment that was still needed when this one
    was prepared, `oldest_position` the position of that one's first record.
    """

    store_id: str
    sequence: int
    salt: int
    size_bytes: int
    oldest_sequence: int
    oldest_position: int


@dataclass(slots=True)
class Segment:
    """A segment in use or ready for use.

    `oldest_sequence` is what its header says, `end` where the next record goes,
    `first_position` the position of the first one, 0 while there is none.
    """

    file: File
    sequence: int
    salt: int
    size_bytes: int
    oldest_sequence: int
    end: int = HEADER_BYTES
    first_position: int = 0

    def fits(self, size_bytes: int) -> bool:
        """Tell whether a record of that size has room after `end`."""
        return self.end + size_bytes <= self.size_bytes


@dataclass(slots=True, frozen=True)
class Preparation:
    """The making of one segment, to be run off the event loop.

    `recycled` names the segment whose file it takes, "" for a new one, and
    `removed` those that go: no header asks for them any more. With `replaces`
    it takes the place of a segment of its name that was never used. That one
    must not go before: after a crash its header can be the only one that does
    not ask for segments that are gone.
    """

    header: SegmentHeader
    temporary: str
    recycled: str = ""
    removed: tuple[str, ...] = ()
    replaces: bool = False

    @property
    def name(self) -> str:
        """Name of the segment's file."""
        return segment_name(self.header.sequence)

    def run(self, files: Files) -> None:
        """Make the segment, durably; unless it replaces one, a name that is taken stays.

        It may be run again after an error.

        Raises:
            OSError: the disk is full or fails; of the temporary name nothing
                is there, if that could still be removed.
        """
        try:
            for name in self.removed:
                with contextlib.suppress(FileNotFoundError):
                    files.remove(name)
            self._fill(files)
            if self.replaces:
                files.rename(self.temporary, self.name)
            else:
                files.publish(self.temporary, self.name)
        except OSError:
            with contextlib.suppress(OSError):
                files.remove(self.temporary)
            raise

    def _fill(self, files: Files) -> None:
        """Make the file under its temporary name."""
        recycled = False
        if self.recycled:
            with contextlib.suppress(FileNotFoundError):
                files.rename(self.recycled, self.temporary)
                recycled = True
        file = files.open(self.temporary) if recycled else files.create(self.temporary)
        try:
            file.pwrite(encode_header(self.header), 0)
            done = self.header.size_bytes if recycled else HEADER_BYTES
            while done < self.header.size_bytes:
                end = min(done + SYNC_BYTES, self.header.size_bytes)
                fill_with_zeros(file, end, done)
                file.sync()
                done = end
            file.sync()
        finally:
            file.close()


def segment_name(sequence: int) -> str:
    """Return the file name of a segment."""
    return f"{sequence:016d}{SUFFIX}"


def segment_sequence(name: str) -> int | None:
    """Return the sequence in a segment's file name, None if it is no such name."""
    digits = name.removesuffix(SUFFIX)
    if len(digits) != 16 or not digits.isascii() or not digits.isdigit():
        return None
    return int(digits) if name == segment_name(int(digits)) else None


def encode_header(header: SegmentHeader) -> bytes:
    """Return the first HEADER_BYTES of a segment."""
    packed = _HEADER.pack(
        _MAGIC,
        FORMAT_VERSION,
        bytes.fromhex(header.store_id),
        header.sequence,
        header.salt,
        header.size_bytes,
        header.oldest_sequence,
        header.oldest_position,
    )
    return (packed + _CHECKSUM.pack(zlib.crc32(packed))).ljust(HEADER_BYTES, b"\0")


def open_segment(files: Files, sequence: int, store_id: str) -> tuple[Segment, SegmentHeader]:
    """Open the segment and check its header.

    Raises:
        LogCorrupt: the header is damaged, or the file is shorter than it says.
        StorageError: it is of a newer format, or of another store.
    """
    file = files.open(segment_name(sequence))
    try:
        header = _read_header(file, sequence, store_id)
    except BaseException:
        file.close()
        raise
    segment = Segment(file, sequence, header.salt, header.size_bytes, header.oldest_sequence)
    return segment, header


def _read_header(file: File, sequence: int, store_id: str) -> SegmentHeader:
    packed = file.pread(HEADER_USED_BYTES, 0)
    where = f"log segment {file.name}"
    if len(packed) < HEADER_USED_BYTES or packed[: len(_MAGIC)] != _MAGIC:
        raise LogCorrupt(f"{where}: damaged header: it does not begin like a segment")
    (checksum,) = _CHECKSUM.unpack_from(packed, _HEADER.size)
    if checksum != zlib.crc32(packed[: _HEADER.size]):
        raise LogCorrupt(f"{where}: damaged header: checksum mismatch")
    _, version, store, own_sequence, salt, size_bytes, oldest, position = _HEADER.unpack_from(
        packed
    )
    if version != FORMAT_VERSION:
        raise StorageError(
            f"{where}: format version {version}, this program knows {FORMAT_VERSION}"
        )
    if store.hex() != store_id:
        raise StorageError(f"{where}: belongs to store {store.hex()}, not to {store_id}")
    if own_sequence != sequence:
        raise LogCorrupt(f"{where}: its header says that it is segment {own_sequence}")
    if file.size() < size_bytes:
        raise LogCorrupt(f"{where}: {file.size()} bytes long instead of {size_bytes}")
    return SegmentHeader(store_id, sequence, salt, size_bytes, oldest, position)
