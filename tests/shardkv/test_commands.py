"""What each command does and answers, as transcripts; a real redis-server confirms them."""

import shlex
from typing import Any

import pytest

from eraft._impl import resp

from .group import Group
from .redis_server import Connection, ErrorReply, SimpleReply

# `command => reply`; the reply as +simple, -error, :number, "bulk", nil or [ ... ].
TRANSCRIPTS = {
    "get and set": """
        GET k => nil
        SET k v => +OK
        GET k => "v"
        SET k '' => +OK
        GET k => ""
        set k "a b" => +OK
        STRLEN k => :3
        STRLEN none => :0
        TYPE k => +string
        TYPE none => +none
    """,
    "set with conditions": """
        SET k 1 XX => nil
        GET k => nil
        SET k 1 NX => +OK
        SET k 2 NX => nil
        GET k => "1"
        SET k 3 XX => +OK
        SET k 4 XX NX => -ERR syntax error
        SET k 4 nx NX => nil
        GET k => "3"
    """,
    "set with get": """
        SET k 1 GET => nil
        SET k 2 GET => "1"
        SET k 3 NX GET => "2"
        GET k => "2"
        SET none 1 XX GET => nil
        EXISTS none => :0
        SET k 4 XX GET EXAT 4000000000 => "2"
        EXPIRETIME k => :4000000000
    """,
    "set and expiry": """
        SET k v EXAT 4000000000 => +OK
        EXPIRETIME k => :4000000000
        SET k w KEEPTTL => +OK
        PEXPIRETIME k => :4000000000000
        SET k w => +OK
        EXPIRETIME k => :-1
        SET k w KEEPTTL => +OK
        TTL k => :-1
        SET k v PXAT 4000000000499 => +OK
        EXPIRETIME k => :4000000000
        SET k v PXAT 4000000000500 => +OK
        EXPIRETIME k => :4000000001
        SET k v EXAT 1 => +OK
        GET k => nil
        SET k v EX 0 => -ERR invalid expire time in 'set' command
        SET k v PX -1 => -ERR invalid expire time in 'set' command
        SET k v EX 9223372036854776 => -ERR invalid expire time in 'set' command
        SET k v EX 9223372036854775 => -ERR invalid expire time in 'set' command
        SET k v EX 1.5 => -ERR value is not an integer or out of range
        SET k v EX => -ERR syntax error
        SET k v EX 10 PX 10 => -ERR syntax error
        SET k v EX 10 KEEPTTL => -ERR syntax error
        SET k v PERSIST => -ERR syntax error
        GET k => nil
    """,
    "setex and the like": """
        SETEX k 0 v => -ERR invalid expire time in 'setex' command
        PSETEX k -5 v => -ERR invalid expire time in 'psetex' command
        SETEX k x v => -ERR value is not an integer or out of range
        SETEX k 9223372036854775 v => -ERR invalid expire time in 'setex' command
        SETEX k 100000 v => +OK
        GET k => "v"
        PSETEX k 100000000 w => +OK
        GET k => "w"
        SETNX k x => :0
        SETNX j x => :1
        GET j => "x"
        GETSET j y => "x"
        GETSET i y => nil
        EXPIREAT i 4000000000 => :1
        GETSET i z => "y"
        EXPIRETIME i => :-1
        GETDEL i => "z"
        GETDEL i => nil
        EXISTS i => :0
    """,
    "getex": """
        GETEX k => nil
        GETEX k EX nothing => nil
        SET k v => +OK
        GETEX k EXAT 4000000000 => "v"
        EXPIRETIME k => :4000000000
        GETEX k => "v"
        EXPIRETIME k => :4000000000
        GETEX k PERSIST => "v"
        EXPIRETIME k => :-1
        GETEX k EX 0 => -ERR invalid expire time in 'getex' command
        GETEX k EX x => -ERR value is not an integer or out of range
        GETEX k EX 10 PERSIST => -ERR syntax error
        GETEX k KEEPTTL => -ERR syntax error
        GETEX k EX => -ERR syntax error
        GETEX k PXAT 1 => "v"
        EXISTS k => :0
    """,
    "several keys": """
        MSET {t}a 1 {t}b 2 {t}a 3 => +OK
        MGET {t}a {t}b {t}c {t}a => ["3" "2" nil "3"]
        MSETNX {t}c 1 {t}b 2 => :0
        EXISTS {t}c => :0
        MSETNX {t}c 1 {t}d 2 => :1
        EXISTS {t}c {t}d {t}c {t}e => :3
        TOUCH {t}c {t}c => :2
        DEL {t}c {t}c {t}e => :1
        UNLINK {t}d {t}a => :2
        MSET {t}a 1 {t}b => -ERR wrong number of arguments for 'mset' command
        MSETNX {t}a 1 {t}b => -ERR wrong number of arguments for 'msetnx' command
        MGET a b => -CROSSSLOT Keys in request don't hash to the same slot
        MSET a 1 b => -CROSSSLOT Keys in request don't hash to the same slot
    """,
    "mset ends a time to live": """
        SET k v EXAT 4000000000 => +OK
        MSET k v => +OK
        TTL k => :-1
    """,
    "parts of a value": """
        APPEND k hello => :5
        APPEND k ' world' => :11
        GETRANGE k 0 4 => "hello"
        GETRANGE k -5 -1 => "world"
        GETRANGE k 0 -1 => "hello world"
        GETRANGE k 5 1 => ""
        GETRANGE k -1 -5 => ""
        GETRANGE k -100 1 => "he"
        GETRANGE k 9 100 => "ld"
        GETRANGE k 11 12 => ""
        GETRANGE none 0 -1 => ""
        GETRANGE k 0 x => -ERR value is not an integer or out of range
        SETRANGE k 6 there => :11
        GET k => "hello there"
        SETRANGE k 20 '' => :11
        SETRANGE none 20 '' => :0
        EXISTS none => :0
        SETRANGE pad 2 x => :3
        SETRANGE k -1 x => -ERR offset is out of range
        SETRANGE k x x => -ERR value is not an integer or out of range
        EXPIREAT k 4000000000 => :1
        SETRANGE k 0 J => :11
        APPEND k ! => :12
        GET k => "Jello there!"
        EXPIRETIME k => :4000000000
    """,
    "integers": """
        INCR n => :1
        INCRBY n 41 => :42
        DECR n => :41
        DECRBY n -1 => :42
        DECR m => :-1
        GET n => "42"
        SET n 9223372036854775807 => +OK
        INCR n => -ERR increment or decrement would overflow
        DECRBY n -1 => -ERR increment or decrement would overflow
        DECRBY n -9223372036854775808 => -ERR decrement would overflow
        DECRBY none -9223372036854775808 => -ERR decrement would overflow
        INCRBY n -9223372036854775808 => :-1
        INCRBY n 9223372036854775808 => -ERR value is not an integer or out of range
        INCRBY n 1.0 => -ERR value is not an integer or out of range
        SET n ' 1' => +OK
        INCR n => -ERR value is not an integer or out of range
        SET n 01 => +OK
        INCR n => -ERR value is not an integer or out of range
        SET n -0 => +OK
        INCR n => -ERR value is not an integer or out of range
        SET n 1 EXAT 4000000000 => +OK
        INCR n => :2
        EXPIRETIME n => :4000000000
    """,
    "floats": """
        INCRBYFLOAT f 10.50 => "10.5"
        INCRBYFLOAT f 0.1 => "10.6"
        INCRBYFLOAT f -5 => "5.6"
        SET f 5.0e3 => +OK
        INCRBYFLOAT f 2.0e2 => "5200"
        INCRBYFLOAT f 0.00000000000000001 => "5200"
        SET f 3.0 => +OK
        INCRBYFLOAT f 1.1 => "4.1"
        INCRBYFLOAT f inf => -ERR increment would produce NaN or Infinity
        INCRBYFLOAT f nan => -ERR value is not a valid float
        INCRBYFLOAT f abc => -ERR value is not a valid float
        INCRBYFLOAT f '1 ' => -ERR value is not a valid float
        GET f => "4.1"
        SET f x => +OK
        INCRBYFLOAT f 1 => -ERR value is not a valid float
        SET f 0.1 EXAT 4000000000 => +OK
        INCRBYFLOAT f 0.2 => "0.3"
        EXPIRETIME f => :4000000000
        INCRBYFLOAT f -0.3 => "0"
    """,
    "expire": """
        EXPIREAT k 4000000000 => :0
        SET k v => +OK
        EXPIREAT k 4000000000 XX => :0
        EXPIREAT k 4000000000 GT => :0
        EXPIREAT k 4000000000 NX => :1
        EXPIREAT k 4000000001 NX => :0
        EXPIREAT k 4000000000 GT => :0
        EXPIREAT k 4000000000 LT => :0
        PEXPIREAT k 4000000000001 GT => :1
        PEXPIRETIME k => :4000000000001
        PEXPIREAT k 4000000000000 LT => :1
        EXPIREAT k 4000000002 XX GT => :1
        EXPIRETIME k => :4000000002
        PERSIST k => :1
        PERSIST k => :0
        PERSIST none => :0
        EXPIREAT k 4000000000 LT => :1
        EXPIRE k 10 NX XX => -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE k 10 GT LT => -ERR GT and LT options at the same time are not compatible
        EXPIRE k 10 nx lt => -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE k 10 BAD => -ERR Unsupported option BAD
        EXPIRE k x BAD => -ERR Unsupported option BAD
        EXPIRE k x => -ERR value is not an integer or out of range
        EXPIRE k 9223372036854776 => -ERR invalid expire time in 'expire' command
        EXPIRE k 9223372036854775 => -ERR invalid expire time in 'expire' command
        PEXPIRE k 9223372036854775807 => -ERR invalid expire time in 'pexpire' command
        EXPIREAT k -9223372036854776 => -ERR invalid expire time in 'expireat' command
        EXPIRETIME k => :4000000000
        EXPIRE k -1 XX => :1
        EXISTS k => :0
        TTL k => :-2
        PTTL k => :-2
        EXPIRETIME k => :-2
        PEXPIRETIME k => :-2
        SET k v => +OK
        PEXPIREAT k 1 => :1
        GET k => nil
        SET k v => +OK
        PEXPIREAT k -1 GT => :0
        PEXPIRE k 0 => :1
        GET k => nil
    """,
    "deleting ends a time to live": """
        SET k v EXAT 4000000000 => +OK
        DEL k => :1
        SET k v => +OK
        EXPIRETIME k => :-1
    """,
    "the whole key space": """
        DBSIZE => :0
        RANDOMKEY => nil
        KEYS * => []
        SCAN 0 => ["0" []]
        MSET {t}1 a {t}2 b => +OK
        DBSIZE => :2
        KEYS {t}2 => ["{t}2"]
        SCAN 0 MATCH *1 COUNT 100 => ["0" ["{t}1"]]
        SCAN 0 TYPE hash COUNT 100 => ["0" []]
        FLUSHDB async => +OK
        DBSIZE => :0
        SET k v => +OK
        RANDOMKEY => "k"
        FLUSHALL => +OK
        GET k => nil
        FLUSHALL NOW => -ERR syntax error
    """,
    "what is no command": """
        FOO bar => -ERR unknown command 'FOO', with args beginning with: 'bar'_
        FOO => -ERR unknown command 'FOO', with args beginning with:_
        _TICK => -ERR unknown command '_TICK', with args beginning with:_
        CLUSTER FOO => -ERR unknown subcommand 'FOO'. Try CLUSTER HELP.
        GET => -ERR wrong number of arguments for 'get' command
        GET a b => -ERR wrong number of arguments for 'get' command
        SET a => -ERR wrong number of arguments for 'set' command
        CLIENT KILL => -ERR wrong number of arguments for 'client|kill' command
        CLIENT => -ERR wrong number of arguments for 'client' command
    """,
}


