"""Records of the write-ahead log, and the way of one through the log writer's thread."""

import os
import select
from pathlib import Path
from typing import Any

import pytest

from bench.conftest import BATCH, Hot, Measure

SALT = 0x1234_5678_9ABC_DEF0
ENTRIES = b"e" * 200
LARGE = b"e" * (1 << 20)


@pytest.fixture
def items(hot: Hot) -> list[Any]:
    """What a drain of many groups writes: entries and a hard state each."""
    items = []
    for gid in range(1, BATCH // 2 + 1):
        items.append((gid, hot.wal.HARD_STATE, 0, bytes(24)))
        items.append((gid, hot.wal.ENTRIES, 7, ENTRIES))
    return items


def test_encode_small(hot: Hot, measure: Measure) -> None:
    measure(
        "wal: encode a record of one item",
        hot.wal.encode_record, SALT, 3, 1000, 999, [(1, hot.wal.ENTRIES, 7, ENTRIES)],
    )  # fmt: skip


def test_encode_many(hot: Hot, measure: Measure, items: list[Any]) -> None:
    measure("wal: encode a record of many items", hot.wal.encode_record, SALT, 3, 1000, 999, items)


def test_encode_large(hot: Hot, measure: Measure) -> None:
    measure(
        "wal: encode a record of 1 MiB",
        hot.wal.encode_record, SALT, 3, 1000, 999, [(1, hot.wal.ENTRIES, 7, LARGE)],
    )  # fmt: skip


def test_scan_many(hot: Hot, measure: Measure, items: list[Any]) -> None:
    record = hot.wal.encode_record(SALT, 3, 1000, 999, items)
    found = measure("wal: scan a record of many items", hot.wal.scan, record, 0, SALT, 3)
    assert found == (hot.wal.VALID, 1000, 999, items, len(record))


def test_writer(hot: Hot, measure: Measure, tmp_path: Path) -> None:
    """Write and sync 4 KiB in a file filled with zeros, and hear of it."""
    fd = os.open(tmp_path / "segment", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, bytes(1 << 20), 0)
    os.fsync(fd)
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    writer = hot.wal.LogWriter(bell)
    data = bytes(4096)
    position = 0

    def write() -> None:
        nonlocal position
        position += 1
        writer.submit(fd, position % 256 * 4096, data, position)
        while writer.durable < position:
            select.select([bell], [], [])
            os.eventfd_read(bell)

    measure("wal: write and sync 4 KiB", write)
    assert writer.error == 0
    writer.close()
    os.close(bell)
    os.close(fd)
