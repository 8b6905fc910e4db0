"""Much data, quickly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random

from eraft._impl import hashing
from eraft.cli.load import Loader, Topology, Workload
from tests.cluster.nodes import command

VALUE_BYTES = 1024
FILL_KEYS, FILL_CLIENTS, FILL_PIPELINE = 65536, 16, 64


def fill(addresses: Iterable[str], count: int) -> None:
    """Write so many keys of VALUE_BYTES, no two values the same, pipelined."""
    topology = Topology(addresses)
    topology.learn()
    chance = Random(1)
    for first in range(0, count, FILL_KEYS):
        keys = [b"key:%d" % number for number in range(first, min(first + FILL_KEYS, count))]
        commands = [command("SET", key, chance.randbytes(VALUE_BYTES)) for key in keys]
        workload = Workload("set", commands, b"", hashing.buckets_of(keys))
        order = range(len(keys))
        loader = Loader(topology, workload, order, FILL_CLIENTS, FILL_PIPELINE, len(keys), None)
        outcome = asyncio.run(loader.run())
        assert not outcome.errors, outcome.errors
