"""Changes of a group's members on real nodes: what is applied, kept and cleaned up."""

from __future__ import annotations

import pytest

from eraft._impl import log as entry_log
from eraft.errors import ConfChangeRefused, NotLeader, ProtocolError, RequestError
from eraft.metaserver.operations import Settle
from eraft.node import members
from eraft.node.replica import Replica
from eraft.raft import confchange
from eraft.raft.confchange import Change, ChangeKind, ConfChange, Transition
from eraft.storage.snapshots import generations
from eraft.types import ConfState, EntryKind, ReplicaAddress
from tests.sim.opening import opened
from tests.sim.world import World


def change(
    world: World, *changes: Change, addresses: tuple[ReplicaAddress, ...] = (), gid: int = 1
) -> None:
    """Let the leader of a group change its members, and wait until that is applied there."""
    done: list[RequestError | None] = []
    leader = world.leader(gid)
    with world.acting(leader) as node:
        node.replicas[gid].members.propose(changes, addresses, done.append)
    world.until(lambda: bool(done))
    assert done == [None]


def member_on(world: World, node_id: int) -> int:
    """The id of the replica of group 1 on a node."""
    return world.nodes[node_id].replicas[1].replica_id


def follower(world: World) -> int:
    return next(node_id for node_id in world.ids if node_id != world.leader(1))


def remove(node_id: int, world: World) -> Change:
    return Change(ChangeKind.REMOVE, member_on(world, node_id))


def write(world: World, value: str) -> None:
    world.until(lambda: bool(world.leader(1)))
    conversation = world.connect(world.leader(1))
    conversation.send(f"SET k {value}")
    world.until(lambda: conversation.received == b"+OK\r\n")
    conversation.hang_up()


def restart_all(world: World) -> None:
    for node_id in world.ids:
        world.crash(node_id)
    for node_id in world.ids:
        world.start(node_id)
    world.until(lambda: bool(world.leader(0) and world.leader(1)))


def test_a_removed_follower_stops_and_nothing_of_it_stays() -> None:
    world = opened()
    victim = follower(world)
    replica = world.nodes[victim].replicas[1]
    generation = replica.rows.generation
    change(world, remove(victim, world))
    write(world, "1")
    world.tick(4)
    node = world.nodes[victim]
    assert 1 not in node.replicas and 1 not in node.router.groups
    assert replica.retired and not any(node.admit)
    assert generation not in generations(node.store)
    assert node.log.tombstones == {1: replica.replica_id}
    assert 1 not in node.log.groups
    left = set(world.ids) - {victim}
    for node_id in left:
        assert set(world.nodes[node_id].replicas[1].members.homes.values()) == left
    # It stays away, and the others know who they are, after a restart.
    restart_all(world)
    assert 1 not in world.nodes[victim].replicas
    for node_id in left:
        restored = world.nodes[node_id].replicas[1]
        assert set(restored.members.homes.values()) == left
        assert len(restored.raft.conf.voters) == 2
    write(world, "2")


def test_a_leader_removes_itself_and_another_one_goes_on() -> None:
    world = opened()
    leader = world.leader(1)
    conversation = world.connect(leader)
    change(world, remove(leader, world))
    world.until(lambda: world.leader(1) not in (0, leader))
    world.until(lambda: 1 not in world.nodes[leader].replicas)
    world.until(lambda: world.nodes[leader].leader_of(1) == world.leader(1))
    conversation.send("SET k 1")
    world.until(lambda: conversation.received.startswith(b"-MOVED "))
    write(world, "2")


def test_what_a_leader_had_proposed_when_it_was_removed_is_unknown_or_there() -> None:
    world = opened()
    leader = world.leader(1)
    conversation = world.connect(leader)
    with world.acting(leader) as node:
        node.replicas[1].members.propose([remove(leader, world)], (), lambda error: None)
    for number in range(20):
        conversation.send(f"SET k{number} 1")
    world.until(lambda: conversation.received.count(b"\r\n") == 20)
    answers = set(conversation.received.split(b"\r\n")) - {b""}
    for answer in answers:
        assert answer == b"+OK" or answer.startswith((b"-TIMEOUT", b"-CLUSTERDOWN", b"-MOVED"))


