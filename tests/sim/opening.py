"""Clusters whose groups own all buckets: opened by commands, or from disks that were made once."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from eraft._impl import hashing
from tests.sim.clients import Histories
from tests.sim.conditions import Conditions
from tests.sim.disk import Disk
from tests.sim.world import World


def opened(
    groups: int = 1, nodes: int = 3, seed: int = 1, conditions: Conditions | None = None
) -> World:
    """A cluster whose groups 1..n own all buckets, each with a replica on every node."""
    world = World(nodes, seed, conditions=conditions)
    world.until(lambda: world.ready(0))
    world.until(lambda: all(len(node.table.nodes) == nodes for node in world.nodes.values()))
    world.until(
        lambda: all(
            address.client for node in world.nodes.values() for address in node.table.nodes.values()
        )
    )
    for gid in range(1, groups + 1):
        assert world.meta(1, "JOIN", str(gid), *map(str, world.ids)).startswith(b"$")
    assert world.meta(1, "OPEN").startswith(b"$")
    world.until(lambda: all(world.ready(gid) for gid in range(1, groups + 1)))
    world.until(lambda: all(_owned(world, gid) for gid in range(1, groups + 1)))
    return world


def _owned(world: World, gid: int) -> bool:
    return all(node.replicas[gid].machine.buckets_owned > 0 for node in world.nodes.values())


@cache
def disks_of_opened(groups: int, nodes: int) -> dict[int, Disk]:
    """What is on the disks of a cluster that was opened and stopped.

    Its segments are small, so that those that a test wants come soon.
    """
    world = opened(groups, nodes, conditions=Conditions(segment_bytes=8 * 1024))
    world.tick(40)
    for node_id in world.ids:
        world.stop(node_id)
    return world.disks


def reopened(groups: int, nodes: int, seed: int, conditions: Conditions) -> World:
    """As `opened`, but in less time: the first leaders are told to stand for election."""
    disks = {
        node_id: disk.copy(conditions) for node_id, disk in disks_of_opened(groups, nodes).items()
    }
    world = World(nodes, seed, conditions=replace(conditions, dial_us=(0, 0)), disks=disks)
    world.run_for(0)
    for gid in range(groups + 1):
        node_id = world.dice.choice(world.ids)
        with world.acting(node_id) as node:
            node.replicas[gid].raft.campaign()
            node.touch(node.replicas[gid])
    world.until(lambda: all(world.ready(gid) for gid in range(groups + 1)))
    return world


def histories_of(world: World, groups: int) -> Histories:
    """Some keys for texts and for numbers in each group."""
    owners = world.nodes[1].table.owners()
    texts, numbers = [], []
    for gid in range(1, groups + 1):
        for prefix, count, found in (("text", 4, texts), ("number", 2, numbers)):
            keys = (b"%s%d" % (prefix.encode(), number) for number in range(10_000))
            own = (key for key in keys if owners[hashing.bucket_of(key)] == gid)
            found += [next(own) for _ in range(count)]
    return Histories(texts, numbers)
