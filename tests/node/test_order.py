"""Commands of one connection take effect in the order in which they were sent."""

from eraft._impl import hashing
from tests.node.test_leadership import led_by_one
from tests.sim.opening import opened
from tests.sim.world import World

OK = b"+OK\r\n"


def keys_of(world: World, gid: int, count: int) -> list[str]:
    """Keys whose buckets a group owns."""
    node = next(iter(world.nodes.values()))
    owners = node.table.owners()
    keys = (f"key{number}" for number in range(10_000))
    owned = (key for key in keys if owners[hashing.bucket_of(key.encode())] == gid)
    return [next(owned) for _ in range(count)]


def test_a_read_that_is_late_does_not_overtake_the_write_before_it() -> None:
    world = opened()
    leader = world.leader(1)
    other, client = world.connect(leader), world.connect(leader)
    world.stalled.update(world.ids)
    other.send("SET b 1")
    world.settle()
    client.send("SET a 1", "GET a")
    world.tick(8)
    world.stalled.discard(leader)
    world.tick(41)
    assert client.received == b""
    world.tick(2)  # 2.55 s after they came, whatever part of it they waited in the lane
    late = b"-TIMEOUT outcome unknown\r\n-CLUSTERDOWN The cluster is down\r\n"
    assert client.received == late
    world.stalled.clear()
    world.settle()
    assert client.received == late


def test_reads_that_go_on_one_by_one_count_as_one() -> None:
    world, leader = led_by_one()
    (written,), others = keys_of(world, 1, 1), keys_of(world, 2, 6)
    client = world.connect(leader)
    world.stalled.update(node_id for node_id in world.ids if node_id != leader)
    client.send(f"SET {written} new")
    world.settle()
    client.send("".join(f"GET {key}\r\n" for key in others).encode())
    world.nodes[leader].shard(2).machine.ownership_version += 1
    for _ in range(4):
        world.step()
    client.send(f"GET {written}")
    world.settle()
    world.stalled.clear()
    world.tick(2)
    assert client.received == OK + b"$-1\r\n" * 6 + b"$3\r\nnew\r\n"
