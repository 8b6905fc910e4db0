"""One data group without consensus: every command is an entry of its own, or some make one."""

from collections.abc import Sequence
from typing import Any

from eraft._impl import resp
from eraft.shardkv import admission, keyspace
from eraft.shardkv.machine import ClockBehind, ShardMachine
from eraft.shardkv.specs import CommandSpec, Kind
from eraft.storage.state import MemoryStore, ReplicaRows, StateStore

WHOLE_SPACE = [b"_OWN", b"1", b"0", b"16383"]
START_MS = 1_700_000_000_000


def encode(ts_ms: int, *commands: Sequence[bytes]) -> bytes:
    """The payload of an entry."""
    parts = [ts_ms.to_bytes(8, "little")]
    for args in commands:
        parts.append(b"*%d\r\n" % len(args))
        parts += [b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args]
    return b"".join(parts)


class Group:
    """A machine over its rows, a log index and a wall clock that the test moves."""

    def __init__(
        self,
        store: StateStore | None = None,
        generation: int = 1,
        own: Sequence[bytes] | None = WHOLE_SPACE,
        wall_ms: int = START_MS,
    ) -> None:
        self.rows = ReplicaRows(store or MemoryStore(), generation)
        self.machine = ShardMachine(self.rows)
        self.index = 0
        self.wall_ms = wall_ms
        if own is not None:
            assert self.entry(own) == [resp.OK]

    def entry(self, *commands: Sequence[bytes]) -> list[Any]:
        """Apply one entry at the time of the wall clock and return its replies."""
        self.index += 1
        replies: list[Any] = []
        self.machine.apply(self.rows, self.index, 1, encode(self.wall_ms, *commands), replies)
        self.rows.set_applied(self.index, 1, self.machine.clock_ms)
        assert len(replies) == len(commands)
        return replies

    def execute(self, *args: bytes | str | int) -> Any:
        """Do what a node does with a client's command, but for the local ones."""
        sent = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        try:
            spec = admission.lookup(sent)
            admitted = admission.admit(spec, sent)
        except admission.CommandError as error:
            return error.reply
        if spec.kind is Kind.WRITE or "write" in spec.flags:
            return self.entry(admitted)[0]
        return self._read(spec, admitted)

    def _read(self, spec: CommandSpec, args: list[bytes]) -> Any:
        machine = self.machine
        if spec.kind is Kind.KEYSPACE:
            return finish(keyspace.walk(args, [machine], 0))
        try:
            return machine.read(args, machine.clock_ms, self.wall_ms)
        except ClockBehind:
            self.entry([b"_TICK"])
            return machine.read(args, machine.clock_ms, self.wall_ms)

    def expire_due(self) -> int:
        """Propose what is due until nothing is; return how many commands that took."""
        count = 0
        while due := self.machine.due(self.wall_ms, 10):
            self.entry(*due)
            count += len(due)
        return count

    def dump(self) -> dict[bytes, bytes]:
        """Every row of the replica, without its generation."""
        scan = self.rows.scan(
            self.rows.generation.to_bytes(4, "big"), (self.rows.generation + 1).to_bytes(4, "big")
        )
        return {key[4:]: row for key, row in scan}


def finish(walk: keyspace.Walk) -> Any:
    """Drive a walk to its end."""
    while True:
        try:
            next(walk)
        except StopIteration as stop:
            return stop.value
