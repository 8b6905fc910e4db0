"""A part of the cluster that does not keep up costs others a bounded amount of memory and work."""

from collections.abc import Iterable, Sequence

import pytest

from eraft import limits
from eraft.errors import StoreStalled
from tests.sim.opening import opened
from tests.sim.world import World

VALUE = b"v" * limits.MIB
OK = b"+OK\r\n"


def set_command(key: bytes, value: bytes) -> bytes:
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)


def test_followers_whose_disks_stall_do_not_fill_the_leader_s_memory() -> None:
    """They answer heartbeats, so it goes on to lead, and its clients give up and try again."""
    world = opened()
    leader = world.leader(1)
    replica = world.nodes[leader].replicas[1]
    world.stalled = set(world.ids) - {leader}
    clients = [world.connect(leader) for _ in range(4)]
    for _ in range(200):
        for client in clients:
            if not client.client.stopped:
                client.send(set_command(b"key", VALUE))
        world.tick()
    assert replica.leading
    assert replica.entries.size_bytes < 2 * limits.LOG_TAIL_BYTES + 4 * limits.MIB
    world.stalled.clear()
    assert_serves(world)


@pytest.mark.parametrize(("where", "tails"), [("leader", 2), ("follower", 1)])
def test_a_store_that_stalls_is_asked_once_a_tick_and_slows_down_the_apply(
    where: str, tails: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = opened()
    leader = world.leader(1)
    node_id = leader if where == "leader" else leader % 3 + 1
    node, store = world.nodes[node_id], world.disks[node_id].store
    replica = node.replicas[1]
    attempts = 0

    def stall(rows: Iterable[object], ranges: Sequence[object] = ()) -> None:
        nonlocal attempts
        attempts += 1
        raise StoreStalled("test")

    clients = [world.connect(leader) for _ in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", stall)
        for ticks in range(160):
            for number, client in enumerate(clients):
                if not client.client.stopped:
                    client.send(set_command(b"key%d" % number, VALUE))
            world.tick()
            assert attempts <= ticks + 2  # once more between the write that stalls and the tick
    assert replica.rows.size_hint >= limits.OVERLAY_BYTES
    assert replica.rows.size_hint < limits.OVERLAY_BYTES + 4 * limits.MIB
    assert replica.entries.size_bytes < tails * limits.LOG_TAIL_BYTES + 4 * limits.MIB
    assert_serves(world)
    world.until(lambda: replica.applied == world.nodes[leader].replicas[1].applied)


def assert_serves(world: World) -> None:
    """Whoever leads takes writes and answers reads, once everything has caught up."""
    world.tick(40)
    client = world.connect(world.leader(1))
    client.send("SET after all", "GET after")
    world.until(lambda: client.received == OK + b"$3\r\nall\r\n")


def test_writes_for_which_an_entry_has_no_room_are_in_the_next_ones() -> None:
    world = opened()
    clients = [world.connect(world.leader(1)) for _ in range(3)]
    for client in clients:  # all in one turn; with the first one the entry is full
        client.send(set_command(b"key", VALUE), "SET key 1", "SET other 1 EX 100", "GET other")
    world.settle()
    for client in clients:
        assert client.received == OK * 3 + b"$1\r\n1\r\n"


def test_full_disks_of_a_majority_leave_reads() -> None:
    world = opened()
    first = world.leader(1)
    others = [node_id for node_id in world.ids if node_id != first]
    for node_id in others:
        world.nodes[node_id].free_disk(0)
    world.isolate(first)
    world.until(lambda: world.leader(1) in others, 60)
    client = world.connect(world.leader(1))
    client.send("GET a", "SET a 1")
    world.settle()
    assert client.received.startswith(b"$-1\r\n-MISCONF")


REFUSALS = b"-MISCONF eraft refuses writes: group 1 has no quorum with free disk space "


@pytest.mark.parametrize("missing", ["full", "crashed"])
def test_a_leader_refuses_writes_for_which_a_quorum_has_no_room(missing: str) -> None:
    world = opened()
    leader = world.leader(1)
    first, second = (node_id for node_id in world.ids if node_id != leader)
    client = world.connect(leader)
    world.nodes[first].free_disk(0)
    world.settle()
    client.send("SET a 1", "SETEX b 100 2")
    world.settle()
    assert client.received == OK * 2, "two of three have room"
    if missing == "full":
        world.nodes[second].free_disk(0)
    else:
        world.crash(second)
    world.settle()
    client.received = b""
    client.send("SET a 2", "APPEND a 3", "FLUSHALL", "GET a")
    world.settle()
    *refused, head, value = client.received.split(b"\r\n")[:-1]
    assert len(refused) == 3
    assert all(line.startswith(REFUSALS) for line in refused)
    full = sorted({first, second}) if missing == "full" else [first]
    assert refused[0].endswith(b"(too little: nodes %b)" % b", ".join(b"%d" % it for it in full))
    assert [head, value] == [b"$1", b"1"]
    if missing == "full":
        world.nodes[second].free_disk(1 << 40)
    else:
        world.start(second)
    world.settle()
    client.received = b""
    client.send("SET a 4", "GET b")
    world.settle()
    assert client.received == OK + b"$1\r\n2\r\n"


def test_a_leader_without_room_hands_over_to_one_that_has_some() -> None:
    world = opened()
    leader = world.leader(1)
    client = world.connect(leader)
    world.nodes[leader].free_disk(0)
    world.until(lambda: world.leader(1) not in (0, leader), 20)
    world.until(lambda: world.leader(0) not in (0, leader), 20)
    other = world.connect(world.leader(1))
    other.send("SET a 1")
    world.until(lambda: other.received == OK)
    world.tick(100)
    assert world.leader(1) != leader, "it takes nothing back"
    for node_id in world.ids:
        world.nodes[node_id].free_disk(0)
    world.tick(20)
    last = world.leader(1)
    assert last, "somebody has to lead, for reads"
    client = world.connect(last)
    client.send("SET a 2", "GET a")
    world.settle()
    assert client.received.startswith(b"-MISCONF")
    assert client.received.endswith(b"$1\r\n1\r\n")
