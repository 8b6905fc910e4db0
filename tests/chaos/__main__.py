"""`python -m tests.chaos`: real faults on real processes, and figures about them."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from eraft import limits
from tests.chaos import catch_up, faults, figures
from tests.chaos.run import run

TOOLS = ("ip", "nft", "nsenter", "mkfs.ext4", "mount", "umount", "strace")

KNOWN = {fault.__name__: fault for fault in faults.ALL}
LONG_S = 600.0
GAPS = 20
RESTART_MIB = 1024
SNAPSHOT_MIB = 1024
DISK_MIB, DISK_ROUNDS = 256, 8


def new_seed() -> int:
    return time.time_ns() // 1_000_000 % 1_000_000


def main() -> int:
    args = parse()
    missing = "root" if os.geteuid() else next((it for it in TOOLS if not shutil.which(it)), "")
    if missing:
        print(f"SKIPPED: real faults need {missing}")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    directory = Path(tempfile.mkdtemp(prefix="chaos-", dir=args.dir))
    status = 1
    try:
        status = args.function(args, directory)
    finally:
        if status:
            print(f"the nodes' logs and disks are in {directory}")
        else:
            shutil.rmtree(directory)
    return status


def interrupted(number: int, _: object) -> NoReturn:
    """End the run once; what it made is removed in peace."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--dir", help="where to put disks and logs (default: the temporary one)")
    parts = parser.add_subparsers(required=True)
    runs = parts.add_parser("run", help="faults under load, and the histories checked")
    runs.add_argument("--seconds", type=float, default=60.0, help="at least (default 60)")
    runs.add_argument("--seed", type=int, default=new_seed(), help="default: of the time")
    runs.add_argument("--fault", dest="faults", action="append", default=[], choices=list(KNOWN))
    runs.set_defaults(function=run_faults)
    gaps = parts.add_parser("gaps", help="gaps in writes when a leader is lost")
    gaps.add_argument("--count", type=int, default=GAPS, help=f"of each kind (default {GAPS})")
    gaps.add_argument("--fault", choices=list(figures.GAP_FAULTS), help="one kind only")
    gaps.set_defaults(function=show_gaps)
    restart = parts.add_parser("restart", help="time to serve after all nodes were killed")
    restart.add_argument("--mib", type=int, default=RESTART_MIB, help="data, in values of 1 KiB")
    restart.set_defaults(function=show_restart)
    snapshot = parts.add_parser("snapshot", help="a follower catches up while its group is loaded")
    snapshot.add_argument("--mib", type=int, default=SNAPSHOT_MIB, help="data, in values of 1 KiB")
    snapshot.set_defaults(function=show_snapshot)
    disk = parts.add_parser("disk", help="room that a node takes while keys are overwritten")
    disk.add_argument("--mib", type=int, default=DISK_MIB, help="data, in values of 1 KiB")
    disk.add_argument("--rounds", type=int, default=DISK_ROUNDS, help="how often it is overwritten")
    disk.set_defaults(function=show_disk_use)
    everything = parts.add_parser("all", help="a run of 10 minutes, then all figures")
    everything.set_defaults(function=show_all)
    return parser.parse_args()


def run_faults(args: argparse.Namespace, directory: Path) -> int:
    return run_once(directory, args.seed, args.seconds, [KNOWN[name] for name in args.faults])


def run_once(directory: Path, seed: int, length_s: float, wanted: list[faults.Fault]) -> int:
    print(f"seed {seed}", flush=True)
    report = run(directory, seed, length_s, wanted)
    print(report, *report.violations, sep="\n", flush=True)
    return 0 if report.passed else 1


def show_all(_: argparse.Namespace, directory: Path) -> int:
    """Each part in a directory of its own, which goes when it has passed."""
    parts: list[Callable[[Path], int | None]] = [
        lambda place: run_once(place, new_seed(), LONG_S, []),
        lambda place: figures.show_gaps(place, list(figures.GAP_FAULTS), GAPS),
        lambda place: figures.show_restart(place, RESTART_MIB * limits.MIB),
        lambda place: catch_up.show_snapshot(place, SNAPSHOT_MIB * limits.MIB),
        lambda place: figures.show_disk_use(place, DISK_MIB * limits.MIB, DISK_ROUNDS),
    ]
    for number, part in enumerate(parts):
        place = directory / str(number)
        place.mkdir()
        if part(place):
            return 1
        shutil.rmtree(place)
    return 0


def show_gaps(args: argparse.Namespace, directory: Path) -> int:
    names = [args.fault] if args.fault else list(figures.GAP_FAULTS)
    figures.show_gaps(directory, names, args.count)
    return 0


def show_restart(args: argparse.Namespace, directory: Path) -> int:
    figures.show_restart(directory, args.mib * limits.MIB)
    return 0


def show_snapshot(args: argparse.Namespace, directory: Path) -> int:
    catch_up.show_snapshot(directory, args.mib * limits.MIB)
    return 0


def show_disk_use(args: argparse.Namespace, directory: Path) -> int:
    figures.show_disk_use(directory, args.mib * limits.MIB, args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