def parse(text: str) -> list[tuple[list[bytes], str]]:
    """The commands of a transcript and the replies they want."""
    steps = []
    for line in text.strip().splitlines():
        sent, _, reply = line.strip().partition(" => ")
        wanted = reply[:-1] + " " if reply.endswith(("'_", ":_")) else reply
        steps.append(([arg.encode() for arg in shlex.split(sent)], wanted))
    return steps


def shown(reply: Any) -> str:
    """A reply as the transcripts write it."""
    match reply:
        case None:
            return "nil"
        case SimpleReply() | resp.Simple():
            return "+" + reply.decode()
        case ErrorReply() | resp.ReplyError():
            return "-" + reply.decode()
        case bytes():
            return '"' + reply.decode() + '"'
        case int():
            return f":{reply}"
        case list():
            return "[" + " ".join(shown(item) for item in reply) + "]"
    raise TypeError(f"{reply!r} is no reply")


@pytest.mark.parametrize("title", TRANSCRIPTS)
def test_transcript(title: str) -> None:
    group = Group()
    for args, wanted in parse(TRANSCRIPTS[title]):
        assert shown(group.execute(*args)) == wanted, args


@pytest.mark.parametrize("title", TRANSCRIPTS)
def test_redis_agrees(title: str, redis: Connection) -> None:
    redis.execute(b"FLUSHALL")
    for args, wanted in parse(TRANSCRIPTS[title]):
        assert shown(redis.execute(*args)) == wanted, args


