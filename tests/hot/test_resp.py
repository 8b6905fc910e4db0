"""Parsing: what is admitted at once, what is handed out, when it stops, what it costs."""

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from eraft import limits
from tests.hot.parsing import (
    BUCKETS,
    PREFIXES,
    VALUE_BYTES,
    Connection,
    command,
    merged,
)

# CLUSTER KEYSLOT: a 15495, b 3300, c 7365, d 11298; so a and c are odd, b and d even.
ODD, EVEN = (b"a", b"c"), (b"b", b"d")
KIB = 1024


@pytest.fixture
def connection(twin: Any) -> Connection:
    return Connection(twin.resp)


def test_says_what_it_is(twin: Any) -> None:
    for module in (twin.resp, twin.reply, twin.lane, twin.inline):
        assert twin.impl == module.IMPL


# Runs


def test_runs_are_by_lane_and_in_order(connection: Connection) -> None:
    data = [
        command(b"SET", b"a", b"1"),
        command(b"SET", b"c", b"2"),
        command(b"INCR", b"a"),
        command(b"SET", b"b", b"3"),
        command(b"DEL", b"a"),
    ]
    assert connection.parse(b"".join(data)) == [
        ("WRITES", 2, 3),
        ("WRITES", 1, 1),
        ("WRITES", 2, 1),
    ]
    assert connection.stopped == "NEED_DATA"
    assert [lane.count for lane in connection.lanes[1:]] == [1, 4]
    assert connection.gathered(1) == data[3]
    assert connection.gathered(2) == b"".join([*data[:3], data[4]])


def test_reads_are_row_keys(twin: Any, connection: Connection) -> None:
    keys = (b"a", b"c", b"b", b"a")
    found = connection.parse(b"".join(command(b"GET", key) for key in keys))
    odd, even = PREFIXES[1], PREFIXES[0]
    data_key = twin.batch.data_key
    assert found == [
        ("READS", 2, [data_key(odd, b"a"), data_key(odd, b"c")]),
        ("READS", 1, [data_key(even, b"b")]),
        ("READS", 2, [data_key(odd, b"a")]),
    ]
    assert found[1][2][0] == bytes.fromhex("00000001030ce471beeff962")


def test_reads_follow_writes_in_one_call(connection: Connection) -> None:
    data = command(b"SET", b"a", b"1") + command(b"GET", b"a") + command(b"GET", b"c")
    kinds = [item[:2] for item in connection.parse(data, True)]
    assert kinds == []
    assert connection.stopped == "READS_FIRST"
    kinds = [item[:2] for item in connection.go_on()]
    assert kinds == [("WRITES", 2), ("READS", 2)]
    assert connection.stopped == "NEED_DATA"


def test_a_write_waits_for_reads_of_this_call(connection: Connection) -> None:
    data = command(b"GET", b"a") + command(b"SET", b"b", b"1") + command(b"PING")
    assert [item[0] for item in connection.parse(data)] == ["READS"]
    assert connection.stopped == "READS_FIRST"
    assert connection.parser.buffered_bytes == len(data) - len(command(b"GET", b"a"))
    assert connection.go_on(True) == []
    assert connection.stopped == "READS_FIRST"
    assert connection.go_on() == [("WRITES", 1, 1), ("COMMAND", [b"PING"], 0)]
    assert connection.go_on() == []
    assert connection.stopped == "NEED_DATA"


@pytest.mark.parametrize("data", [b"set b 1\r\n", b"*3\r\n$3\r\nset\r\n$1\r\nb\r\n$1\r\n1\rx"])
def test_a_write_that_waits_may_be_odd(connection: Connection, data: bytes) -> None:
    assert connection.parse(data, True) == []
    assert connection.stopped == "READS_FIRST"
    assert connection.parser.buffered_bytes == len(data)
    assert connection.parse(b"GET b\r\n", True) == []
    assert [item[:2] for item in connection.go_on()] == [("WRITES", 1), ("READS", 1)]
    assert connection.gathered(1) == command(b"SET", b"b", b"1")


