"""What redis-server 7.0.15 answers to odd and malformed input, byte for byte.

`CASES` was captured from it; where redis-server is installed, it is asked again.
"""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.shardkv.redis_server import SERVER, Connection, redis_server

VALUE_BYTES = 1024 * 1024
LINE_BYTES = 64 * 1024
RECEIVED_AT_ONCE_BYTES = 16 * 1024

PING = b"*1\r\n$4\r\nPING\r\n"
PONG = b"+PONG\r\n"
WAITS = b""
PROTOCOL_ERROR = b"-ERR Protocol error: "


def failed(what: bytes, after: bytes = b"") -> bytes:
    """An error that ends the connection."""
    return after + PROTOCOL_ERROR + what + b"\r\n"


def unknown(name: bytes) -> bytes:
    return b"-ERR unknown command '%b', with args beginning with: \r\n" % name


# Name -> what is sent, and all replies to it.
CASES: dict[str, tuple[bytes, bytes]] = {
    "array": (PING, PONG),
    "two arrays": (PING + b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n", b"+PONG\r\n$2\r\nhi\r\n"),
    "any case": (b"*2\r\n$4\r\neChO\r\n$2\r\nhi\r\n", b"$2\r\nhi\r\n"),
    "empty argument": (b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", b"$0\r\n\r\n"),
    "binary argument": (b"*2\r\n$4\r\nECHO\r\n$5\r\n\0\r\n\xff$\r\n", b"$5\r\n\x00\r\n\xff$\r\n"),
    "array of none": (b"*0\r\n" + PING, PONG),
    "array of minus one": (b"*-1\r\n" + PING, PONG),
    "array of minus ten": (b"*-10\r\n" + PING, PONG),
    "least count": (b"*-9223372036854775808\r\n" + PING, PONG),
    "less than the least count": (
        b"*-9223372036854775809\r\n" + PING,
        failed(b"invalid multibulk length"),
    ),
    "no count": (b"*\r\n" + PING, failed(b"invalid multibulk length")),
    "count with plus": (b"*+1\r\n$4\r\nPING\r\n", failed(b"invalid multibulk length")),
    "count with zero": (b"*01\r\n$4\r\nPING\r\n", failed(b"invalid multibulk length")),
    "count minus zero": (b"*-0\r\n" + PING, failed(b"invalid multibulk length")),
    "count with letter": (b"*1a\r\n$4\r\nPING\r\n", failed(b"invalid multibulk length")),
    "count with blank": (b"* 1\r\n$4\r\nPING\r\n", failed(b"invalid multibulk length")),
    "count with blank after": (b"*1 \r\n$4\r\nPING\r\n", failed(b"invalid multibulk length")),
    "count beyond int": (b"*2147483648\r\n", failed(b"invalid multibulk length")),
    "count beyond int64": (b"*9223372036854775808\r\n", failed(b"invalid multibulk length")),
    "count of 21 digits": (b"*100000000000000000000\r\n", failed(b"invalid multibulk length")),
    "count with NUL": (b"*1\0\r\n$4\r\nPING\r\n", WAITS),
    "count line of newlines": (b"*\n1\r\n$4\r\nPING\r\n", failed(b"invalid multibulk length")),
    "count and only LF": (b"*1\n$4\r\nPING\r\n", failed(b"invalid multibulk length")),
    "count and only CR": (b"*1\r$4\r\nPING\r\n", failed(b"expected '$', got '4'")),
    "anything for LF and CR LF": (b"*1\rx$4\ryPINGzz" + PING, PONG + PONG),
    "count without end": (b"*1\r", WAITS),
    "letter for dollar": (b"*1\r\nx4\r\nPING\r\n", failed(b"expected '$', got 'x'")),
    "blank for dollar": (b"*1\r\n 4\r\nPING\r\n", failed(b"expected '$', got ' '")),
    "quote for dollar": (b"*1\r\n'4\r\nPING\r\n", failed(b"expected '$', got '''")),
    "high byte for dollar": (b"*1\r\n\xff4\r\nPING\r\n", failed(b"expected '$', got '\xff'")),
    "CR for dollar": (b"*1\r\n\r\nPING\r\n", failed(b"expected '$', got ' '")),
    "LF for dollar": (b"*1\r\n\n4\r\nPING\r\n", failed(b"expected '$', got ' '")),
    "NUL for dollar": (b"*1\r\n\x004\r\nPING\r\n", WAITS),
    "letter for dollar, no end": (b"*1\r\nx4", WAITS),
    "letter for second dollar": (b"*2\r\n$4\r\nECHO\r\nhi\r\n", failed(b"expected '$', got 'h'")),
    "array for an argument": (b"*2\r\n$4\r\nECHO\r\n" + PING, failed(b"expected '$', got '*'")),
    "argument longer than said": (
        b"*2\r\n$4\r\nECHO\r\n$1\r\nhi\r\n" + PING,
        b"$1\r\nh\r\n+PONG\r\n",
    ),
    "argument shorter than said": (
        b"*2\r\n$4\r\nECHO\r\n$3\r\nhi\r\n" + PING,
        b"$3\r\nhi\r\r\n" + unknown(b"1") + unknown(b"$4") + PONG,
    ),
    "no length": (b"*1\r\n$\r\nPING\r\n", failed(b"invalid bulk length")),
    "length minus one": (b"*1\r\n$-1\r\n" + PING, failed(b"invalid bulk length")),
    "length with plus": (b"*1\r\n$+4\r\nPING\r\n", failed(b"invalid bulk length")),
    "length with zero": (b"*1\r\n$04\r\nPING\r\n", failed(b"invalid bulk length")),
    "length with letter": (b"*1\r\n$4x\r\nPING\r\n", failed(b"invalid bulk length")),
    "length with blank": (b"*1\r\n$ 4\r\nPING\r\n", failed(b"invalid bulk length")),
    "length with NUL": (b"*1\r\n$4\0\r\nPING\r\n", WAITS),
    "length over the limit": (b"*2\r\n$4\r\nECHO\r\n$1048577\r\n", failed(b"invalid bulk length")),
    "length at the limit, incomplete": (b"*2\r\n$4\r\nECHO\r\n$1048576\r\n", WAITS),
    "length beyond int64": (
        b"*1\r\n$9223372036854775808\r\nPING\r\n",
        failed(b"invalid bulk length"),
    ),
    "length and only LF": (b"*1\r\n$4\nPING\r\n" + PING, failed(b"invalid bulk length")),
    "length of 19 digits": (b"*1\r\n$1000000000000000000\r\n", failed(b"invalid bulk length")),
    "after a good one": (PING + b"*1\r\n$x\r\n" + PING, failed(b"invalid bulk length", after=PONG)),
    "line of a count, at the limit": (b"*" + b"1" * (LINE_BYTES - 1), WAITS),
    "line of a count, over the limit": (
        b"*" + b"1" * LINE_BYTES,
        failed(b"too big mbulk count string"),
    ),
    "line of a length, at the limit": (b"*1\r\n$" + b"1" * (LINE_BYTES - 1), WAITS),
    "line of a length, over the limit": (
        b"*1\r\n$" + b"1" * LINE_BYTES,
        failed(b"too big bulk count string"),
    ),
    "letter for dollar, line over the limit": (
        b"*1\r\n" + b"x" * (LINE_BYTES + 1),
        failed(b"too big bulk count string"),
    ),
    "count with NUL, line over the limit": (
        b"*1\0\r\n" + b"1" * LINE_BYTES,
        failed(b"too big mbulk count string"),
    ),
    "inline at the limit": (b"x" * LINE_BYTES, WAITS),
    "inline over the limit": (b"x" * (LINE_BYTES + 1), failed(b"too big inline request")),
    "inline with NUL, over the limit": (
        b"PING\0\r\n" + b"x" * LINE_BYTES,
        failed(b"too big inline request"),
    ),
    "inline": (b"PING\r\nECHO hi\r\n", b"+PONG\r\n$2\r\nhi\r\n"),
    "inline and LF": (b"PING\nECHO hi\n", b"+PONG\r\n$2\r\nhi\r\n"),
    "inline without end": (b"PING\r", WAITS),
    "inline CR CR LF": (b"ECHO hi\r\r\n", b"$2\r\nhi\r\n"),
    "inline CR inside": (b"ECHO\rhi\r\n", b"$2\r\nhi\r\n"),
    "empty lines": (b"\r\n\n  \t\r\nPING\r\n", PONG),
    "blanks": (b" \t\v\f ECHO\t  hi \v\f \r\n", b"$2\r\nhi\r\n"),
    "vertical tab in a word": (b"ECHO a\vb\fc\r\n", b"$5\r\na\x0bb\x0cc\r\n"),
    "inline with NUL": (b"ECHO a\0b\r\nPING\r\n", WAITS),
    "NUL": (b"\0\r\n" + PING, WAITS),
    "double quotes": (b'ECHO "a  b"\r\n', b"$4\r\na  b\r\n"),
    "escapes": (
        b'ECHO "\\n\\r\\t\\b\\a\\x41\\xfF\\\\\\"\\q\\\'"\r\n',
        b"$11\r\n\n\r\t\x08\x07A\xff\\\"q'\r\n",
    ),
    "bad hex": (b'ECHO "\\x4g\\x\\xg1"\r\n', b"$7\r\nx4gxxg1\r\n"),
    "hex cut": (b'ECHO "\\x4"\r\n', b"$2\r\nx4\r\n"),
    "backslash outside of quotes": (b"ECHO \\x41\\n\r\n", b"$6\r\n\\x41\\n\r\n"),
    "single quotes": (b"ECHO 'a  b'\r\n", b"$4\r\na  b\r\n"),
    "single quotes escape": (
        b"ECHO 'it\\'s \\n \\x41 \\\\'\r\n",
        failed(b"unbalanced quotes in request"),
    ),
    "single quotes end in a backslash": (
        b"ECHO 'a\\\\'\r\n",
        failed(b"unbalanced quotes in request"),
    ),
    "double in single quotes": (b"ECHO '\"'\r\n", b'$1\r\n"\r\n'),
    "single in double quotes": (b'ECHO "\'"\r\n', b"$1\r\n'\r\n"),
    "quotes in a word": (b'ECHO a"b c"\r\n', b"$4\r\nab c\r\n"),
    "single quotes in a word": (b"ECHO a'b c'\r\n", b"$4\r\nab c\r\n"),
    "quotes and a word": (b'ECHO "a"b\r\n', failed(b"unbalanced quotes in request")),
    "single quotes and a word": (b"ECHO 'a'b\r\n", failed(b"unbalanced quotes in request")),
    "quotes and quotes": (b'ECHO "a""b"\r\n', failed(b"unbalanced quotes in request")),
    "quotes and vertical tab": (b'ECHO "a"\v\r\n', b"$1\r\na\r\n"),
    "empty quotes": (b'ECHO ""\r\n', b"$0\r\n\r\n"),
    "empty single quotes": (b"ECHO ''\r\n", b"$0\r\n\r\n"),
    "open quotes": (b'ECHO "a\r\nPING\r\n', failed(b"unbalanced quotes in request")),
    "open quotes end in a backslash": (b'ECHO "a\\\r\n', failed(b"unbalanced quotes in request")),
    "open single quotes": (b"ECHO 'a\r\n", failed(b"unbalanced quotes in request")),
    "open single quotes end in a backslash": (
        b"ECHO 'a\\\r\n",
        failed(b"unbalanced quotes in request"),
    ),
    "only a quote": (b'"\r\n', failed(b"unbalanced quotes in request")),
    "dollar inline": (
        b"$4\r\nPING\r\n",
        unknown(b"$4") + PONG,
    ),
    "high bytes": (b"ECHO \x80\xa0\xff\r\n", b"$3\r\n\x80\xa0\xff\r\n"),
}


def parser(resp: Any) -> Any:
    table = resp.CommandTable({b"SET": 3}, {b"GET": 2})
    admit = bytearray(16384)
    return resp.Parser(table, admit, [None], VALUE_BYTES, 4 * VALUE_BYTES, 128 * 1024, LINE_BYTES)


def answer(args: list[bytes]) -> bytes:
    """What Redis replies to a command of the cases."""
    name = args[0].upper()
    if name == b"PING":
        return PONG
    if name == b"ECHO":
        return b"$%d\r\n%b\r\n" % (len(args[1]), args[1])
    return unknown(args[0])


def replies(resp: Any, data: bytes, step: int) -> bytes:
    """Parse `data` in pieces of `step` bytes and answer what comes out."""
    parse = parser(resp)
    out = []
    for start in range(0, len(data), step):
        items = parse.feed_and_parse(data[start : start + step], False)
        while items:
            for kind, subject, _ in items:
                if kind == resp.ERROR:
                    out.append(resp.encode([subject], 0, 1, 2))
                    assert parse.stopped == resp.BROKEN
                else:
                    assert kind == resp.COMMAND
                    out.append(answer(subject))
            items = parse.parse(False)
    if parse.stopped == resp.BROKEN:
        assert parse.buffered_bytes == 0
        assert parse.feed_and_parse(PING, False) == []
        parse.feed(PING)
        assert parse.parse(False) == []
        assert parse.buffered_bytes == 0
    return b"".join(out)


@pytest.mark.parametrize("name", CASES)
def test_as_redis(twin: Any, name: str) -> None:
    data, expected = CASES[name]
    steps = (len(data), 1, 2, 5) if len(data) < LINE_BYTES else (len(data), 4096, 50_000)
    for step in steps:
        assert replies(twin.resp, data, step) == expected, f"in pieces of {step}"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Connection, int]]:
    if SERVER is None:
        pytest.skip("redis-server is not installed")
    with redis_server(tmp_path_factory.mktemp("redis")) as connection:
        info = connection.execute(b"INFO", b"server")
        if b"redis_version:7.0." not in info:
            pytest.skip("redis-server is not 7.0")
        connection.execute(b"CONFIG", b"SET", b"proto-max-bulk-len", b"%d" % VALUE_BYTES)
        yield connection, int(connection.execute(b"CONFIG", b"GET", b"port")[1])


@pytest.mark.parametrize("name", CASES)
def test_redis_still_does(redis: tuple[Connection, int], name: str) -> None:
    control, port = redis
    data, expected = CASES[name]
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(data)
        # Each turn of Redis reads one piece of each connection: these come after ours.
        for _ in range(len(data) // RECEIVED_AT_ONCE_BYTES + 3):
            assert control.execute(b"PING") == b"PONG"
        client.setblocking(False)
        received = b""
        closed = False
        try:
            while piece := client.recv(65536):
                received += piece
            closed = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            closed = True
    assert received == expected
    assert closed == (PROTOCOL_ERROR in expected)
