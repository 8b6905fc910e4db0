"""The same entries make the same rows and replies, wherever and on whatever they are applied."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from eraft.shardkv.machine import ShardMachine
from eraft.storage.state import RocksStore

from .group import START_MS, WHOLE_SPACE, Group, encode
from .random_commands import command, entry

REPLAY = Path(__file__).with_name("replay.py")


def replay(seed: int, *, impl: str, hash_seed: int) -> str:
    """What replay.py prints, without the implementation that it says it ran on."""
    environment = {**os.environ, "ERAFT_IMPL": impl, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(
        [sys.executable, str(REPLAY), str(seed), "150"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        cwd=REPLAY.parents[2],
    )
    used, _, result = done.stdout.partition(" ")
    assert used == impl
    return result


@pytest.mark.parametrize("seed", [1, 2])
def test_both_implementations_and_any_hash_seed(seed: int) -> None:
    expected = replay(seed, impl="python", hash_seed=0)
    assert int(expected.split()[0]) > 10
    assert replay(seed, impl="python", hash_seed=4242) == expected
    assert replay(seed, impl="cython", hash_seed=7) == expected


def test_seeds_differ() -> None:
    assert replay(1, impl="python", hash_seed=0) != replay(3, impl="python", hash_seed=0)


@pytest.mark.parametrize("seed", range(3))
def test_memory_and_rocks(seed: int, tmp_path: Path) -> None:
    """Written behind at different times, too, and under another generation."""
    rng = random.Random(seed)
    rocks = RocksStore(str(tmp_path / "rocks"))
    groups = [Group(), Group(rocks, generation=7)]
    for _ in range(800):
        args = command(rng)
        now_ms = groups[0].wall_ms + rng.randrange(500)
        replies = []
        for group in groups:
            group.wall_ms = now_ms
            replies.append(group.execute(*args))
        assert replies[0] == replies[1]
        for group in groups:
            if rng.random() < 0.1:
                group.rows.write()
    assert groups[0].dump() == groups[1].dump()
    assert groups[0].execute(b"SCAN", b"0") == groups[1].execute(b"SCAN", b"0")
    rocks.close()


def test_replicas_that_do_not_answer_make_the_same_rows() -> None:
    rng = random.Random(5)
    leader, follower = Group(own=None), Group(own=None)
    payloads = [encode(START_MS, WHOLE_SPACE)]
    payloads += [encode(START_MS + 700 * n, *entry(rng)) for n in range(200)]
    for index, payload in enumerate(payloads, start=1):
        leader.machine.apply(leader.rows, index, 1, payload, [])
        follower.machine.apply(follower.rows, index, 1, payload, None)
    assert leader.dump() == follower.dump()
    assert leader.machine.states == follower.machine.states
    assert leader.machine.clock_ms == follower.machine.clock_ms == START_MS + 700 * 199


def test_restart_between_any_two_entries() -> None:
    """A machine that begins from the rows goes on as the one that wrote them."""
    rng = random.Random(6)
    steady, restarted = Group(), Group()
    for _ in range(60):
        commands = entry(rng)
        restarted.machine = ShardMachine(restarted.rows)
        for group in (steady, restarted):
            group.wall_ms += 900
        assert steady.entry(*commands) == restarted.entry(*commands)
        assert steady.machine.due(steady.wall_ms, 3) == restarted.machine.due(steady.wall_ms, 3)
    assert steady.dump() == restarted.dump()
    assert restarted.machine.clock_ms == steady.machine.clock_ms