def test_reads_and_general_commands_do_not_wait(connection: Connection) -> None:
    data = command(b"GET", b"a") + command(b"SET", b"b", b"1", b"EX", b"1")
    assert [item[0] for item in connection.parse(data, True)] == ["READS", "COMMAND"]


def test_a_full_lane_stops_its_writes(twin: Any) -> None:
    write = command(b"SET", b"a", b"1")
    connection = Connection(twin.resp, lane_bytes=2 * len(write) - 1)
    assert connection.parse(command(b"SET", b"b", b"1") + 3 * write) == [
        ("WRITES", 1, 1),
        ("WRITES", 2, 2),
    ]
    assert connection.stopped == "LANE_FULL"
    assert connection.lanes[2].full
    assert not connection.lanes[1].full
    assert connection.go_on() == []
    assert connection.stopped == "LANE_FULL"
    assert connection.parse(command(b"GET", b"a")) == []
    assert connection.gathered(2) == 2 * write
    assert [item[:2] for item in connection.go_on()] == [("WRITES", 2), ("READS", 2)]


# What is not admitted


@pytest.mark.parametrize(
    "args",
    [
        (b"SET", b"a"),
        (b"SET", b"a", b"1", b"NX"),
        (b"GET", b"a", b"b"),
        (b"GET",),
        (b"SE", b"a", b"1"),
        (b"SETX", b"a", b"1"),
        (b"S\xe5T", b"a", b"1"),
        (b"", b"a", b"1"),
        (b"PING",),
        tuple(b"%d" % i for i in range(20)),
    ],
)
def test_other_commands_are_handed_out(connection: Connection, args: tuple[bytes, ...]) -> None:
    rest = command(b"SET", b"a", b"1")
    assert connection.parse(command(*args) + rest) == [("COMMAND", list(args), 0)]
    assert connection.stopped == "COMMAND"
    assert connection.parser.buffered_bytes == len(rest)
    assert connection.go_on() == [("WRITES", 2, 1)]


def test_only_admitted_buckets(connection: Connection) -> None:
    data = command(b"SET", b"a", b"1")
    handed_out = [("COMMAND", [b"SET", b"a", b"1"], 0)]
    bucket = 15495
    connection.admit[bucket] = 0
    assert connection.parse(data) == handed_out
    connection.admit[bucket] = 3
    assert connection.parse(data) == handed_out
    connection.lanes.append(None)
    assert connection.parse(data) == handed_out
    connection.lanes[3] = connection.lanes[1]
    assert connection.parse(data) == [("WRITES", 3, 1)]
    assert connection.parse(command(b"SET", b"{a}" * 9, b"1")) == [("WRITES", 3, 1)]
    assert connection.parse(command(b"SET", b"c", b"1")) == [("WRITES", 2, 1)]
    del connection.lanes[2:]
    assert connection.parse(command(b"get", b"c")) == [("COMMAND", [b"get", b"c"], 0)]


def test_nothing_is_admitted_when_not_fast(connection: Connection) -> None:
    connection.parser.fast = False
    for args in ([b"SET", b"a", b"1"], [b"GET", b"a"]):
        assert connection.parse(command(*args)) == [("COMMAND", args, 0)]
    assert connection.parse(b"get a\r\n") == [("COMMAND", [b"get", b"a"], 0)]
    connection.parser.fast = True
    assert connection.parse(command(b"SET", b"a", b"1")) == [("WRITES", 2, 1)]


def test_a_key_over_the_limit_is_handed_out(connection: Connection) -> None:
    key = b"{a}" + b"x" * (limits.KEY_SIZE_BYTES - 3)
    assert connection.parse(command(b"SET", key, b"1")) == [("WRITES", 2, 1)]
    for args in ([b"SET", key + b"x", b"1"], [b"GET", key + b"x"]):
        assert connection.parse(command(*args)) == [("COMMAND", args, 0)]


