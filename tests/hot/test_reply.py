"""Replies as they are sent, and lanes."""

import math
import struct
import tracemalloc
from enum import IntEnum
from typing import Any

import pytest

from eraft import limits
from eraft.errors import Overloaded
from tests.hot.parsing import PREFIXES, command


class Level(IntEnum):
    HIGH = 3


def encoded(resp: Any, value: Any, protocol: int) -> bytes:
    data: bytes = resp.encode([value], 0, 1, protocol)
    return data


@pytest.mark.parametrize(
    ("value", "resp2", "resp3"),
    [
        (b"", b"$0\r\n\r\n", None),
        (b"a\r\n\0b", b"$5\r\na\r\n\0b\r\n", None),
        (b"x" * 5000, b"$5000\r\n" + b"x" * 5000 + b"\r\n", None),
        (0, b":0\r\n", None),
        (-1, b":-1\r\n", None),
        (1234567890, b":1234567890\r\n", None),
        (2**63 - 1, b":9223372036854775807\r\n", None),
        (-(2**63), b":-9223372036854775808\r\n", None),
        (2**70, b":1180591620717411303424\r\n", None),
        (Level.HIGH, b":3\r\n", None),
        (None, b"$-1\r\n", b"_\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (False, b":0\r\n", b"#f\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        (3.0, b"$1\r\n3\r\n", b",3\r\n"),
        (0.1, b"$19\r\n0.10000000000000001\r\n", b",0.10000000000000001\r\n"),
        (-math.inf, b"$4\r\n-inf\r\n", b",-inf\r\n"),
        (math.nan, b"$3\r\nnan\r\n", b",nan\r\n"),
        ([], b"*0\r\n", None),
        ([b"a", [1, None], ()], b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n*0\r\n", b""),
        ({}, b"*0\r\n", b"%0\r\n"),
        ({b"a": 1, b"b": [True]}, b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*1\r\n:1\r\n", b""),
    ],
)
def test_values(twin: Any, value: Any, resp2: bytes, resp3: bytes | None) -> None:
    assert encoded(twin.resp, value, 2) == resp2
    if resp3 != b"":
        assert encoded(twin.resp, value, 3) == (resp2 if resp3 is None else resp3)


def test_resp3_containers(twin: Any) -> None:
    value = [{b"a": None}, [True, {}]]
    expected = b"*2\r\n%1\r\n$1\r\na\r\n_\r\n*2\r\n#t\r\n%0\r\n"
    assert encoded(twin.resp, value, 3) == expected


def test_marked_values(twin: Any) -> None:
    resp = twin.resp
    for protocol in (2, 3):
        assert encoded(resp, resp.OK, protocol) == b"+OK\r\n"
        assert encoded(resp, resp.Simple(b"OK"), protocol) == b"+OK\r\n"
        assert encoded(resp, resp.Simple(b"PONG"), protocol) == b"+PONG\r\n"
        assert encoded(resp, [resp.OK], protocol) == b"*1\r\n+OK\r\n"
        assert encoded(resp, resp.ReplyError(b"ERR no"), protocol) == b"-ERR no\r\n"
    assert encoded(resp, resp.Verbatim(b"a\nb"), 2) == b"$3\r\na\nb\r\n"
    assert encoded(resp, resp.Verbatim(b"a\nb"), 3) == b"=7\r\ntxt:a\nb\r\n"


def test_an_error_stays_on_its_line(twin: Any) -> None:
    error = twin.resp.ReplyError(b"ERR unknown command 'x\r\n+OK\r\n'")
    assert encoded(twin.resp, error, 2) == b"-ERR unknown command 'x  +OK  '\r\n"


def test_ranges(twin: Any) -> None:
    resp = twin.resp
    replies = [resp.OK, b"a", 1, resp.OK, resp.OK]
    whole = [encoded(resp, reply, 2) for reply in replies]
    for start in range(6):
        for stop in range(start, 6):
            assert resp.encode(replies, start, stop, 2) == b"".join(whole[start:stop])
    many = [resp.OK, *range(2000)]
    assert resp.encode(many, 0, 2001, 2) == b"+OK\r\n" + b"".join(b":%d\r\n" % n for n in many[1:])
    assert resp.encode([resp.OK] * 1000, 0, 1000, 3) == b"+OK\r\n" * 1000


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (0, 3), (2, 1), (3, 3)])
def test_refuses_a_range_outside(twin: Any, start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=f"replies {start} to {stop} of 2"):
        twin.resp.encode([1, 2], start, stop, 2)


def test_refuses_what_is_no_reply(twin: Any) -> None:
    resp = twin.resp
    for value in ("text", bytearray(b"x"), {1}, object()):
        for reply in (value, [value], {b"a": value}):
            with pytest.raises(TypeError, match=f"not a reply: {type(value).__name__}"):
                resp.encode([resp.OK, reply], 0, 2, 2)
    with pytest.raises(ValueError, match="protocol 1: must be 2 or 3"):
        resp.encode([1], 0, 1, 1)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        resp.encode([endless], 0, 1, 2)


# Lanes


def test_a_lane_makes_a_payload(twin: Any) -> None:
    lane = twin.resp.Lane(PREFIXES[0], 100)
    assert (lane.prefix, lane.count, lane.size_bytes, lane.full) == (PREFIXES[0], 0, 0, False)
    commands = [[b"set", b"Key", b"v"], [b"_TICK"], [b"x"] * 12]
    for args in commands:
        lane.add(args)
    lane.add((b"DEL", b"k" * 1000))
    expected = b"".join([command(b"SET", b"Key", b"v"), command(b"_TICK")])
    expected += command(b"X", *[b"x"] * 11) + command(b"DEL", b"k" * 1000)
    assert (lane.count, lane.size_bytes, lane.full) == (4, len(expected), True)
    assert lane.take(2**64 - 1) == struct.pack("<Q", 2**64 - 1) + expected
    assert (lane.count, lane.size_bytes, lane.full) == (0, 0, False)
    assert lane.take(5) == struct.pack("<Q", 5)


def test_a_cleared_lane_is_empty(twin: Any) -> None:
    lane = twin.resp.Lane(PREFIXES[0], 10)
    lane.add([b"DEL", b"k"])
    assert lane.full
    lane.clear()
    assert (lane.count, lane.size_bytes, lane.full) == (0, 0, False)
    lane.add([b"_TICK"])
    assert lane.take(0)[8:] == command(b"_TICK")


def test_a_lane_is_full_at_its_limit(twin: Any) -> None:
    size = len(command(b"DEL", b"k"))
    for limit, full in ((size + 1, False), (size, True)):
        lane = twin.resp.Lane(PREFIXES[0], limit)
        lane.add([b"DEL", b"k"])
        assert lane.full is full


def test_a_lane_never_outgrows_an_entry(twin: Any) -> None:
    lane = twin.resp.Lane(PREFIXES[0], 1)
    room = limits.ENTRY_SIZE_BYTES - 8
    overhead = len(command(b"SET", b"k", b"")) + 7
    lane.add([b"SET", b"k", bytes(room - overhead)])
    assert lane.size_bytes == room
    with pytest.raises(Overloaded, match="does not fit an entry"):
        lane.add([b"X"])
    assert (lane.count, lane.size_bytes) == (1, room)
    assert len(lane.take(0)) == limits.ENTRY_SIZE_BYTES
    with pytest.raises(Overloaded):
        lane.add([b"SET", b"k", bytes(room - overhead + 1)])
    assert (lane.count, lane.size_bytes) == (0, 0)


def test_a_lane_refuses_nonsense(twin: Any) -> None:
    lane = twin.resp.Lane(PREFIXES[0], 100)
    with pytest.raises(ValueError, match="at least a name"):
        lane.add([])
    for args in (["SET"], [b"SET", "k"], [b"SET", 1], [None]):
        with pytest.raises((TypeError, AttributeError)):
            lane.add(args)
    for ts_ms in (-1, 2**64):
        with pytest.raises((OverflowError, struct.error)):
            lane.take(ts_ms)
    assert (lane.count, lane.size_bytes) == (0, 0)


@pytest.mark.parametrize("finish", ["take", "clear"])
def test_an_empty_lane_holds_no_big_buffer(twin: Any, finish: str) -> None:
    lane = twin.resp.Lane(PREFIXES[0], 1 << 20)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            lane.add([b"SET", b"k", bytes(50_000)])
        held = tracemalloc.get_traced_memory()[0] - before
        if finish == "take":
            lane.take(1)
        else:
            lane.clear()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 5_000_000 < held < 10_100_000
    assert left < 4096
