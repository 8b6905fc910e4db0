"""Figures: how fast a snapshot brings a follower up to date, and what its group does meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import uvloop

from eraft import limits
from eraft.cli import processes
from eraft.cli.load import Loader, Topology, Workload
from tests.chaos.cluster import ChaosCluster, ChaosNode
from tests.chaos.figures import Beside
from tests.chaos.fill import VALUE_BYTES, fill, keys_of

GID = 1
CLIENTS = 64
LOADED_KEYS = 10_000
SETTLE_S, BEFORE_S = 3.0, 15.0
MOST_S = 180.0
SNAPSHOT_BEGINS = f"group {GID}: a snapshot as of entry "
SNAPSHOT_THERE = "has its snapshot"


@dataclass(slots=True, frozen=True)
class Mark:
    """A moment, and how many writes were acknowledged by then."""

    at_s: float
    writes: int

    def rate_since(self, earlier: Mark) -> float:
        """Writes per second."""
        return (self.writes - earlier.writes) / (self.at_s - earlier.at_s)


class Overwriting(Beside):
    """Clients in a closed loop, one write each at a time, that overwrite some keys of the group."""

    def __init__(self, addresses: list[str]) -> None:
        super().__init__("overwriting")
        topology = Topology(addresses)
        topology.learn()
        keys = list(itertools.islice(keys_of(GID), LOADED_KEYS))
        chance = Random(2)
        workload = Workload.make("set", b"SET", keys, chance.randbytes(VALUE_BYTES))
        order = chance.sample(range(LOADED_KEYS), LOADED_KEYS)
        self._loader = Loader(topology, workload, order, CLIENTS, 1, None, None)

    def run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._loader.run())

    def __exit__(self, *error: object) -> None:
        self._loader.stop()
        super().__exit__(*error)
        assert not self._loader.outcome.errors, self._loader.outcome.errors

    def mark(self) -> Mark:
        return Mark(time.monotonic(), self._loader.outcome.finished)


def show_snapshot(directory: Path, size_bytes: int) -> None:
    """Print how fast a follower that lacks so much data has it, and what that takes from writers.

    It is away while the data is written, and half of it again; the log retains as much as the data.
    """
    flags = ("--segment-size-bytes", limits.SEGMENT_SIZE_BYTES)
    flags += ("--log-retention-bytes", size_bytes)
    with ChaosCluster(directory, *flags, disk_bytes=6 * size_bytes + 4096 * limits.MIB) as cluster:
        leader = cluster.wait_for_leader(GID)
        away = next(node for node in cluster.nodes if node is not leader)
        away.kill()
        others = [node.client for node in cluster.nodes if node is not away]
        for part_bytes in (size_bytes, size_bytes // 2):
            fill(others, part_bytes // VALUE_BYTES, GID)
        with Overwriting(others) as load:
            time.sleep(SETTLE_S)
            first = load.mark()
            time.sleep(BEFORE_S)
            before = load.mark()
            away.spawn()
            wait_long(lambda: SNAPSHOT_BEGINS in away.text(), "a snapshot begins")
            begun = load.mark()
            wait_long(lambda: SNAPSHOT_THERE in leader.text(), "the snapshot is there")
            there = load.mark()
            wait_long(lambda: caught_up(away, leader), "the follower has caught up")
            done = load.mark()
        assert cluster.wait_for_leader(GID) is leader, "the leader changed"
        length_s = there.at_s - begun.at_s
        before_rate, while_sent = before.rate_since(first), there.rate_since(begun)
        print(
            f"a follower {size_bytes / limits.MIB:.0f} MiB behind, values of {VALUE_BYTES} bytes: "
            f"its snapshot takes {length_s:.1f} s, {size_bytes / length_s / 1e6:.1f} MB/s; "
            f"{done.at_s - there.at_s:.1f} s later it has caught up"
        )
        print(
            f"writes of {CLIENTS} clients: {before_rate:.0f} per second before, "
            f"{while_sent:.0f} ({while_sent / before_rate:.0%}) while the snapshot is sent, "
            f"{done.rate_since(there):.0f} until it has caught up"
        )


def caught_up(follower: ChaosNode, leader: ChaosNode) -> bool:
    """Whether the follower has applied what the leader had committed a moment ago."""
    committed = leader.groups().get(GID, {}).get("commit", 0)
    return follower.groups().get(GID, {}).get("applied", -1) >= committed > 0


def wait_long(condition: Callable[[], bool], what: str) -> None:
    assert processes.wait_until(condition, MOST_S), f"after {MOST_S} s still not: {what}"
