"""Records and the log writer: both implementations, and that they agree."""

import errno
import os
import random
import resource
import select
import signal
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eraft._core import wal as compiled
from eraft._impl import TRACED
from eraft._pure import wal as pure
from eraft.errors import InvariantViolation, StorageError

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
items_lists = st.lists(st.tuples(u32, st.integers(0, 255), u64, st.binary(max_size=40)), max_size=5)


def test_a_record_comes_back(twin: Any) -> None:
    items = [(1, twin.wal.ENTRIES, 2**63, b"payload"), (2**32 - 1, twin.wal.NODE, 0, b"")]
    record = twin.wal.encode_record(2**64 - 1, 3, 4, 2, items)
    assert len(record) == twin.wal.record_size(items)
    assert len(record) % twin.wal.RECORD_ALIGN_BYTES == 0
    buffer = b"before.." + record + b"after"
    scanned = twin.wal.scan(buffer, 8, 2**64 - 1, 3)
    assert scanned == (twin.wal.VALID, 4, 2, items, 8 + len(record))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(twin: Any, kind: Any) -> None:
    record = twin.wal.encode_record(5, 1, 1, 0, [(1, 3, 1, kind(b"abc"))])
    assert record == twin.wal.encode_record(5, 1, 1, 0, [(1, 3, 1, b"abc")])
    assert twin.wal.scan(kind(record), 0, 5, 1)[:4] == (twin.wal.VALID, 1, 0, [(1, 3, 1, b"abc")])


def test_where_nothing_was_written(twin: Any) -> None:
    empty = (twin.wal.EMPTY, 0, 0, [])
    assert twin.wal.scan(bytes(100), 10, 5, 1) == (*empty, 10)
    assert twin.wal.scan(b"x" * 47, 0, 5, 1) == (*empty, 0)
    assert twin.wal.scan(b"", 0, 5, 1) == (*empty, 0)
    assert twin.wal.scan(b"abc", 100, 5, 1) == (*empty, 100)


def test_kinds_of_badness(twin: Any) -> None:
    wal = twin.wal
    record = wal.encode_record(5, 1, 9, 8, [(1, 3, 1, b"abc")])
    assert wal.scan(record, 0, 6, 1)[0] == wal.BAD_HEADER
    assert wal.scan(record, 0, 5, 2)[0] == wal.BAD_HEADER
    assert wal.scan(record[:60], 0, 5, 1)[0] == wal.BAD_HEADER
    assert wal.scan(b"?" + record[1:], 0, 5, 1)[0] == wal.BAD_HEADER
    body = bytearray(record)
    body[60] ^= 1
    assert wal.scan(body, 0, 5, 1) == (wal.BAD_BODY, 9, 8, [], 0)


def test_the_salt_is_where_recovery_looks_for_it(twin: Any) -> None:
    record = twin.wal.encode_record(0x1122334455667788, 1, 1, 0, [(1, 3, 1, b"abc")])
    place = twin.wal.SALT_OFFSET
    assert record[place : place + 8] == (0x1122334455667788).to_bytes(8, "little")


def test_both_halves_of_the_salt_seed_the_checksums(twin: Any) -> None:
    one, two, three = (
        twin.wal.encode_record(salt, 1, 1, 0, [(1, 3, 1, b"abc")]) for salt in (1, 2, 1 << 32 | 7)
    )
    assert len({record[:4] for record in (one, two, three)}) == 3
    assert len({record[4:8] for record in (one, two, three)}) == 3


def test_checksums_of_all_lengths_and_places(twin: Any) -> None:
    """Compiled ones are made by table, by folding 16 bytes at a time, or by both."""
    data = random.Random(1).randbytes(400)
    seed = 0x89ABCDEF
    for size in range(360):
        payload = memoryview(data)[size % 17 : size % 17 + size]
        record = b"x" * (size % 16) + twin.wal.encode_record(seed, 1, 1, 0, [(1, 3, 1, payload)])
        body = record[size % 16 + twin.wal.RECORD_HEADER_BYTES :]
        body = body[: twin.wal.ITEM_HEADER_BYTES + size]
        assert record[size % 16 + 4 : size % 16 + 8] == struct.pack("<I", zlib.crc32(body, seed))
        assert twin.wal.scan(record, size % 16, seed, 1)[0] == twin.wal.VALID


