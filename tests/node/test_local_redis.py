"""Local commands, word for word against a real redis-server."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from eraft._impl import resp
from eraft.shardkv.specs import COMMANDS

from .local_context import Context, execute

SAME = """
PING | PING x | PING a b | ECHO a | ECHO | SELECT 0 | SELECT 1 | SELECT a | SELECT -1 | SELECT 0 0
HELLO 4 | HELLO 1 | HELLO a | HELLO 03 | HELLO 3 AUTH | HELLO 3 AUTH default | HELLO 3 auth a b
HELLO 3 SETNAME | HELLO 3 setname | HELLO 3 SETNAME a BAR | HELLO 3 BAR | HELLO 9 BAR
CLIENT | CLIENT FOO | CLIENT ID 3 | CLIENT SETNAME | CLIENT SETNAME ab | CLIENT GETNAME
CLIENT LIST TYPE replica | CLIENT LIST TYPE foo | CLIENT LIST ID 9999999 | CLIENT LIST ID a
CLIENT LIST ID | CLIENT LIST FOO | CLIENT LIST FOO bar | CLIENT LIST TYPE
CLIENT REPLY foo | CLIENT REPLY ON | CLIENT REPLY
CLIENT KILL | CLIENT KILL 1.1.1.1:3 | CLIENT KILL foo | CLIENT KILL ID 9999999 | CLIENT KILL ID a
CLIENT KILL ID 0 | CLIENT KILL ID -3 | CLIENT KILL TYPE foo | CLIENT KILL TYPE slave
CLIENT KILL TYPE replica ID 3 | CLIENT KILL ADDR 1.1.1.1:2 | CLIENT KILL LADDR 1.1.1.1:2
CLIENT KILL USER foo | CLIENT KILL SKIPME maybe | CLIENT KILL SKIPME | CLIENT KILL ID 3 FOO
CLIENT KILL ID 3 FOO bar | CLIENT KILL FOO bar | CLIENT KILL TYPE pubsub SKIPME no
COMMAND COUNT 3 | COMMAND FOO | COMMAND INFO nosuch get|foo | COMMAND LIST FILTERBY MODULE x
COMMAND LIST FILTERBY ACLCAT nosuch | COMMAND LIST FILTERBY FOO x | COMMAND LIST FOO
COMMAND LIST FILTERBY PATTERN client|l* | COMMAND LIST FILTERBY PATTERN nosuch*
COMMAND DOCS nosuch | COMMAND GETKEYS get a | COMMAND GETKEYS mset a 1 b 2
COMMAND GETKEYS mset a 1 b | COMMAND GETKEYS ping a | COMMAND GETKEYS get
COMMAND GETKEYS nosuch a | COMMAND GETKEYS get a b | COMMAND GETKEYS client id
COMMAND GETKEYS client foo | COMMAND GETKEYSANDFLAGS nosuch a | COMMAND GETKEYS exists a b c
CONFIG | CONFIG GET | CONFIG GET save | CONFIG GET nosuch | CONFIG GET SAVE sa?e
CONFIG GET maxmemory | CONFIG SET maxmemory 0 | CONFIG SET nosuch 3 | CONFIG SET maxmemory
CONFIG SET maxmemory 0 maxmemory 0 | CONFIG SET a b c | CONFIG RESETSTAT | CONFIG FOO
READONLY | READWRITE | ASKING | READONLY x | ASKING x | TIME x
CLUSTER | CLUSTER FOO | CLUSTER KEYSLOT foo | CLUSTER KEYSLOT | CLUSTER KEYSLOT {a}b
CLUSTER REPLICAS foo | CLUSTER SLAVES foo | CLUSTER SLOTS x | CLUSTER SHARDS x
INFO cluster | INFO nosuch | RESET | RESET x
"""


class RealRedis:
    """One connection to a real redis-server."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)

    def ask(self, args: list[bytes]) -> bytes:
        """The raw reply; an ECHO behind it marks its end."""
        marker = b"$6\r\nend-42\r\n"
        self._socket.sendall(encode(args) + encode([b"ECHO", b"end-42"]))
        reply = b""
        while not reply.endswith(marker):
            data = self._socket.recv(1 << 20)
            assert data, f"no reply to {args}"
            reply += data
        return reply.removesuffix(marker)

    def close(self) -> None:
        self._socket.close()


