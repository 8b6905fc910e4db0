"""A member of the cluster that sends whatever it likes: nobody else stops, and other groups go on.

Node 3 is hostile: its real process runs too, but the others also get messages
that it would never send. Only the group that they are about may suffer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eraft._impl import batch, frames, hashing
from eraft._impl import log as entry_log
from eraft.errors import InvariantViolation, ProtocolError
from eraft.node import status
from eraft.raft.confchange import Change, ChangeKind, ConfChange
from eraft.raft.confchange import encode as encode_change
from eraft.raft.kinds import TERM_LIMIT
from eraft.types import EntryKind, Message, MessageKind
from tests.sim import world as worlds
from tests.sim.conditions import Conditions
from tests.sim.opening import reopened
from tests.sim.world import World

GROUPS = 2
HOSTILE = 3
HONEST = (1, 2)
OK = b"+OK\r\n"
COMMANDS, CONF_CHANGE, CHECK = EntryKind.COMMANDS, EntryKind.CONF_CHANGE, EntryKind.CHECK
TIME = struct.pack("<Q", 1)


def change(what: Change, context: bytes = b"") -> bytes:
    """The payload of an entry that changes the members."""
    return encode_change(ConfChange((what,), context=context))


GARBAGE = {
    "nothing": (COMMANDS, b""),
    "noise": (COMMANDS, TIME + b"\xff\x00noise"),
    "no RESP": (COMMANDS, TIME + b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n"),
    "SET without a key": (COMMANDS, TIME + b"*1\r\n$3\r\nSET\r\n"),
    "a check of 3 bytes": (CHECK, b"abc"),
    "a check of an unknown verdict": (CHECK, b"\x09" + bytes(12)),
}
"""Entries that no state machine can apply."""
HARMLESS = {
    "no change": (CONF_CHANGE, b"{"),
    "a change of nobody": (CONF_CHANGE, change(Change(ChangeKind.REMOVE, 99))),
    "an address that is none": (CONF_CHANGE, change(Change(ChangeKind.ADD_LEARNER, 99), b"[[1")),
    "INCRBY of nothing": (COMMANDS, TIME + b"*2\r\n$6\r\nINCRBY\r\n$1\r\na\r\n"),
    "an unknown command": (COMMANDS, TIME + b"*1\r\n$4\r\nNONE\r\n"),
    "a malformed command": (COMMANDS, TIME + b"*2\r\n$4\r\n_OWN\r\n$1\r\nx\r\n"),
}


class Unchecked:
    """What holds in a cluster that keeps to the rules need not hold here."""

    def __init__(self, world: World) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


@contextmanager
def cluster(conditions: Conditions | None = None) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "Checks", Unchecked)
        yield reopened(GROUPS, 3, 1, conditions or Conditions())


def key_of(world: World, gid: int) -> bytes:
    owners = world.nodes[1].table.owners()
    keys = (b"key%d" % number for number in range(1000))
    return next(key for key in keys if owners[hashing.bucket_of(key)] == gid)


def write(world: World, gid: int, value: bytes) -> None:
    """SET a key of the group; it goes to a node that leads it."""
    key = key_of(world, gid)
    command = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)
    for _ in range(20):
        world.until(lambda: world.leader(gid) != 0, 200)
        client = world.connect(world.leader(gid))
        client.send(command)
        world.until(lambda it=client: bool(it.received or it.closed), 100)
        client.hang_up()
        if client.received == OK:
            return
    raise AssertionError(f"group {gid} takes no writes: {client.received!r}")


def row_key(world: World, node_id: int, gid: int) -> bytes:
    """Where the node's store has the group's key."""
    return batch.data_key(world.nodes[node_id].replicas[gid].rows.data_prefix, key_of(world, gid))


def value(world: World, node_id: int, key: bytes) -> bytes | None:
    """What the node's store has there."""
    row = world.disks[node_id].store.get(key)
    return None if row is None else batch.decode_row(row)[2]