def test_a_flipped_bit_anywhere_in_a_large_record(twin: Any) -> None:
    record = bytearray(twin.wal.encode_record(5, 1, 1, 0, [(1, 3, 1, bytes(1000))]))
    for place in range(twin.wal.RECORD_HEADER_BYTES + twin.wal.ITEM_HEADER_BYTES + 1000):
        record[place] ^= 1 << place % 8
        assert twin.wal.scan(record, 0, 5, 1)[0] != twin.wal.VALID
        record[place] ^= 1 << place % 8


@pytest.mark.parametrize("length", [0, 16, 17, 18, 40])
@pytest.mark.parametrize("count", [0, 1, 2, 2**32 - 1])
def test_items_that_do_not_fill_the_body(twin: Any, length: int, count: int) -> None:
    """A record whose checksums are right, but which no `encode_record` made."""
    body = struct.pack("<IBQI", 1, 3, 1, 20).ljust(40, b"x")[:length]
    header = struct.pack("<IIIIQQQQ", 0, zlib.crc32(body, 9), len(body), count, 1, 1, 0, 9)
    record = struct.pack("<I", zlib.crc32(header[4:], 9)) + header[4:] + body
    status = twin.wal.scan(record, 0, 9, 1)[0]
    fits = (length, count) == (0, 0)
    assert status == (twin.wal.VALID if fits else twin.wal.BAD_ITEMS)


@given(u64, u64, u64, u64, items_lists)
def test_the_twins_make_the_same_bytes(
    salt: int, sequence: int, position: int, durable: int, items: list[Any]
) -> None:
    record = pure.encode_record(salt, sequence, position, durable, items)
    assert compiled.encode_record(salt, sequence, position, durable, items) == record
    assert compiled.record_size(items) == pure.record_size(items) == len(record)
    expected = (pure.VALID, position, durable, items, len(record))
    assert pure.scan(record, 0, salt, sequence) == expected
    assert compiled.scan(record, 0, salt, sequence) == expected


@settings(max_examples=200)
@given(
    items_lists,
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3),
    st.integers(0, 300),
    st.integers(0, 60),
)
def test_the_twins_judge_damage_alike(
    items: list[Any], changes: list[tuple[int, int]], cut: int, offset: int
) -> None:
    record = bytearray(pure.encode_record(7, 1, 2, 1, items) + bytes(50))
    for place, value in changes:
        record[place % len(record)] = value
    data = bytes(record[: len(record) - cut]) if cut < len(record) else bytes(record)
    for start in (0, offset):
        assert compiled.scan(data, start, 7, 1) == pure.scan(data, start, 7, 1)


@given(st.binary(max_size=200), st.integers(0, 210), u64)
def test_the_twins_judge_anything_alike(data: bytes, offset: int, salt: int) -> None:
    assert compiled.scan(data, offset, salt, 1) == pure.scan(data, offset, salt, 1)


def test_the_twins_share_their_constants() -> None:
    assert sorted({*pure.__all__, "TRACED"}) == sorted(compiled.__all__)
    names = [name for name in pure.__all__ if name.isupper() and name != "IMPL"]
    assert len(names) > 10
    assert {name: getattr(compiled, name) for name in names} == {
        name: getattr(pure, name) for name in names
    }


@pytest.fixture
def bell() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def wait(bell: int) -> None:
    """Wait until the writer has rung; it must not take 10 s."""
    assert select.select([bell], [], [], 10)[0], "the log writer did not ring"
    os.eventfd_read(bell)


def wait_for(writer: Any, bell: int, position: int) -> None:
    while writer.durable < position and not writer.error:
        wait(bell)


