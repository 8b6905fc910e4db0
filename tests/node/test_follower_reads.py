"""READONLY connections: followers answer reads, as new as the leader's."""

from eraft.raft.kinds import READ_INDEX_REPLY
from eraft.types import Message
from tests.sim.conversation import Conversation
from tests.sim.opening import opened
from tests.sim.world import World

OK = b"+OK\r\n"


def followed() -> tuple[World, Conversation, Conversation, int]:
    """A cluster, a client of the leader, a READONLY client of a follower, and that node."""
    world = opened()
    leader = world.leader(1)
    follower = next(node_id for node_id in world.ids if node_id != leader)
    writer, reader = world.connect(leader), world.connect(follower)
    reader.send("READONLY")
    world.settle()
    assert answer(reader) == OK
    return world, writer, reader, follower


def answer(client: Conversation) -> bytes:
    received, client.received = client.received, b""
    return received


def test_a_follower_answers_what_was_acknowledged() -> None:
    world, writer, reader, _ = followed()
    for number in range(20):
        writer.send(f"SET key {number}")
        world.until(lambda: bool(writer.received), ticks=5)
        assert answer(writer) == OK
        reader.send("GET key", "STRLEN key", "MGET key")
        world.settle()
        text = b"%d" % number
        bulk = b"$%d\r\n%b\r\n" % (len(text), text)
        assert answer(reader) == bulk + b":%d\r\n" % len(text) + b"*1\r\n" + bulk


def test_writes_and_other_connections_are_redirected() -> None:
    world, _, reader, follower = followed()
    reader.send("SET key 1", "READWRITE", "GET key")
    plain = world.connect(follower)
    plain.send("GET key")
    world.settle()
    moved, ok, again = answer(reader).split(b"\r\n")[:3]
    assert moved.startswith(b"-MOVED ") and again == moved and ok == b"+OK"
    assert answer(plain).split(b"\r\n")[0] == moved


def test_a_follower_that_is_cut_off_does_not_answer_from_what_it_has() -> None:
    world, writer, reader, follower = followed()
    writer.send("SET key old")
    world.settle()
    world.isolate(follower)
    writer.send("SET key new")
    world.until(lambda: writer.received == OK + OK)
    reader.send("GET key")
    world.until(lambda: bool(reader.received))
    assert answer(reader).startswith(b"-CLUSTERDOWN ")


def test_a_read_outlives_its_leader() -> None:
    world, writer, reader, _ = followed()
    writer.send("SET key 1")
    world.settle()
    world.crash(world.leader(1))
    reader.send("GET key")
    world.until(lambda: bool(reader.received))
    served = answer(reader)
    assert served == b"$1\r\n1\r\n" or served.startswith(b"-CLUSTERDOWN ")
    world.until(lambda: world.leader(1) != 0)
    world.tick(5)
    reader.send("GET key")
    world.settle()
    assert answer(reader) == b"$1\r\n1\r\n"


def test_a_read_that_a_former_leader_refuses_waits_for_the_next_one() -> None:
    world, writer, reader, _ = followed()
    writer.send("SET key 1")
    world.settle()
    with world.acting(world.leader(1)) as node:
        node.replicas[1].raft.step_down("the test wants it")
        node.touch(node.replicas[1])
    reader.send("GET key")
    world.until(lambda: bool(reader.received))
    assert answer(reader) == b"$1\r\n1\r\n"


def refuse(world: World, node_id: int) -> None:
    """The leader of group 1 refuses what a follower asks just now."""
    with world.acting(node_id) as node:
        replica = node.replicas[1]
        raft = replica.raft
        context = raft._asked_reads._context
        ids = {"sender": raft.leader_id, "to": raft.replica_id}
        replica.step(
            Message(READ_INDEX_REPLY, 1, **ids, term=raft.term, context=context, reject=True)
        )
    world.settle()


def test_a_read_is_not_overtaken_while_it_is_refused_once_more_than_the_next_one() -> None:
    world, writer, reader, follower = followed()
    writer.send("SET key old")
    world.settle()
    world.conditions.drop = 1.0
    for _ in range(2):
        reader.send("GET key")
        world.settle()
    refuse(world, follower)  # the first one, which asks again behind the second one
    refuse(world, follower)  # the second one, which asks again
    world.conditions.drop = 0.0
    refuse(world, follower)  # the first one: it asks again with the next tick only
    assert not reader.received
    writer.send("SET key new")
    world.until(lambda: len(reader.received) == 18)
    assert answer(reader) == b"$3\r\nnew\r\n" * 2


def test_a_key_that_is_due_is_judged_by_the_leader() -> None:
    world, writer, reader, follower = followed()
    writer.send("SET key 1 PX 120")
    world.settle()
    assert answer(writer) == OK
    reader.send("GET key")
    world.settle()
    assert answer(reader) == b"$1\r\n1\r\n"
    world.wall_offset_ms[follower] = 400
    reader.send("GET key")
    world.until(lambda: bool(reader.received))
    assert answer(reader).startswith(b"-MOVED ")


def test_reads_that_wait_on_a_follower_when_it_is_removed_go_elsewhere() -> None:
    world, writer, reader, follower = followed()
    writer.send("SET key 1")
    world.settle()
    world.paused.add(world.leader(1))  # it does not answer the question for a position
    reader.send("GET key")
    world.settle()
    assert not reader.received
    with world.acting(follower) as node:
        world.checks.members.taken_out.add(node.replicas[1].replica_id)
        node.replicas[1].leave()
    world.until(lambda: bool(reader.received))
    assert answer(reader).startswith((b"-MOVED ", b"-CLUSTERDOWN "))


def test_a_read_that_a_leader_put_off_is_served_by_whoever_leads_when_it_goes_on() -> None:
    world = opened()
    before = world.leader(1)
    reader = world.connect(before)
    reader.send("READONLY", "SET key 1 PX 400")
    world.settle()
    assert answer(reader) == OK + OK
    reader.send("GET key")
    reader.client.output_full = True
    world.settle()
    assert not reader.received
    with world.acting(before) as node:
        raft = node.replicas[1].raft
        raft.transfer_leadership(next(it for it in raft.conf.voters if it != raft.replica_id))
        node.touch(node.replicas[1])
    world.until(lambda: world.leader(1) not in (0, before))
    world.wall_offset_ms[before] = 1000
    reader.client.output_full = False
    with world.acting(before) as node:
        node.waiting.resume_later(reader.client)
    world.until(lambda: bool(reader.received))
    assert answer(reader).startswith((b"-MOVED ", b"$-1"))