def tell(world: World, to: int, kind: int, body: bytes) -> None:
    """A frame of the hostile node arrives; its connection ends if it is refused."""
    with world.acting(to) as node, suppress(ProtocolError):
        node.inbound.take(HOSTILE, kind, body)


def say(world: World, to: int, message: Message) -> None:
    """A message of the hostile node arrives."""
    ((_, body),) = frames.FrameReader(1 << 26).feed(frames.encode_messages(0, [message]))
    tell(world, to, frames.RAFT, body)
    world.settle()


def ids(world: World, gid: int) -> dict[int, int]:
    """Replica ids of the group by node."""
    members = world.nodes[1].table.groups[gid].replicas
    return {member.node_id: member.replica_id for member in members}


def lead(world: World, gid: int, to: int, entries: bytes) -> None:
    """The hostile node claims to lead the next term, appends entries to a log and commits them."""
    replica = world.nodes[to].replicas[gid]
    own = ids(world, gid)
    last, log_term = replica.entries.last_index, replica.entries.last_term
    head = {"gid": gid, "sender": own[HOSTILE], "to": own[to], "term": replica.raft.term + 1}
    append = Message(MessageKind.APPEND, index=last, log_term=log_term, entries=entries, **head)
    say(world, to, append)
    count = entry_log.check_entries(entries)
    say(world, to, Message(MessageKind.HEARTBEAT, commit=last + count, **head))


def entry(world: World, to: int, kind: int, payload: bytes) -> bytes:
    return entry_log.encode_entry(world.nodes[to].replicas[1].raft.term + 1, kind, payload)


def shown(world: World, node_id: int, gid: int) -> dict[str, Any]:
    return next(it for it in status.status(world.nodes[node_id], {})["groups"] if it["gid"] == gid)


def others_go_on_and_nothing_is_lost(world: World, row_keys: dict[int, bytes]) -> None:
    """Group 2 takes writes, also after a restart, and group 1 has what it acknowledged."""
    write(world, 2, b"after")
    world.tick(40)
    for node_id in HONEST:
        world.stop(node_id)
        world.start(node_id)
    world.tick(40)
    write(world, 2, b"again")
    for node_id in HONEST:
        world.stop(node_id)
        assert value(world, node_id, row_keys[node_id]) == b"before"


@pytest.mark.parametrize("name", GARBAGE)
def test_entries_that_cannot_be_applied_take_out_one_replica(name: str) -> None:
    with cluster() as world:
        for gid in (1, 2):
            write(world, gid, b"before")
        world.tick(2)
        row_keys = {it: row_key(world, it, 1) for it in HONEST}
        for to in HONEST:
            lead(world, 1, to, entry(world, to, *GARBAGE[name]))
            assert list(world.nodes[to].quarantines) == [1]
            assert "cannot be applied" in shown(world, to, 1)["quarantined"]
        others_go_on_and_nothing_is_lost(world, row_keys)


@pytest.mark.parametrize("name", HARMLESS)
def test_entries_that_change_nothing(name: str) -> None:
    with cluster() as world:
        write(world, 1, b"before")
        lead(world, 1, 1, entry(world, 1, *HARMLESS[name]))
        assert not world.nodes[1].quarantines
        write(world, 2, b"after")


def test_what_a_leader_cannot_apply_of_its_own_stops_the_node() -> None:
    """That came from inside."""
    with cluster() as world:
        leader = world.leader(1)
        world.nodes[leader].replicas[1].raft.propose(TIME + b"\xff\x00noise")
        with pytest.raises(InvariantViolation):
            world.tick(4)


