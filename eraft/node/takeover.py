"""Taking over a snapshot: what it must be like, and the switch to its generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eraft.errors import ProtocolError
from eraft.raft.confchange import describe
from eraft.storage.snapshots import SnapshotSink
from eraft.storage.state import ReplicaRows
from eraft.types import GroupState, HardState

if TYPE_CHECKING:
    from eraft.node.replica import Replica


def check(replica: Replica, sink: SnapshotSink) -> tuple[GroupState, ReplicaRows]:
    """The head and the rows of a complete snapshot.

    Raises:
        ProtocolError: no group can have such a snapshot, or not this replica.
    """
    head = sink.head
    assert head is not None, "the sink is complete"
    where = (
        f"group {replica.gid}, replica {replica.replica_id}: snapshot as of entry {head.base_index}"
    )
    rows = ReplicaRows(replica.node.store, sink.generation)
    if replica.replica_id not in head.conf.members:
        raise ProtocolError(f"{where}: its members are {describe(head.conf)}")
    if (rows.conf() or (head.conf, head.members)) != (head.conf, head.members):
        raise ProtocolError(f"{where}: its head and its rows have different members")
    replica.check_rows(rows)
    return head, rows


@dataclass(slots=True, frozen=True)
class Switch:
    """A snapshot that the core has taken over and that has to become the log's."""

    sink: SnapshotSink
    replaced: list[int]
    """The generations that count until then."""
    on_durable: Callable[[], None]


class Takeover:
    """One replica's switch to a snapshot: the core's at once, the log's with the next record."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._switch: Switch | None = None

    @property
    def under_way(self) -> bool:
        """Whether the log has to hear of a snapshot that the core has taken over."""
        return self._switch is not None

    def install(self, sink: SnapshotSink, on_durable: Callable[[], None]) -> bool:
        """Take the snapshot, complete and flushed, in place of what is there.

        False if the replica has come as far by itself. `on_durable` is called
        once the log names the new generation; only then the old one is deleted.

        Raises:
            ProtocolError: no group can have such a snapshot, or not this replica.
        """
        replica = self._replica
        head, rows = check(replica, sink)
        fresh = replica.raft.restored(head.base_index, head.base_term, head.conf)
        replica.node.touch(replica)
        if not fresh:
            return False
        replaced = [replica.rows.generation]
        if self._switch is not None:
            replaced += self._switch.replaced
        self._switch = Switch(sink, replaced, on_durable)
        replica.begin_anew(head, rows)
        return True

    def persist(self, hard_state: HardState) -> None:
        """Let the log name the new generation, and delete the old ones once that is durable."""
        switch, self._switch = self._switch, None
        assert switch is not None, "a snapshot was taken over"
        node = self._replica.node
        node.outbox.persist(switch.sink.switch(self._replica.replica_id, hard_state))

        def durable() -> None:
            for generation in switch.replaced:
                node.groups.delete(generation)
            switch.on_durable()

        node.outbox.call_durable(durable)
