"""Times to live: two clocks, hints, and a key that once gone stays gone."""

import pytest

from eraft import limits
from eraft._impl import batch, resp
from eraft.shardkv.machine import ClockBehind
from eraft.storage import rows as layout

from .group import START_MS, Group

S = 1000


@pytest.fixture
def group() -> Group:
    return Group()


def hints(group: Group) -> list[int]:
    """The deadlines of all hints."""
    return [int.from_bytes(key[1:9], "big") for key in group.dump() if key[0] == layout.EXPIRY]


def test_relative_times_count_from_the_entry(group: Group) -> None:
    for args, deadline_ms in [
        (["SET", "k", "v", "EX", 10], 10 * S),
        (["SET", "k", "v", "PX", 1500], 1500),
        (["SETEX", "k", 20, "v"], 20 * S),
        (["PSETEX", "k", 7, "v"], 7),
        (["EXPIRE", "k", 30], 30 * S),
        (["PEXPIRE", "k", 31], 31),
        (["GETEX", "k", "EX", 40], 40 * S),
        (["GETEX", "k", "PX", 41], 41),
    ]:
        assert not isinstance(group.execute(*args), resp.ReplyError)
        assert group.execute("PEXPIRETIME", "k") == START_MS + deadline_ms
        assert hints(group) == [START_MS + deadline_ms]


def test_time_to_live_counts_down_in_an_idle_group(group: Group) -> None:
    group.execute("SET", "k", "v", "EX", 10)
    assert (group.execute("TTL", "k"), group.execute("PTTL", "k")) == (10, 10 * S)
    group.wall_ms += 1500
    assert (group.execute("TTL", "k"), group.execute("PTTL", "k")) == (9, 8500)
    assert group.machine.clock_ms == START_MS
    group.wall_ms -= 5000
    assert group.execute("PTTL", "k") == 10 * S


