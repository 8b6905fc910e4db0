"""`make bench-memory`: what a node takes while nothing happens, and whether it grows under load.

Three nodes with one group first idle. Then the same keys are overwritten for
minutes, by `eraft bench`, and the memory of each node is compared early and at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.redis import BUILD, say, stop
from bench.systems import Eraft
from eraft.cli.arguments import CommandFailed, positive
from eraft.cli.bench import cpu_s
from eraft.cli.status import columns
from eraft.errors import EraftError
from eraft.limits import MIB

IDLE_S = 30.0
EARLY_S, LENGTH_S = 120, 600
IDLE_CPU_CEILING = 0.02
IDLE_CEILING_BYTES = 120_000_000
GROWTH_CEILING_BYTES = 32 * MIB
LOAD = ("--ops", "set", "--clients", "64", "--pipeline", "16")


def rss_bytes(pid: int) -> int:
    """The memory of a process that is resident now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True, frozen=True)
class Footprint:
    """What one node takes; the share is of a core, while idle."""

    idle_cpu_share: float
    idle_bytes: int
    early_bytes: int
    late_bytes: int

    @property
    def missed(self) -> bool:
        """Whether it is more than allowed."""
        return (
            self.idle_cpu_share > IDLE_CPU_CEILING
            or self.idle_bytes > IDLE_CEILING_BYTES
            or self.late_bytes > self.early_bytes + GROWTH_CEILING_BYTES
        )


@contextmanager
def overwriting(directory: Path, length_s: int) -> Iterator[None]:
    """Load the cluster beside the block, which has to take about as long."""
    command = [sys.executable, "-m", "eraft", "bench", "--dir", str(directory), *LOAD]
    with subprocess.Popen([*command, "--seconds", str(length_s)], stdout=sys.stderr) as load:
        try:
            yield
            if load.wait(60.0):
                raise CommandFailed(f"the load ended with {load.returncode}")
        finally:
            load.kill()


def measure(system: Eraft, directory: Path, early_s: int, length_s: int) -> list[Footprint]:
    """Idle and load, in turn."""
    pids = system.pids()
    before_s = [cpu_s([pid]) for pid in pids]
    time.sleep(IDLE_S)
    shares = [(cpu_s([pid]) - cpu) / IDLE_S for pid, cpu in zip(pids, before_s, strict=True)]
    idle = [rss_bytes(pid) for pid in pids]
    say(f"idle for {IDLE_S:.0f} s; now {length_s} s of load")
    with overwriting(directory / system.name, length_s):
        time.sleep(early_s)
        early = [rss_bytes(pid) for pid in pids]
        time.sleep(length_s - early_s)
        late = [rss_bytes(pid) for pid in pids]
    return [Footprint(*figures) for figures in zip(shares, idle, early, late, strict=True)]


def report(found: list[Footprint], early_s: int, length_s: int) -> list[str]:
    """The table."""
    rows = []
    for number, it in enumerate(found, 1):
        sizes = (it.idle_bytes, it.early_bytes, it.late_bytes)
        megabytes = (f"{size_bytes / 1e6:.1f}" for size_bytes in sizes)
        missed = "MORE THAN ALLOWED" if it.missed else ""
        rows.append((f"node {number}", f"{it.idle_cpu_share:.1%}", *megabytes, missed))
    titles = ("", "idle CPU", "idle MB", f"after {early_s} s MB", f"after {length_s} s MB", "")
    return [
        *columns(titles, rows),
        f"allowed: {IDLE_CPU_CEILING:.0%} of a core and {IDLE_CEILING_BYTES / 1e6:.0f} MB idle, "
        f"{GROWTH_CEILING_BYTES / 1e6:.1f} MB of growth under load",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument(
        "--seconds", type=positive, default=LENGTH_S, help=f"of load (default {LENGTH_S})"
    )
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    BUILD.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-memory-", dir=BUILD))
    system = Eraft("eraft", "eraft", "cython")
    try:
        system.start(directory)
        early_s = min(EARLY_S, args.seconds // 2)
        found = measure(system, directory, early_s, args.seconds)
        print("\n".join(report(found, early_s, args.seconds)))
    except (EraftError, OSError, subprocess.TimeoutExpired) as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 1
    finally:
        stop(system)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
