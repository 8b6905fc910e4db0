"""The same commands to this machine and to a real redis-server: the same replies, byte for byte."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from eraft._impl import resp

from .group import Group
from .redis_server import Connection, ErrorReply, SimpleReply

FAR_S = 4_000_000_000
PAST_S = 1_000_000_000


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


Draw = Callable[[random.Random], list[bytes]]

KEYS = [b"k", b"{k}a", b"{k}b", b"{k}", b"", b"other", b"k\0\r\n", b"{}k"]
INTEGERS = [
    *(b"0", b"1", b"-1", b"7", b"10", b"-0", b"+1", b" 1", b"1 ", b"01", b"1.0", b"", b"abc", b"1_0"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808"),
    *(b"-9223372036854775809", b"9223372036854775800", b"100000000000000000000", b"4294967296"),
]
OFFSETS = [b"0", b"1", b"3", b"-1", b"-3", b"100", b"-100", b"x", b"9223372036854775807"]
FLOATS = [
    *(b"0", b"1", b"-1", b"0.1", b"-0.1", b"3.14159", b"1e3", b"1E-3", b"5.", b".5", b".", b"1e", b"e1"),
    *(b"1e4000", b"-1e4000", b"1e5000", b"1e-5000", b"1e-4940", b"inf", b"-INF", b"Infinity", b"nan"),
    *(b"0x10", b"0X1p-3", b"0x", b"0x.8", b"0x1p", b" 1", b"1 ", b"1_0", b"+1.5", b"++1", b"1e+2"),
    *(b"18446744073709551615", b"18446744073709551617", b"0.30000000000000004", b"1e17", b"1e-17"),
    *(b"3.00000000000000000005", b"-0", b"0e999999", b"123456789012345.678901234", b"5e-18"),
]
VALUES = [b"", b"v", b"hello world", b"\0\xff\r\n", b"x" * 300, *INTEGERS, *FLOATS]
SECONDS = [b"%d" % FAR_S, b"%d" % (FAR_S + 1), b"%d" % PAST_S, b"0", b"-1", b"abc", b"9223372036854775"]
MILLISECONDS = [b"%d000" % FAR_S, b"%d500" % FAR_S, b"%d000" % PAST_S, b"0", b"-5", b"1.5"]
HUGE = [b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808"]
# None of them makes a time to live that depends on the two clocks.
DURATIONS = [*HUGE, b"0", b"-1", b"x", b"-9223372036854775", b"-9223372036854776"]


def option(rng: random.Random) -> list[bytes]:
    return rng.choice(
        [
            *([b"NX"], [b"xx"], [b"GET"], [b"KeepTTL"], [b"PERSIST"], [b"GT"], [b"lt"], [b"bogus"]),
            *([b"EXAT", rng.choice(SECONDS)], [b"pxat", rng.choice(MILLISECONDS)]),
            *([b"EX", rng.choice(DURATIONS)], [b"PX", rng.choice(DURATIONS)], [b"EX"], [b"PXAT"]),
        ]
    )


def options(rng: random.Random) -> list[bytes]:
    return [arg for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))) for arg in option(rng)]


def keys(rng: random.Random) -> list[bytes]:
    return [rng.choice(KEYS[:4] if rng.random() < 0.8 else KEYS) for _ in range(rng.randint(1, 4))]


def pairs(rng: random.Random) -> list[bytes]:
    args = [arg for key in keys(rng) for arg in (key, rng.choice(VALUES))]
    return args if rng.random() < 0.9 else args[:-1]


def command(rng: random.Random) -> list[bytes]:
    """A random command, most of the time one that could mean something."""
    key, value = rng.choice(KEYS[:3] if rng.random() < 0.8 else KEYS), rng.choice(VALUES)
    match rng.randrange(34):
        case 0:
            args = [b"GETEX", key, *options(rng)]
        case 1:
            args = [b"MGET", *keys(rng)]
        case 2:
            args = [b"MSET", *pairs(rng)]
        case 3:
            args = [b"MSETNX", *pairs(rng)]
        case 4 | 5:
            args = [rng.choice((b"DEL", b"UNLINK", b"EXISTS", b"TOUCH")), *keys(rng)]
        case 6 | 7:
            args = [rng.choice((b"INCR", b"DECR")), key]
        case 8:
            args = [rng.choice((b"INCRBY", b"DECRBY")), key, rng.choice(INTEGERS)]
        case 9 | 10:
            args = [b"INCRBYFLOAT", key, rng.choice(FLOATS)]
        case 11:
            args = [b"APPEND", key, value]
        case 12:
            args = [b"SETRANGE", key, rng.choice(OFFSETS), value]
        case 13:
            args = [b"GETRANGE", key, rng.choice(OFFSETS), rng.choice(OFFSETS)]
        case 14 | 15:
            args = [b"EXPIREAT", key, rng.choice([*SECONDS, *HUGE, b"9223372036854776"]), *options(rng)]
        case 16:
            args = [b"PEXPIREAT", key, rng.choice(MILLISECONDS + HUGE), *options(rng)]
        case 17:
            args = [rng.choice((b"EXPIRE", b"PEXPIRE")), key, rng.choice(DURATIONS), *options(rng)]
        case 18:
            args = [rng.choice((b"SETEX", b"PSETEX")), key, rng.choice(DURATIONS), value]
        case 19 | 20:
            args = [rng.choice((b"SETNX", b"GETSET")), key, value]
        case 21 | 22:
            args = [rng.choice((b"EXPIRETIME", b"PEXPIRETIME")), key]
        case 23:
            args = [rng.choice((b"TTL", b"PTTL")), b"{k}never-set"]
        case 24 | 25:
            args = [rng.choice((b"STRLEN", b"TYPE", b"GETDEL", b"PERSIST")), key]
        case 26:
            args = [rng.choice((b"NOSUCH", b"_TICK", b"n\r\no")), *keys(rng)]
        case 27:
            args = [b"SET", key, rng.choice(INTEGERS + FLOATS)]
        case 28:
            args = [b"SET", key, rng.choice(INTEGERS), b"EXAT", b"%d" % FAR_S]
        case _:
            args = [rng.choice((b"GET", b"SET")), key, value, *options(rng)]
            args = args[:2] if args[0] == b"GET" else args
    if rng.random() < 0.03:
        args = args[: rng.randint(1, len(args))]
    if rng.random() < 0.1:
        args[0] = args[0].lower()
    return args


@pytest.mark.parametrize("seed", range(40))
def test_random_commands(redis: Connection, seed: int) -> None:
    rng = random.Random(seed)
    compare(redis, [command(rng) for _ in range(1000)])


def number(rng: random.Random) -> bytes:
    """A random decimal or hexadecimal number in one of the forms of C."""
    sign = rng.choice(("", "", "-", "+"))
    if rng.random() < 0.15:
        digits = f"0x{rng.getrandbits(rng.randint(1, 80)):x}"
        power = f"p{rng.randint(-90, 90)}" if rng.random() < 0.5 else ""
        return f"{sign}{digits}{power}".encode()
    digits = str(rng.randrange(10 ** rng.randint(1, 25)))
    point = rng.randint(0, len(digits))
    exponent = rng.choice(("", "", "", f"e{rng.randint(-30, 30)}", f"E{rng.randint(-4990, 4990)}"))
    return f"{sign}{digits[:point]}.{digits[point:]}{exponent}".encode()


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
