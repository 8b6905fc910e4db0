"""Chance that is the same on every machine and Python: only `random.random()` is promised to be."""

from collections.abc import MutableSequence, Sequence
from random import Random
from typing import Any


class Dice(Random):
    """A `Random` all of whose draws that eraft and the simulator use come from `random()`."""

    def getrandbits(self, k: int) -> int:
        value = 0
        for _ in range(0, k, 32):
            value = value << 32 | int(self.random() * (1 << 32))
        return value & ((1 << k) - 1)

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        if stop is None:
            start, stop = 0, start
        return start + step * int(self.random() * len(range(start, stop, step)))

    def randint(self, a: int, b: int) -> int:
        return a + int(self.random() * (b - a + 1))

    def choice(self, seq: Sequence[Any]) -> Any:
        return seq[int(self.random() * len(seq))]

    def shuffle(self, x: MutableSequence[Any]) -> None:
        for place in range(len(x) - 1, 0, -1):
            other = int(self.random() * (place + 1))
            x[place], x[other] = x[other], x[place]

    def sample(self, population: Sequence[Any], k: int, *, counts: Any = None) -> list[Any]:
        pool = list(population)
        self.shuffle(pool)
        return pool[:k]

    def within(self, bounds: tuple[int, int]) -> int:
        """A whole number between the bounds."""
        low, high = bounds
        return low if low == high else low + int(self.random() * (high - low + 1))
