"""Nodes come to the cluster: registration, and what they learn from the others."""

from dataclasses import replace

import pytest

from eraft import limits
from eraft.metaserver.founding import founding_table
from eraft.node.hello import MAIN, Handshakes, Hello
from tests.sim.world import World

CHECKS = 3
"""Comparisons of the replicas in 220 ticks, at most."""


def test_a_node_that_founded_nothing_registers_and_hosts_groups() -> None:
    world = World(nodes=5, members=3)
    world.until(lambda: all(len(node.table.nodes) == 5 for node in world.nodes.values()))
    world.until(lambda: all(node.table.nodes[5].client for node in world.nodes.values()))
    assert world.meta(5, "JOIN", "1", "3", "4", "5").startswith(b"$")
    assert world.meta(4, "OPEN").startswith(b"$")
    world.until(lambda: world.leader(1) != 0)
    client = world.connect(world.leader(1))
    client.send("SET a 1", "GET a")
    world.until(lambda: client.received == b"+OK\r\n$1\r\n1\r\n")


def test_a_refused_registration_is_not_asked_for_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody tells a stranger that it is refused: it asks on and on, which costs no entries."""
    monkeypatch.setattr(limits, "TABLE_NODES", 3)
    world = World(nodes=4, members=3)
    world.tick(100)
    leader = world.nodes[world.leader(0)].replicas[0]
    before = leader.applied
    world.tick(220)
    assert 1 <= leader.applied - before <= 3 + CHECKS
    assert world.nodes[4].catalog.refusal
    monkeypatch.setattr(limits, "TABLE_NODES", 4)
    world.until(lambda: 4 in world.nodes[1].table.nodes, 400)


def test_nobody_listens_any_more_to_a_node_that_was_removed() -> None:
    """It runs on, and does not hear of its removal: its connections end at the other side."""
    world = World(nodes=4, members=3)
    world.until(lambda: all(4 in node.table.nodes for node in world.nodes.values()))
    world.until(lambda: world.ready(0))
    world.network.block(1, 4)
    world.network.block(2, 4)
    world.network.block(3, 4)
    assert world.meta(1, "FORGET", "4").startswith(b"$")
    world.until(lambda: all(4 not in world.nodes[it].table.nodes for it in world.founders))
    assert not any(link.up for link in world.network.links.values() if 4 in (link.sender, link.to))
    assert 4 in world.nodes[4].table.nodes
    version = world.table.version
    admin = world.nodes[4].connect_admin(lambda: None, lambda why, at_once: None)
    with world.acting(4):
        admin.receive(b"META JOIN 1 1 2 3\r\n")
    world.tick(40)
    assert world.table.version == version


def test_once_a_node_has_registered_its_store_any_other_one_is_hung_up_on() -> None:
    handshakes = Handshakes()
    ended: list[tuple[str, str]] = []
    for store_id in ("a", "b", "c"):
        hello = Hello(1, store_id, MAIN)
        forget = handshakes.keep(
            hello, lambda why, store_id=store_id: ended.append((store_id, why))
        )
    forget()
    table = founding_table({1: "10.0.0.1:7000"})
    handshakes.judge(table)
    assert not ended
    table = replace(table, nodes={1: replace(table.nodes[1], store_id="b")})
    handshakes.judge(table)
    handshakes.judge(table)
    ((who, why),) = ended
    assert who == "a"
    assert why.startswith("node 1 comes with another store than the one it registered")