def test_the_writer_writes_in_order_and_reports(twin: Any, bell: int, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    writer = twin.wal.LogWriter(bell)
    assert (writer.durable, writer.error, writer.pending) == (0, 0, 0)
    for position in range(1, 51):
        writer.submit(fd, position * 10, b"%d" % position, position)
        wait_for(writer, bell, position)
        assert os.pread(fd, 2, position * 10).rstrip(b"\0") == b"%d" % position
    writer.submit(fd, 0, bytearray(b"ab"), 60)
    writer.submit(fd, 1, memoryview(b"c"), 70)
    writer.close()
    assert (writer.durable, writer.pending) == (70, 0)
    assert os.pread(fd, 2, 0) == b"ac"
    with pytest.raises(StorageError, match="closed"):
        writer.submit(fd, 0, b"", 71)
    writer.close()
    os.close(fd)


def test_a_large_request_is_written_whole(twin: Any, bell: int, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    data = random.Random(1).randbytes(9_000_001)
    writer = twin.wal.LogWriter(bell)
    writer.submit(fd, 4096, data, 1)
    wait_for(writer, bell, 1)
    assert os.pread(fd, len(data) + 1, 4096) == data
    writer.close()
    os.close(fd)


def test_data_is_kept_until_it_is_written_and_not_longer(
    twin: Any, bell: int, tmp_path: Path
) -> None:
    """A bytearray cannot be resized while the writer uses it, and can be afterwards."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    writer = twin.wal.LogWriter(bell)
    for position in range(1, 40):
        data = bytearray(b"%05d" % position * 2000)
        writer.submit(fd, position * 10_000, data, position)
        wait_for(writer, bell, position)
        data.clear()
        assert os.pread(fd, 5, position * 10_000 + 9995) == b"%05d" % position
    writer.close()
    os.close(fd)


def test_an_error_is_final(twin: Any, bell: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    fd = os.open(path, os.O_RDONLY)
    good = os.open(tmp_path / "good", os.O_RDWR | os.O_CREAT)
    writer = twin.wal.LogWriter(bell)
    writer.submit(good, 0, b"a", 1)
    writer.submit(fd, 0, b"b", 2)
    writer.submit(good, 0, b"c", 3)
    while not writer.error:
        wait(bell)
    assert (writer.error, writer.durable, writer.pending) == (errno.EBADF, 1, 0)
    with pytest.raises(StorageError, match="Bad file descriptor"):
        writer.submit(good, 0, b"d", 4)
    writer.close()
    assert os.pread(good, 10, 0) == b"a"
    os.close(fd)
    os.close(good)


def test_what_comes_in_while_the_writer_fails_is_let_go(bell: int) -> None:
    """A race of the compiled one: one round in 700 hits the moment, so not every run does."""
    fd = os.open("/dev/null", os.O_WRONLY)
    for _ in range(200):
        writer = compiled.LogWriter(bell)
        late = bytearray(8)
        writer.submit(fd, 0, b"a", 1)
        position = 1
        with suppress(StorageError):
            while not writer.error:
                if writer.pending < compiled.QUEUE_REQUESTS - 1:
                    position += 1
                    writer.submit(fd, 0, late, position)
        assert writer.pending == 0
        late.clear()
        writer.close()
    os.close(fd)


def test_a_failed_sync_is_an_error(twin: Any, bell: int) -> None:
    """/dev/null takes every write and refuses to sync it."""
    fd = os.open("/dev/null", os.O_WRONLY)
    writer = twin.wal.LogWriter(bell)
    writer.submit(fd, 0, b"a", 1)
    while not writer.error:
        wait(bell)
    assert (writer.error, writer.durable) == (errno.EINVAL, 0)
    writer.close()
    os.close(fd)


def test_a_write_that_has_no_room(twin: Any, bell: int, tmp_path: Path) -> None:
    """A short write is gone on with until the error comes: here at the file size limit."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        writer = twin.wal.LogWriter(bell)
        writer.submit(fd, 0, bytes(10_000), 1)
        while not writer.error:
            wait(bell)
        assert (writer.error, writer.durable) == (errno.EFBIG, 0)
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
        os.close(fd)


def test_the_queue_and_the_positions_have_limits(twin: Any, bell: int, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    writer = twin.wal.LogWriter(bell)
    data = bytes(8 << 20)
    with pytest.raises(InvariantViolation, match=f"more than {twin.wal.QUEUE_REQUESTS}"):
        for position in range(1, 1000):
            writer.submit(fd, 0, data, position)
    wait_for(writer, bell, position - 1)
    with pytest.raises(InvariantViolation, match="does not rise"):
        writer.submit(fd, 0, b"", position - 1)
    writer.close()
    assert writer.error == 0
    os.close(fd)


def test_a_forgotten_writer_ends_its_thread(bell: int, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    before = len(os.listdir("/proc/self/task"))
    writer = compiled.LogWriter(bell)
    writer.submit(fd, 0, bytes(1000), 1)
    assert len(os.listdir("/proc/self/task")) == before + 1
    del writer
    assert len(os.listdir("/proc/self/task")) == before
    assert os.fstat(fd).st_size == 1000
    os.close(fd)


@pytest.mark.skipif(TRACED, reason="in a traced build every compiled line takes the GIL")
def test_the_compiled_writer_does_not_need_the_gil(bell: int, tmp_path: Path) -> None:
    """Python code that never gives up the GIL does not keep a request from being done."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    writer = compiled.LogWriter(bell)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        writer.submit(fd, 0, b"x", 1)
        deadline_s = time.monotonic() + 30
        while writer.durable == 0 and time.monotonic() < deadline_s:
            pass
        assert writer.durable == 1
    finally:
        sys.setswitchinterval(interval_s)
    writer.close()
    os.close(fd)
