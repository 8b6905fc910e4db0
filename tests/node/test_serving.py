"""Clients of a whole cluster in one process: order, redirections, holds, what is certain."""

import pytest

from tests.sim.opening import opened
from tests.sim.world import World

OK = b"+OK\r\n"


@pytest.fixture
def world() -> World:
    return opened()


def test_a_write_is_answered_after_commit_and_read_back(world: World) -> None:
    client = world.connect(world.leader(1))
    client.send("SET a 1", "GET a", "INCR a", "GET a", "STRLEN a")
    world.settle()
    assert client.received == OK + b"$1\r\n1\r\n:2\r\n$1\r\n2\r\n:1\r\n"


def test_a_pipeline_takes_effect_in_the_order_sent(world: World) -> None:
    client = world.connect(world.leader(1))
    client.send("SET a 1", "GET a", "SET a 2", "INCRBY a 5", "GET a", "APPEND a 0", "GET a", "PING")
    world.settle()
    assert client.received == (
        OK + b"$1\r\n1\r\n" + OK + b":7\r\n$1\r\n7\r\n:2\r\n$2\r\n70\r\n+PONG\r\n"
    )


def test_nothing_is_answered_before_it_is_on_a_quorum_of_disks(world: World) -> None:
    leader = world.leader(1)
    followers = [node_id for node_id in world.ids if node_id != leader]
    world.stalled.update(followers)
    client = world.connect(leader)
    client.send("SET a 1")
    world.settle()
    assert client.received == b""
    world.stalled.discard(followers[0])
    world.settle()
    assert client.received == OK


def test_the_leaders_own_disk_is_waited_for_before_it_applies(world: World) -> None:
    leader = world.leader(1)
    world.stalled.add(leader)
    client = world.connect(leader)
    client.send("SET a 1")
    world.settle()
    assert client.received == b""
    world.stalled.discard(leader)
    world.settle()
    assert client.received == OK


def test_followers_redirect_to_the_leader(world: World) -> None:
    leader = world.leader(1)
    follower = next(node_id for node_id in world.ids if node_id != leader)
    client = world.connect(follower)
    client.send("SET a 1", "GET a")
    world.settle()
    assert client.received == b"-MOVED 15495 10.0.0.%d:6379\r\n" % leader * 2


def test_a_read_waits_for_the_confirmation_of_leadership(world: World) -> None:
    leader = world.leader(1)
    first = world.connect(leader)
    first.send("SET a old")
    world.settle()
    world.isolate(leader)
    client = world.connect(leader)
    client.send("GET a")
    world.settle()
    assert client.received == b""
    world.until(lambda: world.leader(1) not in (0, leader))
    other = world.connect(world.leader(1))
    other.send("SET a new")
    world.settle()
    assert other.received == OK
    world.tick(60)
    assert b"old" not in client.received
    assert client.received.startswith((b"-CLUSTERDOWN", b"-MOVED"))


def test_a_write_of_a_deposed_leader_is_unknown_then_never_retryable(world: World) -> None:
    leader = world.leader(1)
    world.isolate(leader)
    client = world.connect(leader)
    client.send("INCR a")
    world.settle()
    world.tick(60)
    assert client.received == b"-TIMEOUT outcome unknown\r\n"


def test_a_write_that_another_term_overwrote_is_not_executed(world: World) -> None:
    leader = world.leader(1)
    world.isolate(leader)
    client = world.connect(leader)
    client.send("INCR a")
    world.settle()
    world.until(lambda: world.leader(1) not in (0, leader), 40)
    other = world.connect(world.leader(1))
    other.send("SET b 1")
    world.settle()
    world.heal()
    world.until(lambda: bool(client.received), 40)
    assert client.received.startswith(b"-TRYAGAIN")
    other.send("GET a")
    world.settle()
    assert other.received == OK + b"$-1\r\n"


def test_commands_are_held_while_there_is_no_leader_and_answered_by_the_next(world: World) -> None:
    leader = world.leader(1)
    follower = next(node_id for node_id in world.ids if node_id != leader)
    world.crash(leader)
    client = world.connect(follower)
    client.send("SET a 1", "PING")
    world.settle()
    assert client.received == b""
    world.until(lambda: bool(client.received), 40)
    assert client.received == OK + b"+PONG\r\n" or client.received.startswith(b"-MOVED")


def test_without_a_quorum_the_answer_is_that_nothing_was_executed(world: World) -> None:
    leader = world.leader(1)
    followers = [node_id for node_id in world.ids if node_id != leader]
    world.crash(leader)
    world.crash(followers[0])
    client = world.connect(followers[1])
    client.send("SET a 1")
    world.until(lambda: bool(client.received), 60)
    assert client.received == b"-CLUSTERDOWN The cluster is down\r\n"


def test_acknowledged_writes_survive_a_power_cut_of_all_nodes(world: World) -> None:
    client = world.connect(world.leader(1))
    for number in range(200):
        client.send(f"SET key{number} {number}")
        if number % 10 == 0:
            world.settle()
    world.settle()
    assert client.received == OK * 200
    for node_id in world.ids:
        world.crash(node_id)
    for node_id in world.ids:
        world.start(node_id)
    world.until(lambda: world.ready(1))
    again = world.connect(world.leader(1))
    again.send(*(f"GET key{number}" for number in range(200)))
    world.settle()
    expected = b"".join(b"$%d\r\n%d\r\n" % (len(str(n)), n) for n in range(200))
    assert again.received == expected


def test_expiry_is_seen_at_once_and_stays(world: World) -> None:
    client = world.connect(world.leader(1))
    client.send("SET a 1 PX 40", "GET a", "PTTL a")
    world.settle()
    assert client.received == OK + b"$1\r\n1\r\n:40\r\n"
    client.received = b""
    world.run_for(45_000)
    client.send("GET a")
    world.settle()
    assert client.received == b"$-1\r\n"
    world.tick(2)
    client.received = b""
    client.send("DBSIZE", "EXISTS a", "TTL a")
    world.settle()
    assert client.received == b":0\r\n:0\r\n:-2\r\n"


def test_walks_and_flush_go_over_all_groups_of_the_node() -> None:
    world = opened(groups=2)
    world.until(lambda: world.ready(1) and world.ready(2))
    clients = {gid: world.connect(world.leader(gid)) for gid in (1, 2)}
    for number in range(50):
        for client in clients.values():
            client.send(f"SET key{number} x")
    world.settle()
    counts = []
    for node_id in {world.leader(1), world.leader(2)}:
        client = world.connect(node_id)
        client.send("DBSIZE")
        world.settle()
        counts.append(int(client.received[1:-2]))
    assert sum(counts) == 50
    for node_id in {world.leader(1), world.leader(2)}:
        client = world.connect(node_id)
        client.send("FLUSHALL", "DBSIZE")
        world.settle()
        assert client.received == OK + b":0\r\n"
