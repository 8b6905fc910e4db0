"""Run by path: replays seeded commands and prints a digest of all replies and rows.

Usage: replay.py SEED COUNT
"""

import hashlib
import random
import sys

from group import START_MS, Group
from random_commands import entry

import eraft
from eraft._impl import resp


def main(seed: int, count: int) -> str:
    rng = random.Random(seed)
    group = Group(own=[b"_OWN", b"1", b"0", b"12000", b"14000", b"16383"], wall_ms=START_MS)
    digest = hashlib.sha256()
    for number in range(count):
        group.wall_ms += rng.randrange(2000)
        for reply in group.entry(*entry(rng)):
            digest.update(f"{type(reply).__name__} {reply!r}\n".encode())
        due = group.machine.due(group.wall_ms, 5)
        if due:
            group.entry(*due)
        if number % 100 == 99:
            group.entry([b"FLUSHALL"])
        if number % 7 == 6:
            group.rows.write()
    digest.update(repr(group.dump()).encode())
    digest.update(resp.encode(group.entry([b"_TICK"]), 0, 1, 2))
    return f"{eraft.IMPL} {len(group.dump())} {digest.hexdigest()}"


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2])))