def test_a_write_that_no_entry_holds_is_handed_out(twin: Any) -> None:
    mib = 1 << 20
    connection = Connection(
        twin.resp, value_bytes=30 * mib, command_bytes=32 * mib, lane_bytes=64 * mib
    )
    assert connection.parse(command(b"SET", b"a", bytes(25 * mib))) == [("WRITES", 2, 1)]
    value = bytes(20 * mib)
    assert connection.parse(command(b"SET", b"a", value)) == [("COMMAND", [b"SET", b"a", value], 0)]
    assert connection.lanes[2].count == 1


# Forms


@pytest.mark.parametrize(
    "data",
    [
        b"*3\r\n$3\r\nset\r\n$1\r\na\r\n$2\r\nxy\r\n",
        b"*3\r\n$3\r\nsEt\r\n$1\r\na\r\n$2\r\nxy\r\n",
        b"*3\rx$3\ryset\rz$1\r.a--$2\r\rxy\n\n",
        b"set a xy\r\n",
        b" SeT 'a' \"x\\x79\"\n",
    ],
)
def test_the_log_has_the_canonical_form(connection: Connection, data: bytes) -> None:
    assert connection.parse(data) == [("WRITES", 2, 1)]
    assert connection.gathered(2) == command(b"SET", b"a", b"xy")


def test_commands_are_handed_out_as_sent(connection: Connection) -> None:
    assert connection.parse(b"ping 'a b'\r\n") == [("COMMAND", [b"ping", b"a b"], 0)]
    assert connection.parse(b"*1\rx$4\ryPiNg--") == [("COMMAND", [b"PiNg"], 0)]


PIPELINE = (
    command(b"SET", b"a", b"\r\n*3\r\n"),
    command(b"set", b"b", b""),
    b"\r\n",
    b"*0\r\n",
    b"set b 'x y'\r\n",
    command(b"GET", b"a"),
    command(b"GET", b"c"),
    command(b"INCR", b"c"),
    command(b"SET", b"a", b"1", b"EX", b"10"),
    b'ping "a\\x00b"\n',
    command(b"MGET", *[b"%d" % i for i in range(12)]),
    b"*-3\r\n",
    b"get b\r\n",
)


def test_every_split_gives_the_same(twin: Any) -> None:
    data = b"".join(PIPELINE)
    whole = Connection(twin.resp)
    expected = merged(whole.parse_all([data]))
    assert [item[0] for item in expected].count("COMMAND") == 3
    entries = [lane.take(7) for lane in whole.lanes[1:]]
    for place in range(1, len(data)):
        connection = Connection(twin.resp)
        pieces = [data[:place], data[place:]]
        assert merged(connection.parse_all(pieces)) == expected, f"split at {place}"
        assert [lane.take(7) for lane in connection.lanes[1:]] == entries
        assert connection.parser.buffered_bytes == 0
    for step in range(1, 9):
        connection = Connection(twin.resp)
        pieces = [data[start : start + step] for start in range(0, len(data), step)]
        assert merged(connection.parse_all(pieces)) == expected, f"pieces of {step}"
        assert [lane.take(7) for lane in connection.lanes[1:]] == entries


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(connection: Connection, kind: Any) -> None:
    data = command(b"SET", b"a", b"1") + command(b"GET", b"b")
    assert [item[0] for item in connection.parse(kind(data + data[:5]))] == ["WRITES", "READS"]
    source = bytearray(data[5:])
    connection.parser.feed(kind(source))
    source[:] = b"x" * len(source)
    assert [item[0] for item in connection.go_on()] == ["WRITES", "READS"]
    assert connection.gathered(2) == 2 * command(b"SET", b"a", b"1")


def test_feed_only_takes(connection: Connection) -> None:
    connection.parser.feed(command(b"SET", b"a", b"1"))
    connection.parser.feed(command(b"PING"))
    assert connection.lanes[2].count == 0
    assert connection.go_on() == [("WRITES", 2, 1), ("COMMAND", [b"PING"], 0)]


