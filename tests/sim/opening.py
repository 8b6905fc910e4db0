"""Clusters that are open from the start: what is on their disks was made once."""

from __future__ import annotations

from functools import cache

from eraft._impl import hashing
from tests.sim.clients import Histories
from tests.sim.conditions import Conditions
from tests.sim.disk import Disk
from tests.sim.world import World, opened


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
    """As `world.opened`, but in less time."""
    disks = {
        node_id: disk.copy(conditions) for node_id, disk in disks_of_opened(groups, nodes).items()
    }
    world = World(nodes, seed, conditions=conditions, disks=disks)
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
