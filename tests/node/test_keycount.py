"""The keys that INFO shows."""

import re

import pytest

from eraft.node import keycount
from tests.node.test_leadership import lead
from tests.sim.opening import opened
from tests.sim.world import World

KEYS = re.compile(rb"db0:keys=(\d+),expires=0,avg_ttl=0")


def shown(world: World, node_id: int) -> int:
    client = world.connect(node_id)
    client.send("INFO keyspace")
    world.settle()
    client.hang_up()
    found = KEYS.search(client.received)
    return int(found[1]) if found else 0


def write(world: World, keys: int) -> None:
    """Each key three times."""
    client = world.connect(world.leader(1))
    for _ in range(3):
        client.send("".join(f"SET key{number} x\r\n" for number in range(keys)).encode())
        world.settle()
    assert client.received == b"+OK\r\n" * 3 * keys


def test_few_keys_are_counted_at_once_where_they_are_led() -> None:
    world = opened()
    leader = world.leader(1)
    assert shown(world, leader) == 0
    write(world, 5)
    assert shown(world, leader) == 5
    assert shown(world, leader % 3 + 1) == 0
    lead(world, 1, leader % 3 + 1)
    assert shown(world, world.leader(1)) == 5


def test_many_keys_are_counted_again_once_the_figure_is_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walks = 0
    begin = keycount.KeyCount._walk

    def counted(self: keycount.KeyCount, *args: object) -> None:
        nonlocal walks
        walks += 1
        begin(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(keycount.KeyCount, "_walk", counted)
    world = opened()
    leader = world.leader(1)
    write(world, 5000)
    assert 900 < shown(world, leader) < 5000
    assert shown(world, leader) == 5000
    write(world, 5001)
    assert shown(world, leader) == 5000
    assert walks == 1
    world.tick(11)  # 0.55 s
    shown(world, leader)
    assert shown(world, leader) == 5001
    assert walks == 2
