"""How many keys INFO shows: what was counted last, which is done again when it is old."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from eraft import limits
from eraft.node.reads import Job
from eraft.node.walks import led_shards
from eraft.shardkv import keyspace

if TYPE_CHECKING:
    from eraft.node.node import Node


class KeyCount:
    """A count of the keys of the groups that a node leads.

    A plain SET does not look whether its key is there, so nothing can keep
    count, and RocksDB's estimate counts overwrites and rows that are no keys.
    A walk is exact. Small key spaces are counted at once; a larger one takes
    many turns, with pauses that are long against the work.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._keys = 0
        self._gids: tuple[int, ...] = ()
        self._due_s = 0.0

    def keys(self) -> int:
        """What was counted last; may begin to count again."""
        led = led_shards(self._node)
        gids = tuple(shard.gid for shard in led)
        if gids != self._gids or self._node.now_s >= self._due_s:
            self._gids = gids
            self._due_s = float("inf")
            self._walk(gids, keyspace.count([shard.machine for shard in led]))
        return self._keys

    def _walk(self, gids: tuple[int, ...], steps: Generator[int, None, int]) -> None:
        found = 0
        for _ in range(limits.JOB_SLICES):
            try:
                found = next(steps)
            except StopIteration as stop:
                self._counted(gids, stop.value)
                return
        self._keys = self._keys or found
        self._node.start_job(Job(steps, lambda keys: self._counted(gids, keys)))

    def _counted(self, gids: tuple[int, ...], keys: int) -> None:
        if gids == self._gids:  # else these groups are led by others, and a newer walk is under way
            self._keys = keys
            self._due_s = self._node.now_s + keys * limits.KEY_COUNT_PAUSE_S