# Conditions that Redis 7.0 does not have.
COMPARING = """
    SET k 1 IFEQ 1 => nil
    EXISTS k => :0
    SET k 1 IFNE 1 => +OK
    SET k 2 IFNE 1 => nil
    SET k 2 IFEQ 1 => +OK
    SET k 3 ifeq 1 GET => "2"
    GET k => "2"
    SET k 3 IFEQ 2 GET EXAT 4000000000 => "2"
    GET k => "3"
    EXPIRETIME k => :4000000000
    SET k 4 IFEQ 3 KEEPTTL => +OK
    EXPIRETIME k => :4000000000
    SET k 5 IFNE 4 GET => "4"
    SET k 5 IFEQ => -ERR syntax error
    SET k 5 NX IFEQ 4 => -ERR syntax error
    SET k 5 IFEQ 4 XX => -ERR syntax error
    SET k 5 IFEQ 4 IFNE 5 => -ERR syntax error
    GET k => "4"
"""


def test_comparing_conditions() -> None:
    group = Group()
    for args, wanted in parse(COMPARING):
        assert shown(group.execute(*args)) == wanted, args


def test_every_command_on_keys_is_in_a_transcript() -> None:
    from eraft.shardkv.commands import READS, WRITES
    from eraft.shardkv.specs import COMMANDS, Kind

    used = {args[0].upper() for text in TRANSCRIPTS.values() for args, _ in parse(text)}
    assert {*READS, *WRITES} <= used
    assert set(WRITES) == {name for name, spec in COMMANDS.items() if spec.kind is Kind.WRITE}
    assert set(READS) == {name for name, spec in COMMANDS.items() if spec.kind is Kind.READ}
