"""Entry payloads and rows: formats, plain SETs at apply, replies to GETs."""

import struct
import zlib
from typing import Any

import pytest

from eraft.errors import InvariantViolation
from tests.hot.parsing import BUCKETS, command

PREFIX = b"\0\0\0\7\3"
EVERYTHING = b"\1" * BUCKETS
STAMP = struct.pack("<Q", 1_700_000_000_000)
FOO = 12182  # CLUSTER KEYSLOT foo


def row(version: int, deadline_ms: int, value: bytes) -> bytes:
    return struct.pack(">BQQ", 0, version, deadline_ms) + value


def row_key(bucket: int, key: bytes) -> bytes:
    return PREFIX + struct.pack(">HI", bucket, zlib.crc32(key)) + key


def test_says_what_it_is(twin: Any) -> None:
    assert twin.impl == twin.batch.IMPL
    assert (twin.batch.COMMANDS_OFFSET, twin.batch.ROW_HEADER_BYTES) == (8, 17)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_data_key(twin: Any, kind: Any) -> None:
    data_key = twin.batch.data_key
    assert data_key(PREFIX, kind(b"foo")) == row_key(FOO, b"foo")
    assert data_key(PREFIX, kind(b"x{foo}y")) == row_key(FOO, b"x{foo}y")
    assert data_key(PREFIX, kind(b"")) == row_key(0, b"")
    long_key = bytes(range(256)).replace(b"{", b"") * 5
    bucket = twin.hashing.bucket_of(long_key)
    assert data_key(PREFIX, kind(long_key)) == row_key(bucket, long_key)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_rows(twin: Any, kind: Any) -> None:
    encode_row, decode_row = twin.batch.encode_row, twin.batch.decode_row
    for version, deadline_ms, value in [
        (0, 0, b""),
        (1, 2, b"a\0b"),
        (2**64 - 1, 2**64 - 1, b"x" * 1000),
    ]:
        encoded = encode_row(version, deadline_ms, kind(value))
        assert encoded == row(version, deadline_ms, value)
        assert decode_row(kind(encoded)) == (version, deadline_ms, value)
        assert type(decode_row(kind(encoded))[2]) is bytes


def test_refuses_numbers_that_do_not_fit(twin: Any) -> None:
    for version, deadline_ms in [(-1, 0), (0, -1), (2**64, 0), (0, 2**64)]:
        with pytest.raises(OverflowError):
            twin.batch.encode_row(version, deadline_ms, b"")
    for version in (-1, 2**64):
        with pytest.raises(OverflowError):
            twin.batch.apply_sets(STAMP, 8, PREFIX, EVERYTHING, version, {}, None, 0)


def test_refuses_what_is_no_row(twin: Any) -> None:
    good = row(1, 0, b"v")
    for wrong, what in [
        (b"", "at least 17 bytes, not 0"),
        (good[:16], "at least 17 bytes, not 16"),
        (b"\1" + good[1:], "unknown flags 0x01"),
    ]:
        with pytest.raises(InvariantViolation, match=what):
            twin.batch.decode_row(wrong)
        with pytest.raises(InvariantViolation, match=what):
            twin.batch.encode_values([good, wrong], 0, 2, 0, 0, 2)


def test_timestamp(twin: Any) -> None:
    assert twin.batch.timestamp(STAMP + b"rest") == 1_700_000_000_000
    assert twin.batch.timestamp(bytearray(b"\xff" * 8)) == 2**64 - 1
    with pytest.raises(InvariantViolation, match="only 7 bytes"):
        twin.batch.timestamp(STAMP[:7])


# SETs


def test_a_run_of_sets(twin: Any) -> None:
    payload = STAMP + command(b"SET", b"foo", b"1") + command(b"SET", b"{foo}\r\n", b"")
    payload += command(b"SET", b"foo", b"x" * 3000)
    rows: dict[bytes, bytes | None] = {row_key(FOO, b"foo"): None, b"other": b"row"}
    replies: list[Any] = [1]
    stop, _ = twin.batch.apply_sets(payload, 8, PREFIX, EVERYTHING, 77, rows, replies, 0)
    assert stop == len(payload)
    assert rows == {
        row_key(FOO, b"foo"): row(77, 0, b"x" * 3000),
        row_key(FOO, b"{foo}\r\n"): row(77, 0, b""),
        b"other": b"row",
    }
    assert next(iter(rows)) == row_key(FOO, b"foo")
    assert replies == [1, b"OK", b"OK", b"OK"]
    assert all(reply is twin.resp.OK for reply in replies[1:])
    assert twin.resp.encode(replies, 1, 4, 2) == b"+OK\r\n" * 3


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(twin: Any, kind: Any) -> None:
    payload = STAMP + command(b"SET", b"foo", b"1")
    rows: dict[bytes, bytes | None] = {}
    stop, _ = twin.batch.apply_sets(kind(payload), 8, PREFIX, kind(EVERYTHING), 1, rows, None, 0)
    assert stop == len(payload)
    assert rows == {row_key(FOO, b"foo"): row(1, 0, b"1")}
    assert {type(item) for item in (*rows, *rows.values())} == {bytes}
    assert twin.batch.read_command(kind(payload), 8) == ([b"SET", b"foo", b"1"], stop)
    assert twin.batch.timestamp(kind(payload)) == 1_700_000_000_000


