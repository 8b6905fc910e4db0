"""One run: load, one fault after the other, then calm, and the judgement of what was recorded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from eraft import limits
from tests.chaos import faults
from tests.chaos.cluster import CLIENTS, GROUPS, ChaosCluster, ChaosNode
from tests.chaos.faults import Fault, Scene
from tests.chaos.load import Load, lost
from tests.linear.checker import Operation, explain

FAULT_S = (1.0, 4.0)
CALM_S = (0.2, 1.0)
OPERATIONS_PER_S = 100
"""A run with fewer operations of known outcome is invalid, ..."""
CLIENT_OPERATIONS_PER_S = 2
"""... and one in which a client has fewer: three of them ask one node each."""
LEADER_SHARE = 0.7
LOAD_CLIENTS = 12
# Logs that keep little: who is away for long needs a snapshot.
LOG_FLAGS = ("--log-retention-bytes", 8 * limits.MIB, "--log-tail-bytes", limits.MIB)
FLAGS = ("--balance-interval-s", 3, *LOG_FLAGS)


@dataclass(slots=True)
class Report:
    """What became of a run that is valid; `lost` and `violations` have to be 0."""

    seed: int
    elapsed_s: float
    faults: Counter[str] = field(default_factory=Counter)
    keys: int = 0
    operations: int = 0
    unknown: int = 0
    refused: int = 0
    lost: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.lost and not self.violations

    def __str__(self) -> str:
        named = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"seed {self.seed}: {self.faults.total()} faults in {self.elapsed_s:.0f} s ({named})\n"
            f"{self.operations} operations on {self.keys} keys checked, of which {self.unknown} of "
            f"unknown outcome; {self.refused} refused and sent again; lost {self.lost}; "
            f"{len(self.violations)} keys not linearizable"
        )


def plan(chance: Random) -> Iterator[list[Fault]]:
    """Without end: first each fault once, in any order, then in turn with pairs at once."""
    yield from ([fault] for fault in chance.sample(faults.ALL, len(faults.ALL)))
    while True:
        yield [chance.choice(faults.CUTS), chance.choice(faults.BESIDE_CUTS)]
        yield [chance.choice(faults.ALL)]


def run(directory: Path, seed: int, length_s: float, wanted: list[Fault]) -> Report:
    """Break a new cluster for `length_s` seconds, and for as long as a fault is still due.

    With `wanted` only these faults happen, over and over.

    Raises:
        AssertionError: the cluster did not recover, a fault did not happen, a
            client saw what must not be, the run did too little, or the checker gave up.
    """
    with ChaosCluster(directory, *FLAGS) as cluster:
        addresses = [node.client for node in cluster.nodes]
        load = Load(addresses, seed, LOAD_CLIENTS, lambda: cluster.network.enter(CLIENTS))
        started_s = time.monotonic()
        try:
            counts = happen(cluster, load, Random(seed), length_s, wanted)
            elapsed_s = time.monotonic() - started_s
            cluster.wait_healthy()
            histories = load.histories()
        except AssertionError:
            print(cluster.logs())
            raise
    report = Report(seed, elapsed_s, counts, len(histories), refused=load.refused)
    judge(report, histories)
    known = report.operations - report.unknown
    assert known >= OPERATIONS_PER_S * elapsed_s, f"invalid: only {known} operations"
    assert load.least >= CLIENT_OPERATIONS_PER_S * elapsed_s, f"invalid: {load.least} of a client"
    return report


def happen(
    cluster: ChaosCluster, load: Load, chance: Random, length_s: float, wanted: list[Fault]
) -> Counter[str]:
    """Let one fault after the other happen under load; how often each did."""
    planned = plan(chance) if not wanted else ([chance.choice(wanted)] for _ in iter(int, 1))
    due = len(wanted or faults.ALL)
    counts = Counter[str]()
    started_s = time.monotonic()
    with load:
        load.wait_progress()
        while time.monotonic() < started_s + length_s or counts.total() < due:
            happening = next(planned)
            at_s = time.monotonic() - started_s
            print(f"{at_s:6.1f} s  {one(cluster, load, happening, chance)}", flush=True)
            counts.update(fault.__name__ for fault in happening)
    assert not load.failure, load.failure
    return counts


def one(cluster: ChaosCluster, load: Load, happening: list[Fault], chance: Random) -> str:
    """Let the faults happen at once, and the cluster recover; what to say of it."""
    load.pass_time(chance.uniform(*CALM_S))
    duration_s = chance.uniform(*FAULT_S)
    names = []
    with ExitStack() as stack:
        for fault in happening:
            scene = Scene(cluster, draw_victim(cluster, chance), chance)
            names.append(f"{fault.__name__} {scene.victim.name}")
            stack.enter_context(fault(scene))
        before = load.answered().total()
        load.pass_time(duration_s)
        answered = load.answered().total() - before
    healed_s = time.monotonic()
    load.wait_progress()
    cluster.wait_healthy()
    recovered_s = time.monotonic() - healed_s
    what = " and ".join(names)
    return f"{what}: {duration_s:.1f} s, {answered} answered, healthy after {recovered_s:.1f} s"


def draw_victim(cluster: ChaosCluster, chance: Random) -> ChaosNode:
    """Often the leader of a group."""
    found = None
    if chance.random() < LEADER_SHARE:
        found = cluster.leader(chance.choice((0, *GROUPS)))
    return found or chance.choice([node for node in cluster.nodes if node.running])


def judge(report: Report, histories: dict[str, list[Operation]]) -> None:
    """Fill in what the histories say."""
    report.operations = sum(map(len, histories.values()))
    report.unknown = sum(not it.known for history in histories.values() for it in history)
    report.lost = lost(histories)
    with ProcessPoolExecutor() as pool:
        for key, found in zip(histories, pool.map(explain, histories.values()), strict=True):
            if found:
                report.violations.append(f"the history of {key} is not linearizable:\n{found}")