def encode(args: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a redis-server 7.0 in cluster mode."""
    binary = shutil.which("redis-server")
    if binary is None or b"v=7.0." not in subprocess.check_output([binary, "--version"]):
        pytest.skip("needs redis-server 7.0")
    port, bus = free_port(), free_port()
    command = [binary, "--port", str(port), "--cluster-port", str(bus), "--cluster-enabled", "yes"]
    command += ["--save", "", "--dir", str(tmp_path_factory.mktemp("redis"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert any(b"Ready to accept connections" in line for line in process.stdout)
            yield port
        finally:
            process.terminate()


@pytest.mark.parametrize("protocol", [2, 3])
def test_replies_are_those_of_redis(redis_port: int, protocol: int) -> None:
    context = Context()
    context.settings = {b"save": b"", b"maxmemory": b"0"}
    session = context.connect()
    redis = RealRedis(redis_port)
    differing = []
    hello = f"HELLO {protocol}"
    try:
        redis.ask(hello.encode().split())
        execute(context, session, hello)
        for line in SAME.strip().replace(" | ", "\n").splitlines():
            args = line.encode().split()
            theirs = redis.ask(args)
            ours = resp.encode([execute(context, session, args)], 0, 1, session.protocol)
            if as_arrays(theirs) != ours:
                differing.append((line, theirs, ours))
            if line == "RESET":
                redis.ask(hello.encode().split())
                execute(context, session, hello)
    finally:
        redis.close()
    assert differing == []


def as_arrays(reply: bytes) -> bytes:
    """RESP3's sets as arrays: eraft sends no sets."""
    return re.sub(rb"^~", b"*", reply, flags=re.MULTILINE)


def decoded(reply: bytes) -> Any:
    """A RESP2 reply without nulls as nested lists."""
    value, rest = decoded_first(reply.split(b"\r\n"))
    assert rest == [b""]
    return value


def decoded_first(parts: list[bytes]) -> tuple[Any, list[bytes]]:
    head, rest = parts[0], parts[1:]
    if head[:1] in b"+":
        return head[1:], rest
    if head[:1] == b":":
        return int(head[1:]), rest
    if head[:1] == b"$":
        return rest[0], rest[1:]
    assert head[:1] == b"*", head
    items = []
    for _ in range(int(head[1:])):
        item, rest = decoded_first(rest)
        items.append(item)
    return items, rest


def comparable(entry: list[Any]) -> list[Any]:
    """A command's entry without the order of what are sets, its notes and its subcommands."""
    key_specs = []
    for flat in entry[8]:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        fields.pop(b"notes", None)
        key_specs.append({**fields, b"flags": sorted(fields[b"flags"])})
    return [*entry[:2], sorted(entry[2]), *entry[3:6], *map(sorted, entry[6:8]), key_specs]


def test_commands_are_described_as_by_redis(redis_port: int) -> None:
    names = [spec.name for one in COMMANDS.values() for spec in (one, *one.subcommands)]
    context = Context()
    session = context.connect()
    redis = RealRedis(redis_port)
    compared = 0
    try:
        for name in names:
            ask = [b"COMMAND", b"INFO", name]
            theirs = redis.ask(ask)
            if theirs != b"*1\r\n$-1\r\n":  # of a later version of Redis, or eraft's own
                ours = resp.encode([execute(context, session, ask)], 0, 1, 2)
                assert comparable(decoded(ours)[0]) == comparable(decoded(theirs)[0])
                compared += 1
    finally:
        redis.close()
    assert compared >= len(names) - 1


def test_clients_are_described_with_the_fields_of_redis(redis_port: int) -> None:
    def fields(reply: bytes) -> list[bytes]:
        return [field.partition(b"=")[0] for field in reply.split(b"\r\n")[1].split()]

    context = Context()
    redis = RealRedis(redis_port)
    try:
        theirs = fields(redis.ask([b"CLIENT", b"INFO"]))
    finally:
        redis.close()
    ours = fields(resp.encode([execute(context, context.connect(), "CLIENT INFO")], 0, 1, 2))
    assert ours == [*theirs, b"lib-name", b"lib-ver"]
