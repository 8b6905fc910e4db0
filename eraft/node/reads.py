"""The kinds of reads that wait for a confirmed position of a group."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from eraft import limits
from eraft._impl import batch, resp
from eraft.node.slots import Slot
from eraft.shardkv.machine import ClockBehind
from eraft.shardkv.router import CLUSTER_DOWN

if TYPE_CHECKING:
    from eraft.node.client import Client
    from eraft.node.node import Node
    from eraft.node.shard import ShardReplica

ROWS_PER_FETCH = 64
SMALL_RUN = 4
"""Rows that are fetched at a time while they may all be as large as a value can be."""
_SMALL_BYTES = 1 * limits.MIB
_KEY_OFFSET = 11
"""Where the key starts in a DATA row key: after generation, kind, bucket and hash."""


class ReadBase:
    """What all reads of a client have: their slot and by when they have to be answered."""

    __slots__ = ("after_writes", "barrier", "client", "deadline_s", "slot")

    def __init__(self, client: Client, slot: Slot, after_writes: bool) -> None:
        self.client = client
        self.slot = slot
        self.after_writes = after_writes
        self.barrier = 0
        self.deadline_s = slot.deadline_s

    def answer(self, data: bytes) -> None:
        """Fill the slot with the encoded reply."""
        self.slot.fill(data)
        self.client.read_done()

    def expire(self) -> None:
        """The deadline has passed."""
        self.answer(resp.encode([CLUSTER_DOWN], 0, 1, self.slot.protocol))


class GetRun(Slot):
    """A run of plain GETs of one connection, which is its own slot.

    `keys` are the row keys of its group, `ownership` the version of the
    group's ownership under which the run was admitted.
    """

    __slots__ = ("after_writes", "barrier", "client", "keys", "ownership", "wall_ms")

    def __init__(self, client: Client, keys: list[bytes], ownership: int) -> None:
        deadline_s = client.node.now_s + limits.ANSWER_DEADLINE_S
        super().__init__(client.slots, len(keys), client.session.protocol, deadline_s)
        self.client = client
        self.keys = keys
        self.ownership = ownership
        self.after_writes = False
        self.barrier = 0
        self.wall_ms = 0

    def serve(self, replica: ShardReplica) -> bool:
        machine = replica.machine
        if machine.ownership_version != self.ownership:
            self.reroute(replica.node)
            return True
        if self.client.postpones(self):
            self.client.read_later(replica, self)
            return True
        if not self.wall_ms:
            self.wall_ms = replica.node.capped_wall_ms()
        keys = self.keys
        parts: list[bytes] = []
        size_bytes = served = 0
        step = SMALL_RUN
        while served < len(keys):
            rows = replica.rows.get_many(keys[served : served + step])
            data = batch.encode_values(
                rows, 0, len(rows), machine.clock_ms, self.wall_ms, self.protocol
            )
            if data is None:
                return False
            parts.append(data)
            served += len(rows)
            size_bytes += len(data)
            if size_bytes > limits.REPLY_PIECE_BYTES:
                self._split(replica, served)
                break
            step = min(2 * step, ROWS_PER_FETCH) if len(data) < _SMALL_BYTES else SMALL_RUN
        self.answer(b"".join(parts))
        return True

    def _split(self, replica: ShardReplica, served: int) -> None:
        """Answer for the first keys only; the others are another read, with a slot behind."""
        keys = self.keys[served:]
        if keys:
            self.count = served
            rest = GetRun(self.client, keys, self.ownership)
            self.queue.add_behind(self, rest)
            self.client.read_split(replica, rest)

    def answer(self, data: bytes) -> None:
        """Fill the slot with the encoded replies."""
        self.fill(data)
        self.client.read_done()

    def expire(self) -> None:
        """The deadline has passed."""
        self.refuse(CLUSTER_DOWN)
        self.client.read_done()

    def reroute(self, node: Node, leader_only: bool = False) -> None:
        """Judge every key again, as commands of their own, in one slot's order."""
        commands = [[b"GET", key[_KEY_OFFSET:]] for key in self.keys]
        node.waiting.again(self.client, self, commands, leader_only)


def serve_runs(replica: ShardReplica, runs: list[GetRun]) -> list[GetRun]:
    """Serve runs of few keys together, at most ROWS_PER_FETCH keys in all.

    Returns those for which the log's clock has to pass first. All of them
    were admitted under the current ownership.
    """
    keys = [key for run in runs for key in run.keys]
    rows = replica.rows.get_many(keys)
    clock_ms = replica.machine.clock_ms
    wall_ms = replica.node.capped_wall_ms()
    encode = batch.encode_values
    behind = []
    start = 0
    for run in runs:
        stop = start + run.count
        data = encode(rows, start, stop, clock_ms, run.wall_ms or wall_ms, run.protocol)
        start = stop
        if data is None:
            run.wall_ms = run.wall_ms or wall_ms
            behind.append(run)
        else:
            run.answer(data)
    return behind


class CommandRead(ReadBase):
    """Any other read of the keys of one bucket."""

    __slots__ = ("args", "bucket", "wall_ms")

    def __init__(
        self, client: Client, slot: Slot, args: list[bytes], bucket: int, after_writes: bool
    ) -> None:
        super().__init__(client, slot, after_writes)
        self.args = args
        self.bucket = bucket
        self.wall_ms = 0

    def serve(self, replica: ShardReplica) -> bool:
        machine = replica.machine
        if not machine.serves(self.bucket):
            self.reroute(replica.node)
            return True
        if self.postponed():
            self.client.read_later(replica, self)
            return True
        if not self.wall_ms:
            self.wall_ms = replica.node.capped_wall_ms()
        try:
            reply = machine.read(self.args, machine.clock_ms, self.wall_ms)
        except ClockBehind:
            return False
        self.answer(resp.encode([reply], 0, 1, self.slot.protocol))
        return True

    def postponed(self) -> bool:
        """Whether the client has to take other replies first."""
        return self.client.postpones(self.slot)

    def reroute(self, node: Node, leader_only: bool = False) -> None:
        node.waiting.again(self.client, self.slot, [self.args], leader_only)


class Scan(ReadBase):
    """A read position of one group for something that walks over its rows in slices.

    `start` is called once the position is confirmed and applied; when it
    cannot be, `lost` is.
    """

    __slots__ = ("lost", "start")

    def __init__(
        self,
        client: Client,
        slot: Slot,
        start: Callable[[ShardReplica], None],
        lost: Callable[[], None],
    ) -> None:
        super().__init__(client, slot, True)
        self.start = start
        self.lost = lost

    def serve(self, replica: ShardReplica) -> bool:
        self.start(replica)
        return True

    def expire(self) -> None:
        self.lost()

    def reroute(self, node: Node) -> None:
        self.lost()


class Job:
    """A generator that is advanced one slice a turn; `done` gets what it returns."""

    __slots__ = ("_done", "_slices")

    def __init__(self, slices: Generator[object, None, Any], done: Callable[[Any], None]) -> None:
        self._slices = slices
        self._done = done

    def advance(self) -> bool:
        """Do one slice; False when it was the last."""
        try:
            next(self._slices)
        except StopIteration as stop:
            self._done(stop.value)
            return False
        return True
