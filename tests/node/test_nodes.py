"""Nodes come to the cluster: registration, and what they learn from the others."""

import pytest

from eraft import limits
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
