"""Ownership, the run of plain SETs, flushing, and what is not executed."""

import pytest

from eraft import limits
from eraft._impl import batch, hashing, resp
from eraft.errors import ProtocolError
from eraft.shardkv.machine import NotOwned, ShardMachine, State, check_row
from eraft.shardkv.ownership import owned_runs
from eraft.storage import rows as layout
from eraft.types import BUCKETS

from .group import START_MS, Group, encode

FOO = hashing.bucket_of(b"foo")  # 12182
BAR = hashing.bucket_of(b"bar")  # 5061


def own(*bounds: int, epoch: int = 1) -> list[bytes]:
    return [b"_OWN", *(b"%d" % number for number in (epoch, *bounds))]


def without_position(group: Group) -> dict[bytes, bytes]:
    return {key: row for key, row in group.dump().items() if key != b"\x01applied"}


def test_buckets_are_owned_once() -> None:
    group = Group(own=None)
    machine = group.machine
    assert (machine.buckets_owned, machine.ownership_version) == (0, 0)
    assert group.entry(own(0, 0, 10, 12)) == [resp.OK]
    assert [bucket for bucket in range(BUCKETS) if machine.serves(bucket)] == [0, 10, 11, 12]
    assert machine.buckets_owned == 4
    assert machine.ownership_version == 1
    assert owned_runs(machine.states) == [(0, 0), (10, 12)]
    owned, nobodys = b"\x01" + (1).to_bytes(8, "big") + bytes(4), bytes(13)
    rows = {key: row for key, row in group.dump().items() if key[0] == layout.BUCKET}
    numbers = {0: owned, 1: nobodys, 10: owned, 13: nobodys}
    assert rows == {layout.bucket_key(0, it)[4:]: row for it, row in numbers.items()}


def test_buckets_are_as_their_rows_say() -> None:
    group = Group(own=own(0, 0, 10, 12))
    assert group.entry(own(1, 4, 13, 20, BUCKETS - 1, BUCKETS - 1)) == [resp.OK]
    expected = [(0, 4), (10, 20), (BUCKETS - 1, BUCKETS - 1)]
    assert owned_runs(group.machine.states) == expected
    assert group.entry(own(5, 9)) == [resp.OK]
    assert owned_runs(group.machine.states) == [(0, 20), expected[2]]
    assert ShardMachine(group.rows).states == group.machine.states


@pytest.mark.parametrize(
    "args",
    [
        own(0, 5),
        own(6, 7, 4, 5),
        own(6, 7, epoch=2),
        own(6, 7, epoch=0),
        own(7, 6),
        own(0),
        own(6, 7, 8),
        own(6, BUCKETS),
        own(-1, 0),
        [b"_OWN"],
        [b"_OWN", b"1", b"x", b"9"],
        [b"_OWN", b"x", b"6", b"7"],
    ],
)
def test_a_refused_own_records_nothing(args: list[bytes]) -> None:
    group = Group(own=own(5, 5))
    before = without_position(group)
    assert isinstance(group.entry(args)[0], resp.ReplyError)
    assert without_position(group) == before
    assert group.machine.buckets_owned == 1
    assert group.machine.ownership_version == 1


@pytest.mark.parametrize("state", [state for state in State if state is not State.NONE])
def test_own_only_what_was_never_anything_else(state: State) -> None:
    group = Group(own=None)
    key = layout.bucket_key(group.rows.generation, 9)
    group.rows.put(key, bytes((state,)) + (4).to_bytes(8, "big") + bytes(4))
    group.rows.put(layout.bucket_key(group.rows.generation, 10), bytes(13))
    group.machine = ShardMachine(group.rows)
    assert group.machine.states[9] == state
    assert isinstance(group.entry(own(8, 10))[0], resp.ReplyError)
    assert group.entry(own(8, 8, 10, 10)) == [resp.OK]


@pytest.mark.parametrize("state", [state for state in State if state is not State.OWNED])
def test_commands_on_other_buckets_are_not_executed(state: State) -> None:
    group = Group()
    group.machine.states[FOO] = state
    before = without_position(group)
    for args in (
        [b"SET", b"foo", b"v"],
        [b"SET", b"foo", b"v", b"NX"],
        [b"INCR", b"foo"],
        [b"MSET", b"foo", b"1", b"{foo}2", b"2"],
        [b"DEL", b"foo"],
    ):
        assert group.entry(args) == [NotOwned(FOO)]
        assert group.machine.not_owned == NotOwned(FOO)
    assert without_position(group) == before
    assert group.entry([b"SET", b"bar", b"v"]) == [resp.OK]
    assert group.machine.not_owned is None


def test_ownership_is_judged_command_by_command() -> None:
    group = Group(own=own(BAR, BAR))
    replies = group.entry(
        [b"SET", b"bar", b"1"],
        [b"SET", b"foo", b"1"],
        [b"INCR", b"bar"],
        own(FOO, FOO),
        [b"SET", b"foo", b"2"],
        [b"SET", b"bar", b"3"],
        [b"GETSET", b"foo", b"4"],
    )
    assert replies == [resp.OK, NotOwned(FOO), 2, resp.OK, resp.OK, resp.OK, b"2"]
    assert group.machine.not_owned == NotOwned(FOO)
    assert group.execute("GET", "bar") == b"3"


