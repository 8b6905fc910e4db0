"""Leadership handed over: before a stop, and to spread it over the nodes."""

from random import Random

import pytest

from eraft.node.leads import next_transfer
from tests.node.test_leadership import led_by_one
from tests.sim.opening import opened
from tests.sim.world import World

OK = b"+OK\r\n"


@pytest.mark.parametrize(
    ("leads", "heirs", "expected"),
    [
        ({1: 1}, {1: [2, 3]}, None),
        ({1: 1, 2: 1}, {1: [2], 2: [2, 3]}, (1, 2)),
        ({1: 1, 2: 1}, {1: [], 2: [3]}, (2, 3)),
        ({1: 1, 2: 1}, {1: [], 2: []}, None),
        ({1: 1, 2: 1, 3: 2}, {1: [2], 2: [2]}, None),
        ({1: 1, 2: 1, 3: 1, 4: 2}, {1: [2, 3], 2: [2, 3], 3: [2, 3]}, (1, 3)),
    ],
)
def test_who_hands_over_what(
    leads: dict[int, int], heirs: dict[int, list[int]], expected: tuple[int, int] | None
) -> None:
    assert next_transfer(1, leads, heirs) == expected


def test_transfers_end_with_leaders_spread_evenly() -> None:
    for seed in range(200):
        random = Random(seed)
        nodes = range(1, random.randint(2, 6))
        leads = {gid: random.choice(nodes) for gid in range(1, random.randint(2, 20))}
        for _ in range(len(leads) + 1):
            moves = [
                next_transfer(
                    node,
                    leads,
                    {
                        gid: [it for it in nodes if it != node]
                        for gid in leads
                        if leads[gid] == node
                    },
                )
                for node in nodes
            ]
            if not any(moves):
                break
            leads |= dict([next(move for move in moves if move is not None)])
        counts = [list(leads.values()).count(node) for node in nodes]
        assert max(counts) - min(counts) <= 1


def test_leaders_spread_over_the_nodes() -> None:
    world = opened(groups=3)

    def spread() -> bool:
        leaders = {world.leader(gid) for gid in (1, 2, 3)}
        return len(leaders) == 3 and 0 not in leaders

    world.until(spread, ticks=1500)
    terms = [world.nodes[1].replicas[gid].raft.term for gid in (1, 2, 3)]
    world.tick(600)
    assert spread()
    assert [world.nodes[1].replicas[gid].raft.term for gid in (1, 2, 3)] == terms


def leave(world: World, node_id: int) -> None:
    with world.acting(node_id) as node:
        node.leads.leave()


def test_a_node_that_leaves_hands_over_what_it_leads() -> None:
    world, leader = led_by_one()
    client = world.connect(leader)
    node = world.nodes[leader]
    client.send("SET key 1")
    world.settle()
    assert client.received == OK
    leave(world, leader)
    for number in range(20):
        client.send(f"SET key {number}")
        if node.leads.left:
            break
        world.tick()
    assert node.leads.left
    assert number < 4, "it took longer than a few ticks"
    assert not any(replica.leading for replica in node.replicas.values())
    world.tick()
    *answers, last = client.received.split(b"\r\n")[:-1]
    assert last.startswith(b"-MOVED ")
    assert all(it == b"+OK" or it.startswith((b"-MOVED ", b"-TRYAGAIN ")) for it in answers)
    assert all(world.leader(gid) not in (0, leader) for gid in (0, 1, 2))
    world.tick(100)
    assert all(world.leader(gid) != leader for gid in (0, 1, 2)), "it takes nothing back"


def test_nodes_that_all_leave_do_not_wait_for_one_another() -> None:
    world = opened(groups=2)
    for node_id in world.ids:
        leave(world, node_id)
    world.until(lambda: all(node.leads.left for node in world.nodes.values()), ticks=30)


def test_a_node_alone_leaves_at_once() -> None:
    world = opened(nodes=1)
    leave(world, 1)
    assert world.nodes[1].leads.left


def test_the_connection_to_the_heir_breaks_and_another_one_takes_over_at_once() -> None:
    world = opened()
    leader = world.leader(1)
    node = world.nodes[leader]
    for other in world.ids:
        if other != leader:
            world.network.block(leader, other)
    leave(world, leader)
    world.settle()
    replica = node.replicas[1]
    heir = replica.members.homes[replica.raft.transferee]
    world.heal()  # but what the heir was told is lost
    world.network.break_links(leader, heir)
    ticks = 0
    while not node.leads.left:
        world.tick()
        ticks += 1
    assert ticks < 6
    assert world.leader(1) not in (0, leader)


def test_a_node_that_has_just_won_does_not_leave_before_it_has_heard_of_the_others() -> None:
    world = opened()
    leader = world.leader(1)
    node = world.nodes[next(it for it in world.ids if it not in (leader, world.leader(0)))]
    node_id = node.identity.node_id
    with world.acting(leader) as old:
        old.replicas[1].raft.transfer_leadership(node.replicas[1].replica_id)
        old.touch(old.replicas[1])
    while not node.replicas[1].leading:
        world.step()
    leave(world, node_id)
    assert not node.leads.left
    world.until(lambda: node.leads.left, ticks=6)
    assert world.leader(1) not in (0, node_id)