# Limits


def test_limits_of_a_command(twin: Any) -> None:
    connection = Connection(twin.resp, value_bytes=100, command_bytes=260, args=5, line_bytes=64)
    fits = [b"x", b"y" * 100, b"z" * 100]
    assert connection.parse(command(*fits)) == [("COMMAND", fits, 0)]
    size = len(command(*fits, b""))
    assert connection.parse(command(*fits, b"w" * (260 - size - 1)))[0][0] == "COMMAND"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"*6\r\n", b"invalid multibulk length"),
        (b"*2\r\n$4\r\nECHO\r\n$101\r\n", b"invalid bulk length"),
        (b"*3\r\n$1\r\nx\r\n" + 2 * (b"$99\r\n%b\r\n" % bytes(99)), b""),
        (
            b"*4\r\n$1\r\nx\r\n" + 2 * (b"$99\r\n%b\r\n" % bytes(99)) + b"$99\r\n",
            b"command too large (limit 260 bytes)",
        ),
        (command(b"SET", b"a", b"x" * 101), b"invalid bulk length"),
        (command(b"SET", b"x" * 100, b"x" * 100), b""),
        (b"x" * 64, b""),
        (b"x" * 65, b"too big inline request"),
        (b"x" * 64 + b"\n", b""),
        (b"x" * 65 + b"\n", b"too big inline request"),
        (b"*" + b"1" * 63, b""),
        (b"*" + b"1" * 64, b"too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 63, b""),
        (b"*1\r\n$" + b"1" * 64 + b"\r\n", b"too big bulk count string"),
    ],
)
def test_beyond_a_limit(twin: Any, data: bytes, what: bytes) -> None:
    for step in (len(data), 1, 7):
        connection = Connection(
            twin.resp, value_bytes=100, command_bytes=260, args=5, line_bytes=64
        )
        pieces = [data[start : start + step] for start in range(0, len(data), step)]
        found = [item for item in connection.parse_all(pieces) if item[0] == "ERROR"]
        assert found == ([("ERROR", b"ERR Protocol error: " + what, 0)] if what else [])
        assert all(type(item[1]) is twin.resp.ReplyError for item in found)


def test_nothing_behind_an_error_takes_effect(connection: Connection) -> None:
    write = command(b"SET", b"a", b"1")
    found = connection.parse(write + b"*2\r\n$4\r\nECHO\r\n" + write)
    assert found == [
        ("WRITES", 2, 1),
        ("ERROR", b"ERR Protocol error: expected '$', got '*'", 0),
    ]
    assert connection.stopped == "BROKEN"
    assert connection.parse(write) == []
    assert connection.go_on() == []
    assert connection.lanes[2].count == 1
    assert connection.stopped == "BROKEN"


def test_refuses_senseless_settings(twin: Any) -> None:
    resp = twin.resp
    table = resp.CommandTable({}, {})
    with pytest.raises(ValueError, match="admit has 3 bytes"):
        resp.Parser(table, bytearray(3), [], 1, 1, 1, 64)
    with pytest.raises(ValueError, match="a line of 63 bytes"):
        resp.Parser(table, bytearray(BUCKETS), [], 1, 1, 1, 63)


