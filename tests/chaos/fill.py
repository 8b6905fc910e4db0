"""Much data, quickly."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from random import Random

from eraft._impl import hashing
from eraft.cli.load import Loader, Topology, Workload
from tests.chaos.load import group_of
from tests.cluster.nodes import command

VALUE_BYTES = 1024
FILL_KEYS, FILL_CLIENTS, FILL_PIPELINE = 65536, 16, 64


def keys_of(gid: int | None) -> Iterator[bytes]:
    """Keys without end; of one group, or for None of all."""
    for number in itertools.count():
        key = f"key:{number}"
        if gid is None or group_of(key) == gid:
            yield key.encode()


def fill(addresses: Iterable[str], count: int, gid: int | None = None) -> None:
    """Write so many keys of VALUE_BYTES, no two values the same, pipelined."""
    topology = Topology(addresses)
    topology.learn()
    chance = Random(1)
    left = itertools.islice(keys_of(gid), count)
    while keys := list(itertools.islice(left, FILL_KEYS)):
        commands = [command("SET", key, chance.randbytes(VALUE_BYTES)) for key in keys]
        workload = Workload("set", commands, b"", hashing.buckets_of(keys))
        order = range(len(keys))
        loader = Loader(topology, workload, order, FILL_CLIENTS, FILL_PIPELINE, len(keys), None)
        outcome = asyncio.run(loader.run())
        assert not outcome.errors, outcome.errors