@pytest.mark.parametrize(
    "other",
    [
        command(b"DEL", b"foo"),
        command(b"SET", b"foo"),
        command(b"SET", b"foo", b"1", b"NX"),
        command(b"SETX", b"foo", b"1"),
        command(b"GET", b"foo", b"1"),
        command(b"_TICK"),
        command(b"set", b"foo", b"1"),
        b"*3\r\n$3\r\nSET\r\n$3\r\nfoo\r\n$2\r\n1\r\n",
        b"*3\r\n$3\r\nSET\r\n$3\r\nfoo\r\n$1\r\n1\r",
        b"*3\r\n$3\r\nSET\r\n$3\r\nfoo\r\n$1\r\n1xx",
        b"*3\r\n$3\r\nSET\r\n$3\r\nfooxx$1\r\n1\r\n",
        b"*3\r\n$3\r\nSET\r\n$03\r\nfoo\r\n$1\r\n1\r\n",
        b"*3\r\n$3\r\nSET\r\n$-1\r\nfoo\r\n$1\r\n1\r\n",
        b"*3\r\n$3\r\nSET\r\n$3\r\nfoo\r\n$999999999999999999\r\n1\r\n",
        b"*3\r\n$3\r\nSET\r\n$3\r\nfoo\r\n$99999999999999999999\r\n1\r\n",
        b"*3\r\n$3\r\nSET\r\n$",
        b"*3\r\n",
    ],
)
def test_stops_at_anything_else(twin: Any, other: bytes) -> None:
    good = command(b"SET", b"foo", b"1")
    for rest in (b"", good):
        rows: dict[bytes, bytes | None] = {}
        replies: list[Any] = []
        payload = STAMP + good + other + rest
        stop, _ = twin.batch.apply_sets(payload, 8, PREFIX, EVERYTHING, 5, rows, replies, 0)
        assert stop == 8 + len(good)
        assert len(rows) == len(replies) == 1


@pytest.mark.parametrize("state", [0, 2, 3, 4, 5, 255])
def test_only_owned_buckets(twin: Any, state: int) -> None:
    owned = bytearray(EVERYTHING)
    owned[FOO] = state
    first, second = command(b"SET", b"bar", b"1"), command(b"SET", b"foo", b"1")
    rows: dict[bytes, bytes | None] = {}
    payload = STAMP + first + second + first
    stop, _ = twin.batch.apply_sets(payload, 8, PREFIX, owned, 5, rows, None, 0)
    assert stop == 8 + len(first)
    assert len(rows) == 1


def test_refuses_senseless_arguments(twin: Any) -> None:
    apply_sets = twin.batch.apply_sets
    with pytest.raises(ValueError, match="owned has 3 bytes"):
        apply_sets(STAMP, 8, PREFIX, b"\1\1\1", 1, {}, None, 0)
    for offset in (-1, 9):
        with pytest.raises(ValueError, match=f"offset {offset} is outside"):
            apply_sets(STAMP, offset, PREFIX, EVERYTHING, 1, {}, None, 0)
    assert apply_sets(STAMP, 8, PREFIX, EVERYTHING, 1, {}, None, 9) == (8, 9)


# The digest of changes


def change(key: bytes, row: bytes | None) -> bytes:
    """What a change adds to the checksum; `key` without its generation."""
    size = 2**32 - 1 if row is None else len(row)
    return struct.pack("<II", len(key), size) + key + (row or b"")


def test_the_digest_is_the_checksum_of_all_changes(twin: Any) -> None:
    digest = 0
    changes = b""
    for key, value in [(b"a", b"1"), (b"a", None), (b"a", b""), (b"", b"x" * 3000), (b"", None)]:
        digest = twin.batch.digest_change(digest, b"\0\0\0\7" + key, value)
        changes += change(key, value)
        assert digest == zlib.crc32(changes)
    with pytest.raises(ValueError, match="only 3 bytes"):
        twin.batch.digest_change(0, b"abc", b"")


def test_sets_go_into_the_digest_in_their_order(twin: Any) -> None:
    payload = STAMP + command(b"SET", b"foo", b"1") + command(b"SET", b"foo", b"2" * 99)
    changes = change(row_key(FOO, b"foo")[4:], row(5, 0, b"1"))
    changes += change(row_key(FOO, b"foo")[4:], row(5, 0, b"2" * 99))
    before = zlib.crc32(b"before")
    _, digest = twin.batch.apply_sets(payload, 8, PREFIX, EVERYTHING, 5, {}, None, before)
    assert digest == zlib.crc32(changes, before)