def test_commands_see_what_those_before_them_in_the_entry_did() -> None:
    group = Group()
    assert group.entry(
        [b"SET", b"k", b"1"],
        [b"SET", b"k", b"2"],
        [b"INCR", b"k"],
        [b"SET", b"k", b"9"],
        [b"APPEND", b"k", b"9"],
        [b"DEL", b"k"],
        [b"SETNX", b"k", b"a"],
        [b"FLUSHALL"],
        [b"SETNX", b"k", b"b"],
    ) == [resp.OK, resp.OK, 3, resp.OK, 2, 1, 1, resp.OK, 1]
    assert group.execute("GET", "k") == b"b"


def test_the_version_of_a_row_is_the_index_of_its_last_write() -> None:
    group = Group()
    row_key = batch.data_key(group.rows.data_prefix, b"k")

    def version() -> int:
        row = group.rows.get(row_key)
        assert row is not None
        return batch.decode_row(row)[0]

    for args in (["SET", "k", "1"], ["INCR", "k"], ["EXPIRE", "k", "9"], ["MSET", "k", "1"]):
        group.execute(*args)
        assert version() == group.index
    group.execute("SETNX", "k", "2")
    assert version() == group.index - 1


def test_flushing_spares_buckets_in_transit() -> None:
    group = Group()
    group.entry([b"SET", b"foo", b"v", b"EX", b"10"], [b"SET", b"bar", b"v", b"EX", b"10"])
    group.machine.states[FOO] = State.FROZEN
    assert group.entry([b"FLUSHALL"]) == [resp.OK]
    kinds = [key[0] for key in group.dump()]
    assert (kinds.count(layout.DATA), kinds.count(layout.EXPIRY)) == (1, 2)
    group.machine.states[FOO] = State.OWNED
    assert group.execute("GET", "foo") == b"v"
    assert group.entry([b"FLUSHALL"]) == [resp.OK]
    kinds = [key[0] for key in group.dump()]
    assert (kinds.count(layout.DATA), kinds.count(layout.EXPIRY)) == (0, 0)
    assert group.machine.buckets_owned == BUCKETS


def test_flushing_reaches_what_is_written_already() -> None:
    group = Group()
    group.execute("SET", "old", "v")
    group.rows.write()
    group.execute("SET", "new", "v")
    group.execute("FLUSHALL")
    assert group.execute("DBSIZE") == 0
    group.rows.write()
    assert group.execute("DBSIZE") == 0


def test_the_largest_value() -> None:
    group = Group()
    limit = limits.VALUE_SIZE_BYTES
    too_large = resp.ReplyError(b"ERR string exceeds maximum allowed size (proto-max-bulk-len)")
    whole = bytes(limit)
    assert group.execute("SET", "k", whole) == resp.OK
    for args in (
        ["SET", "k", whole + b"x"],
        ["APPEND", "k", "x"],
        ["SETRANGE", "k", limit, "x"],
        ["SETRANGE", "none", limit, "x"],
        ["SETRANGE", "k", 2**63 - 1, "x"],
        ["SET", "k", "v", "IFEQ", whole + b"x"],
    ):
        assert group.execute(*args) == too_large
        assert isinstance(group.execute(*args), resp.ReplyError)
    assert group.execute("SETRANGE", "k", limit - 1, "x") == limit
    assert group.execute("STRLEN", "none") == 0


def test_the_reply_to_mget_is_bounded() -> None:
    group = Group()
    count = limits.CLIENT_OUTPUT_BYTES // limits.VALUE_SIZE_BYTES
    group.execute("SET", "k", bytes(limits.VALUE_SIZE_BYTES))
    assert len(group.execute("MGET", *["k"] * count)) == count
    assert isinstance(group.execute("MGET", *["k"] * (count + 1)), resp.ReplyError)


def test_unknown_commands_in_the_log_are_replies() -> None:
    group = Group()
    reply, tick = group.entry([b"RENAME", b"a", b"b"], [b"_TICK"])
    assert isinstance(reply, resp.ReplyError)
    assert tick == resp.OK


def test_plain_sets_count_in_the_size_of_what_waits() -> None:
    group = Group(own=None)
    before = group.rows.size_hint
    group.machine.states[:] = bytes([State.OWNED]) * BUCKETS
    payload = encode(START_MS, *([b"SET", b"k%d" % n, bytes(100)] for n in range(50)))
    group.machine.apply(group.rows, 1, 1, payload, None)
    assert group.rows.size_hint - before >= 50 * 100


@pytest.mark.parametrize(
    ("key", "row", "why"),
    [
        (b"\x02\x40\x00", b"\x01" + bytes(12), "no data group has a row"),
        (b"\x02\x00", b"\x01" + bytes(12), "no data group has a row"),
        (b"\x02\x00\x00", b"\x01", "no data group has a row"),
        (b"\x02\x00\x00", b"\x09" + bytes(12), "no data group has a row"),
        (b"\x03\x00\x00\x01\x02\x03", bytes(17), "no data group has a row"),
        (b"\x03\xff\x00\x01\x02\x03\x04k", bytes(17), "no data group has a row"),
        (b"\x03\x00\x00\x01\x02\x03\x04k", bytes(16), "a row has at least"),
        (b"\x03\x00\x00\x01\x02\x03\x04k", b"\xff" + bytes(16), "unknown flags"),
        (b"\x06" + bytes(8), b"", "no data group has a row"),
    ],
)
def test_rows_of_a_snapshot_that_no_machine_can_read(key: bytes, row: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        check_row(key, row)


def test_rows_that_a_machine_makes_are_readable() -> None:
    group = Group()
    group.execute("SET", "a", 1)
    group.execute("SET", "b", 2, "EX", 100)
    found = group.dump()
    assert {key[0] for key in found} >= {layout.BUCKET, layout.DATA, layout.EXPIRY}
    for key, row in found.items():
        check_row(key, row)
