"""The same commands to this machine and to a real redis-server: the same replies, byte for byte."""

import random
from typing import Any

import pytest

from eraft._impl import resp

from .group import Group
from .random_commands import command, number
from .redis_server import Connection, ErrorReply, SimpleReply


def typed(reply: Any) -> Any:
    """A reply value with what kind of reply it is, for comparison."""
    match reply:
        case SimpleReply() | resp.Simple():
            return ("+", bytes(reply))
        case ErrorReply() | resp.ReplyError():
            return ("-", bytes(reply))
        case list():
            return [typed(item) for item in reply]
    return reply


def compare(redis: Connection, commands: list[list[bytes]]) -> None:
    """Execute on both and compare every reply."""
    group = Group(wall_ms=2_000_000_000_000)
    redis.execute(b"FLUSHALL")
    theirs = redis.pipeline(commands)
    for place, (args, reply) in enumerate(zip(commands, theirs, strict=True)):
        ours = group.execute(*args)
        assert typed(ours) == typed(reply), (place, commands[max(place - 8, 0) : place + 1])


@pytest.mark.parametrize("seed", range(40))
def test_random_commands(redis: Connection, seed: int) -> None:
    rng = random.Random(seed)
    compare(redis, [command(rng) for _ in range(1000)])


@pytest.mark.parametrize("seed", range(10))
def test_random_floats(redis: Connection, seed: int) -> None:
    rng = random.Random(seed)
    commands = []
    for _ in range(300):
        commands += [
            [b"SET", b"f", number(rng)],
            [b"INCRBYFLOAT", b"f", number(rng)],
            [b"INCRBYFLOAT", b"f", number(rng)],
            [b"GET", b"f"],
        ]
    compare(redis, commands)


def text(rng: random.Random, alphabet: bytes, limit: int) -> bytes:
    return bytes(rng.choice(alphabet) for _ in range(rng.randint(0, limit)))


@pytest.mark.parametrize("seed", range(4))
def test_random_patterns(redis: Connection, seed: int) -> None:
    rng = random.Random(seed)
    names = sorted({text(rng, b"aabc-]^\\*?[", 6) for _ in range(150)})
    group = Group()
    redis.execute(b"FLUSHALL")
    for name in names:
        assert typed(group.execute(b"SET", name, b"")) == typed(redis.execute(b"SET", name, b""))
    assert group.execute(b"DBSIZE") == redis.execute(b"DBSIZE") == len(names)
    patterns = [text(rng, b"abc-]^\\***?[[", 8) for _ in range(600)]
    theirs = redis.pipeline([[b"KEYS", pattern] for pattern in patterns])
    for pattern, reply in zip(patterns, theirs, strict=True):
        assert sorted(group.execute(b"KEYS", pattern)) == sorted(reply), pattern


# Errors that do not depend on any key, and what is just not an error.
ERRORS = """
NOSUCH
NOSUCH a b c
NOSUCH {long} {long} more
{long}{long} {long}
GET
GET a b
get
MSET {{k}}a
MSET {{k}}a 1 {{k}}b
MSET a 1 b
MSETNX a 1 a
MGET a b
DEL a b
MSET a 1 b 2
SCAN
SCAN x
SCAN -
SCAN -1
SCAN +0
SCAN 000
SCAN 18446744073709551615
SCAN 18446744073709551616
SCAN 0 COUNT
SCAN 0 COUNT 0
SCAN 0 COUNT -1
SCAN 0 COUNT x
SCAN 0 MATCH
SCAN 0 MATCH a TYPE
SCAN 0 TYPE list
SCAN 0 type String match * count 100
SCAN 0 NOVALUES
SCAN x COUNT x
KEYS
KEYS a b
DBSIZE a
RANDOMKEY
RANDOMKEY a
FLUSHALL x
FLUSHALL SYNC ASYNC
FLUSHDB sync
FLUSHALL async
CLUSTER
CLUSTER NOSUCH
CLUSTER nosuch a b
CLUSTER {long}{long}
CLUSTER COUNTKEYSINSLOT
CLUSTER countkeysinslot x
CLUSTER COUNTKEYSINSLOT -1
CLUSTER COUNTKEYSINSLOT 16384
CLUSTER COUNTKEYSINSLOT 5
CLUSTER GETKEYSINSLOT 5
CLUSTER GETKEYSINSLOT 5 -1
CLUSTER GETKEYSINSLOT 16384 1
CLUSTER GETKEYSINSLOT 5 x
CLUSTER GETKEYSINSLOT x 5
CLUSTER GETKEYSINSLOT 5 5
CLUSTER KEYSLOT
CLUSTER SLOTS a
CLIENT
CLIENT nosuch
CLIENT KILL
CLIENT ID x
CONFIG
CONFIG GET
CONFIG SET a
COMMAND NOSUCH
COMMAND GETKEYS
COMMAND COUNT x
ECHO
TIME x
SELECT
RESET x
""".format(long="x" * 100)


@pytest.mark.parametrize("line", ERRORS.strip().splitlines())
def test_errors(redis: Connection, line: str) -> None:
    redis.execute(b"FLUSHALL")
    args = line.encode().split(b" ")
    assert typed(Group().execute(*args)) == typed(redis.execute(*args))


def test_what_redis_shows_of_odd_names(redis: Connection) -> None:
    commands = [
        [b"a\r\nb", b"c\0d", b"e\nf"],
        [b"\0", b"", b"\xff"],
        [b"x", *([b"y" * 60] * 5)],
        [b"x", b"y" * 130, b"z"],
        [b"CLUSTER", b"a\r\nb\0c"],
        [b"EXPIRE", b"k", b"1", b"a\r\nb\0c"],
    ]
    compare(redis, commands)


def test_keys_of_one_slot(redis: Connection) -> None:
    group = Group()
    redis.execute(b"FLUSHALL")
    for n in range(20):
        for args in ([b"SET", b"{tag}%d" % n, b""], [b"SET", b"%d" % n, b""]):
            group.execute(*args)
            redis.execute(*args)
    slot = b"%d" % redis.execute(b"CLUSTER", b"KEYSLOT", b"tag")
    for args in ([b"CLUSTER", b"COUNTKEYSINSLOT", slot], [b"CLUSTER", b"COUNTKEYSINSLOT", b"77"]):
        assert group.execute(*args) == redis.execute(*args)
    for count in (b"0", b"20", b"100"):
        args = [b"CLUSTER", b"GETKEYSINSLOT", slot, count]
        assert sorted(group.execute(*args)) == sorted(redis.execute(*args))
    assert len(group.execute(b"CLUSTER", b"GETKEYSINSLOT", slot, b"7")) == 7
