"""One client connection without its socket: from bytes to admitted commands and ordered replies.

Commands of a connection take effect in the order in which they were sent.
Plain writes go to their group's lane inside the parser; a write waits until
the reads before it are answered, and while a command is held (its bucket has
no leader just now) nothing behind it is parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eraft import limits
from eraft._impl import resp
from eraft.node import local, walks
from eraft.node.proposals import NEVER
from eraft.node.reads import CommandRead, GetRun
from eraft.node.session import ReplyMode, Session
from eraft.node.slots import Slot, SlotQueue
from eraft.shardkv import admission, router
from eraft.shardkv.specs import CommandSpec, Kind

if TYPE_CHECKING:
    from eraft.node.node import Node
    from eraft.node.shard import ShardReplica


class Client:
    """A connection's parser, session and replies.

    `on_output` is called when replies begin to wait in `slots`, `on_close`
    when the connection has to end (after the output has left).
    """

    def __init__(
        self,
        node: Node,
        session: Session,
        on_output: Callable[[], None],
        on_close: Callable[[str, bool], None],
    ) -> None:
        self.node = node
        self.session = session
        self.slots = SlotQueue(on_output, self._overflow)
        self.closed = False
        self.output_full = False
        self._on_close = on_close
        self._held: tuple[CommandSpec, list[bytes], float] | None = None
        self._reads = 0
        self._after_writes = False
        self._later: list[tuple[ShardReplica, GetRun | CommandRead]] = []
        self._waits = False
        self._behind_reads = False
        self.parser = resp.Parser(
            node.command_table,
            node.admit,
            node.lanes,
            node.options.value_size_bytes,
            limits.COMMAND_SIZE_BYTES,
            limits.COMMAND_ARGS,
            limits.INLINE_SIZE_BYTES,
        )

    # From the shell

    @property
    def stopped(self) -> bool:
        """Whether input has to wait: the shell pauses reading while this is true."""
        return self._waits or self.closed or len(self.slots) > limits.CLIENT_SLOTS

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes from the client."""
        if self.closed:
            return
        self.session.active_s = self.node.now_s
        if self._waits or self.output_full:
            self.parser.feed(data)
            return
        self._handle(self.parser.feed_and_parse(data, self._reads > 0))
        if self.parser.stopped:
            self._go_on()

    def resume(self) -> None:
        """Something that this connection waited for has happened: go on where it stopped."""
        if self.output_full:
            return
        later, self._later = self._later, []
        for shard, read in later:
            read.deadline_s = self.node.now_s + limits.ANSWER_DEADLINE_S
            shard.read(read)
        if self.closed or (self._behind_reads and self._reads):
            return
        self._waits = self._behind_reads = False
        if self._held is not None:
            spec, args, since_s = self._held
            self._held = None
            self._command_on_keys(spec, args, since_s)
        self._go_on()

    def wait_for_reads(self) -> None:
        """A read takes a detour: what was sent after it waits, not to be served before it."""
        self._waits = self._behind_reads = True

    def lost(self) -> None:
        """The connection is gone; what was admitted takes effect all the same."""
        self.closed = True
        self._held = None
        self._later.clear()

    def close(self, why: str, at_once: bool = False) -> None:
        """End the connection, by default once everything is answered and has left."""
        if at_once or not self.closed:
            self.closed = True
            self._held = None
            if at_once:
                self._later.clear()
            self._on_close(why, at_once)

    def _overflow(self) -> None:
        self.close("its replies exceed the output buffer limit", at_once=True)

    # Commands

    def _go_on(self) -> None:
        parser = self.parser
        handled = 0
        while not self._waits and not self.closed and not self.output_full:
            large = self.slots.size_bytes > limits.REPLY_PIECE_BYTES
            if handled == limits.CLIENT_COMMANDS or (large and self.slots.output):
                self._waits = True
                self.node.waiting.for_next_turn(self)
                return
            handled += 1
            # It says anew why it stops: there may be room in the lane by now.
            items = parser.parse(self._reads > 0)
            if not items and parser.stopped in (resp.NEED_DATA, resp.BROKEN):
                return
            self._handle(items)
            if parser.stopped == resp.READS_FIRST and self._reads:
                self._waits = True
            elif parser.stopped == resp.LANE_FULL:
                self._waits = True
                self.node.waiting.wait_for_lane(self)

    def _handle(self, items: list[Any]) -> None:
        for kind, subject, detail in items:
            if kind == resp.WRITES:
                self.node.context.plain_writes += detail
                deadline_s = self.node.now_s + limits.ANSWER_DEADLINE_S
                slot = self.slots.open(detail, self.session.protocol, deadline_s)
                self.node.shards[subject].enqueue(slot)
            elif kind == resp.READS:
                self._get(self.node.shards[subject], detail)
            elif kind == resp.COMMAND:
                self._command(subject)
            else:
                self.reply(subject)
                self.close("protocol error: " + subject.decode("ascii", "backslashreplace"))

    def _open(self, since_s: float) -> Slot:
        """The slot of the current command, whose turn came at `since_s`."""
        session = self.session
        muted = session.reply_mode is not ReplyMode.ON
        if session.reply_mode is ReplyMode.SKIP:
            session.reply_mode = ReplyMode.ON
            self.parser.fast = True
        deadline_s = since_s + limits.ANSWER_DEADLINE_S
        return self.slots.open(1, session.protocol, deadline_s, muted)

    def reply(self, value: Any) -> None:
        """Answer the current command with a reply value."""
        self._open(self.node.now_s).settle([value], 0)

    def _get(self, shard: ShardReplica, keys: list[bytes]) -> None:
        self.node.context.plain_gets += len(keys)
        run = GetRun(self, keys, shard.machine.ownership_version)
        run.after_writes = self._reads_after_writes()
        self._reads += 1
        self.slots.add(run)
        shard.read(run)

    def _reads_after_writes(self) -> bool:
        """Whether the next read waits for writes: for those before it, or as a read before it."""
        reads = self._reads
        self._after_writes = len(self.slots) > reads or (self._after_writes and reads > 0)
        return self._after_writes

    def read_done(self) -> None:
        """A read of this connection has been answered."""
        self._reads -= 1
        if self._later or (self._waits and not self._reads):
            self.node.waiting.resume_later(self)

    def postpones(self, slot: Slot) -> bool:
        """Whether a read has to wait until the client has taken what was read before it."""
        slots = self.slots
        large = slots.size_bytes > limits.REPLY_PIECE_BYTES
        if slots.headed_by(slot):  # what waits behind it waits for it
            large = large and bool(slots.output)
            return self.output_full or large
        return self.output_full or large or self._behind_reads

    def read_later(self, shard: ShardReplica, read: GetRun | CommandRead) -> None:
        """Ask for a new position for a read that is postponed, when this client goes on."""
        self._later.append((shard, read))
        self.node.waiting.hold(self)

    def read_split(self, shard: ShardReplica, rest: GetRun) -> None:
        """The rest of a run that is too large to be read at once is a read of its own."""
        self._reads += 1
        self.wait_for_reads()
        self.read_later(shard, rest)

    def _command(self, args: list[bytes]) -> None:
        try:
            spec = admission.lookup(args)
            self.node.context.count_call(spec.name)
            self.session.last_command = spec.name
            if spec.kind is Kind.LOCAL:
                self._local(args)
            elif spec.kind is Kind.KEYSPACE:
                self._keyspace(spec, admission.admit(spec, args))
            else:
                self._command_on_keys(spec, admission.admit(spec, args), self.node.now_s)
        except admission.CommandError as error:
            self.reply(error.reply)

    def _local(self, args: list[bytes]) -> None:
        session = self.session
        muted_before = session.reply_mode
        value = local.execute(self.node.context, session, args)
        if session.reply_mode is not muted_before:
            self.parser.fast = session.reply_mode is ReplyMode.ON
        if value is not local.SILENT:
            self.reply(value)
        if session.closing:
            self.close("the client asked for it")

    def _keyspace(self, spec: CommandSpec, args: list[bytes]) -> None:
        if self._reads:
            self._hold(spec, args, NEVER)
        elif "write" not in spec.flags:
            self._reads += 1
            walks.read(self, self._open(self.node.now_s), args)
        else:
            walks.flush(self, self._open(self.node.now_s), args)

    def _command_on_keys(self, spec: CommandSpec, args: list[bytes], since_s: float) -> None:
        """Admit a read or write of the keys of one bucket, or hold it.

        `since_s` is when its turn came: from then on it is held for
        HOLD_NO_LEADER_S at most and answered by ANSWER_DEADLINE_S.
        """
        node = self.node
        if spec.kind is Kind.KEYSPACE:
            self._keyspace(spec, args)
            return
        write = spec.kind is Kind.WRITE
        if write and self._reads:
            self._hold(spec, args, NEVER)
            return
        since_s = min(since_s, node.now_s)
        late = node.now_s - since_s >= limits.HOLD_NO_LEADER_S
        bucket = admission.bucket_of_command(spec, args)
        decision = node.router.route(
            bucket, node.now_s, write=write, readonly=self.session.readonly
        )
        if isinstance(decision, router.Serve):
            shard = node.shard(decision.gid)
            if not write:
                after_writes = self._reads_after_writes()
                self._reads += 1
                slot = self._open(since_s)
                shard.read(CommandRead(self, slot, args, bucket, after_writes))
            elif shard.refusal is not None:
                self.reply(shard.refusal)
            elif not shard.lane.full:
                shard.add(args, self._open(since_s))
            elif late:
                self.reply(router.CLUSTER_DOWN)
            else:
                self._hold(spec, args, since_s)
                node.waiting.wait_for_lane(self)
        elif isinstance(decision, router.Hold) and not late:
            self._hold(spec, args, since_s)
            node.waiting.hold(self)
        else:
            self.reply(decision.reply)

    def _hold(self, spec: CommandSpec, args: list[bytes], since_s: float) -> None:
        self._held = (spec, args, since_s)
        self._waits = True