def test_a_commit_beyond_the_log_takes_the_replica_out_until_the_node_starts_again() -> None:
    with cluster() as world:
        write(world, 1, b"before")
        world.tick(2)
        node = world.nodes[1]
        lanes = sum(shard is not None for shard in node.shards)
        own, refused = ids(world, 1), node.context.counters.get("messages_refused", 0)
        head = {"gid": 1, "sender": own[HOSTILE], "to": own[1]}
        term, last = node.replicas[1].raft.term + 1, node.replicas[1].entries.last_index
        say(world, 1, Message(MessageKind.HEARTBEAT, term=term, commit=last + 1, **head))
        assert list(node.quarantines) == [1] and 1 not in node.replicas
        assert sum(shard is not None for shard in node.shards) == lanes - 1
        why = shown(world, 1, 1)["quarantined"]
        assert f"message from node 3: group 1: an acknowledged entry stays: replica {own[3]}" in why
        assert node.context.counters["messages_refused"] == refused + 1
        write(world, 1, b"the other two are enough")
        write(world, 2, b"after")
        world.stop(1)
        world.start(1)
        world.until(lambda: world.ready(1) and 1 in world.nodes[1].replicas, 200)
        world.isolate(HOSTILE)
        write(world, 1, b"it votes again")


def test_the_log_does_not_grow_with_a_replica_that_was_taken_out() -> None:
    """Also one of which nothing was flushed since the start."""
    small = Conditions(segment_bytes=16 * 1024, retention_bytes=64 * 1024)
    with cluster(small) as world:
        write(world, 1, b"before")
        world.tick(2)
        row_keys = {it: row_key(world, it, 1) for it in HONEST}
        world.crash(1)
        world.start(1)
        node = world.nodes[1]
        own, last = ids(world, 1), node.replicas[1].entries.last_index
        assert node.log.groups[1].released is None
        head = {"gid": 1, "sender": own[HOSTILE], "to": own[1]}
        term = node.replicas[1].raft.term + 1
        say(world, 1, Message(MessageKind.HEARTBEAT, term=term, commit=last + 1, **head))
        assert list(node.quarantines) == [1]
        most_bytes = 0
        for number in range(40):
            write(world, 2, b"%d" % number * 8192)
            world.tick(1)
            most_bytes = max(most_bytes, node.log.size_bytes)
        assert most_bytes < 64 * 1024 + 5 * 32 * 1024
        others_go_on_and_nothing_is_lost(world, row_keys)


NUMBERS = (0, 1, 2, 3, 1 << 32, TERM_LIMIT - 1, TERM_LIMIT, (1 << 63) - 1, (1 << 64) - 1)
ENTRIES = st.sampled_from(
    [
        b"",
        b"x",
        bytes(13),
        entry_log.encode_entry(1, COMMANDS, TIME),
        entry_log.encode_entry(1 << 63, COMMANDS, TIME),
        entry_log.encode_entry(2, COMMANDS, TIME) * 3,
        entry_log.encode_entry(3, EntryKind.NOOP, b""),
        entry_log.encode_entry(3, EntryKind.NOOP, b"with a payload"),
        *(entry_log.encode_entry(9, *it) for it in (*GARBAGE.values(), *HARMLESS.values())),
        entry_log.encode_entry(9, COMMANDS, TIME)[:-1],
        struct.pack("<IBQ", 5, 77, 1) + b"12345",
    ]
)
NEAR = st.integers(-2, 2)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """A message whose numbers are near what the receiver has, or are far from it."""

    def number() -> tuple[bool, int]:
        near = draw(st.booleans())
        return near, draw(NEAR if near else st.sampled_from(NUMBERS))

    return {
        "kind": draw(st.sampled_from(list(MessageKind))),
        "gid": draw(st.sampled_from((1, 1, 1, 1, 0, 7))),
        "sender": draw(st.sampled_from((HOSTILE, HOSTILE, HOSTILE, 1, 2, 99))),
        "receiver": draw(st.sampled_from(HONEST)),
        "to_other": draw(st.integers(0, 9)) == 0,
        "term": draw(st.one_of(st.integers(-1, 3), st.sampled_from((TERM_LIMIT, (1 << 64) - 1)))),
        "index": number(),
        "log_term": number(),
        "commit": number(),
        "context": number()[1] % (1 << 64),
        "hint": number()[1] % (1 << 64),
        "reject": draw(st.booleans()),
        "entries": draw(ENTRIES),
        "ticks": draw(st.sampled_from((0, 0, 0, 1, 12))),
    }


