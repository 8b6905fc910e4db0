"""The keys: order, ranges, and that they are what the design says."""

import struct
import zlib

import pytest

from eraft.storage import rows


def test_keys_are_what_the_format_says() -> None:
    assert rows.meta_key(7, b"applied") == b"\x00\x00\x00\x07\x01applied" == rows.applied_key(7)
    assert rows.bucket_key(7, 16383) == b"\x00\x00\x00\x07\x02\x3f\xff"
    data_key = rows.prefix(7, rows.DATA) + struct.pack(">HI", 12, zlib.crc32(b"k")) + b"k"
    assert (
        rows.expiry_key(7, 1000, data_key)
        == struct.pack(">IBQHI", 7, rows.EXPIRY, 1000, 12, zlib.crc32(b"k")) + b"k"
    )


def test_ranges_hold_exactly_their_rows() -> None:
    start, end = rows.generation_range(7)
    assert start <= rows.prefix(7, rows.META) < rows.prefix(7, rows.EXPIRY) + b"\xff" * 9 < end
    assert end <= rows.prefix(8, rows.META)
    start, end = rows.kind_range(7, rows.DATA)
    assert start <= rows.prefix(7, rows.DATA) + b"\xff" * 99 < end <= rows.prefix(7, rows.ONCE)
    start, end = rows.bucket_range(7, rows.DATA, 16383)
    assert start <= rows.prefix(7, rows.DATA) + b"\x3f\xff" + b"\xff" * 99 < end
    assert end <= rows.prefix(7, rows.DATA) + b"\x40\x00"
    start, end = rows.generation_range(2**32 - 2)
    assert start < end


def test_the_end_of_a_prefix() -> None:
    assert rows.prefix_end(b"a\xff\xff") == b"b"
    with pytest.raises(ValueError, match="0xff"):
        rows.prefix_end(b"\xff\xff")


def test_applied_row() -> None:
    assert rows.decode_applied(None) == (0, 0, 0, 0)
    row = rows.encode_applied(2**40, 3, 1_700_000_000_000, 2**32 - 1)
    assert rows.decode_applied(row) == (2**40, 3, 1_700_000_000_000, 2**32 - 1)
