"""Random commands on a few keys: most of the time ones that could mean something.

No time to live in them depends on when they are executed.
"""

import random

from eraft.shardkv import admission
from eraft.shardkv.specs import Kind

FAR_S = 4_000_000_000
PAST_S = 1_000_000_000

KEYS = [b"k", b"{k}a", b"{k}b", b"{k}", b"", b"other", b"k\0\r\n", b"{}k"]
INTEGERS = [
    *(
        b"0",
        b"1",
        b"-1",
        b"7",
        b"10",
        b"-0",
        b"+1",
        b" 1",
        b"1 ",
        b"01",
        b"1.0",
        b"",
        b"abc",
        b"1_0",
    ),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808"),
    *(b"-9223372036854775809", b"9223372036854775800", b"100000000000000000000", b"4294967296"),
]
OFFSETS = [b"0", b"1", b"3", b"-1", b"-3", b"100", b"-100", b"x", b"9223372036854775807"]
FLOATS = [
    *(
        b"0",
        b"1",
        b"-1",
        b"0.1",
        b"-0.1",
        b"3.14159",
        b"1e3",
        b"1E-3",
        b"5.",
        b".5",
        b".",
        b"1e",
        b"e1",
    ),
    *(
        b"1e4000",
        b"-1e4000",
        b"1e5000",
        b"1e-5000",
        b"1e-4940",
        b"inf",
        b"-INF",
        b"Infinity",
        b"nan",
    ),
    *(b"0x10", b"0X1p-3", b"0x", b"0x.8", b"0x1p", b" 1", b"1 ", b"1_0", b"+1.5", b"++1", b"1e+2"),
    *(b"18446744073709551615", b"18446744073709551617", b"0.30000000000000004", b"1e17", b"1e-17"),
    *(b"3.00000000000000000005", b"-0", b"0e999999", b"123456789012345.678901234", b"5e-18"),
]
VALUES = [b"", b"v", b"hello world", b"\0\xff\r\n", b"x" * 300, *INTEGERS, *FLOATS]
SECONDS = [
    b"%d" % FAR_S,
    b"%d" % (FAR_S + 1),
    b"%d" % PAST_S,
    b"0",
    b"-1",
    b"abc",
    b"9223372036854775",
]
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
            args = [
                b"EXPIREAT",
                key,
                rng.choice([*SECONDS, *HUGE, b"9223372036854776"]),
                *options(rng),
            ]
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


def entry(rng: random.Random) -> list[list[bytes]]:
    """Random writes as they are in the log, times to live among them."""
    found: list[list[bytes]] = []
    while len(found) < 10:
        args = command(rng)
        chance = rng.random()
        key = b"key%d" % rng.randrange(50)
        if chance < 0.3:
            args = [b"SET", key, number(rng)]
        elif chance < 0.5:
            args = [b"EXPIRE", key, b"%d" % rng.randint(1, 90)]
        try:
            spec = admission.lookup(args)
            if spec.kind is Kind.WRITE:
                found.append(admission.admit(spec, args))
        except admission.CommandError:
            continue
    return found
