"""Nothing that could be done at once waits for the next tick of the clock."""

from collections.abc import Callable

import pytest

from eraft import limits
from eraft.raft.confchange import Change, ChangeKind, Transition
from tests.node.test_order import OK, keys_of
from tests.sim.opening import opened
from tests.sim.world import TICK_US, World


def within_a_tick(world: World, condition: Callable[[], bool]) -> bool:
    """Whether the condition comes to hold earlier than what only waits for ticks would let it."""
    until_us = world.now_us + TICK_US // 2
    while not condition() and world.now_us < until_us:
        world.run_one()
    return condition()


def test_a_group_that_was_saturated_goes_on_while_another_one_has_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = opened(groups=2, nodes=1)
    monkeypatch.setattr(limits, "PROPOSALS_PENDING", 1)
    first, second, third = (world.connect(1) for _ in range(3))
    (here,), (there,) = keys_of(world, 1, 1), keys_of(world, 2, 1)
    proposals = world.nodes[1].shard(1).proposals
    world.tick(2)
    first.send(f"SET {here} a")
    assert within_a_tick(world, lambda: len(proposals.pending) == 1)
    second.send(f"SET {here} b")
    third.send(f"SET {there} c")
    assert within_a_tick(world, lambda: first.received == second.received == third.received == OK)


def test_a_joint_configuration_is_left_as_soon_as_it_is_applied() -> None:
    world = opened()
    leader = world.leader(1)
    replica = world.nodes[leader].shard(1)
    world.tick(2)
    removed = next(member for member, node_id in replica.members.homes.items() if node_id != leader)
    results: list[object] = []
    with world.acting(leader):
        replica.members.propose(
            (Change(ChangeKind.REMOVE, removed),), (), results.append, Transition.JOINT_AUTO
        )
    assert within_a_tick(world, lambda: bool(results))
    assert within_a_tick(world, lambda: not replica.raft.conf.outgoing)


def test_a_node_that_hosts_nothing_has_a_turn_in_which_it_dials_its_peers() -> None:
    """It was removed while it was away, and hears so from them."""
    world = World(nodes=4, members=3)
    world.until(lambda: all(len(node.table.nodes) == 4 for node in world.nodes.values()))
    world.crash(4)
    assert world.meta(1, "FORGET", "4").startswith(b"$")
    world.start(4)
    with world.acting(4) as node:
        assert node.has_work
        assert node.drain().peers_changed
        assert not node.has_work
