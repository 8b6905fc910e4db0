"""Damage to the files of a node that does not run, and syncs of one that does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import orjson

from eraft._impl import wal as codec
from eraft.storage.files import DiskFiles
from eraft.storage.items import hard_state_item
from eraft.storage.segments import HEADER_BYTES, open_segment, segment_name, segment_sequence
from eraft.storage.wal import LogOptions, WriteAheadLog, WriteRequest

TORN_BYTES = 50


@contextmanager
def flipped(path: Path, offset: int) -> Iterator[None]:
    """One bit of a file is another one, until the end."""

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 0x10]))

    flip()
    try:
        yield
    finally:
        flip()


@contextmanager
def bad_syncs(pid: int, how: str) -> Iterator[None]:
    """Until the end each fdatasync of the process goes as strace is told by `how`."""
    words = ["strace", "-f", "-qq", "-p", str(pid), "-e", "trace=fdatasync"]
    inject = ["-e", f"inject=fdatasync:{how}", "-o", "/dev/null"]
    with subprocess.Popen([*words, *inject], start_new_session=True) as tracer:
        try:
            yield
        finally:
            tracer.kill()


def used_bytes(path: Path) -> int:
    """Where the zeros at the end of a segment begin."""
    return len(path.read_bytes().rstrip(b"\0"))


@contextmanager
def _next_record(data_dir: Path) -> Iterator[WriteRequest]:
    """The record that the node would write next; it is not written."""
    store_id = orjson.loads((data_dir / "identity.json").read_bytes())["store_id"]
    with closing(DiskFiles(str(data_dir / "log"))) as files:
        log = WriteAheadLog.open(files, LogOptions(store_id))
        gid, group = next(iter(log.groups.items()))
        yield log.append([hard_state_item(gid, group.hard_state)])
        log.close()


def tear(data_dir: Path) -> str:
    """Let the log end in a record that was not written to its end; the segment's name."""
    with _next_record(data_dir) as record:
        record.file.pwrite(record.data[:TORN_BYTES], record.offset)
        return record.file.name


def durable_byte(data_dir: Path, chance: Random) -> tuple[Path, int]:
    """A byte of the log that had been durable before others were written: a segment, an offset.

    It is of a record in the first half of the newest segment's, or of the
    segment before where the newest one has hardly any.
    """
    with _next_record(data_dir) as record:
        path, end = data_dir / "log" / record.file.name, record.offset
    if end < 4 * HEADER_BYTES and (sequence := segment_sequence(path.name) or 0) > 1:
        before = path.with_name(segment_name(sequence - 1))
        if before.exists():
            path, end = before, before.stat().st_size
    start, size_bytes = chance.choice(list(_records(path, (HEADER_BYTES + end) // 2)))
    return path, start + chance.randrange(size_bytes)


def _records(path: Path, end: int) -> Iterator[tuple[int, int]]:
    """Offset and size of the records that begin before `end`, without the padding behind each.

    The padding is the one place where a bit that rots changes nothing.
    """
    data = path.read_bytes()
    with closing(DiskFiles(str(path.parent))) as files:
        store_id = orjson.loads((path.parent.parent / "identity.json").read_bytes())["store_id"]
        segment, _ = open_segment(files, segment_sequence(path.name) or 0, store_id)
        segment.file.close()
    offset = HEADER_BYTES
    while offset < end:
        status, _, _, items, next_offset = codec.scan(data, offset, segment.salt, segment.sequence)
        if status != codec.VALID or items is None:
            return
        size_bytes = sum(codec.ITEM_HEADER_BYTES + len(payload) for _, _, _, payload in items)
        yield offset, codec.RECORD_HEADER_BYTES + size_bytes
        offset = next_offset
