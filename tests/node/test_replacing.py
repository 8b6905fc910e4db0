"""Nodes come, go and are replaced, while clients write and other things fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eraft.metaserver.operations import Operation, Query
from eraft.node.metaclient import OnAnswer
from eraft.types import METASERVER_GID
from tests.node.test_divergence import append, plant
from tests.sim.conditions import Conditions
from tests.sim.conversation import Conversation
from tests.sim.world import World

TICKS = 1200


class Writer:
    """One client that writes one key after the other to whoever leads group 1."""

    def __init__(self, world: World) -> None:
        self.acknowledged: list[int] = []
        self._world = world
        self._next = 0
        self._conversation: Conversation | None = None

    def go_on(self) -> None:
        """Take the answer if there is one, and send the next write."""
        conversation = self._conversation
        if conversation is not None and not conversation.closed:
            if not conversation.received:
                return
            if conversation.received == b"+OK\r\n":
                self.acknowledged.append(self._next)
                self._next += 1
                conversation.received = b""
                conversation.send(f"SET key-{self._next} {self._next}")
                return
            conversation.hang_up()
        self._conversation = None
        leader = self._world.leader(1)
        if leader:
            self._next += 1  # the outcome of the last one may be unknown
            self._conversation = self._world.connect(leader)
            self._conversation.send(f"SET key-{self._next} {self._next}")

    def check(self) -> None:
        """Everything that was acknowledged is there, read linearizably."""
        world = self._world
        conversation = world.connect(world.leader(1))
        conversation.send(*(f"GET key-{it}" for it in self.acknowledged))
        expected = b"".join(b"$%d\r\n%d\r\n" % (len(str(it)), it) for it in self.acknowledged)
        world.until(lambda: len(conversation.received) >= len(expected))
        assert conversation.received == expected


def spare(nodes: int = 5, conditions: Conditions | None = None) -> tuple[World, Writer]:
    """Nodes 1 to 3 with the metaserver and group 1, the others without replicas."""
    world = World(nodes, members=3, conditions=conditions)
    world.until(lambda: all(registered(world, node_id) for node_id in world.ids))
    assert world.meta(1, "JOIN", "1", "1", "2", "3").startswith(b"$")
    assert world.meta(1, "OPEN").startswith(b"$")
    world.until(lambda: world.ready(1))
    writer = Writer(world)
    until(world, writer, lambda: len(writer.acknowledged) > 20)
    return world, writer


def registered(world: World, node_id: int) -> bool:
    tables = [node.table for node in world.nodes.values()]
    return all(node_id in table.nodes and table.nodes[node_id].client for table in tables)


def until(world: World, writer: Writer, condition: Callable[[], bool]) -> None:
    """Time passes and the writer writes until the condition holds."""
    for _ in range(TICKS):
        if condition():
            return
        writer.go_on()
        world.tick()
    raise AssertionError(
        [
            (node_id, gid, replica.reconciler.what, replica.raft.status())
            for node_id, node in world.nodes.items()
            for gid, replica in node.replicas.items()
        ]
    )


def change(world: World, node_id: int, gid: int, *words: str) -> None:
    reply = world.meta(node_id, "REPLICAS", str(gid), *words)
    assert reply.startswith(b"$"), reply


def settled(world: World, gid: int, *homes: int) -> bool:
    """Whether the group is as wanted, on these nodes, and everybody knows."""
    leader = world.leader(gid)
    if not leader:
        return False
    conf = world.nodes[leader].replicas[gid].raft.conf
    for node in world.nodes.values():
        group = node.table.groups[gid]
        if group.changing or sorted(group.node_ids) != sorted(homes):
            return False
    ids = tuple(sorted(it.replica_id for it in world.nodes[leader].table.groups[gid].replicas))
    return conf.voters == ids and not conf.learners and not conf.outgoing


def equal(world: World, gid: int, *homes: int) -> bool:
    replicas = [world.nodes[node_id].replicas[gid] for node_id in homes]
    return len({(it.applied, it.rows.digest) for it in replicas}) == 1


def lose(world: World, node_id: int) -> None:
    """The node and its disk are gone for good."""
    world.crash(node_id)
    del world.disks[node_id]


def other(world: World, gid: int, *not_these: int) -> int:
    leader = world.leader(gid)
    return next(it for it in (1, 2, 3) if it != leader and it not in not_these)


@pytest.mark.parametrize("who", ["follower", "leader"])
def test_a_node_whose_disk_is_gone_is_replaced_while_clients_write(who: str) -> None:
    world, writer = spare()
    victim = world.leader(1) if who == "leader" else other(world, 1)
    lose(world, victim)
    asked = next(it for it in (1, 2, 3) if it != victim)
    until(world, writer, lambda: bool(world.leader(0) and world.leader(1)))
    for gid in (1, METASERVER_GID):
        change(world, asked, gid, "ADD", "4", "REMOVE", str(victim))
    homes = {1, 2, 3, 4} - {victim}
    until(world, writer, lambda: settled(world, 1, *homes) and settled(world, 0, *homes))
    assert world.meta(asked, "FORGET", str(victim)).startswith(b"$")
    written = len(writer.acknowledged)
    until(world, writer, lambda: len(writer.acknowledged) > written + 10)
    world.tick(20)
    world.until(lambda: equal(world, 1, *homes) and equal(world, 0, *homes))
    writer.check()


def test_a_living_leader_hands_over_and_leaves() -> None:
    world, writer = spare()
    leader = world.leader(1)
    asked = other(world, 1)
    change(world, asked, 1, "ADD", "4", "REMOVE", str(leader))
    homes = {1, 2, 3, 4} - {leader}
    until(world, writer, lambda: settled(world, 1, *homes))
    world.tick(4)
    assert 1 not in world.nodes[leader].replicas
    assert world.nodes[leader].log.tombstones.keys() == {1}
    writer.check()


def test_a_leader_that_nobody_succeeds_removes_itself() -> None:
    world, writer = spare()
    leader = world.leader(1)
    conf = world.nodes[leader].replicas[1].raft.conf
    others = {1, 2, 3} - {leader}
    for it in others:
        world.nodes[it].leads.leaving = True  # nobody there stands for election
    change(world, other(world, 1), 1, "ADD", "4", "REMOVE", str(leader))
    raft = world.nodes[min(others)].replicas[1].raft
    until(world, writer, lambda: not {*conf.voters} <= {*raft.conf.members})
    for it in others:
        world.nodes[it].leads.leaving = False
    until(world, writer, lambda: settled(world, 1, *others, 4))
    writer.check()


def test_a_group_grows_and_shrinks() -> None:
    world, writer = spare()
    change(world, 1, 1, "ADD", "4", "5")
    until(world, writer, lambda: settled(world, 1, 1, 2, 3, 4, 5))
    change(world, 1, 1, "REMOVE", "1", "2")
    until(world, writer, lambda: settled(world, 1, 3, 4, 5))
    writer.check()


def test_the_new_node_dies_before_it_has_caught_up() -> None:
    world, writer = spare()
    victim = other(world, 1)
    lose(world, victim)
    world.isolate(4)
    asked = other(world, 1, victim)
    until(world, writer, lambda: bool(world.leader(0) and world.leader(1)))
    change(world, asked, 1, "ADD", "4", "REMOVE", str(victim))

    def learning() -> bool:
        leader = world.leader(1)
        return bool(leader and world.nodes[leader].replicas[1].raft.conf.learners)

    until(world, writer, learning)
    lose(world, 4)
    what = world.nodes[world.leader(1)].replicas[1].reconciler
    until(world, writer, lambda: "cannot be reached" in what.what)
    change(world, asked, 1, "ADD", "5", "REMOVE", "4")
    homes = {1, 2, 3, 5} - {victim}
    until(world, writer, lambda: settled(world, 1, *homes))
    writer.check()


def test_the_leader_dies_in_the_middle_of_the_change() -> None:
    world, writer = spare()
    victim = other(world, 1)
    change(world, victim, 1, "ADD", "4", "REMOVE", str(victim))

    def begun() -> bool:
        leader = world.leader(1)
        return bool(leader and len(world.nodes[leader].replicas[1].raft.conf.members) == 4)

    until(world, writer, begun)
    leader = world.leader(1)
    world.crash(leader)
    homes = {1, 2, 3, 4} - {victim}
    until(world, writer, lambda: settled(world, 1, *homes))
    world.start(leader)
    until(world, writer, lambda: equal(world, 1, *homes))
    writer.check()


def test_what_would_lose_the_quorum_waits_and_says_so() -> None:
    world, writer = spare()
    leader = world.leader(1)
    down, leaves = (it for it in (1, 2, 3) if it != leader)
    world.crash(down)
    change(world, leader, 1, "REMOVE", str(leaves))

    def refuses() -> bool:
        found = world.leader(1)
        return bool(found) and "refuses" in world.nodes[found].replicas[1].reconciler.what

    until(world, writer, refuses)
    world.tick(40)
    written = len(writer.acknowledged)
    until(world, writer, lambda: len(writer.acknowledged) > written)
    assert len(world.nodes[world.leader(1)].replicas[1].raft.conf.voters) == 3
    world.start(down)
    homes = {1, 2, 3} - {leaves}
    until(world, writer, lambda: settled(world, 1, *homes))
    writer.check()


def test_nothing_is_changed_before_the_metaserver_confirms_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leader with an old table would bring back who was removed."""
    world, writer = spare()
    leader = world.leader(1)
    node = world.nodes[leader]
    asked: list[tuple[Operation, OnAnswer]] = []
    with monkeypatch.context() as patch:
        patch.setattr(node.meta, "request", lambda *request: asked.append(request))
        change(world, other(world, 1), 1, "ADD", "4", "REMOVE", str(other(world, 1)))
        until(world, writer, lambda: bool(asked))
        asked.pop()[1]({"error": "no answer"})
        until(world, writer, lambda: bool(asked))
        assert asked[0][0] == Query()
        asked[0][1]({"ok": {"version": node.table.version + 1}})
        world.tick(40)
        assert len(asked) == 1
    conf = node.replicas[1].raft.conf
    assert conf.members == conf.voters and len(conf.voters) == 3
    assert "waits for the metaserver" in node.replicas[1].reconciler.what
    assert world.meta(1, "JOIN", "2", "5").startswith(b"$")  # makes the next version
    until(world, writer, lambda: not node.table.groups[1].changing)
    writer.check()