def test_a_joint_change_is_left_by_itself() -> None:
    world = opened(nodes=5)
    gone = [node_id for node_id in world.ids if node_id != world.leader(1)][:2]
    change(world, *(remove(node_id, world) for node_id in gone))
    world.until(lambda: not any(1 in world.nodes[node_id].replicas for node_id in gone))
    for node_id in set(world.ids) - set(gone):
        raft = world.nodes[node_id].replicas[1].raft
        world.until(lambda raft=raft: not raft.conf.outgoing)  # type: ignore[misc]
        assert len(raft.conf.voters) == 3


def test_the_configuration_is_atomic_with_the_applied_index() -> None:
    """After a crash that loses what was applied, the change is applied once more."""
    world = opened()
    victim, other = (node_id for node_id in world.ids if node_id != world.leader(1))
    before = world.nodes[other].replicas[1].raft.conf
    world.disks[other].store.flush()
    change(world, remove(victim, world))
    world.tick(2)
    after = world.nodes[other].replicas[1].raft.conf
    for _ in range(8):
        world.crash(other)
        rows = world.disks[other].store
        world.start(other)
        replica = world.nodes[other].replicas[1]
        assert replica.raft.conf in (before, after)
        found = replica.rows.conf()
        assert (found is not None) == (replica.raft.conf == after), rows
        world.until(lambda: world.nodes[other].replicas[1].raft.conf == after)


def test_impossible_changes_are_refused_with_a_reason() -> None:
    world = opened()
    leader, other = world.leader(1), follower(world)
    replica = world.nodes[leader].replicas[1]
    told: list[RequestError | None] = []

    def refused(error: type[Exception], what: str, on: Replica, *changes: Change) -> None:
        with pytest.raises(error, match=what):
            on.members.propose(changes, (), told.append)

    add = Change(ChangeKind.ADD_LEARNER, 77)
    refused(NotLeader, "does not lead", world.nodes[other].replicas[1], add)
    refused(ConfChangeRefused, r"no address of replicas \[77\]", replica, add)
    every = [Change(ChangeKind.REMOVE, it) for it in replica.members.homes]
    refused(ConfChangeRefused, "removes every voter", replica, *every)
    with pytest.raises(ConfChangeRefused, match="not joint"):
        replica.members.propose((), (), told.append)
    replica.members.propose([remove(other, world)], (), told.append)
    refused(ConfChangeRefused, "may be under", replica, remove(other, world))
    assert not told


def test_who_proposed_a_change_that_another_leader_overwrote_is_told() -> None:
    world = opened()
    leader, other = world.leader(1), follower(world)
    world.isolate(leader)
    told: list[RequestError | None] = []
    with world.acting(leader) as node:
        node.replicas[1].members.propose([remove(other, world)], (), told.append)
    world.until(lambda: world.leader(1) not in (0, leader))
    write(world, "1")
    world.tick(60)
    assert [type(error).__name__ for error in told] == ["OutcomeUnknown"]
    world.heal()
    world.until(lambda: len(world.nodes[leader].replicas[1].members.homes) == 3)


@pytest.mark.parametrize(
    "context",
    [
        b"{",
        b"{}",
        b"[1]",
        b"[[1,2]]",
        b'[[0,1,""]]',
        b'[["1",1,""]]',
        b'[[1,-1,""]]',
        b'[[1,1,"\\n"]]',
        b"[" + b",".join([b'[1,1,""]'] * 65) + b"]",
    ],
)
def test_a_context_that_is_none_is_refused_and_changes_no_address(context: bytes) -> None:
    with pytest.raises(ProtocolError, match="context of a configuration change"):
        members.decode(context)
    payload = confchange.encode(
        ConfChange((Change(ChangeKind.ADD_LEARNER, 9),), Transition.AUTO, context)
    )
    assert members.added(payload) == {}
    assert members.added(b"") == {}