def made(world: World, form: dict[str, Any]) -> Message | None:
    """The message, with numbers as the receiver's replica is now."""
    replica = world.nodes[form["receiver"]].replicas.get(1)
    if replica is None:
        return None
    own = ids(world, 1)

    def number(name: str, around: int) -> int:
        near, found = form[name]
        return int(max(around + found, 0) if near else found)

    raft = replica.raft
    term = form["term"] if form["term"] > 3 else max(raft.term + form["term"], 0)
    return Message(
        form["kind"],
        form["gid"],
        own.get(form["sender"], 99),
        own[form["receiver"]] + form["to_other"],
        term,
        number("index", raft.log.last_index),
        number("log_term", raft.log.last_term),
        number("commit", raft.log.last_index),
        form["context"],
        form["hint"],
        form["reject"],
        form["entries"],
    )


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(messages(), min_size=1, max_size=25))
def test_whatever_a_member_says_nobody_stops_and_nothing_is_lost(forms: list[Any]) -> None:
    with cluster() as world:
        for gid in (1, 2):
            write(world, gid, b"before")
        world.tick(2)
        row_keys = {it: row_key(world, it, 1) for it in HONEST}
        for form in forms:
            message = made(world, form)
            if message is not None:
                say(world, form["receiver"], message)
            world.tick(form["ticks"])
        others_go_on_and_nothing_is_lost(world, row_keys)


def heard(world: World) -> list[tuple[int, int, bytes]]:
    """(to, kind, body) of what the hostile node says in a busy time; later it is changed."""
    found: list[tuple[int, int, bytes]] = []
    for to in HONEST:
        take = world.nodes[to].inbound.take

        def hear(sender: int, kind: int, body: bytes, to: int = to, take: Any = take) -> None:
            if sender == HOSTILE:
                found.append((to, kind, body))
            take(sender, kind, body)

        world.nodes[to].inbound.take = hear  # type: ignore[method-assign]
    for round_ in range(3):
        for gid in (1, 2):
            write(world, gid, b"round %d" % round_)
        world.tick(110)
        world.nodes[world.leader(1)].replicas[1].raft.step_down("test")
        world.tick(40)
    for to in HONEST:
        del world.nodes[to].inbound.take
    return found


def changed(body: bytes, draw: st.DrawFn) -> bytes:
    """A body with some bytes changed, cut or doubled."""
    data = bytearray(body)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        what = draw(st.sampled_from(("flip", "byte", "cut", "insert", "double")))
        if what == "insert":
            data[place:place] = draw(st.binary(max_size=9))
        elif what == "double":
            data += data[place:]
        elif what == "cut":
            del data[place : place + draw(st.integers(1, 9))]
        elif place < len(data):
            data[place] = data[place] ^ 1 << draw(st.integers(0, 7)) if what == "flip" else 255
    return bytes(data)


SAFE_KINDS = (frames.RAFT, frames.LEADS, frames.DIGEST, frames.META_REQUEST, frames.META_REPLY)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_changed_frames_stop_nobody(data: st.DataObject) -> None:
    with cluster() as world:
        found = [it for it in heard(world) if it[1] in SAFE_KINDS]
        kinds = sorted({kind for _, kind, _ in found})
        assert frames.RAFT in kinds and frames.LEADS in kinds and frames.DIGEST in kinds
        for _ in range(60):
            kind = data.draw(st.sampled_from(kinds))
            to, _, body = data.draw(st.sampled_from([it for it in found if it[1] == kind]))
            tell(world, to, kind, changed(body, data.draw))
            world.settle()
        for node_id in HONEST:
            node = world.nodes[node_id]
            assert {*node.replicas} | {*node.quarantines} == {0, 1, 2}
