"""Figures: how long writers wait for a lost leader or a killed cluster, and room on the disks."""

from __future__ import annotations

import itertools
import signal
import statistics
import threading
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Self

from eraft import limits
from tests.chaos import faults
from tests.chaos.cluster import CLIENTS, GROUPS, ChaosCluster
from tests.chaos.faults import Fault, Scene
from tests.chaos.fill import VALUE_BYTES, fill
from tests.chaos.load import NOT_EXECUTED, UNKNOWN, group_of
from tests.cli.local import wait_until
from tests.cluster.nodes import Wire

BACK_OFF_S = 0.01
DISTRUST_S = 1.0
ANSWER_S = 0.3
"""Shorter than an election timeout: the writer's patience is not what is measured."""
DISK_LOOK_S = 0.1
WRITES = 100
"""So many writes before a fault, and after it while it lasts."""
GAP_FAULTS: dict[str, Fault] = {
    "SIGKILL": faults.kill,
    "SIGTERM": faults.stop,
    "pause": faults.pause,
    "cut": faults.away,
}


class Beside(threading.Thread):
    """A thread that runs while a block does; a context. `run` ends once `_over` is set."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


class Writer(Beside):
    """A client in a closed loop that writes one key and knows when each write was acknowledged.

    When the leader does not answer it asks the others in turn, and does not
    follow them back for a while: they do not know better yet. It keeps no connection to a node
    that it does not ask: one that has ended since would make it distrust a node that serves.
    """

    def __init__(self, cluster: ChaosCluster, key: str) -> None:
        super().__init__(f"writer of {key}")
        self.acknowledged_s: list[float] = []
        self.failure = ""
        self._cluster = cluster
        self._key = key
        self._nodes = deque(node.client for node in cluster.nodes)
        self._lost = ""
        self._lost_s = 0.0
        self._wire: Wire | None = None
        self._wire_to = ""
        self._leader = ""

    def run(self) -> None:
        try:
            self._cluster.network.enter(CLIENTS)
            for number in itertools.count():
                if self._over.is_set():
                    break
                if not self._write(number):
                    self._over.wait(BACK_OFF_S)
        except Exception as error:
            self.failure = repr(error)
        finally:
            self._hang_up()

    def _write(self, number: int) -> bool:
        """Send one write; False if it was not acknowledged."""
        where, led = self._leader or self._nodes[0], bool(self._leader)
        self._leader = ""
        try:
            answer = self._dialled(where).ask("SET", self._key, number)
            if not answer.endswith(b"\n"):
                raise ConnectionResetError
        except OSError:
            self._hang_up()
            if led:
                self._lost, self._lost_s = where, time.monotonic()
            self._nodes.rotate(-1)
            return False
        if answer == b"+OK\r\n":
            self.acknowledged_s.append(time.monotonic())
            self._leader = where
            return True
        assert answer.startswith((*NOT_EXECUTED, UNKNOWN)), answer
        if answer.startswith(b"-MOVED"):
            leader = answer.split()[2].decode()
            if leader != self._lost or time.monotonic() > self._lost_s + DISTRUST_S:
                self._leader = leader
        return False

    def _dialled(self, where: str) -> Wire:
        if self._wire is None or self._wire_to != where:
            self._hang_up()
            self._wire, self._wire_to = Wire(where, ANSWER_S), where
        return self._wire

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def wait_writes(self, count: int = WRITES) -> None:
        wanted = len(self.acknowledged_s) + count
        wait_until(
            lambda: len(self.acknowledged_s) >= wanted or self.failure != "",
            f"{count} writes are acknowledged",
        )
        assert not self.failure, self.failure

    def gap_s(self, since: int) -> float:
        """The longest time between two acknowledged writes, from one of them on."""
        times_s = self.acknowledged_s[since - 1 :]
        return max(later - earlier for earlier, later in itertools.pairwise(times_s))


def gaps_s(cluster: ChaosCluster, fault: Fault, count: int) -> list[float]:
    """The gaps in writes when the leader is lost and comes back, `count` times."""
    chance = Random(count)
    found = []
    with Writer(cluster, key_of(1)) as writer:
        for _ in range(count):
            writer.wait_writes()
            before = len(writer.acknowledged_s)
            with fault(Scene(cluster, cluster.wait_for_leader(1), chance)):
                writer.wait_writes()
            cluster.wait_healthy()
            writer.wait_writes()
            found.append(writer.gap_s(before))
    return found


def show_gaps(directory: Path, names: list[str], count: int) -> None:
    """Print the gaps of each kind: median and worst."""
    with ChaosCluster(directory) as cluster:
        for name in names:
            found = gaps_s(cluster, GAP_FAULTS[name], count)
            print(
                f"gap in writes after a leader's {name}, of {count}: "
                f"median {statistics.median(found):.2f} s, worst {max(found):.2f} s"
            )


def show_restart(directory: Path, size_bytes: int) -> None:
    """Print how long a cluster with so much data needs to serve after all nodes were killed."""
    flags = ("--segment-size-bytes", limits.SEGMENT_SIZE_BYTES)
    with ChaosCluster(directory, *flags, disk_bytes=6 * size_bytes + 4096 * limits.MIB) as cluster:
        started_s = time.monotonic()
        fill([node.client for node in cluster.nodes], size_bytes // VALUE_BYTES)
        print(f"{size_bytes // limits.MIB} MiB written in {time.monotonic() - started_s:.1f} s")
        for node in cluster.nodes:
            node.send(signal.SIGKILL)
        for node in cluster.nodes:
            node.end()
        started_s = time.monotonic()
        for node in cluster.nodes:
            node.spawn()
        with ExitStack() as stack:
            for gid in GROUPS:
                stack.enter_context(Writer(cluster, key_of(gid))).wait_writes(1)
        print(f"all nodes killed: every group serves after {time.monotonic() - started_s:.2f} s")
        for node in cluster.nodes:
            node.wait_answers()
        found = sum(group["keys"] for group in cluster.nodes[0].status()["groups"] if group["gid"])
        assert found >= size_bytes // VALUE_BYTES, f"only {found} keys are left"


class DiskWatch(Beside):
    """Looks all the time how much room the nodes take on their disks."""

    def __init__(self, cluster: ChaosCluster) -> None:
        super().__init__("disk watch")
        self.most_bytes = 0
        self._cluster = cluster

    def run(self) -> None:
        while not self._over.wait(DISK_LOOK_S):
            used_bytes = max(node.disk.used_bytes for node in self._cluster.nodes)
            self.most_bytes = max(self.most_bytes, used_bytes)


def show_disk_use(directory: Path, live_bytes: int, rounds: int) -> None:
    """Print how much room a node takes at most while the same keys are overwritten.

    First all nodes are there. Then a follower is away until the log does not
    go back so far, and gets a snapshot while the writing goes on.
    """
    flags = ("--segment-size-bytes", limits.SEGMENT_SIZE_BYTES)
    limit_bytes = 3 * live_bytes + 2048 * limits.MIB
    with ChaosCluster(directory, *flags, disk_bytes=2 * limit_bytes) as cluster:
        addresses = [node.client for node in cluster.nodes]

        def overwrite(addresses: list[str], times: int) -> None:
            with DiskWatch(cluster) as watch:
                for _ in range(times):
                    fill(addresses, live_bytes // VALUE_BYTES)
            print(
                f"{live_bytes / limits.MIB:.0f} MiB overwritten {times} times: a node takes "
                f"{watch.most_bytes / limits.MIB:.0f} MiB at most, "
                f"allowed are {limit_bytes / limits.MIB:.0f}",
                flush=True,
            )
            assert watch.most_bytes < limit_bytes

        overwrite(addresses, rounds)
        away = next(node for node in cluster.nodes if node is not cluster.wait_for_leader(1))
        away.kill()
        others = [address for address in addresses if address != away.client]
        overwrite(others, 2 * limits.LOG_RETENTION_BYTES // live_bytes)
        away.spawn()
        away.wait_answers()
        overwrite(addresses, rounds)
        cluster.wait_healthy()
        text = away.log.read_text()
        assert "a snapshot as of entry" in text, "no snapshot was needed"


def key_of(gid: int) -> str:
    """A key that the group owns."""
    return next(key for key in map(str, itertools.count()) if group_of(key) == gid)
