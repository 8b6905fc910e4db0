"""What does not belong on the peer and admin ports is refused, and the node lives."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import orjson
import pytest

from eraft import limits
from eraft._impl import frames
from eraft.cli import admin
from eraft.metaserver import operations
from eraft.metaserver.operations import Register
from eraft.node import hello
from eraft.storage.directory import Identity
from eraft.types import Message, MessageKind
from tests.cli.local import wait_until
from tests.cluster.nodes import Node, Wire, command

PEER = Identity("test", 2, secrets.token_hex(16), {1: "127.0.0.1:1"})


@pytest.fixture
def node(opened: Node) -> Iterator[Node]:
    """The node; it serves after the test as before, and nothing in it has broken."""
    yield opened
    with Wire(opened.client) as wire:
        assert wire.ask("SET", "alive", "yes") == b"+OK\r\n"
    assert opened.status()["quarantined"] is None
    assert "Traceback" not in opened.text()


def greeting(to: int = 1, identity: Identity = PEER, **changed: Any) -> bytes:
    """A greeting with some of its fields changed; None takes a field away."""
    frame = hello.encode(identity, to, hello.MAIN)
    ((_, body),) = frames.FrameReader(1 << 20).feed(frame)
    form = {**orjson.loads(body), **changed}
    form = {name: value for name, value in form.items() if value is not None}
    return frames.encode_frame(frames.HELLO, orjson.dumps(form))


def answer(wire: Wire) -> dict[str, Any]:
    """The first frame that comes back."""
    reader = frames.FrameReader(1 << 20)
    while True:
        data = wire.socket.recv(65536)
        assert data, "closed without an answer"
        for kind, body in reader.feed(data):
            assert kind == frames.HELLO
            found: dict[str, Any] = orjson.loads(body)
            return found


REFUSED = {
    "another cluster": (greeting(cluster_id="other"), "a node of cluster 'other'"),
    "a newer protocol": (greeting(protocol=2), "peer protocol 2, this node speaks 1"),
    "no protocol": (greeting(protocol=None), "peer protocol None, this node speaks 1"),
    "a protocol of words": (greeting(protocol="x" * 9000), "peer protocol 'xxx"),
    "for another node": (greeting(to=7), "looks for node 7, this is node 1"),
    "the node's own id": (greeting(node_id=1), "calls itself node 1"),
    "node 0": (greeting(node_id=0), "node_id"),
    "a node id of words": (greeting(node_id="2"), "node_id"),
    "a third channel": (greeting(channel=2), "channel"),
    "without a store": (greeting(store_id=None), "store_id"),
    "with more": (greeting(more=1), "more"),
    "a list": (frames.encode_frame(frames.HELLO, b"[]"), "greeting"),
    "no JSON": (frames.encode_frame(frames.HELLO, b"\xff{"), "greeting"),
    "nested": (frames.encode_frame(frames.HELLO, b"[" * 5000), "greeting"),
    "another frame first": (frames.encode_frame(frames.RAFT, b""), "frame of kind 2 before"),
    "an unknown frame": (b"\x01\0\0\0\x82\xcd\xbf\xc5\x63", ""),
    "a wrong checksum": (b"\x02\0\0\0\0\0\0\0\x01\x01", "checksum"),
    "a large frame": (b"\xff\xff\xff\x7f\0\0\0\0\x01", "limit"),
    "RESP": (command("PING") * 3, ""),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
    "noise": (Random(1).randbytes(4096), ""),
}


@pytest.mark.parametrize(("data", "why"), REFUSED.values(), ids=REFUSED)
def test_a_peer_that_does_not_belong_is_told_why(node: Node, data: bytes, why: str) -> None:
    start = len(node.text())
    with Wire(node.peer) as wire:
        wire.send(data)
        assert why in answer(wire)["error"]
        assert wire.rest() == b""
    line = node.text()[start:]
    assert "WARNING a peer at" in line
    assert why in line
    assert len(line) < 500


@pytest.mark.parametrize("kind", range(frames.RAFT, frames.DIGEST + 1))
def test_malformed_frames_end_the_connection(node: Node, kind: int) -> None:
    random = Random(kind)
    bodies = [b"", b"{}", b"[]", b"null", b"[1,2]", b'{"version":-1}', b'{"id":"x"}', b"\0" * 12]
    bodies += [random.randbytes(size) for size in (1, 11, 12, 13, 80, 3000)]
    for body in bodies:
        with Wire(node.peer) as wire:
            wire.send(greeting())
            assert answer(wire)["node_id"] == 1
            wire.send(frames.encode_frame(kind, body))
            wire.send(frames.encode_frame(frames.HELLO, b"{}"))  # wrong here: it ends at the latest
            wire.rest()


def test_messages_of_strangers_change_nothing(node: Node) -> None:
    """A node of the cluster that is no member of the group cannot vote in it or write to it."""
    before = {group["gid"]: group["term"] for group in node.status()["groups"]}
    messages = [
        Message(kind=kind, gid=gid, sender=sender, to=1, term=10**6, index=10**6, commit=10**6)
        for kind in MessageKind
        for gid in (0, 1, 99)
        for sender in (1, 2, 99)
    ]
    with Wire(node.peer) as wire:
        wire.send(greeting())
        assert answer(wire)["node_id"] == 1
        refused = node.status()["stats"].get("messages_refused", 0)
        wire.send(frames.encode_messages(1, messages))
        wait_until(
            lambda: node.status()["stats"].get("messages_refused", 0) >= refused + len(messages),
            "all are refused",
        )
    assert {group["gid"]: group["term"] for group in node.status()["groups"]} == before


def test_a_connection_ends_when_the_config_table_turns_against_its_node(node: Node) -> None:
    identity = replace(PEER, node_id=4)
    with Wire(node.peer) as right, Wire(node.peer) as wrong:
        right.send(greeting(identity=identity))
        wrong.send(greeting(identity=identity, store_id="another"))
        assert answer(right)["node_id"] == answer(wrong)["node_id"] == 1
        register = Register(4, identity.store_id, "127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1")
        right.send(frames.encode_frame(frames.META_REQUEST, operations.encode("4-a-1", register)))
        assert wrong.rest() == b""
        node.wait_text("connection closed: node 4 comes with another store than")
        admin.ask(node.admin, "META", "FORGET", 4)
        assert right.rest() == b""
        node.wait_text("connection closed: node 4 was removed from the cluster")


def test_strangers_who_say_nothing_are_few_and_soon_gone(node: Node) -> None:
    wires = [Wire(node.peer) for _ in range(limits.PEER_STRANGERS + 20)]
    for wire in wires[limits.PEER_STRANGERS :]:
        assert wire.rest() == b""
    for wire in wires[: limits.PEER_STRANGERS]:
        wire.send(b"\x10")
    assert "no greeting in time" in answer(wires[0])["error"]
    for wire in wires:
        assert len(wire.rest()) < 200
        wire.close()
    with Wire(node.peer) as wire:
        wire.send(greeting())
        assert answer(wire)["node_id"] == 1


ADMIN = {
    "unknown": (command("NOSUCH", "a"), b"-ERR unknown command 'NOSUCH'"),
    "GET": (command("GET", "a"), b"-ERR unknown command 'GET'"),
    "STATUS with more": (command("STATUS", "a"), b"-ERR "),
    "META alone": (command("META"), b"-ERR "),
    "META unknown": (command("META", "NOSUCH"), b"-ERR "),
    "JOIN of words": (command("META", "JOIN", "x", "y"), b"-ERR "),
    "JOIN too large": (command("META", "JOIN", 2**70, 1), b"-ERR "),
    "JOIN of many": (command("META", "JOIN", 5, *range(1, 5000)), b"-ERR "),
    "JOIN of a stranger": (command("META", "JOIN", 5, 77), b"-ERR "),
    "QUERY of words": (command("META", "QUERY", "\r\n+OK"), b"-ERR "),
    "QUERY of the future": (command("META", "QUERY", 10**6), b"-ERR "),
    "binary": (command(b"\xff\0\r\n" * 50), b"-ERR unknown command"),
    "a large word": (b"*1\r\n$1073741824\r\n", b"-ERR Protocol error: invalid bulk length"),
    "a large line": (b"x" * 100_000, b"-ERR Protocol error: too big inline request"),
    "noise": (b"*\xff\xfe\r\n", b"-ERR Protocol error: invalid multibulk length"),
}


@pytest.mark.parametrize(("data", "error"), ADMIN.values(), ids=ADMIN)
def test_the_admin_port_answers_errors(node: Node, data: bytes, error: bytes) -> None:
    with Wire(node.admin) as wire:
        wire.send(data)
        line = wire.line()
        assert line.startswith(error)
        assert len(line) < 500
        if b"Protocol error" in line:
            assert wire.rest() == b""
        else:
            assert wire.ask("PING") == b"+PONG\r\n"


def test_more_operators_than_the_limit(node: Node) -> None:
    wires = [Wire(node.admin) for _ in range(limits.ADMIN_CONNECTIONS)]
    assert all(wire.ask("PING") == b"+PONG\r\n" for wire in wires)
    with Wire(node.admin) as more:
        assert more.rest() == b"-ERR max number of clients reached\r\n"
    for wire in wires:
        wire.close()

    def again() -> bool:
        with Wire(node.admin) as wire:
            return wire.ask("PING") == b"+PONG\r\n"

    wait_until(again, "an operator is let in again")


def test_an_operator_who_never_reads_costs_little(node: Node) -> None:
    before = node.rss_bytes()
    with Wire(node.admin) as deaf:
        deaf.socket.settimeout(1.0)
        sent = 0
        try:
            while sent < 20 * limits.MIB:
                deaf.send(command("STATUS") * 1000)
                sent += 1000
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
        with Wire(node.client) as other:
            assert other.ask("SET", "a", "1") == b"+OK\r\n"
        assert node.rss_bytes() - before < 200 * limits.MIB


def test_noise_to_every_port(node: Node) -> None:
    random = Random(int.from_bytes(os.urandom(4), "little"))
    for where in (node.client, node.peer, node.admin):
        for _ in range(20):
            with Wire(where) as wire, contextlib.suppress(OSError):
                wire.send(random.randbytes(random.randrange(1, 5000)))
