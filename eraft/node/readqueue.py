"""Reads of one replica that wait: for a read position, and until that is applied."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from eraft.errors import NotLeader

if TYPE_CHECKING:
    from eraft.node.node import Node
    from eraft.node.replica import Replica


class Read(Protocol):
    """Somebody who waits for a confirmed and applied read position.

    `after_writes` asks that everything which this replica has taken in so far
    is applied first; `barrier` is then the index where that ends.
    """

    after_writes: bool
    barrier: int
    deadline_s: float

    def serve(self, replica: Any) -> bool:
        """Answer from applied state; False when the log's clock has to pass first."""

    def reroute(self, node: Node) -> None:
        """This replica cannot serve it any more; nothing was executed."""

    def expire(self) -> None:
        """The deadline has passed: answer that it was not executed.

        Asking again would let it overtake the writes that it waited for.
        """


class ReadQueue:
    """The reads of a replica in the order of what they wait for.

    Behind the writes that gather for the next entry, then together for the
    next read position, and once that is confirmed until it is applied.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.behind_writes: list[Read] = []
        """They wait for what gathers to become an entry."""
        self.collecting: list[Read] = []
        """They ask for a position in this turn."""
        self._asked: dict[int, list[Read]] = {}
        self.confirmed: deque[tuple[int, list[Read]]] = deque()
        """In the order of the indexes that have to be applied first."""

    def proposed(self, index: int) -> None:
        """What gathered has become the entry at `index`."""
        for read in self.behind_writes:
            read.barrier = index
        self.collecting += self.behind_writes
        self.behind_writes.clear()

    def ask(self) -> None:
        """Ask for a position: as leader, or for readers of a follower that stayed one."""
        replica = self._replica
        reads, self.collecting = self.collecting, []
        if replica.leading == replica.led:
            try:
                self._asked[replica.raft.read_index()] = reads
                return
            except NotLeader:
                pass
        self._reroute(reads)

    def position(self, ticket: int, index: int) -> None:
        """The position of those who asked for this ticket is confirmed."""
        self._confirm(index, self._asked.pop(ticket))

    def lost(self, ticket: int) -> None:
        """Those who asked for this ticket get no position."""
        self._reroute(self._asked.pop(ticket))

    def _confirm(self, index: int, reads: list[Read]) -> None:
        """Queue reads for when `index` is applied; barriers can be far above what comes later."""
        confirmed = self.confirmed
        place = len(confirmed)
        while place and confirmed[place - 1][0] > index:
            place -= 1
        confirmed.insert(place, (index, reads))

    def serve_applied(self) -> None:
        """Serve what is confirmed, and applied up to where it was confirmed."""
        confirmed, replica = self.confirmed, self._replica
        while confirmed and confirmed[0][0] <= replica.applied:
            replica.serve_reads(confirmed.popleft()[1])

    def serve(self, reads: list[Read]) -> None:
        """Serve reads whose confirmed position is applied, but not before their own writes are."""
        replica = self._replica
        for read in reads:
            if read.barrier > replica.applied:
                self._confirm(read.barrier, [read])
            elif not replica.serving and not replica.following:
                read.reroute(replica.node)
            elif not read.serve(replica):
                replica.read_behind_clock(read)

    def drop(self) -> None:
        """Let others serve the reads that wait here."""
        self._reroute(self.collecting)
        self.refused()
        for _, reads in self.confirmed:
            self._reroute(reads)
        self.confirmed.clear()  # an index that was overwritten may never come

    def retire(self) -> None:
        """Let others serve all reads, also those for which a position was asked."""
        self.drop()
        for reads in self._asked.values():
            self._reroute(reads)

    def refused(self) -> None:
        """What gathered becomes no entry: let others serve who waited for it."""
        self._reroute(self.behind_writes)

    def _reroute(self, reads: list[Read]) -> None:
        """Let others serve what this replica cannot; empties the list."""
        lost = reads[:]
        reads.clear()
        for read in lost:
            read.reroute(self._replica.node)

    def expire(self, now_s: float) -> None:
        """Answer reads whose deadline has passed, wherever they wait."""
        if not (self.behind_writes or self._asked or self.confirmed):
            return
        waiting = [self.behind_writes, *self._asked.values()]
        waiting += [reads for _, reads in self.confirmed]
        for reads in waiting:
            if reads and reads[0].deadline_s <= now_s:
                late = [read for read in reads if read.deadline_s <= now_s]
                reads[:] = [read for read in reads if read.deadline_s > now_s]
                for read in late:
                    read.expire()
