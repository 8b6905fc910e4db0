"""When applied rows are handed to the state store: many at once, and while nobody waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eraft import limits
from eraft.errors import StoreStalled
from eraft.storage.state import ReplicaRows

if TYPE_CHECKING:
    from eraft.node.node import Node


class Writing:
    """Hands over the rows of a node's replicas; once the store stalls it waits for the next tick.

    Where it does so for long, the overlays fill until replicas apply nothing more.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stalled = False
        self._due_s = node.now_s

    def tick(self) -> None:
        """Hand over the rows that have waited long enough, and those that the store refused."""
        if self._stalled or self._node.now_s >= self._due_s:
            self._due_s = self._node.now_s + limits.WRITE_BEHIND_S
            self.write_all()

    def write(self, rows: ReplicaRows) -> None:
        """Hand over the rows of one replica, unless the store stalls."""
        if self._stalled:
            return
        try:
            rows.write()
        except StoreStalled:
            self._stalled = True

    def write_meanwhile(self) -> None:
        """Hand over what is worth it while the record of this turn is on its way to the disks."""
        for replica in self._node.replicas.values():
            if replica.rows.pending >= limits.WRITE_MEANWHILE_ROWS:
                self.write(replica.rows)

    def write_all(self) -> None:
        """Hand over everything that is applied, also if the store stalled before."""
        self._stalled = False
        for replica in self._node.replicas.values():
            self.write(replica.rows)
