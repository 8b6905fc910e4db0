"""The client protocol: a pipeline of small commands, and its replies."""

from typing import Any

import pytest

from bench.conftest import BATCH, Hot, Measure
from eraft import limits

VALUE = b"v" * 64
BUCKETS = 16384


def command(*args: bytes) -> bytes:
    bulks = b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)
    return b"*%d\r\n%b" % (len(args), bulks)


@pytest.fixture
def lane(hot: Hot) -> Any:
    return hot.resp.Lane(b"\0\0\0\1\3", limits.ENTRY_TARGET_BYTES)


@pytest.fixture
def parser(hot: Hot, lane: Any) -> Any:
    return hot.resp.Parser(
        hot.resp.CommandTable({b"SET": 3, b"INCR": 2}, {b"GET": 2}),
        bytearray(b"\1" * BUCKETS),
        [None, lane],
        limits.VALUE_SIZE_BYTES,
        limits.COMMAND_SIZE_BYTES,
        limits.COMMAND_ARGS,
        limits.INLINE_SIZE_BYTES,
    )


def test_sets(hot: Hot, measure: Measure, parser: Any, lane: Any, keys: list[bytes]) -> None:
    data = b"".join(command(b"SET", key, VALUE) for key in keys)

    def run() -> Any:
        items = parser.feed_and_parse(data, False)
        return items, lane.take(1)

    items, payload = measure("resp: SETs into the next entry", run)
    assert items == [(hot.resp.WRITES, 1, BATCH)]
    assert payload[8:] == data


def test_sets_in_halves(hot: Hot, measure: Measure, parser: Any, lane: Any) -> None:
    data = command(b"SET", b"key:000000000001", VALUE)
    half = data[: len(data) // 2]
    shifted = data[len(half) :] + data * (BATCH - 1) + half

    def run() -> Any:
        items = parser.feed_and_parse(shifted, False)
        lane.clear()
        return items

    assert parser.feed_and_parse(half, False) == []
    items = measure("resp: SETs, cut by the buffer's end", run)
    assert items == [(hot.resp.WRITES, 1, BATCH)]


def test_gets(hot: Hot, measure: Measure, parser: Any, keys: list[bytes]) -> None:
    data = b"".join(command(b"GET", key) for key in keys)
    items = measure("resp: GETs into row keys", parser.feed_and_parse, data, False)
    assert [item[:2] for item in items] == [(hot.resp.READS, 1)]
    assert len(items[0][2]) == BATCH


def test_general(hot: Hot, measure: Measure, parser: Any, keys: list[bytes]) -> None:
    data = b"".join(command(b"SET", key, VALUE, b"PX", b"60000") for key in keys)

    def run() -> int:
        count = 0
        items = parser.feed_and_parse(data, False)
        while items:
            count += len(items)
            items = parser.parse(False)
        return count

    assert measure("resp: commands of the general path", run) == BATCH


def test_encode_oks(hot: Hot, measure: Measure) -> None:
    replies = [hot.resp.OK] * BATCH
    data = measure("resp: replies to SETs", hot.resp.encode, replies, 0, BATCH, 2)
    assert data == b"+OK\r\n" * BATCH


def test_encode_mixed(hot: Hot, measure: Measure) -> None:
    replies = [hot.resp.OK, 12345, VALUE, None] * (BATCH // 4)
    data = measure("resp: replies of all kinds", hot.resp.encode, replies, 0, BATCH, 3)
    assert data.count(b"_\r\n") == BATCH // 4


def test_add(measure: Measure, lane: Any, keys: list[bytes]) -> None:
    commands = [[b"SET", key, VALUE, b"PXAT", b"1700000000000"] for key in keys]

    def run() -> bytes:
        for args in commands:
            lane.add(args)
        payload: bytes = lane.take(1)
        return payload

    assert len(measure("resp: general commands into the next entry", run)) > BATCH * 100
