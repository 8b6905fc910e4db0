"""Whole clusters in random trouble, and that chance is all in the seed.

ERAFT_SEEDS sets how many seeds are tried, ERAFT_SEED the first one; `make sim` uses all cores.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eraft import limits
from eraft.cli import processes
from tests.sim.run import OPENED_LIVE, OPERATIONS_LEAST, STRIKES_LEAST, Profile, simulate

FIRST_SEED = int(os.environ.get("ERAFT_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("ERAFT_SEEDS", "4")))
DIGESTS = f"""
from tests.sim.run import simulate
print([simulate(seed).digest for seed in (1, 2, {OPENED_LIVE})])
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_random_trouble(seed: int) -> None:
    outcome = simulate(seed)
    assert outcome.strikes >= STRIKES_LEAST, "too little trouble to show anything"
    assert outcome.operations >= OPERATIONS_LEAST, "the clients did too little to show anything"


@pytest.mark.parametrize("seed", [1, 2])
def test_clients_wait_for_room_in_entries(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one command an entry is full: pipelines and clients stand in line, whatever breaks."""
    monkeypatch.setattr(limits, "ENTRY_TARGET_BYTES", 1)
    simulate(seed)


@pytest.mark.parametrize("seed", [1, 2])
def test_more_nodes_and_groups(seed: int) -> None:
    simulate(seed, Profile(nodes=5, groups=2, ticks=300))


def test_a_seed_is_the_same_with_every_implementation_and_hash_seed() -> None:
    digests = set()
    for implementation, hash_seed in (("cython", "0"), ("cython", "1"), ("python", "2")):
        environment = {**os.environ, "ERAFT_IMPL": implementation, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS], env=environment, capture_output=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1, digests


def workers(pid: int) -> list[int]:
    """The processes that run seeds for `make sim`."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(it) for it in children if b"spawn_main" in Path(f"/proc/{it}/cmdline").read_bytes()]


def test_a_process_that_dies_of_a_seed_ends_the_run() -> None:
    command = [sys.executable, "-m", "tests.sim", "--seeds", "1000000", "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        try:
            assert processes.wait_until(lambda: len(workers(run.pid)) == 2, 60.0)
            found = workers(run.pid)
            os.kill(found[0], signal.SIGKILL)
            _, complaint = run.communicate(timeout=60.0)
        except BaseException:
            for pid in (*workers(run.pid), run.pid):
                os.kill(pid, signal.SIGKILL)
            raise
    assert run.returncode == 1
    assert b"BrokenProcessPool" in complaint
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)
