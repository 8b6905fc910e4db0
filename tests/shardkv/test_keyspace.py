"""SCAN, KEYS, DBSIZE, RANDOMKEY and the keys of a slot, over one group and several."""

import random
from collections import Counter
from zlib import crc32

import pytest

from eraft import limits
from eraft._impl import hashing, resp
from eraft.shardkv import keyspace
from eraft.storage.state import MemoryStore
from eraft.types import BUCKETS

from .group import Group, finish


def scan_all(group: Group, *options: str | int) -> list[bytes]:
    """What all calls of a SCAN return together."""
    cursor, found = b"0", list[bytes]()
    while True:
        cursor, keys = group.execute("SCAN", cursor, *options)
        found += keys
        if cursor == b"0":
            return found


def place(key: bytes) -> int:
    return hashing.bucket_of(key) << 32 | crc32(key)


@pytest.mark.parametrize("count", [1, 3, 10, 1000])
def test_a_scan_returns_every_key_once_in_order(count: int) -> None:
    group = Group()
    names = [b"key%d" % n for n in range(300)] + [b"{tag}%d" % n for n in range(100)]
    for name in names:
        group.execute("SET", name, "v")
    assert scan_all(group, "COUNT", count) == sorted(names, key=place)


def test_a_call_returns_about_count_keys() -> None:
    group = Group()
    for n in range(100):
        group.execute("SET", n, "v")
    assert [len(group.execute("SCAN", 0, *options)[1]) for options in ((), ("COUNT", 7))] == [10, 7]
    cursor, keys = group.execute("SCAN", 0, "COUNT", 100)
    assert (cursor, len(keys)) == (b"0", 100)
    matching = group.execute("SCAN", 0, "MATCH", "nothing", "COUNT", 60)
    assert matching[0] != b"0"
    assert matching[1] == []


def test_a_cursor_names_a_place() -> None:
    """It means the same to a replica that has never seen the scan, and after changes."""
    names = [b"%d" % n for n in range(200)]
    one, other = Group(), Group()
    for name in names:
        one.execute("SET", name, "v")
        other.execute("SET", name, "v")
    found = list[bytes]()
    cursor = b"0"
    for number in range(1000):
        cursor, keys = (one, other)[number % 2].execute("SCAN", cursor, "COUNT", 3)
        found += keys
        one.execute("SET", f"new{number}", "v")
        other.execute("DEL", found[0])
        if cursor == b"0":
            break
    assert set(names) <= set(found)
    assert max(Counter(found).values()) == 1


def test_keys_of_equal_hashes_go_out_together() -> None:
    rng = random.Random(3)
    seen: dict[int, bytes] = {}
    key = other = b""
    while key == other:
        key = b"{t}" + rng.randbytes(8)
        other = seen.setdefault(crc32(key), key)
    pair = {key, other}
    group = Group()
    for key in [*pair, *(b"{t}x%d" % n for n in range(50))]:
        group.execute("SET", key, "v")
    cursor, together = b"0", 0
    while True:
        cursor, keys = group.execute("SCAN", cursor, "COUNT", 1)
        assert len(set(keys) & pair) in (0, 2)
        together += pair <= set(keys)
        if cursor == b"0":
            break
    assert together == 1


def test_the_ends_of_the_key_space() -> None:
    group = Group()
    assert group.execute("SCAN", (BUCKETS << 32) - 1) == [b"0", []]
    assert group.execute("SCAN", BUCKETS << 32) == [b"0", []]
    assert group.execute("SCAN", 2**64 - 1) == [b"0", []]


def test_a_count_is_bounded() -> None:
    group = Group()
    commands = [[b"SET", b"%d" % n, b""] for n in range(limits.SCAN_COUNT + 50)]
    group.entry(*commands)
    cursor, keys = group.execute("SCAN", 0, "COUNT", 10**9)
    assert cursor != b"0"
    assert len(keys) == limits.SCAN_COUNT


def test_expired_keys_do_not_count() -> None:
    group = Group()
    for n in range(10):
        group.execute("SET", f"{{t}}{n}", "v", *(("PX", 100) if n % 2 else ()))
    bucket = hashing.bucket_of(b"t")
    assert group.execute("DBSIZE") == 10
    group.wall_ms += 100
    group.entry([b"_TICK"])
    assert group.execute("DBSIZE") == 5
    assert group.execute("CLUSTER", "COUNTKEYSINSLOT", bucket) == 5
    assert len(group.execute("CLUSTER", "GETKEYSINSLOT", bucket, 100)) == 5
    assert len(group.execute("KEYS", "*")) == len(scan_all(group)) == 5