@pytest.mark.parametrize(
    ("writes", "reads", "what"),
    [
        ({b"set": 3}, {}, "not an upper-case name"),
        ({b"": 3}, {}, "not an upper-case name"),
        ({b"X" * 33: 3}, {}, "not an upper-case name"),
        ({}, {b"GET": 1}, "1 arguments"),
        ({b"SET": 9}, {}, "9 arguments"),
        ({b"GET": 2}, {b"GET": 2}, "a write and a read"),
        ({b"X%d" % i: 2 for i in range(65)}, {}, "more than 64"),
    ],
)
def test_refuses_a_senseless_table(twin: Any, writes: Any, reads: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        twin.resp.CommandTable(writes, reads)


# Cost


def memory_of(work: Callable[[], object]) -> tuple[int, int]:
    """What `work` leaves allocated, and the most that it had at one time."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        kept = work()
        after, peak = tracemalloc.get_traced_memory()
        del kept
        return after - before, peak - before
    finally:
        tracemalloc.stop()


def test_an_announcement_costs_nothing(connection: Connection) -> None:
    head = b"*%d\r\n$3\r\nSET\r\n$1\r\na\r\n$%d\r\n" % (100_000, VALUE_BYTES)
    _, most = memory_of(lambda: connection.parse(head))
    assert connection.parser.buffered_bytes == len(head)
    assert most < 4 * KIB


def test_half_a_command_costs_what_has_arrived(connection: Connection) -> None:
    head = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%d\r\n" % VALUE_BYTES
    piece = bytes(4096)

    def half() -> None:
        connection.parse(head)
        for _ in range(VALUE_BYTES // 4096 // 2):
            connection.parse(piece)

    left, most = memory_of(half)
    arrived = connection.parser.buffered_bytes
    assert arrived == len(head) + VALUE_BYTES // 2
    assert left <= 2 * arrived
    assert most <= 3 * arrived


@pytest.mark.parametrize("rest", [b"", b"*3\r\n$3\r\nSE"])
def test_what_is_parsed_costs_nothing(connection: Connection, rest: bytes) -> None:
    data = command(b"SET", b"a", bytes(VALUE_BYTES)) + 1000 * command(b"PING") + rest

    def parse() -> None:
        connection.parse_all([data[start : start + 5000] for start in range(0, len(data), 5000)])
        connection.lanes[2].clear()

    parse()
    connection = Connection(connection.resp)
    left, _ = memory_of(parse)
    assert connection.parser.buffered_bytes == len(rest)
    assert left < 16 * KIB


def test_a_parser_that_holds_nothing_has_no_buffer(twin: Any) -> None:
    data = command(b"PING", bytes(3000))

    def parse(connection: Connection) -> None:
        assert connection.parse(data[:-5]) == []
        assert len(connection.parse(data[-5:])) == 1

    parse(Connection(twin.resp))
    connection = Connection(twin.resp)
    assert memory_of(lambda: parse(connection))[0] < KIB


def test_a_broken_parser_costs_nothing(connection: Connection) -> None:
    def parse() -> None:
        connection.parse(b"*2\r\n$900000\r\n" + bytes(800_000))
        connection.parse(bytes(100_002) + b"!" + bytes(100_000) + b"\r\n")
        assert connection.stopped == "BROKEN"

    assert memory_of(parse)[0] < 4 * KIB


@pytest.mark.parametrize(
    ("head", "piece", "count", "end"),
    [
        (b"*100001\r\n", b"$1\r\nx\r\n", 100_000, b"$1\r\nx\r\n"),
        (b"*100001\r\n$1\r\n", b"x\r\n$1\r\n", 100_000, b"x\r\n"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1048576\r\n", b"x" * 16, 65_536, b"\r\n"),
    ],
)
def test_dripping_is_not_quadratic(
    connection: Connection, head: bytes, piece: bytes, count: int, end: bytes
) -> None:
    start = time.process_time()
    connection.parse(head)
    for _ in range(count):
        connection.parser.feed_and_parse(piece, False)
    assert connection.parser.buffered_bytes == len(head) + count * len(piece)
    assert len(connection.parse(end)) == 1
    # Looking at everything again each time takes minutes.
    assert time.process_time() - start < 8


def test_going_on_is_not_quadratic(connection: Connection) -> None:
    parser, ping = connection.parser, b"PING\r\n"
    backlog = 1_600_000
    start = time.process_time()
    parser.feed(backlog * ping)
    for _ in range(100_000):
        assert len(parser.parse(False)) == 1
        parser.feed(ping)
    assert parser.buffered_bytes == backlog * len(ping)
    assert time.process_time() - start < 8
