"""`make bench-redis`: eraft against Redis, side by side on this machine and disk.

Four systems run at the same time and are loaded in turn by redis-benchmark:
one Redis that syncs every write, the same with two such replicas (which do
not agree on anything), eraft with three nodes and one group that owns every
bucket, and the same in pure Python. Every figure is the median of the rounds,
every ratio the median of the ratios within a round: only what was measured
next to each other compares.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import orjson

from bench.systems import HOST, System, all_systems, fsync_us, program
from eraft.cli.arguments import CommandFailed, positive
from eraft.cli.bench import cpu_s
from eraft.cli.status import columns
from eraft.errors import ConfigError, EraftError

VALUE_BYTES = 64
KEYS = 10_000
ATTEMPTS = 4
RUN_S, QUICK_RUN_S = 2.0, 0.6
BUILD = Path(__file__).parent.parent / "build"


@dataclass(slots=True, frozen=True)
class Point:
    """One kind of load."""

    op: str
    clients: int
    pipeline: int = 1

    @property
    def load(self) -> str:
        return f"{self.clients}xP{self.pipeline}" if self.pipeline > 1 else str(self.clients)

    def __str__(self) -> str:
        return f"{self.op}@{self.load}"


POINTS = [
    Point(op, clients, pipeline)
    for op in ("SET", "GET")
    for clients, pipeline in ((1, 1), (64, 1), (256, 1), (64, 16))
]
FLOORS = {
    "SET@1": 0.50,
    "SET@64": 0.40,
    "SET@256": 0.45,
    "SET@64xP16": 0.20,
    "GET@64": 0.50,
    "GET@256": 0.50,
    "GET@64xP16": 0.15,
}
"""The least that eraft is to reach of one Redis' throughput."""
CPU_CEILINGS_US = {"SET@64": 60.0, "SET@64xP16": 25.0}
"""The most processor time, over all nodes, that eraft is to use per operation."""


@dataclass(slots=True, frozen=True)
class Figure:
    """One run of one system."""

    ops_per_s: float
    cpu_us_per_op: float


Figures = dict[str, dict[Point, list[Figure]]]
"""By system and point, one figure per round."""


class LoadFailed(Exception):
    """redis-benchmark ended at an error reply, as it does when the leader changes."""


