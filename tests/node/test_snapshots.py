"""Snapshots between nodes: a follower whose entries are gone gets the state instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eraft import limits
from eraft._impl import frames
from eraft.node.node import Node
from eraft.node.transfer import Parcel
from eraft.storage import rows as layout
from eraft.storage.snapshots import Cursor, generations
from eraft.types import ReplicaAddress
from tests.node.test_members import Change, ChangeKind, change
from tests.sim.conditions import Conditions
from tests.sim.opening import opened
from tests.sim.world import World

SEGMENT_BYTES = Conditions().segment_bytes
VALUE = "v" * 20_000
KEYS = 40


def small_log(**more: Any) -> Conditions:
    """And small chunks: a snapshot has more of them than may be on their way."""
    return Conditions(
        retention_bytes=2 * SEGMENT_BYTES,
        tail_bytes=SEGMENT_BYTES,
        chunk_bytes=32 * 1024,
        **more,
    )


def overwrite(world: World, count: int, keys: int = KEYS) -> None:
    """SET that many times, over some keys, and let the log be compacted."""
    for start in range(0, count, 10):
        world.until(lambda: bool(world.leader(1)))
        conversation = world.connect(world.leader(1))
        for number in range(start, start + 10):
            conversation.send(f"SET key{number % keys} {number}{VALUE}")
        world.until(lambda: conversation.received.count(b"\r\n") == 10)  # noqa: B023
        assert conversation.received == b"+OK\r\n" * 10
        conversation.hang_up()
    world.tick(4)


def state(world: World, node_id: int, gid: int = 1) -> dict[bytes, bytes]:
    """All rows of a group's replica, without the generation."""
    rows = world.nodes[node_id].replicas[gid].rows
    found = dict(rows.scan(*layout.generation_range(rows.generation)))
    return {key[4:]: row for key, row in found.items()}


def same(world: World, *node_ids: int, gid: int = 1) -> bool:
    """Whether these nodes have the same state, as far as they have applied."""
    replicas = [world.nodes[node_id].replicas.get(gid) for node_id in node_ids]
    if any(replica is None for replica in replicas):
        return False
    applied = {replica.applied for replica in replicas if replica is not None}
    states = [state(world, node_id, gid) for node_id in node_ids]
    return len(applied) == 1 and all(found == states[0] for found in states)


def away(world: World) -> int:
    """A follower of group 1."""
    return next(node_id for node_id in world.ids if node_id != world.leader(1))


def left_behind(conditions: Conditions | None = None) -> tuple[World, int]:
    """A world in which one node is down, and what it lacks is compacted everywhere."""
    world = opened(conditions=conditions or small_log())
    overwrite(world, 20)
    victim = away(world)
    last_index = world.nodes[victim].replicas[1].raft.last_index
    world.crash(victim)
    overwrite(world, 150)
    for node in world.nodes.values():
        assert node.log.groups[1].base_index > last_index
    return world, victim


def catch_up(world: World, victim: int) -> None:
    world.until(lambda: same(world, *world.ids), ticks=1200)
    node = world.nodes[victim]
    rows = node.replicas[1].rows
    world.until(lambda: len(generations(node.store)) == len(node.replicas))
    assert rows.generation in generations(node.store)
    assert node.log.groups[1].state.generation == rows.generation
    # It takes part: with it and one other node the group goes on.
    other = next(node_id for node_id in world.ids if node_id not in (victim, world.leader(1)))
    world.crash(other)
    overwrite(world, 10)


def until(world: World, condition: Callable[[], bool]) -> None:
    """In steps of a moment, not of a tick."""
    for _ in range(60_000):
        if condition():
            return
        world.run_for(1000)
    raise AssertionError("the condition did not come true")


def test_a_follower_that_was_away_while_the_log_was_compacted_gets_a_snapshot() -> None:
    world, victim = left_behind()
    world.start(victim)
    catch_up(world, victim)


