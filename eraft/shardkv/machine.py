"""The state machine of a data group: buckets and their keys."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from eraft import limits
from eraft._impl import batch, resp
from eraft.errors import InvariantViolation, ProtocolError
from eraft.shardkv import ownership
from eraft.shardkv.commands import READS, WRITES
from eraft.shardkv.data import ClockBehind, Data, Reply, View
from eraft.shardkv.ownership import State
from eraft.shardkv.syntax import REPLY_TOO_LARGE, parse_int
from eraft.storage import rows as layout
from eraft.storage.state import ReplicaRows
from eraft.types import BUCKETS

__all__ = ["ClockBehind", "NotOwned", "ShardMachine", "State", "check_row"]

_OWNED: Final = int(State.OWNED)
_BUCKET_HIGH = layout.PREFIX_BYTES
_BUCKET_LOW = layout.PREFIX_BYTES + 1
_DATA_KEY_BYTES = 1 + 2 + 4  # kind, bucket, hash
_HINT_ROW = layout.PREFIX_BYTES + 8
_NEVER = 2**64
_UNKNOWN = resp.ReplyError(b"ERR unknown command in the log")
_MALFORMED = resp.ReplyError(b"ERR malformed _EXPIRE")


@dataclass(frozen=True, slots=True)
class NotOwned:
    """The reply to a command that was not executed: its bucket is not served here.

    The host puts a redirection in its place.
    """

    bucket: int


def check_row(key: bytes, row: bytes) -> None:
    """Raise ProtocolError if the machine could not read the row; `key` begins with the kind."""
    kind, bucket = key[0], int.from_bytes(key[1:3], "big")
    good = True
    if kind == layout.BUCKET:
        good = len(key) == 3 and bucket < BUCKETS and ownership.readable(row)
    elif kind == layout.DATA:
        good = len(key) >= _DATA_KEY_BYTES and bucket < BUCKETS
        try:
            batch.decode_row(row)
        except InvariantViolation as error:
            raise ProtocolError(f"row {key[:40]!r}: {error}") from None
    elif kind == layout.EXPIRY:
        good = len(key) >= 8 + _DATA_KEY_BYTES
    if not good:
        raise ProtocolError(f"no data group has a row {key[:40]!r} of {len(row)} bytes")


class ShardMachine:
    """Executes the commands of a data group.

    An entry's payload is the leader's time and then commands, as clients sent
    them but for the upper-case name, and internal ones that begin with `_`.
    All state is in the rows; what is kept beside them follows from them. The
    machine is bound to the rows of its replica.
    """

    def __init__(self, rows: ReplicaRows) -> None:
        self.rows = rows
        self.states = ownership.load(rows)
        """A `State` for each bucket."""
        self.ownership_version = 0
        """Another number whenever `states` has changed."""
        self.clock_ms = rows.applied()[2]
        """The largest timestamp applied; the host notes it with the applied index."""
        self.not_owned: NotOwned | None = None
        """The last such reply of the entry applied last, None if it had none."""
        self._data = Data(rows)
        self._others: dict[bytes, Callable[[list[bytes]], Reply]] = {
            b"FLUSHALL": self._flush,
            b"_EXPIRE": self._expire,
            b"_OWN": self._own,
            b"_TICK": self._tick,
        }

    @property
    def buckets_owned(self) -> int:
        """How many buckets are owned."""
        return self.states.count(_OWNED)

    @property
    def next_deadline_ms(self) -> int:
        """No hint is due before this time; the next `due` finds out more."""
        return self._data.next_deadline_ms

    def serves(self, bucket: int) -> bool:
        """Tell whether commands on this bucket are executed here."""
        return self.states[bucket] == _OWNED

    def apply(
        self,
        rows: ReplicaRows,
        index: int,
        term: int,
        payload: bytes,
        replies: list[Any] | None,
    ) -> None:
        """Execute the commands of one entry; see `StateMachine.apply`.

        A reply is a `resp` value or a `NotOwned`.
        """
        self.clock_ms = max(self.clock_ms, batch.timestamp(payload))
        self._data.begin(index, self.clock_ms)
        self.not_owned = None
        prefix, states = rows.data_prefix, self.states
        overlay = rows.rows
        offset, end = batch.COMMANDS_OFFSET, len(payload)
        room_bytes = limits.CLIENT_OUTPUT_BYTES
        while offset < end:
            start = offset
            offset, rows.digest = batch.apply_sets(
                payload, start, prefix, states, index, overlay, replies, rows.digest
            )
            rows.size_hint += offset - start
            if offset < end:
                args, offset = batch.read_command(payload, offset)
                reply = self._execute(args)
                if replies is not None:
                    if type(reply) is bytes:  # a short command can answer with a large value
                        room_bytes -= len(reply)
                        if room_bytes < 0:
                            reply = REPLY_TOO_LARGE
                    replies.append(reply)

    def read(self, args: list[bytes], clock_ms: int, wall_ms: int) -> Reply:
        """Answer an admitted command of `Kind.READ` from the rows as they are.

        Whether the bucket of its keys is served is for the caller to judge.

        Args:
            args: The command as admission returned it.
            clock_ms: What the log says the time is: `self.clock_ms`.
            wall_ms: What the time is; times to live count from it if it leads.

        Raises:
            ClockBehind: let the log's clock pass `wall_ms`, then ask again.
        """
        return READS[args[0]](View(self.rows, clock_ms, wall_ms), args)

    def due(self, wall_ms: int, limit: int) -> list[list[bytes]]:
        """Return up to `limit` commands, for the leader to propose, that expire what is due."""
        data, rows = self._data, self.rows
        if wall_ms < data.next_deadline_ms:
            return []
        commands: list[list[bytes]] = []
        next_deadline_ms = _NEVER
        scan = rows.scan(*layout.kind_range(rows.generation, layout.EXPIRY))
        for key, _ in scan:
            deadline_ms = int.from_bytes(key[layout.PREFIX_BYTES : _HINT_ROW], "big")
            if deadline_ms > wall_ms or len(commands) == limit:
                next_deadline_ms = deadline_ms
                break
            row_tail = key[_HINT_ROW:]
            bucket = int.from_bytes(row_tail[:2], "big")
            commands.append([b"_EXPIRE", b"%d" % bucket, row_tail, b"%d" % deadline_ms])
        scan.close()
        if not commands:
            data.next_deadline_ms = next_deadline_ms
        return commands

    def _execute(self, args: list[bytes]) -> Reply | NotOwned:
        handler = WRITES.get(args[0])
        if handler is None:
            other = self._others.get(args[0])
            return _UNKNOWN if other is None else other(args)
        data = self._data
        row_key = batch.data_key(data.prefix, args[1])
        bucket = row_key[_BUCKET_HIGH] << 8 | row_key[_BUCKET_LOW]
        if self.states[bucket] != _OWNED:
            self.not_owned = NotOwned(bucket)
            return self.not_owned
        return handler(data, args, row_key)

    def _flush(self, args: list[bytes]) -> Reply:
        """FLUSHALL: delete every key of the buckets that are owned."""
        rows, states = self.rows, self.states
        generation = rows.generation
        if states.count(_OWNED) + states.count(State.NONE) == len(states):
            rows.delete_range(*layout.kind_range(generation, layout.DATA))
            rows.delete_range(*layout.kind_range(generation, layout.EXPIRY))
            return resp.OK
        for first, last in ownership.owned_runs(states):
            start, _ = layout.bucket_range(generation, layout.DATA, first)
            _, end = layout.bucket_range(generation, layout.DATA, last)
            rows.delete_range(start, end)
        return resp.OK

    def _expire(self, args: list[bytes]) -> Reply:
        """`_EXPIRE bucket row_key deadline`: what a hint says, if it is still true.

        `row_key` is the key of the DATA row from the bucket on.
        """
        deadline_ms = parse_int(args[3]) if len(args) == 4 else None
        if deadline_ms is None or deadline_ms < 0:
            return _MALFORMED
        if deadline_ms > self.clock_ms:
            return 0
        rows, row_key = self.rows, self._data.prefix + args[2]
        rows.delete(layout.expiry_key(rows.generation, deadline_ms, row_key))
        row = rows.get(row_key)
        row_deadline_ms = 0 if row is None else batch.decode_row(row)[1]
        if not row_deadline_ms or row_deadline_ms > self.clock_ms:
            return 0
        self._data.remove(row_key, row_deadline_ms)
        return 1

    def _own(self, args: list[bytes]) -> Reply:
        reply = ownership.own(self.rows, self.states, args)
        if reply is resp.OK:
            self.ownership_version += 1
        return reply

    def _tick(self, args: list[bytes]) -> Reply:
        """`_TICK`: the entry's time is all there is to it."""
        return resp.OK
