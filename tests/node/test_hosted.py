"""Groups with somebody else's state machine: who is told what, and what a snapshot leaves."""

from __future__ import annotations

from typing import Any

import pytest

from eraft import limits
from eraft.errors import NotApplied, NotLeader, OutcomeUnknown, Overloaded
from eraft.node.hosted import HostedRead, HostedReplica, hosted
from eraft.storage.state import ReplicaRows
from tests.sim.conditions import Conditions
from tests.sim.world import World

GID = 1
SEGMENT_BYTES = Conditions().segment_bytes


class Sums:
    """Adds numbers up, a row for each name, and keeps the rows that it has seen beside them."""

    def __init__(self, gid: int, rows: ReplicaRows) -> None:
        self.cache: dict[bytes, int] = {}

    def apply(
        self, rows: ReplicaRows, index: int, term: int, payload: bytes, replies: list[Any] | None
    ) -> None:
        name, amount, _ = payload.split(b" ")
        total = self.total(rows, name) + int(amount)
        self.cache[name] = total
        rows.put(rows.data_prefix + name, b"%d" % total)
        if replies is not None:
            replies.append(total)

    def total(self, rows: ReplicaRows, name: bytes) -> int:
        if name not in self.cache:
            self.cache[name] = int(rows.get(rows.data_prefix + name) or 0)
        return self.cache[name]


class Answers:
    """What came of requests, in the order in which it came."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def take(self, value: Any) -> None:
        self.found.append(value)

    def kinds(self) -> list[type]:
        return [type(it) for it in self.found]


def founded(conditions: Conditions | None = None, nodes: int = 3) -> World:
    """The group on nodes 1 to 3, which have the metaserver too."""
    world = World(nodes, members=3, conditions=conditions, machine=Sums)
    world.until(lambda: world.ready(0))
    world.until(lambda: all(len(node.table.nodes) == nodes for node in world.nodes.values()))
    world.until(
        lambda: all(it.client for node in world.nodes.values() for it in node.table.nodes.values())
    )
    assert world.meta(1, "JOIN", str(GID), "1", "2", "3").startswith(b"$")
    world.until(lambda: world.ready(GID))
    return world


def replica(world: World, node_id: int) -> HostedReplica:
    return hosted(world.nodes[node_id], GID)


def add(world: World, node_id: int, amount: int = 1, padding: bytes = b"") -> Answers:
    answers = Answers()
    with world.acting(node_id):
        payload = b"n %d %b" % (amount, padding)
        replica(world, node_id).request(payload, answers.take, answers.take)
    return answers


def total(world: World, node_id: int) -> Answers:
    answers = Answers()
    with world.acting(node_id) as node:
        read = HostedRead(
            GID, lambda it, rows: it.total(rows, b"n"), answers.take, answers.take, node.now_s
        )
        replica(world, node_id).read(read)
    return answers


def read(world: World, node_id: int) -> int:
    """The total as a node reads it, as soon as there is a leader that confirms it."""
    asked = [total(world, node_id)]

    def answered() -> bool:
        if asked[-1].found and isinstance(asked[-1].found[0], Exception):
            asked.append(total(world, node_id))
        return bool(asked[-1].found) and not isinstance(asked[-1].found[0], Exception)

    world.until(answered)
    found: int = asked[-1].found[0]
    return found


def followers(world: World) -> list[int]:
    leader = world.leader(GID)
    return [node_id for node_id in world.ids if node_id != leader]


def test_every_replica_reads_what_was_acknowledged() -> None:
    world = founded()
    adds = [add(world, world.leader(GID)) for _ in range(10)]
    world.until(lambda: all(it.found for it in adds))
    assert [it.found for it in adds] == [[number] for number in range(1, 11)]
    assert [read(world, node_id) for node_id in world.ids] == [10] * 3


def test_who_does_not_lead_names_the_leader() -> None:
    world = founded()
    world.tick(30)
    leader = world.leader(GID)
    for node_id in followers(world):
        with pytest.raises(NotLeader) as refused:
            add(world, node_id)
        assert refused.value.leader == f"10.0.0.{leader}:6379"


def test_what_may_still_be_committed_is_unknown() -> None:
    world = founded()
    leader = world.leader(GID)
    world.stalled.update(followers(world))
    answers = add(world, leader)
    world.until(lambda: bool(answers.found))
    assert answers.kinds() == [OutcomeUnknown]
    world.stalled.clear()
    assert read(world, leader) == 1  # it was


def test_what_another_leader_has_overwritten_is_certainly_not_applied() -> None:
    world = founded()
    leader = world.leader(GID)
    world.isolate(leader)
    answers = add(world, leader)
    world.until(lambda: world.leader(GID) not in (0, leader))
    assert answers.found == []
    world.heal()
    world.until(lambda: bool(answers.found))
    assert answers.kinds() == [NotApplied]
    assert read(world, leader) == 0


def test_a_read_that_nobody_confirms_is_refused() -> None:
    world = founded()
    leader = world.leader(GID)
    world.isolate(leader)
    answers = total(world, leader)
    world.until(lambda: bool(answers.found))
    assert isinstance(answers.found[0], NotApplied)


@pytest.mark.parametrize(
    ("size_bytes", "most"), [(0, limits.PROPOSALS_PENDING), (100_000, 1 + (64 << 20) // 100_000)]
)
def test_a_leader_without_a_quorum_takes_a_bounded_amount(size_bytes: int, most: int) -> None:
    world = founded()
    leader = world.leader(GID)
    world.isolate(leader)
    with pytest.raises(Overloaded):
        for _ in range(most + 1):
            add(world, leader, padding=bytes(size_bytes))


def test_after_a_snapshot_the_machine_is_another_one() -> None:
    world = founded(Conditions(retention_bytes=2 * SEGMENT_BYTES, tail_bytes=SEGMENT_BYTES))
    victim = followers(world)[0]
    first = add(world, world.leader(GID))
    world.until(lambda: bool(first.found))
    assert read(world, victim) == 1  # now it is in the cache
    last_index = replica(world, victim).raft.last_index
    machine = replica(world, victim).machine
    world.isolate(victim)
    count = 1
    while world.nodes[world.leader(GID)].log.groups[GID].base_index <= last_index:
        more = [add(world, world.leader(GID), padding=b"x" * 20_000) for _ in range(10)]
        world.until(lambda: all(it.found for it in more))  # noqa: B023
        count += 10
        assert count < 10_000
    world.heal()
    world.until(lambda: replica(world, victim).machine is not machine, ticks=1200)
    assert read(world, victim) == count


def test_a_replica_is_replaced_and_the_new_one_has_everything() -> None:
    world = founded(nodes=4)
    adds = [add(world, world.leader(GID)) for _ in range(10)]
    world.until(lambda: all(it.found for it in adds))
    assert world.meta(1, "REPLICAS", str(GID), "ADD", "4", "REMOVE", "2").startswith(b"$")
    world.until(lambda: GID not in world.nodes[2].replicas, ticks=1200)
    assert read(world, 4) == 10
    with pytest.raises(NotLeader, match="does not lead"):
        replica(world, 2)
    world.crash(2)
    world.until(lambda: world.leader(GID) != 0)
    more = add(world, world.leader(GID))
    world.until(lambda: bool(more.found))
    assert more.found == [11]