@pytest.mark.parametrize("way_out", ["suspend", "leave"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_replica_that_is_taken_out_while_it_switches_leaves_no_rows(
    way_out: str, cut: bool
) -> None:
    """Between the core's step and the record that names the new generation; or power is lost."""
    world, victim = left_behind()
    world.checks.diverged.add(victim)
    world.start(victim)
    node = world.nodes[victim]
    replica = node.replicas[1]
    old, install = replica.rows.generation, replica.takeover.install
    fresh: list[int] = []

    def install_and_go(sink: Any, on_durable: Callable[[], None]) -> bool:
        assert install(sink, on_durable)
        fresh.append(sink.generation)
        if way_out == "suspend":
            replica.suspend("test")
        else:
            world.checks.members.taken_out.add(replica.replica_id)
            replica.leave()
        return True

    replica.takeover.install = install_and_go  # type: ignore[method-assign]
    until(world, lambda: bool(fresh))
    if not cut:
        gone = {old} if way_out == "suspend" else {old, *fresh}
        world.until(lambda: not gone & {*generations(node.store)})
        assert way_out == "leave" or fresh[0] in generations(node.store)
    world.crash(victim)
    world.start(victim)
    if way_out == "suspend":
        catch_up(world, victim)
    elif not cut:
        world.tick(20)
        assert 1 not in world.nodes[victim].replicas
        assert not {old, *fresh} & {*generations(world.nodes[victim].store)}


def test_after_a_restart_it_is_where_the_snapshot_left_it() -> None:
    world, victim = left_behind()
    world.start(victim)
    world.until(lambda: same(world, *world.ids))
    for node_id in world.ids:
        world.crash(node_id)
    for node_id in world.ids:
        world.start(node_id)
    world.until(lambda: bool(world.leader(1)) and same(world, *world.ids))
    overwrite(world, 10)


def test_writes_go_on_meanwhile_and_the_tail_comes_from_the_log() -> None:
    world, victim = left_behind(small_log(network_us=(500, 2000), disk_us=(100, 2000)))
    world.start(victim)
    for _ in range(5):
        overwrite(world, 20)
    catch_up(world, victim)


@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize("stage", range(8))
def test_a_crash_at_any_stage(who: str, stage: int) -> None:
    """0: offered; 1..4: so many chunks are there; 5: complete; 6: switched; 7: that is durable."""
    slow = small_log(network_us=(500, 2000), disk_us=(2000, 5000), flush_us=(20_000, 40_000))
    world, victim = left_behind(slow)
    world.start(victim)
    node = world.nodes[victim]
    before = node.replicas[1].rows.generation

    def reached() -> bool:
        incoming = node.receiving._incoming.get(1)
        if stage == 6:
            return node.replicas[1].rows.generation != before
        if stage == 7:
            return node.log.groups[1].state.generation != before and node.outbox.log_idle
        if incoming is None:
            return False
        return incoming.sink.complete if stage == 5 else incoming.sink.cursor.number >= stage

    until(world, reached)
    crashed = victim if who == "receiver" else world.leader(1)
    world.crash(crashed)
    world.tick(10)
    world.start(crashed)
    catch_up(world, victim)


def test_the_leader_changes_in_the_middle() -> None:
    world, victim = left_behind(small_log(network_us=(500, 2000)))
    world.start(victim)
    leader = world.leader(1)
    until(world, lambda: bool(world.nodes[victim].receiving._incoming))
    with world.acting(leader) as node:
        node.replicas[1].raft.step_down("for a test")
        node.touch(node.replicas[1])
    world.until(lambda: same(world, *world.ids), ticks=1200)
    world.tick(2)
    assert world.nodes[leader].sending._current is None or world.leader(1) == leader
    catch_up(world, victim)


def test_a_broken_connection_is_gone_on_with() -> None:
    """The same snapshot goes on where it was; nothing of it comes twice but what was under way."""
    world, victim = left_behind(small_log(network_us=(500, 2000)))
    world.start(victim)
    node = world.nodes[victim]
    until(world, lambda: bool(node.receiving._incoming))
    incoming = node.receiving._incoming[1]
    until(world, lambda: incoming.sink.cursor.number >= 2)
    sender = world.leader(1)
    world.network.break_links(sender, victim)
    number = incoming.sink.cursor.number
    until(world, lambda: incoming.sink.cursor.number > number)
    assert node.receiving._incoming[1] is incoming
    until(world, lambda: incoming.sink.complete)
    catch_up(world, victim)


def test_a_sender_that_vanishes_for_long_is_given_up() -> None:
    world, victim = left_behind(small_log(network_us=(500, 2000)))
    world.start(victim)
    node = world.nodes[victim]
    until(world, lambda: bool(node.receiving._incoming))
    sender = world.leader(1)
    for other in world.ids:
        if other != victim:
            world.cut_link(victim, other)
    ticks = int((limits.SNAPSHOT_SILENT_S + 1) / limits.TICK_S)
    world.tick(ticks)
    assert world.nodes[sender].sending._current is None
    assert node.receiving._incoming
    world.tick(int((limits.SNAPSHOT_KEEP_S + 1 - limits.SNAPSHOT_SILENT_S) / limits.TICK_S))
    assert not node.receiving._incoming
    world.heal()
    catch_up(world, victim)


def test_a_store_that_stalls_holds_the_snapshot_up_and_loses_nothing() -> None:
    world, victim = left_behind(small_log(network_us=(500, 2000)))
    world.start(victim)
    node = world.nodes[victim]
    until(world, lambda: bool(node.receiving._incoming))
    store = world.disks[victim].store
    for _ in range(4):
        store.stalls = True
        world.tick(3)
        store.stalls = False
        world.run_for(5000)
    catch_up(world, victim)
    assert node.context.counters.get("snapshot_chunks_refused", 0) == 0


def damaged(
    world: World, victim: int, harm: Callable[[Parcel, bytes], tuple[Parcel, bytes]]
) -> Node:
    """Start the node that is behind; one chunk on its way is not what was sent."""
    world.start(victim)
    node = world.nodes[victim]
    receiving = node.receiving
    chunk = receiving.chunk
    done: list[bool] = []

    def harmed(node_id: int, parcel: Parcel, data: bytes) -> None:
        if int.from_bytes(data[16:24], "little") == 2 and not done:
            done.append(True)
            parcel, data = harm(parcel, data)
        chunk(node_id, parcel, data)

    receiving.chunk = harmed  # type: ignore[method-assign]
    until(world, lambda: bool(done))
    return node


def resealed(data: bytes, offset: int, new: bytes) -> bytes:
    """A chunk with other bytes somewhere and a checksum that fits."""
    from zlib import crc32

    rest = data[4:offset] + new + data[offset + len(new) :]
    return crc32(rest).to_bytes(4, "little") + rest


@pytest.mark.parametrize(
    ("what", "harm"),
    [
        ("damaged chunk", lambda parcel, data: (parcel, data[:-1] + bytes([data[-1] ^ 1]))),
        ("chunk of group 9", lambda parcel, data: (parcel, resealed(data, 4, b"\x09"))),
        (
            "chunk of snapshot 7",
            lambda parcel, data: (parcel, resealed(data, 8, (7).to_bytes(8, "little"))),
        ),
        ("expected chunk 2", lambda parcel, data: (parcel, resealed(data, 16, b"\x05"))),
        ("of only 3 bytes", lambda parcel, data: (parcel, data[:3])),
        ("unexpected kind", lambda parcel, data: (parcel, resealed(data, 24, b"\x09"))),
    ],
)
def test_a_bad_chunk_is_refused_and_nothing_is_lost(
    what: str,
    harm: Callable[[Parcel, bytes], tuple[Parcel, bytes]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, victim = left_behind(small_log(network_us=(500, 2000)))
    node = damaged(world, victim, harm)
    assert node.context.counters["snapshot_chunks_refused"] == 1
    assert what in caplog.text
    catch_up(world, victim)


def test_frames_of_snapshots_that_nobody_offered_are_refused() -> None:
    world = opened()
    leader, other = world.leader(1), away(world)
    node = world.nodes[leader]
    ids = {node_id: world.nodes[node_id].replicas[1].replica_id for node_id in world.ids}
    good = Parcel(1, ids[other], ids[leader], 5)
    before = state(world, leader)
    with world.acting(leader):
        for parcel in (good, Parcel(1, ids[leader], ids[other], 5), Parcel(1, 77, ids[leader], 5)):
            for kind in (frames.SNAPSHOT_CHUNK, frames.SNAPSHOT_END, frames.SNAPSHOT_REQUEST):
                rest = b"\x01" + Cursor().encode()
                if kind == frames.SNAPSHOT_END:
                    rest = b"\x01"
                _, body = frames.FrameReader(1 << 20).feed(parcel.encode(kind, rest))[0]
                node.inbound.take(other, kind, body)
    assert node.context.counters["messages_refused"] == 3
    assert state(world, leader) == before
    assert node.sending._current is None and not node.receiving._incoming


@pytest.mark.parametrize("body", [b"", b"x" * 28, b"x" * 29])
def test_a_malformed_frame_is_a_protocol_error(body: bytes) -> None:
    world = opened(nodes=1)
    node = world.nodes[1]
    kinds = (frames.SNAPSHOT_CHUNK, frames.SNAPSHOT_END, frames.SNAPSHOT_REQUEST)
    for kind in kinds:
        if len(body) <= 28:
            with pytest.raises(frames.ProtocolError, match=f"snapshot frame of {len(body)} bytes"):
                node.inbound.take(2, kind, body)
        else:
            node.inbound.take(2, kind, body)
            assert node.context.counters["messages_refused"] >= 1


def joined(world: World, gid: int, node_id: int, replica_id: int) -> ReplicaAddress:
    """Make a new replica on a node and let the group take it in as a learner."""
    leader = world.nodes[world.leader(gid)].replicas[gid]
    own = ReplicaAddress(replica_id, node_id, world.disks[node_id].identity.store_id)
    with world.acting(node_id) as node:
        node.groups.join(gid, own, leader.members.addresses)
    change(world, Change(ChangeKind.ADD_LEARNER, replica_id), addresses=(own,), gid=gid)
    return own


@pytest.mark.parametrize("gid", [0, 1])
def test_a_learner_joins_from_nothing_and_becomes_a_voter(gid: int) -> None:
    world = opened(conditions=small_log())
    overwrite(world, 30)
    victim = next(it for it in world.ids if it not in (world.leader(1), world.leader(0)))
    old = world.nodes[victim].replicas[gid].replica_id
    change(world, Change(ChangeKind.REMOVE, old), gid=gid)
    world.until(lambda: gid not in world.nodes[victim].replicas)
    joined(world, gid, victim, 77)
    world.until(lambda: same(world, *world.ids, gid=gid))
    change(world, Change(ChangeKind.ADD_VOTER, 77), gid=gid)
    world.until(lambda: same(world, *world.ids, gid=gid))
    other = next(it for it in world.ids if it not in (victim, world.leader(gid)))
    world.crash(other)
    world.until(lambda: bool(world.leader(0) and world.leader(1)))
    overwrite(world, 10)
    world.crash(victim)
    world.start(victim)
    world.until(lambda: same(world, victim, world.leader(gid), gid=gid))


def test_one_snapshot_leaves_a_node_at_a_time() -> None:
    world = opened(nodes=5, conditions=small_log(network_us=(500, 2000)))
    overwrite(world, 20)
    leader = world.leader(1)
    victims = [node_id for node_id in world.ids if node_id != leader][:2]
    for victim in victims:
        world.crash(victim)
    overwrite(world, 150)
    for victim in victims:
        world.start(victim)
    until(world, lambda: all(same(world, leader, victim) for victim in victims))


def test_what_no_replica_needs_is_deleted_once_a_store_that_stalls_at_the_start_goes_on() -> None:
    world = opened()
    world.crash(1)
    store = world.disks[1].store
    store.write([(layout.meta_key(77, b"x"), b"y")])
    store.stalls = True
    world.start(1)
    world.tick(2)
    assert 77 in generations(store)
    store.stalls = False
    world.tick(2)
    assert 77 not in generations(store)