def test_no_reply_depends_on_a_key_between_the_clocks(group: Group) -> None:
    group.execute("MSET", "{k}", "v", "{k}2", "w")
    group.execute("PEXPIRE", "{k}", 100)
    machine = group.machine
    for args in (
        [b"GET", b"{k}"],
        [b"MGET", b"{k}2", b"{k}"],
        [b"EXISTS", b"{k}2", b"{k}"],
        [b"TOUCH", b"{k}"],
        *([name, b"{k}"] for name in (b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME")),
        *([name, b"{k}"] for name in (b"STRLEN", b"TYPE")),
        [b"GETRANGE", b"{k}", b"0", b"-1"],
    ):
        before = machine.read(args, START_MS, START_MS + 99)
        with pytest.raises(ClockBehind):
            machine.read(args, START_MS, START_MS + 100)
        after = machine.read(args, START_MS + 100, START_MS + 100)
        assert after == machine.read(args, START_MS + 100, 0)
        assert after != before


def test_a_key_seen_expired_never_reappears(group: Group) -> None:
    group.execute("SET", "k", "v", "PX", 100)
    group.wall_ms += 100
    assert group.execute("GET", "k") is None
    group.wall_ms -= 100
    assert group.execute("GET", "k") is None
    assert group.execute("SET", "k", "w", "XX") is None
    assert group.entry([b"INCR", b"k"]) == [1]


@pytest.mark.parametrize(
    ("args", "reply"),
    [
        (["GETDEL", "k"], None),
        (["GETSET", "k", "n"], None),
        (["GETEX", "k"], None),
        (["SETNX", "k", "n"], 1),
        (["SET", "k", "n", "XX"], None),
        (["SET", "k", "n", "GET"], None),
        (["INCR", "k"], 1),
        (["INCRBYFLOAT", "k", "1.5"], b"1.5"),
        (["APPEND", "k", "x"], 1),
        (["SETRANGE", "k", 1, "x"], 2),
        (["DEL", "k"], 0),
        (["PERSIST", "k"], 0),
        (["EXPIRE", "k", 10], 0),
        (["MSETNX", "k", "n"], 1),
    ],
)
def test_to_a_write_an_expired_key_does_not_exist(
    group: Group, args: list[str | int], reply: object
) -> None:
    group.execute("SET", "k", "5", "PX", 100)
    group.wall_ms += 100
    assert group.execute(*args) == reply
    if reply is not None and args[0] not in ("DEL", "PERSIST", "EXPIRE"):
        assert group.execute("TTL", "k") == -1
    value = group.execute("GET", "k")
    group.expire_due()
    assert group.execute("GET", "k") == value
    assert hints(group) == []


def test_a_hint_follows_its_deadline(group: Group) -> None:
    group.execute("SET", "k", "v", "PX", 100)
    group.execute("PEXPIRE", "k", 200)
    assert hints(group) == [START_MS + 200]
    group.execute("INCR", "n")
    group.execute("PERSIST", "k")
    assert hints(group) == []
    group.execute("SET", "k", "v", "PX", 300)
    group.execute("SET", "k", "v", "PX", 400, "KEEPTTL")
    group.execute("DEL", "k")
    assert hints(group) == []


def test_what_is_due_is_deleted_by_the_log(group: Group) -> None:
    for n in range(25):
        group.execute("SET", n, "v", "PX", 100 + n)
    group.execute("SET", "stays", "v")
    group.wall_ms += 99
    assert group.machine.due(group.wall_ms, 10) == []
    assert group.machine.next_deadline_ms == START_MS + 100
    group.wall_ms += 20
    first = group.machine.due(group.wall_ms, 10)
    assert len(first) == 10
    assert first == group.machine.due(group.wall_ms, 10)
    assert group.expire_due() == 20
    assert group.execute("DBSIZE") == 6
    assert len(hints(group)) == 5
    assert group.machine.next_deadline_ms == START_MS + 120
    group.execute("SET", "sooner", "v", "PX", 0 + 1)
    assert group.machine.next_deadline_ms == group.wall_ms + 1
    group.wall_ms += 1000
    group.expire_due()
    assert group.execute("KEYS", "*") == [b"stays"]
    assert [key[0] for key in group.dump()].count(layout.DATA) == 1
    assert hints(group) == []


def test_a_stale_hint_deletes_only_itself(group: Group) -> None:
    group.execute("SET", "k", "v", "PX", 100)
    group.execute("SET", "k", "w")
    group.execute("SET", "j", "v", "PX", 100)
    group.execute("SET", "j", "v")
    group.execute("PEXPIRE", "j", 5000)
    assert hints(group) == [START_MS + 100, START_MS + 100, START_MS + 5000]
    group.wall_ms += 100
    assert group.expire_due() == 2
    assert hints(group) == [START_MS + 5000]
    assert (group.execute("GET", "k"), group.execute("PTTL", "j")) == (b"w", 4900)


def test_a_hint_that_fires_too_early_changes_nothing(group: Group) -> None:
    group.execute("SET", "k", "v", "PX", 100)
    before = group.dump()
    row_key = batch.data_key(b"", b"k")
    args = [b"_EXPIRE", b"%d" % int.from_bytes(row_key[:2], "big"), row_key]
    assert group.entry([*args, b"%d" % (START_MS + 100)]) == [0]
    assert group.entry([*args, b"%d" % START_MS]) == [0]
    before[b"\x01applied"] = group.dump()[b"\x01applied"]
    assert group.dump() == before


@pytest.mark.parametrize("args", [[], [b"1"], [b"1", b"k", b"x"], [b"1", b"k", b"-1"]])
def test_malformed_expire(group: Group, args: list[bytes]) -> None:
    assert isinstance(group.entry([b"_EXPIRE", *args])[0], resp.ReplyError)


def test_the_clock_only_moves_forward(group: Group) -> None:
    group.wall_ms += 50
    assert group.entry([b"_TICK"]) == [resp.OK]
    assert group.machine.clock_ms == START_MS + 50
    group.wall_ms -= 40
    group.execute("SET", "k", "v", "PX", 10)
    assert group.machine.clock_ms == START_MS + 50
    assert group.execute("PEXPIRETIME", "k") == START_MS + 60


def test_the_largest_deadline(group: Group) -> None:
    group.execute("SET", "k", "v")
    assert group.execute("PEXPIREAT", "k", 2**63 - 1) == 1
    assert group.execute("EXPIRETIME", "k") == (2**63 - 1 + 500) // 1000
    assert group.machine.due(group.wall_ms, limits.EXPIRE_BATCH) == []