def test_what_the_digest_tells_apart(twin: Any) -> None:
    """Other rows, other keys, other orders; but not another generation."""
    one, two = (b"\0\0\0\1a", b"row"), (b"\0\0\0\1b", b"row")
    different = [
        (),
        (one,),
        (two,),
        (one, two),
        (two, one),
        (one, one),
        ((b"\0\0\0\1a", None),),
        ((b"\0\0\0\1a", b""),),
        ((b"\0\0\0\1ar", b"ow"),),
    ]
    found = set()
    for changes in different:
        digest = 0
        for key, value in changes:
            digest = twin.batch.digest_change(digest, key, value)
        found.add(digest)
    assert len(found) == len(different)
    assert twin.batch.digest_change(3, b"\0\0\0\1a", b"row") == twin.batch.digest_change(
        3, b"\0\0\0\2a", b"row"
    )


# Other commands


def test_read_command(twin: Any) -> None:
    commands = [
        [b"_OWN", b"3", b"0", b"16383"],
        [b"SET", b"k\r\n", b""],
        [b"MSET", *[b"%d" % i for i in range(30)]],
    ]
    payload = STAMP + b"".join(command(*args) for args in commands)
    offset = 8
    for args in commands:
        found, offset = twin.batch.read_command(payload, offset)
        assert found == args
    assert offset == len(payload)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"", 8),
        (b"SET a b\r\n", 8),
        (b"*0\r\n", 8),
        (b"*-1\r\n", 8),
        (b"*01\r\n$1\r\nx\r\n", 8),
        (b"*1", 8),
        (b"*1\r\n", 12),
        (b"*2\r\n$1\r\nx\r\n", 19),
        (b"*1\r\nx1\r\nx\r\n", 12),
        (b"*1\r\n$01\r\nx\r\n", 12),
        (b"*1\r\n$-1\r\n", 12),
        (b"*1\r\n$2\r\nx\r\n", 16),
        (b"*1\r\n$1\r\nxyz", 16),
        (b"*1\r\n$1\r\nx\r", 16),
        (b"*1\r\n$999999999999999999\r\nx\r\n", 33),
        (b"*1\r\n$9999999999999999999\r\nx\r\n", 12),
        (b"*999999999999999999\r\n$1\r\nx\r\n", 36),
    ],
)
def test_a_malformed_entry_breaks_an_invariant(twin: Any, data: bytes, place: int) -> None:
    with pytest.raises(InvariantViolation, match=f"not at byte {place} of its payload"):
        twin.batch.read_command(STAMP + data, 8)


@pytest.mark.parametrize("offset", [-1, 100])
def test_no_command_outside_the_payload(twin: Any, offset: int) -> None:
    with pytest.raises(InvariantViolation, match=f"not at byte {offset}"):
        twin.batch.read_command(STAMP + command(b"X"), offset)


# GETs


def test_values(twin: Any) -> None:
    rows = [row(1, 0, b"a\r\n"), None, row(1, 0, b""), row(2, 0, b"x" * 1234)]
    bulks = [b"$3\r\na\r\n\r\n", b"", b"$0\r\n\r\n", b"$1234\r\n" + b"x" * 1234 + b"\r\n"]
    for protocol, null in ((2, b"$-1\r\n"), (3, b"_\r\n")):
        expected = [bulks[0], null, *bulks[2:]]
        for start in range(5):
            for stop in range(start, 5):
                found = twin.batch.encode_values(rows, start, stop, 10, 20, protocol)
                assert found == b"".join(expected[start:stop])


@pytest.mark.parametrize(
    ("deadline_ms", "clock_ms", "wall_ms", "expected"),
    [
        (0, 0, 0, b"$1\r\nv\r\n"),
        (100, 99, 99, b"$1\r\nv\r\n"),
        (100, 100, 100, b"$-1\r\n"),
        (100, 101, 0, b"$-1\r\n"),
        (100, 100, 99, b"$-1\r\n"),
        (100, 99, 100, None),
        (100, 0, 2**64 - 1, None),
        (101, 100, 99, b"$1\r\nv\r\n"),
        (101, 99, 100, b"$1\r\nv\r\n"),
        (2**64 - 1, 2**64 - 2, 2**64 - 2, b"$1\r\nv\r\n"),
    ],
)
def test_deadlines(
    twin: Any, deadline_ms: int, clock_ms: int, wall_ms: int, expected: bytes | None
) -> None:
    rows = [None, row(1, deadline_ms, b"v"), None]
    found = twin.batch.encode_values(rows, 1, 2, clock_ms, wall_ms, 2)
    assert found == expected
    whole = twin.batch.encode_values(rows, 0, 3, clock_ms, wall_ms, 2)
    assert whole == (None if expected is None else b"$-1\r\n" + expected + b"$-1\r\n")


def test_refuses_senseless_ranges(twin: Any) -> None:
    for start, stop in [(-1, 1), (0, 3), (2, 1)]:
        with pytest.raises(ValueError, match=f"rows {start} to {stop} of 2"):
            twin.batch.encode_values([None, None], start, stop, 0, 0, 2)
    with pytest.raises(ValueError, match="protocol 4: must be 2 or 3"):
        twin.batch.encode_values([], 0, 0, 0, 0, 4)
