"""Nodes that live but do not hear of each other: no answer from the past, nothing lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.local import WAIT_S, wait_until
from tests.cluster.links import Links
from tests.cluster.nodes import Node, Wire, command

IDS = [1, 2, 3]


class Net:
    """Three nodes with one group, and the network between them."""

    def __init__(self, path: Path, links: Links) -> None:
        self.links = links
        self.nodes = {node_id: Node(path / f"n{node_id}") for node_id in IDS}
        relays = {node_id: links.relay(node_id, node.peer) for node_id, node in self.nodes.items()}
        for node_id, node in self.nodes.items():
            node.flags = ["--advertise-peer", relays[node_id]]
            node.format(node_id, relays).start()
        self.nodes[1].open(*IDS)

    def leader(self, among: list[int]) -> int:
        """The node that leads the group as far as these nodes know, 0 if none of them does."""
        return next((node_id for node_id in among if self.nodes[node_id].serves), 0)

    def wait_for_leader(self, among: list[int]) -> int:
        wait_until(lambda: self.leader(among) > 0, f"one of {among} leads")
        return self.leader(among)

    def wire(self, node_id: int) -> Wire:
        return Wire(self.nodes[node_id].client, WAIT_S)

    def wait_equal(self) -> None:
        def applied() -> set[int]:
            return {
                group[position]
                for node in self.nodes.values()
                for group in node.status()["groups"]
                for position in ("applied", "commit")
                if group["gid"] == 1
            }

        wait_until(lambda: len(applied()) == 1, "all have applied the same")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with Links() as links:
        net = Net(tmp_path_factory.mktemp("net"), links)
        try:
            yield net
        finally:
            for node in net.nodes.values():
                node.end()


@pytest.fixture
def net(made: Net) -> Iterator[Net]:
    yield made
    made.links.heal()
    made.wait_equal()


def test_a_leader_that_is_cut_off_does_not_read_from_the_past(net: Net) -> None:
    """It sleeps while another is elected and takes writes, and wakes believing that it leads."""
    old = net.wait_for_leader(IDS)
    others = [node_id for node_id in IDS if node_id != old]
    with net.wire(old) as wire, net.wire(old) as late:
        assert wire.ask("SET", "a", "past") == b"+OK\r\n"
        process = net.nodes[old].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        net.links.isolate(old, IDS)
        new = net.wait_for_leader(others)
        with net.wire(new) as other:
            assert other.ask("SET", "a", "present") == b"+OK\r\n"
        wire.send(command("GET", "a") * 2 + command("STRLEN", "a"))
        late.send(command("INCR", "n"))
        process.send_signal(signal.SIGCONT)
        for connection in (wire, wire, wire, late):
            assert connection.line().startswith((b"-CLUSTERDOWN", b"-MOVED", b"-TIMEOUT"))
        net.links.heal()
        net.wait_equal()
        with net.wire(net.wait_for_leader(IDS)) as other:
            assert other.ask("GET", "a") == b"$7\r\n"


def test_a_write_without_a_quorum_is_not_acknowledged(net: Net) -> None:
    old = net.wait_for_leader(IDS)
    others = [node_id for node_id in IDS if node_id != old]
    with net.wire(old) as wire:
        assert wire.ask("SET", "b", "1") == b"+OK\r\n"
        net.links.isolate(old, IDS)
        assert wire.ask("APPEND", "b", "lost").startswith((b"-TIMEOUT", b"-CLUSTERDOWN"))
        assert wire.ask("GET", "b").startswith((b"-CLUSTERDOWN", b"-MOVED"))
        with net.wire(net.wait_for_leader(others)) as other:
            assert other.ask("APPEND", "b", "2") == b":2\r\n"
            net.links.heal()
            net.wait_equal()
            assert other.ask("STRLEN", "b") == b":2\r\n"
