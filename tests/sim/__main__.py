"""Run seeds, replay one as a story, or go on for as long as told.

python -m tests.sim --seed 7 --trace      what happens in one seed
python -m tests.sim --seeds 1000          seeds 1 to 1000, on all cores
python -m tests.sim --minutes 60 --keep soak.txt
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice

from tests.sim.run import COLLECTS, STANDARD, Simulation, attempt, attempt_some, prepare
from tests.sim.world import World


class _Storyteller(logging.Handler):
    """What the nodes log goes into the story."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        self.world.tell(f"    node {self.world.actor}: {record.getMessage()}")


def trace(seed: int) -> int:
    """Print the story of one seed."""
    story: list[str] = []
    logging.disable(logging.NOTSET)
    logger = logging.getLogger("eraft")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    failed = 0
    try:
        simulation = Simulation(seed, STANDARD, story)
        logger.addHandler(_Storyteller(simulation.world))
        outcome = simulation.run()
        story.append(f"all is well: {outcome}")
    except Exception as error:
        failed = 1
        story.append("".join(traceback.format_exception(error, limit=-6)))
    print("\n".join(story))
    return failed


def run(seeds: Iterator[int], jobs: int, until_s: float, keep: str) -> int:
    """Run seeds on all cores until they or the time are over; the number that failed."""
    started_s = time.monotonic()
    failed = count = 0
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, prepare) as pool:
        for seed, why in _outcomes(pool, _while(seeds, until_s), 2 * jobs):
            count += 1
            if why:
                failed += 1
                print(f"seed {seed} failed: {why}", flush=True)
                if keep:
                    with open(keep, "a") as file:
                        file.write(f"{seed} {why.splitlines()[0]}\n")
    elapsed_s = time.monotonic() - started_s
    print(f"{count} seeds, {failed} failed, {count / elapsed_s:.1f} a second on {jobs} cores")
    return failed


def _outcomes(
    pool: ProcessPoolExecutor, seeds: Iterator[int], at_once: int
) -> Iterator[tuple[int, str]]:
    """Each seed and why it failed. BrokenProcessPool if a process dies of a seed."""
    under_way: set[Future[list[tuple[int, str]]]] = set()
    while True:
        while len(under_way) < at_once and (some := list(islice(seeds, COLLECTS))):
            under_way.add(pool.submit(attempt_some, some))
        if not under_way:
            return
        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
        for future in done:
            yield from future.result()


def hunt(seeds: Iterator[int]) -> int:
    """Run seeds one after the other until one fails; it is printed as JSON."""
    for seed in seeds:
        why = attempt(seed)
        if why:
            print(json.dumps({"seed": seed, "why": why}))
            return 1
    print("null")
    return 0


def _while(seeds: Iterator[int], until_s: float) -> Iterator[int]:
    for seed in seeds:
        if until_s and time.monotonic() > until_s:
            return
        yield seed


def main() -> int:
    """See the text of this module."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seed", type=int, default=1, help="the first seed, or the one to trace")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--trace", action="store_true", help="print the story of one seed")
    parser.add_argument("--hunt", action="store_true", help="end with the first that fails")
    parser.add_argument("--minutes", type=float, default=0, help="go on for so long")
    parser.add_argument("--keep", default="", help="a file to which seeds that fail are added")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    if args.trace:
        return trace(args.seed)
    seeds = iter(range(args.seed, 1 << 62 if args.minutes else args.seed + args.seeds))
    if args.hunt:
        prepare()
        return hunt(seeds)
    until_s = time.monotonic() + args.minutes * 60 if args.minutes else 0.0
    return min(run(seeds, args.jobs, until_s, args.keep), 1)


if __name__ == "__main__":
    sys.exit(main())