def load(system: System, point: Point, requests: int) -> Figure:
    """One run of redis-benchmark; LoadFailed if it or the leadership did not last."""
    before = system.target()
    cpu_before_s = cpu_s(system.pids())
    command = [program("redis-benchmark"), "-h", HOST, "-p", str(before.port), "--csv"]
    command += ["-t", point.op.lower(), "-n", str(requests), "-c", str(point.clients)]
    command += ["-P", str(point.pipeline), "-d", str(VALUE_BYTES), "-r", str(KEYS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [row for row in csv.reader(done.stdout.splitlines()) if row and row[0] == point.op]
    if done.returncode != 0 or not rows:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise LoadFailed(f"redis-benchmark ended with {done.returncode}: {' '.join(last)}")
    system.settle()
    cpu_after_s = cpu_s(system.pids())
    if system.target() != before:
        raise LoadFailed("the leader changed")
    return Figure(float(rows[0][1]), (cpu_after_s - cpu_before_s) / requests * 1e6)


class Comparison:
    """All rounds over all systems and points."""

    def __init__(self, systems: list[System], points: list[Point], run_s: float) -> None:
        self.systems = systems
        self.points = points
        self.figures: Figures = {it.name: {point: [] for point in points} for it in systems}
        self.repeated: list[str] = []
        self._run_s = run_s
        self._rates: dict[tuple[str, Point], float] = {}

    def prepare(self) -> None:
        """Write every key and find out how many requests make a run of the wanted length."""
        fill = Point("SET", 64, 16)
        for system in self.systems:
            self._attempt(system, fill, 8 * KEYS)
            for point in self.points:
                requests = max(500, 20 * point.clients * point.pipeline)
                rate = self._attempt(system, point, requests).ops_per_s
                # The short run tells little about a fast system: make it longer once.
                requests = max(requests, int(rate * self._run_s / 4))
                self._rates[system.name, point] = self._attempt(system, point, requests).ops_per_s
            say(f"{system.title} is ready")

    def round(self, number: int, rounds: int) -> None:
        """Every system at every point, the systems next to each other."""
        for point in self.points:
            line = [f"round {number} of {rounds}, {point}:"]
            for system in self.systems:
                requests = max(500, int(self._rates[system.name, point] * self._run_s))
                figure = self._attempt(system, point, requests)
                self._rates[system.name, point] = figure.ops_per_s
                self.figures[system.name][point].append(figure)
                line.append(f"{system.title} {figure.ops_per_s:,.0f}/s")
            say("  ".join(line))

    def _attempt(self, system: System, point: Point, requests: int) -> Figure:
        for _ in range(ATTEMPTS):
            try:
                return load(system, point, requests)
            except LoadFailed as error:
                self.repeated.append(f"{system.title} {point}: {error}")
                say(f"void, once more: {self.repeated[-1]}")
        raise CommandFailed(f"{system.title} {point}: no run in {ATTEMPTS} was valid")

    def ops_per_s(self, name: str, point: Point) -> float:
        return median(figure.ops_per_s for figure in self.figures[name][point])

    def cpu_us(self, name: str, point: Point) -> float:
        return median(figure.cpu_us_per_op for figure in self.figures[name][point])

    def ratio(self, name: str, other: str, point: Point) -> float | None:
        """Throughput of one system over the other's, None if one of them did not run."""
        if name not in self.figures or other not in self.figures:
            return None
        pairs = zip(self.figures[name][point], self.figures[other][point], strict=True)
        return median(one.ops_per_s / two.ops_per_s for one, two in pairs)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(comparison: Comparison) -> list[str]:
    """The tables."""
    titles = ("", *(system.title for system in comparison.systems))
    names = [system.name for system in comparison.systems]

    def table(cell: Callable[[str, Point], str]) -> list[str]:
        rows = [(str(it), *(cell(name, it) for name in names)) for it in comparison.points]
        return columns(titles, rows)

    lines = ["operations per second", *table(lambda n, it: f"{comparison.ops_per_s(n, it):,.0f}")]
    lines += ["", "CPU us per operation, all servers of the system together"]
    lines += table(lambda name, point: f"{comparison.cpu_us(name, point):.1f}")
    if "eraft" in names:
        lines += ["", "eraft against the others (throughput), floors and ceilings beside it"]
        lines += columns(RATIO_TITLES, [ratios(comparison, point) for point in comparison.points])
    if comparison.repeated:
        lines += ["", "runs that were void and repeated:", *comparison.repeated]
    return lines


RATIO_TITLES = ("", "x Redis", "floor", "x Redis+2", "x pure", "CPU us", "ceiling", "")


def ratios(comparison: Comparison, point: Point) -> tuple[str, ...]:
    found = {other: comparison.ratio("eraft", other, point) for other in NAMES}
    cpu_us = comparison.cpu_us("eraft", point)
    floor, ceiling = FLOORS.get(str(point)), CPU_CEILINGS_US.get(str(point))
    missed = []
    if floor is not None and (found["redis"] or floor) < floor:
        missed.append("BELOW THE FLOOR")
    if ceiling is not None and cpu_us > ceiling:
        missed.append("ABOVE THE CEILING")
    return (
        str(point),
        number(found["redis"]),
        number(floor),
        number(found["replicas"]),
        number(found["pure"]),
        f"{cpu_us:.1f}",
        number(ceiling, "g"),
        ", ".join(missed),
    )


def number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def results(comparison: Comparison) -> dict[str, object]:
    """The figures for programs."""
    return {
        name: {
            str(point): {
                "ops_per_s": [figure.ops_per_s for figure in found],
                "cpu_us_per_op": [figure.cpu_us_per_op for figure in found],
            }
            for point, found in by_point.items()
        }
        for name, by_point in comparison.figures.items()
    } | {"void_runs": comparison.repeated}


NAMES = ("redis", "replicas", "eraft", "pure")
OPS = ("set", "get")
LOADS = tuple(dict.fromkeys(point.load for point in POINTS))


def chosen(text: str) -> tuple[list[str], list[Point]]:
    """Systems and points for --only: words of one kind add up, different kinds narrow down."""
    words = [word for word in text.split(",") if word]
    kinds: tuple[Sequence[str], ...] = (NAMES, OPS, LOADS, [str(point) for point in POINTS])
    picked: list[list[str]] = []
    for kind in kinds:
        found = [name for name in kind if name.lower() in (word.lower() for word in words)]
        words = [word for word in words if word.lower() not in (name.lower() for name in kind)]
        picked.append(found or list(kind))
    if words:
        known = ", ".join(name for kind in kinds for name in kind)
        raise argparse.ArgumentTypeError(f"there is no {words[0]!r}; there are {known}")
    names, ops, loads, exact = picked
    points = [
        point
        for point in POINTS
        if point.op.lower() in ops and point.load in loads and str(point) in exact
    ]
    return names, points


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.redis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=positive, help="default 3")
    parser.add_argument("--quick", action="store_true", help="one round of short runs")
    parser.add_argument(
        "--only",
        type=chosen,
        default=chosen(""),
        metavar="WORD,...",
        help=f"some of {', '.join((*NAMES, *OPS, *LOADS))} or points such as SET@64",
    )
    parser.add_argument("--dir", help="where all of them keep their data (default build/)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    # Stopped from outside, it still stops what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        compare(args)
    except (EraftError, OSError) as error:
        say(f"bench: {error}")
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        say("bench: interrupted")
        return 1
    return 0


def compare(args: argparse.Namespace) -> None:
    names, points = args.only
    rounds = args.rounds or (1 if args.quick else 3)
    parent = Path(args.dir) if args.dir else BUILD
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-redis-", dir=parent.absolute()))
    systems = [system for system in all_systems() if system.name in names]
    started: list[System] = []
    try:
        sync_us = fsync_us(directory)
        for system in systems:
            started.append(system)
            system.start(directory)
        comparison = Comparison(systems, points, QUICK_RUN_S if args.quick else RUN_S)
        comparison.prepare()
        for n in range(rounds):
            comparison.round(n + 1, rounds)
    finally:
        for system in reversed(started):
            stop(system)
        shutil.rmtree(directory, ignore_errors=True)
    print(f"values of {VALUE_BYTES} bytes, {KEYS} keys, median of {rounds} rounds;", end=" ")
    print(f"fdatasync of 4 KiB on this disk: {sync_us:.0f} us\n")
    print("\n".join(report(comparison)))
    if args.json:
        Path(args.json).write_bytes(orjson.dumps(results(comparison), option=orjson.OPT_INDENT_2))


def stop(system: System) -> None:
    """Stop one system; that this fails must not keep the others running."""
    try:
        system.stop()
    except EraftError as error:
        say(f"bench: {system.title}: {error}")


if __name__ == "__main__":
    sys.exit(main())