def test_a_removed_node_that_was_away_finds_out_and_cleans_up() -> None:
    world, writer = spare()
    victim = other(world, 1)
    world.isolate(victim)
    asked = other(world, 1, victim)
    until(world, writer, lambda: bool(world.leader(0) and world.leader(1)))
    change(world, asked, 1, "ADD", "4", "REMOVE", str(victim))
    until(
        world,
        writer,
        lambda: not world.nodes[asked].table.groups[1].changing,
    )
    assert 1 in world.nodes[victim].replicas
    world.heal()
    until(world, writer, lambda: 1 not in world.nodes[victim].replicas)
    writer.check()


def test_a_replica_is_replaced_on_its_own_node() -> None:
    world, writer = spare()
    victim = other(world, 1)
    before = world.nodes[victim].replicas[1].replica_id
    change(world, victim, 1, "ADD", str(victim), "REMOVE", str(victim))
    until(world, writer, lambda: settled(world, 1, 1, 2, 3))
    assert world.nodes[victim].replicas[1].replica_id > before
    writer.check()


@pytest.mark.parametrize("where", ["its own node", "another node"])
@pytest.mark.parametrize("who", ["follower", "leader"])
def test_a_diverged_replica_is_replaced(who: str, where: str) -> None:
    world, writer = spare(conditions=Conditions(check_ticks=5))
    append(world, 1, b"watched")
    victim = world.leader(1) if who == "leader" else other(world, 1)
    before = world.nodes[victim].replicas[1].replica_id
    plant(world, victim, b"watched", b"wrong")
    append(world, 1, b"watched")
    until(world, writer, lambda: 1 in world.nodes[victim].quarantines)
    successor = victim if where == "its own node" else 4
    change(world, victim, 1, "ADD", str(successor), "REMOVE", str(victim))
    homes = {1, 2, 3} - {victim} | {successor}
    until(world, writer, lambda: settled(world, 1, *homes))
    until(world, writer, lambda: not world.nodes[victim].quarantines)
    assert world.nodes[victim].log.tombstones == {1: before}
    until(world, writer, lambda: equal(world, 1, *homes))
    writer.check()


def test_the_only_replica_moves_to_another_node() -> None:
    world = World(2, members=1)
    world.until(lambda: all(registered(world, node_id) for node_id in world.ids))
    assert world.meta(1, "JOIN", "1", "1").startswith(b"$")
    assert world.meta(1, "OPEN").startswith(b"$")
    world.until(lambda: world.ready(1))
    writer = Writer(world)
    for gid in (1, 0):
        change(world, 1, gid, "ADD", "2", "REMOVE", "1")
    until(world, writer, lambda: settled(world, 1, 2) and settled(world, 0, 2))
    assert world.meta(2, "FORGET", "1").startswith(b"$")
    written = len(writer.acknowledged)
    until(world, writer, lambda: len(writer.acknowledged) > written + 5)
    writer.check()
