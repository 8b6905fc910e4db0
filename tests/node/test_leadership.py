"""What clients are told when leaders change: whose reply is whose, what still waits."""

from tests.sim.opening import opened
from tests.sim.world import World

OK = b"+OK\r\n"
NOT_EXECUTED = b"-TRYAGAIN The write was not executed, the leader has changed\r\n"
UNKNOWN = b"-TIMEOUT outcome unknown\r\n"


def lead(world: World, gid: int, node_id: int) -> None:
    """Let leaders crash until it is this node's turn."""
    for _ in range(20):
        world.until(lambda: world.leader(gid) != 0)
        leader = world.leader(gid)
        if leader == node_id:
            world.until(lambda: world.ready(gid))
            return
        world.crash(leader)
        world.until(lambda: world.leader(gid) != 0)
        world.start(leader)
        world.tick(5)
    raise AssertionError(f"node {node_id} does not become leader")


def led_by_one() -> tuple[World, int]:
    """A cluster of two groups, and the node that leads both."""
    world = opened(groups=2)
    leader = world.leader(1)
    lead(world, 2, leader)
    lead(world, 1, leader)
    assert world.leader(2) == leader
    return world, leader


def test_overwritten_proposals_do_not_take_the_replies_of_later_ones() -> None:
    world = opened()
    leader = world.leader(1)
    world.isolate(leader)
    lost = world.connect(leader)
    for number in range(40):
        lost.send(f"INCR lost{number}")
        world.settle()
    world.until(lambda: world.leader(1) not in (0, leader))
    world.heal()
    world.until(lambda: bool(lost.received))
    lead(world, 1, leader)
    client = world.connect(leader)
    for command in ("SET n 5", "INCR n", "STRLEN n", "APPEND n 00", "GET n"):
        client.send(command)
        world.settle()
    assert client.received == OK + b":6\r\n:1\r\n:3\r\n$3\r\n600\r\n"
    replies = lost.received.count(NOT_EXECUTED), lost.received.count(UNKNOWN)
    assert sum(replies) == 40 and min(replies) > 0


def test_a_read_does_not_wait_for_the_writes_of_others() -> None:
    world = opened()
    leader = world.leader(1)
    world.stalled.update(node_id for node_id in world.ids if node_id != leader)
    writer, reader = world.connect(leader), world.connect(leader)
    writer.send("SET a 1", "GET a")
    world.settle()
    reader.send("GET b")
    world.settle()
    assert (writer.received, reader.received) == (b"", b"$-1\r\n")
    world.stalled.clear()
    world.settle()
    assert writer.received == OK + b"$1\r\n1\r\n"


def test_a_read_behind_a_write_that_was_overwritten_holds_up_no_later_read() -> None:
    world = opened()
    leader = world.leader(1)
    followers = [node_id for node_id in world.ids if node_id != leader]
    world.stalled.update(followers)
    lost = world.connect(leader)
    for number in range(40):
        lost.send(f"INCR lost{number}")
        world.settle()
    lost.send("GET lost1")
    world.settle()
    world.isolate(leader)
    for node_id in followers:
        world.crash(node_id)
    world.stalled.clear()
    for node_id in followers:
        world.start(node_id)
    world.until(lambda: world.leader(1) in followers)
    world.heal()
    lead(world, 1, leader)
    world.tick(60)
    client = world.connect(leader)
    client.send("GET n")
    world.settle()
    assert client.received == b"$-1\r\n"


def test_a_flush_that_one_of_two_groups_refused_has_an_unknown_outcome() -> None:
    world, leader = led_by_one()
    client = world.connect(leader)
    client.send("FLUSHALL")
    world.nodes[leader].replicas[1].raft.step_down("test")
    world.settle()
    assert client.received == UNKNOWN
