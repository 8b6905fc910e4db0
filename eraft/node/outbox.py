"""What gathers during a turn for the log and for the peers, and in which order it may leave.

Everything that all groups have to persist becomes one record; while one is
at the log writer the next one gathers. Messages that promise durability are
kept with the record that they wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eraft import limits
from eraft._impl import frames
from eraft.node.outputs import Outputs
from eraft.storage.items import Item
from eraft.storage.wal import WriteAheadLog
from eraft.types import Message

if TYPE_CHECKING:
    from eraft.node.replica import Replica


@dataclass(slots=True)
class _Batch:
    """The items of one record and who waits for it to be durable."""

    items: list[Item] = field(default_factory=list)
    tokens: list[tuple[Replica, int]] = field(default_factory=list)
    after: list[tuple[Replica, Sequence[Message]]] = field(default_factory=list)
    calls: list[Callable[[], None]] = field(default_factory=list)


class Outbox:
    """Records and frames of one node on their way out."""

    def __init__(self) -> None:
        self._next = _Batch()
        self._flight: _Batch | None = None
        self._flight_since_s = 0.0
        self._want_log: dict[int, Replica] = {}
        self._messages: dict[int, list[Message]] = {}
        self._bulk: dict[int, list[Message]] = {}

    @property
    def log_idle(self) -> bool:
        """Whether the log writer would take a record at once."""
        return self._flight is None

    def log_busy_s(self, now_s: float) -> float:
        """For how long the record at the log writer has been there, 0 if there is none."""
        return 0.0 if self._flight is None else now_s - self._flight_since_s

    def persist(self, item: Item) -> None:
        """Put an item into the next record."""
        self._next.items.append(item)

    def on_durable(self, replica: Replica, token: int) -> None:
        """Tell the replica's core when the items so far are durable."""
        self._next.tokens.append((replica, token))

    def send_after(self, replica: Replica, messages: Sequence[Message]) -> None:
        """Send these once everything handed out for the log so far is durable."""
        if self._next.items:
            self._next.after.append((replica, messages))
        elif self._flight is not None:
            self._flight.after.append((replica, messages))
        else:
            replica.send_released(messages)

    def call_durable(self, call: Callable[[], None]) -> None:
        """Call back when the items so far, of which there is one at least, are durable."""
        self._next.calls.append(call)

    def send(self, node_id: int, message: Message, bulk: bool) -> None:
        """Put a message into this turn's frame for a node."""
        queues = self._bulk if bulk else self._messages
        queues.setdefault(node_id, []).append(message)

    def want_log(self, replica: Replica) -> None:
        """The replica has something to propose once the log writer is idle."""
        self._want_log[replica.gid] = replica

    def durable(self) -> list[Replica]:
        """The record at the log writer is durable; the replicas that go on now."""
        flight, self._flight = self._flight, None
        if flight is None:
            return []
        for replica, token in flight.tokens:
            replica.raft.persisted(token)
        for replica, messages in flight.after:
            replica.send_released(messages)
        for call in flight.calls:
            call()
        found = [replica for replica, _ in flight.tokens if replica.raft.has_ready()]
        found += self._want_log.values()
        self._want_log.clear()
        return [replica for replica in found if not replica.retired]

    def forget(self) -> None:
        """Drop what has not left: the node is quarantined."""
        self._next = _Batch()

    def collect_frames(self, outputs: Outputs, table_version: int) -> None:
        """Move the messages of this turn to `outputs`."""
        for queues, frame_lists in ((self._messages, outputs.frames), (self._bulk, outputs.bulk)):
            for node_id, messages in queues.items():
                found = _encode(messages, table_version)
                frame_lists.setdefault(node_id, []).extend(found)
            queues.clear()

    def collect_record(self, outputs: Outputs, log: WriteAheadLog, now_s: float) -> None:
        """Make the next record, if there is something to persist and the writer is idle."""
        outputs.record = log.append(self._next.items)
        self._flight, self._next = self._next, _Batch()
        self._flight_since_s = now_s

    @property
    def waiting(self) -> bool:
        """Whether something could leave in a turn."""
        return self.frames_due or self.record_due

    @property
    def frames_due(self) -> bool:
        """Whether there are messages to send."""
        return bool(self._messages or self._bulk)

    @property
    def record_due(self) -> bool:
        """Whether there is something to persist and the log writer is idle."""
        return self._flight is None and bool(self._next.items)


def _encode(messages: list[Message], table_version: int) -> list[bytes]:
    """Messages for one peer, in as few frames as their limit allows."""
    found = []
    start = 0
    size_bytes = 0
    for place, message in enumerate(messages):
        size_bytes += limits.MESSAGE_HEADER_BYTES + len(message.entries)
        if size_bytes > limits.PEER_FRAME_TARGET_BYTES and place > start:
            found.append(frames.encode_messages(table_version, messages[start:place]))
            start = place
            size_bytes = len(message.entries)
    found.append(frames.encode_messages(table_version, messages[start:] if start else messages))
    return found
