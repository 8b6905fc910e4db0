"""The log of a running node: it stays small, and what is left of it is enough."""

from eraft.storage import rows as layout
from eraft.storage.state import ReplicaRows
from tests.sim.conditions import Conditions
from tests.sim.opening import opened
from tests.sim.world import World

SEGMENT_BYTES = Conditions().segment_bytes
RETENTION = 4 * SEGMENT_BYTES
VALUE = "v" * 50_000


def overwrite(world: World, count: int, key: str = "k") -> None:
    """SET one key that often, one after the other, on a node that serves it."""
    conversation = world.connect(world.leader(1))
    for number in range(count):
        conversation.send(f"SET {key} {number}{VALUE}")
        world.until(lambda wanted=number + 1: conversation.received.count(b"+OK") == wanted)
    conversation.hang_up()


def value(world: World, node_id: int) -> bytes | None:
    """The value of k in the state of a node's replica."""
    rows = world.nodes[node_id].replicas[1].rows
    found = [row for key, row in rows.scan(*layout.kind_range(rows.generation, layout.DATA))]
    return found[0] if found else None


def test_endless_overwrites_leave_a_small_log() -> None:
    world = opened(groups=2, conditions=Conditions(retention_bytes=RETENTION))
    for _ in range(5):
        overwrite(world, 40)
        world.tick(4)
        for node_id, node in world.nodes.items():
            assert node.log.size_bytes <= RETENTION + 4 * SEGMENT_BYTES
            files = world.disks[node_id].files
            size_bytes = sum(files.open(name).size() for name in files.names())
            assert size_bytes <= RETENTION + 5 * SEGMENT_BYTES  # one may be in preparation
            assert node.log.groups[1].base_index > 0 or node.log.appended_bytes < 2 * RETENTION
    assert all(node.log.groups[1].base_index > 100 for node in world.nodes.values())
    # The quiet groups do not pin what is old, and nothing of them is lost.
    assert all(node.log.groups[2].last_index > 0 for node in world.nodes.values())
    for node_id in world.ids:
        world.crash(node_id)
    for node_id in world.ids:
        world.start(node_id)
    world.until(lambda: world.ready(0) and world.ready(1) and world.ready(2))
    overwrite(world, 1)
    world.tick(4)
    assert len({value(world, node_id) for node_id in world.ids}) == 1
    assert value(world, 1) is not None


def test_a_follower_that_was_away_for_less_than_the_retention_catches_up() -> None:
    world = opened(conditions=Conditions(retention_bytes=4 * RETENTION))
    overwrite(world, 20)
    away = next(node_id for node_id in world.ids if node_id != world.leader(1))
    world.crash(away)
    overwrite(world, 60)
    world.tick(4)
    world.start(away)
    world.until(lambda: value(world, away) == value(world, world.leader(1)))


def test_a_restart_finds_most_of_it_applied() -> None:
    """What is applied again is bounded by what is logged between two flushes."""
    world = opened(conditions=Conditions(retention_bytes=RETENTION))
    overwrite(world, 100)
    world.tick(4)
    for node_id in world.ids:
        applied = world.nodes[node_id].replicas[1].applied
        world.crash(node_id)
        rows = ReplicaRows(world.disks[node_id].store, 2)
        assert rows.applied()[0] > applied - 2 * (RETENTION // 4) // 50_000


def test_what_a_crash_during_a_flush_needs_is_in_the_log() -> None:
    """A flush that never ends releases nothing, however much is logged meanwhile."""
    world = opened(conditions=Conditions(retention_bytes=RETENTION))
    victim = next(node_id for node_id in world.ids if node_id != world.leader(1))
    node = world.nodes[victim]
    overwrite(world, 1)
    finish = node.store_flushed
    node.store_flushed = lambda: None  # type: ignore[method-assign]
    world.disks[victim].store.flushed = lambda batches: None  # type: ignore[method-assign]
    overwrite(world, 60)
    world.tick(4)
    assert node.log.groups[1].base_index == 0
    assert node.log.size_bytes > RETENTION + 4 * SEGMENT_BYTES
    del world.disks[victim].store.flushed
    world.disks[victim].store.flush()
    finish()
    overwrite(world, 8)
    world.tick(4)
    assert node.log.groups[1].base_index > 0


def test_state_that_no_group_names_is_deleted_at_start() -> None:
    """A snapshot that had arrived in part when the node crashed; its number is not used again."""
    world = opened()
    store = world.disks[1].store
    orphan = layout.applied_key(77)
    store.write([(orphan, layout.encode_applied(5, 1, 1, 0))])
    store.flush()
    world.crash(1)
    assert store.get(orphan) is not None
    world.start(1)
    assert store.get(orphan) is None
    world.until(lambda: world.ready(1))
    assert world.meta(1, "JOIN", "2", "1", "2", "3").startswith(b"$")
    world.until(lambda: world.ready(2))
    assert world.nodes[1].replicas[2].rows.generation == 78