def test_buckets_that_are_not_owned_do_not_count() -> None:
    group = Group()
    group.execute("SET", "foo", "v")
    group.execute("SET", "bar", "v")
    group.machine.states[hashing.bucket_of(b"foo")] = 4
    assert group.execute("KEYS", "*") == scan_all(group) == [b"bar"]
    assert group.execute("DBSIZE") == 1
    assert group.execute("CLUSTER", "COUNTKEYSINSLOT", hashing.bucket_of(b"foo")) == 0


def walk(groups: list[Group], *args: bytes, chance: int = 0) -> object:
    return finish(keyspace.walk(list(args), [group.machine for group in groups], chance))


def test_a_node_walks_the_buckets_in_order_whoever_owns_them() -> None:
    """Three groups in one store that own every third bucket, in runs of a few."""
    store = MemoryStore()
    groups = []
    for generation in (1, 2, 3):
        starts = range((generation - 1) * 64, BUCKETS, 192)
        bounds = [arg for n in starts for arg in (b"%d" % n, b"%d" % min(n + 63, BUCKETS - 1))]
        groups.append(Group(store, generation, own=[b"_OWN", b"1", *bounds]))
    names = [b"key%d" % n for n in range(500)]
    for name in names:
        owner = next(g for g in groups if g.machine.serves(hashing.bucket_of(name)))
        owner.execute("SET", name, "v")
    names.sort(key=place)
    assert walk(groups, b"DBSIZE") == 500
    assert walk(groups, b"KEYS", b"*") == names
    cursor, found = b"0", list[bytes]()
    for _ in range(1000):
        cursor, keys = walk(groups, b"SCAN", cursor, b"COUNT", b"9")  # type: ignore[misc]
        found += keys
        if cursor == b"0":
            break
    assert found == names
    assert walk(groups[:1], b"DBSIZE") < 500  # type: ignore[operator]
    rng = random.Random(1)
    drawn = {walk(groups, b"RANDOMKEY", chance=rng.getrandbits(64)) for _ in range(200)}
    assert drawn <= set(names)
    assert len(drawn) > 100
    assert walk([], b"RANDOMKEY") is None
    assert walk([], b"SCAN", b"0") == [b"0", []]


def test_a_random_key_is_found_wherever_the_search_begins() -> None:
    group = Group(own=[b"_OWN", b"1", b"0", b"99", b"12182", b"12182", b"16000", b"16383"])
    assert walk([group], b"RANDOMKEY", chance=2**64 - 1) is None
    group.execute("SET", "foo", "v")
    rng = random.Random(2)
    for chance in [0, 2**64 - 1, *(rng.getrandbits(64) for _ in range(50))]:
        assert walk([group], b"RANDOMKEY", chance=chance) == b"foo"


def test_walks_take_a_breath() -> None:
    group = Group()
    group.entry(
        *([b"SET", b"%d" % n, b"v", b"PX", b"%d" % (1 + n % 2 * 10**6)] for n in range(900))
    )
    group.wall_ms += 10
    group.entry([b"_TICK"])
    for args in ([b"DBSIZE"], [b"KEYS", b"none"], [b"SCAN", b"0", b"COUNT", b"1000"]):
        slices = sum(1 for _ in keyspace.walk(args, [group.machine], 0))
        assert slices >= 900 // 64


def test_a_walk_may_be_given_up() -> None:
    group = Group()
    group.entry(*([b"SET", b"%d" % n, b"v"] for n in range(200)))
    given_up = keyspace.walk([b"DBSIZE"], [group.machine], 0)
    next(given_up)
    given_up.close()
    assert group.execute("DBSIZE") == 200


def test_the_reply_to_keys_is_bounded() -> None:
    group = Group()
    size_bytes = limits.KEY_SIZE_BYTES
    count = limits.CLIENT_OUTPUT_BYTES // size_bytes
    for n in range(count + 1):
        group.execute("SET", (b"{t}%d" % n).ljust(size_bytes, b"."), "")
        group.rows.write()
    bucket = hashing.bucket_of(b"t")
    for args in (
        ["KEYS", "*"],
        ["SCAN", 0, "COUNT", 10_000],
        ["CLUSTER", "GETKEYSINSLOT", bucket, 10_000],
    ):
        assert isinstance(group.execute(*args), resp.ReplyError)
    assert group.execute("DBSIZE") == count + 1
    assert len(group.execute("CLUSTER", "GETKEYSINSLOT", bucket, count)) == count
