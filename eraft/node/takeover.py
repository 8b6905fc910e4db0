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
    from eraft.node.node import Node
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

    def persist(self, node: Node, replica_id: int, hard_state: HardState) -> None:
        """Let the log name the new generation, and delete the old ones once that is durable."""
        node.outbox.persist(self.sink.switch(replica_id, hard_state))

        def durable() -> None:
            for generation in self.replaced:
                node.groups.delete(generation)
            self.on_durable()

        node.outbox.call_durable(durable)
