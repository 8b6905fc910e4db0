"""What hostile and clumsy clients may do to a node: it answers in Redis's words and lives on."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eraft import limits
from tests.cli.local import wait_until
from tests.cluster.nodes import Node, Wire, command
from tests.shardkv.redis_server import SERVER, redis_server

MIB = limits.MIB
PING = command("PING")
PROTOCOL_ERRORS = {
    b"*x\r\n": b"invalid multibulk length",
    b"*2147483648\r\n$4\r\nPING\r\n": b"invalid multibulk length",
    b"*9223372036854775808\r\n": b"invalid multibulk length",
    b"*2\r\n$3\r\nGET\r\nx\r\n": b"expected '$', got 'x'",
    b"*2\r\n$3\r\nGET\r\n$-7\r\n": b"invalid bulk length",
    b"*2\r\n$3\r\nGET\r\n$abc\r\n": b"invalid bulk length",
    b"*2\r\n$3\r\nGET\r\n$536870913\r\n": b"invalid bulk length",
    b"*" + b"1" * 70_000: b"too big mbulk count string",
    b"*1\r\n$" + b"1" * 70_000: b"too big bulk count string",
    b"x" * 70_000: b"too big inline request",
    b'SET a "b\r\n': b"unbalanced quotes in request",
    b"SET a 'b'c\r\n": b"unbalanced quotes in request",
}
ERRORS = {
    command(
        "NOSUCH", "a", "b"
    ): b"ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' ",
    command("GET"): b"ERR wrong number of arguments for 'get' command",
    command("SET", "a"): b"ERR wrong number of arguments for 'set' command",
    command("MSET", "{a}1", "1", "{a}2"): b"ERR wrong number of arguments for 'mset' command",
    command("CLUSTER", "NOSUCH"): b"ERR unknown subcommand 'NOSUCH'. Try CLUSTER HELP.",
    command("SET", "a", "1", "EX"): b"ERR syntax error",
    command("SET", "a", "1", "EX", "0"): b"ERR invalid expire time in 'set' command",
    command("SET", "a", "1", "PX", "x"): b"ERR value is not an integer or out of range",
    command("GETRANGE", "a", "x", "1"): b"ERR value is not an integer or out of range",
    command("SETRANGE", "a", "-1", "x"): b"ERR offset is out of range",
    command("SETRANGE", "a", 2**31, "x"): (
        b"ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    ),
    command("INCRBYFLOAT", "a", "x"): b"ERR value is not a valid float",
    command("SCAN", "x"): b"ERR invalid cursor",
    command("CLUSTER", "COUNTKEYSINSLOT", 16384): b"ERR Invalid slot",
    command("SELECT", 1): b"ERR SELECT is not allowed in cluster mode",
    command("HELLO", 9): b"NOPROTO unsupported protocol version",
    command("MGET", "a", "b"): b"CROSSSLOT Keys in request don't hash to the same slot",
    command("x" * 200, "y" * 200): (
        b"ERR unknown command '"
        + b"x" * 128
        + b"', with args beginning with: '"
        + b"y" * 128
        + b"' "
    ),
    command("a\r\nb"): b"ERR unknown command 'a  b', with args beginning with: ",
}


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """As many open files as are allowed, for this process and the nodes that it starts."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def node(opened: Node) -> Iterator[Node]:
    """The node; it serves other clients after the test as before."""
    yield opened
    with Wire(opened.client) as wire:
        assert wire.ask("SET", "alive", "yes") == b"+OK\r\n"
        assert wire.ask("STRLEN", "alive") == b":3\r\n"
    assert "Traceback" not in opened.text()
    assert " ERROR " not in opened.text()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a redis-server, if there is one installed."""
    if SERVER is None:
        pytest.skip("redis-server is not installed")
    with redis_server(Path(tmp_path_factory.mktemp("redis"))) as connection:
        host, port = connection._socket.getpeername()
        yield f"{host}:{port}"


def talk(where: str, data: bytes) -> bytes:
    """Everything that is answered to the data until the server closes, or we do."""
    with Wire(where) as wire:
        wire.send(data)
        wire.socket.shutdown(socket.SHUT_WR)
        return wire.rest()


@pytest.mark.parametrize(("data", "error"), PROTOCOL_ERRORS.items(), ids=str)
def test_malformed_input_ends_the_connection(node: Node, data: bytes, error: bytes) -> None:
    with Wire(node.client) as wire:
        wire.send(PING + data)
        assert wire.line() == b"+PONG\r\n"
        assert wire.line() == b"-ERR Protocol error: " + error + b"\r\n"
        assert wire.rest() == b""


@pytest.mark.parametrize(("data", "error"), ERRORS.items(), ids=str)
def test_errors_leave_the_connection_usable(node: Node, data: bytes, error: bytes) -> None:
    assert talk(node.client, data + PING) == b"-" + error + b"\r\n+PONG\r\n"


@pytest.mark.parametrize("cases", [PROTOCOL_ERRORS, ERRORS], ids=["malformed", "wrong"])
def test_redis_answers_the_same(redis: str, cases: dict[bytes, bytes]) -> None:
    prefix = b"ERR Protocol error: " if cases is PROTOCOL_ERRORS else b""
    answers = {data: talk(redis, data) for data in cases}
    assert answers == {data: b"-" + prefix + error + b"\r\n" for data, error in cases.items()}


def test_a_value_over_the_limit(node: Node) -> None:
    with Wire(node.client) as wire:
        wire.send(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n" % (limits.VALUE_SIZE_BYTES + 1))
        assert wire.line() == b"-ERR Protocol error: invalid bulk length\r\n"
        assert wire.rest() == b""
    with Wire(node.client) as wire:
        value = b"x" * limits.VALUE_SIZE_BYTES
        assert wire.ask("SET", "big", value) == b"+OK\r\n"
        exceeds = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"
        assert wire.ask("APPEND", "big", "x") == exceeds
        assert wire.ask("SETRANGE", "big", limits.VALUE_SIZE_BYTES, "x") == exceeds
        assert wire.ask("GET", "big") == b"$%d\r\n" % len(value)
        assert wire.file.read(len(value) + 2) == value + b"\r\n"
        assert wire.ask("DEL", "big") == b":1\r\n"


def test_a_key_over_the_limit(node: Node) -> None:
    key = b"k" * limits.KEY_SIZE_BYTES
    with Wire(node.client) as wire:
        assert wire.ask("SET", key, "x") == b"+OK\r\n"
        assert wire.ask("STRLEN", key) == b":1\r\n"
        for words in (("SET", key + b"k", "x"), ("GET", key + b"k"), ("DEL", "a", key + b"k")):
            answer = wire.ask(*words)
            assert answer.startswith(b"-ERR ")
            assert b"key" in answer
            assert len(answer) < 200
        assert wire.ask("DEL", key) == b":1\r\n"


def test_too_many_arguments_and_too_large_a_command(node: Node) -> None:
    with Wire(node.client) as wire:
        wire.send(b"*%d\r\n" % (limits.COMMAND_ARGS + 1))
        assert wire.line() == b"-ERR Protocol error: invalid multibulk length\r\n"
    value = b"x" * limits.VALUE_SIZE_BYTES
    with Wire(node.client) as wire:
        try:
            wire.send(command("MSET", *(word for n in range(5) for word in (f"{{a}}{n}", value))))
        except (ConnectionResetError, BrokenPipeError):
            return
        assert b"too large" in wire.line()


def test_a_bulk_that_never_ends_costs_what_arrived(node: Node) -> None:
    before = node.rss_bytes()
    wires = [Wire(node.client) for _ in range(200)]
    for wire in wires:
        wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%d\r\n" % limits.VALUE_SIZE_BYTES + b"x" * 1000)
    with Wire(node.client) as other:
        assert other.ask("PING") == b"+PONG\r\n"
    assert node.rss_bytes() - before < 50 * MIB
    for wire in wires:
        wire.close()


def test_ten_thousand_half_commands(node: Node) -> None:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(10_000, allowed - 500)
    before = node.rss_bytes()
    half = b"*3\r\n$3\r\nSET\r\n$7\r\nnot-al"
    wires = []
    try:
        for _ in range(count):
            wires.append(socket.create_connection(address(node), 10))
            wires[-1].sendall(half)
        wait_until(lambda: node.status()["connections"] >= count, "all are connected")
        grown = node.rss_bytes() - before
        assert grown < 200 * MIB, f"{grown / count:.0f} bytes for each of {count}"
        with Wire(node.client) as other:
            assert other.ask("SET", "a", "1") == b"+OK\r\n"
        for wire in wires[:: count // 10]:
            wire.sendall(b"l\r\n$1\r\nx\r\n")
            assert wire.recv(100) == b"+OK\r\n"
    finally:
        for wire in wires:
            wire.close()
    wait_until(lambda: node.status()["connections"] < 10, "the node has noticed that they are gone")


def test_more_connections_than_the_limit(make_node: Callable[..., Node]) -> None:
    node = make_node("few", "--connections", 5).format().start()
    wires = [Wire(node.client) for _ in range(5)]
    for wire in wires:
        assert wire.ask("PING") == b"+PONG\r\n"
    with Wire(node.client) as more:
        assert more.rest() == b"-ERR max number of clients reached\r\n"
    for wire in wires:
        assert wire.ask("PING") == b"+PONG\r\n"
        wire.close()
    wait_until(lambda: node.status()["connections"] == 0, "they are gone")
    with Wire(node.client) as wire:
        assert wire.ask("PING") == b"+PONG\r\n"


def with_files(count: int) -> list[str]:
    """What comes before a command that may have only so many files open."""
    return ["sh", "-c", f'ulimit -n {count}; exec "$@"', "sh"]


def test_clients_leave_files_for_the_node_itself(make_node: Callable[..., Node]) -> None:
    room = 60
    node = make_node("n1").format().start(with_files(limits.RESERVED_FILES + room))
    assert f"only {room} client connections instead of 12000" in node.text()
    node.open()
    wires = [Wire(node.client) for _ in range(room + 50)]
    for wire in wires[room:]:
        assert wire.rest() == b"-ERR max number of clients reached\r\n"
    for n, wire in enumerate(wires[:room]):
        assert wire.ask("SET", f"key{n}", "x" * 100_000) == b"+OK\r\n"
    for wire in wires:
        wire.close()


def test_too_few_files_are_named(make_node: Callable[..., Node]) -> None:
    node = make_node("n1").format()
    said = node.refused(with_files(128))
    assert "this process may have 128 files open (ulimit -Hn)" in said


def address(node: Node) -> tuple[str, int]:
    host, _, port = node.client.rpartition(":")
    return host, int(port)


def pour(wire: Wire, data: bytes, most_bytes: int) -> int:
    """Send the data again and again, reading nothing, until the node takes no more."""
    wire.socket.settimeout(1.0)
    sent = 0
    try:
        while sent < most_bytes:
            wire.send(data)
            sent += len(data)
    except (TimeoutError, ConnectionResetError, BrokenPipeError):
        pass
    return sent


@pytest.mark.parametrize(
    "words",
    [
        ("GET", "large"),
        ("MGET", *["large"] * 100),
        ("ECHO", "x" * 1000),
        ("INCR", "n"),
        ("COMMAND",),
        ("DBSIZE",),
        ("KEYS", "*"),
    ],
    ids=lambda words: words[0],
)
def test_a_client_that_never_reads(node: Node, words: tuple[Any, ...]) -> None:
    """The node stops to read from it, or hangs up; others are served, and memory is bounded."""
    with Wire(node.client) as other:
        assert other.ask("SET", "large", "x" * 100_000) == b"+OK\r\n"
        before = node.rss_bytes()
        data = command(*words)
        with Wire(node.client) as deaf:
            sent = pour(deaf, data * (1 + 60_000 // len(data)), 200 * MIB)
            assert sent < 150 * MIB
            for n in range(20):
                assert other.ask("SET", "a", n) == b"+OK\r\n"
            assert node.rss_bytes() - before < 200 * MIB
