"""Nodes come to the cluster: registration, and what they learn from the others."""

from tests.sim.world import World


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