def test_a_context_survives_its_way() -> None:
    addresses = (ReplicaAddress(4, 2, "ab" * 16), ReplicaAddress(2**63 - 1, 2**32 - 1, ""))
    assert members.decode(members.encode(addresses)) == addresses
    assert members.decode(b"") == ()


def test_a_malformed_change_in_the_log_changes_nothing_anywhere() -> None:
    world = opened()
    leader = world.leader(1)
    with world.acting(leader) as node:
        raft = node.replicas[1].raft
        raft.log.append(raft.term, int(EntryKind.CONF_CHANGE), b"no change")
        raft._dirty = True
        node.touch(node.replicas[1])
    write(world, "1")
    for node in world.nodes.values():
        assert len(node.replicas[1].raft.conf.voters) == 3
        assert node.replicas[1].rows.conf() is None
    assert entry_log and ConfState


def wanted(world: World, *words: str) -> None:
    """A META command, and every node has the version that it makes."""
    assert world.meta(1, *words).startswith(b"$")
    newest = max(node.table.version for node in world.nodes.values())
    world.until(lambda: all(node.table.version == newest for node in world.nodes.values()))


def test_the_table_tells_a_founder_from_one_that_joins_a_group_at_work() -> None:
    world = opened(nodes=4)
    victim = next(it for it in world.ids if it != world.leader(1))
    old = member_on(world, victim)
    wanted(world, "REPLICAS", "1", "ADD", str(victim), "REMOVE", str(victim))
    # The node has room for one replica of a group: the old one has to be out first.
    assert member_on(world, victim) == old
    node = world.nodes[victim]
    world.until(lambda: 1 in node.replicas and member_on(world, victim) > old)
    fresh = node.replicas[1]
    assert fresh.raft.conf == ConfState()
    assert node.log.tombstones == {1: old}
    world.until(lambda: not node.table.groups[1].changing)
    assert fresh.raft.conf.votes(fresh.replica_id)
    world.crash(victim)
    world.start(victim)
    assert world.nodes[victim].replicas[1].replica_id == fresh.replica_id
    write(world, "1")


def test_a_replica_that_no_table_names_ends_also_if_it_never_heard_of_its_removal() -> None:
    world = opened()
    victim = next(it for it in world.ids if it not in (world.leader(1), 1))
    old = member_on(world, victim)
    world.isolate(victim)
    wanted_on_leader = world.meta(1, "REPLICAS", "1", "REMOVE", str(victim))
    assert wanted_on_leader.startswith(b"$")
    change(world, Change(ChangeKind.REMOVE, old))
    node = world.nodes[victim]
    assert 1 in node.replicas
    with world.acting(1) as asked:
        asked.meta.request(Settle(1, (), (old,)), lambda answer: None)
    world.tick(10)
    world.heal()
    world.until(lambda: 1 not in node.replicas)
    world.until(lambda: node.log.tombstones == {1: old})


def test_who_is_left_of_two_goes_on_although_the_leader_was_cut_off_as_it_left() -> None:
    world = opened()
    change(world, remove(follower(world), world))
    leader = world.leader(1)
    replica = world.nodes[leader].replicas[1]
    (left,) = set(replica.members.homes.values()) - {leader}
    follows = world.nodes[left].replicas[1].raft
    with world.acting(leader):
        replica.members.propose([remove(leader, world)], (), lambda error: None)
    for _ in range(100):
        world.step()
        if follows.last_index == replica.raft.last_index:
            break
    # It can still say that it has the entry, but does not hear that this commits it.
    world.network.block(leader, left)
    world.tick()
    assert len(replica.raft.conf.voters) == 1
    world.isolate(leader)
    world.tick(40)
    world.heal()
    world.until(lambda: world.leader(1) == left)
    world.until(lambda: 1 not in world.nodes[leader].replicas)
    write(world, "1")
