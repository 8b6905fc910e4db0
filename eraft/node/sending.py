"""Snapshots on their way to other nodes, one at a time."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eraft import limits
from eraft._impl import frames
from eraft.errors import StoreStalled
from eraft.node import transfer
from eraft.node.transfer import Parcel, Reason
from eraft.storage.snapshots import ROWS_PER_LOOK, Cursor, SnapshotSource

if TYPE_CHECKING:
    from eraft.node.node import Node
    from eraft.node.replica import Replica

logger = logging.getLogger("eraft.snapshots")


@dataclass(slots=True)
class _Transfer:
    """The snapshot that is being sent; `term` is the one in which its replica leads."""

    replica: Replica
    term: int
    node_id: int
    parcel: Parcel
    source: SnapshotSource
    began_s: float
    heard_s: float
    offered_s: float
    requested: bool = False
    in_flight: deque[tuple[int, int]] = field(default_factory=deque)
    """Number and size of the chunks that the receiver has not asked beyond."""
    in_flight_bytes: int = 0
    sent_bytes: int = 0


class SnapshotSender:
    """Offers snapshots to the peers that the core names, and sends what they ask for.

    The state of a group is held by a snapshot of the store, so it costs no
    memory, but disk space until it is let go: therefore one at a time, and
    not longer than the receiver shows that it is alive.
    """

    def __init__(self, node: Node) -> None:
        self.chunk_bytes = limits.SNAPSHOT_CHUNK_BYTES
        self.window_bytes = limits.SNAPSHOT_WINDOW_BYTES
        """On their way to the receiver."""
        self._node = node
        self._wanted: dict[tuple[int, int], None] = {}
        self._current: _Transfer | None = None
        self._stalled = False
        self._budget_bytes = 0.0
        self._budget_s = node.now_s

    @property
    def progress(self) -> dict[str, int] | None:
        """What is being sent, for people."""
        current = self._current
        if current is None:
            return None
        parcel = current.parcel
        return {"gid": parcel.gid, "replica_id": parcel.target, "bytes": current.sent_bytes}

    def want(self, replica: Replica, replica_id: int) -> None:
        """A peer of a group that is led here needs a snapshot."""
        current = self._current
        if current is not None and (
            (current.parcel.gid, current.parcel.target) == (replica.gid, replica_id)
        ):
            self._end()  # the core is through with it: the peer had it, and has lost it again
        self._wanted[replica.gid, replica_id] = None
        self._node.stir()

    def close(self) -> None:
        """Let go of everything: the node is quarantined."""
        self._wanted.clear()
        self._end()

    def tick(self) -> None:
        """Look whether the receiver is still there, and offer again what it may not know of."""
        self._stalled = False
        current = self._current
        if current is None:
            return
        if self._over(current):
            logger.info("group %d: not the leader any more, its snapshot ends", current.parcel.gid)
            self._end()
        elif self._node.now_s - current.heard_s > limits.SNAPSHOT_SILENT_S:
            self._failed(current, "the receiver is silent")
        elif self._wanted and not self._node.gossip.peer(current.node_id).connected:
            self._failed(current, "the connection is lost, and others wait")
        elif self._node.now_s - max(current.heard_s, current.offered_s) >= limits.SNAPSHOT_OFFER_S:
            self._offer(current)

    @property
    def waiting(self) -> bool:
        """Whether the next turn may have to do what an earlier one had no time or means for."""
        current = self._current
        if current is None:
            return bool(self._wanted)
        return current.requested and not current.source.finished

    def advance(self) -> bool:
        """Do a slice of work, at most one chunk; whether there is more to do at once."""
        if self._current is None and not (self._wanted and self._begin()):
            return False
        current = self._current
        if (
            current is None
            or not current.requested
            or current.source.finished
            or current.in_flight_bytes >= self.window_bytes
            or self._over(current)
            or not self._within_budget()
        ):
            return False
        looks = iter(range(limits.SNAPSHOT_SLICE_ROWS // ROWS_PER_LOOK - 1))
        number = current.source.cursor.number
        chunk = current.source.advance(lambda: next(looks, None) is not None)
        if chunk is not None:
            self._budget_bytes -= len(chunk)
            current.sent_bytes += len(chunk)
            current.in_flight.append((number, len(chunk)))
            current.in_flight_bytes += len(chunk)
            frame = current.parcel.encode(frames.SNAPSHOT_CHUNK, chunk)
            self._node.send_bulk(current.node_id, frame)
        return not current.source.finished

    def requested(self, node_id: int, parcel: Parcel, again: bool, cursor: Cursor) -> None:
        """The receiver is at the cursor."""
        current = self._find(node_id, parcel)
        if current is None:
            self._node.send_bulk(node_id, parcel.end(Reason.GONE))
            return
        current.heard_s = self._node.now_s
        if again or not current.requested:
            current.requested = True
            current.source.resume(cursor)
            current.in_flight.clear()
            current.in_flight_bytes = 0
            return
        in_flight = current.in_flight
        while in_flight and in_flight[0][0] < cursor.number:
            current.in_flight_bytes -= in_flight.popleft()[1]

    def ended(self, node_id: int, parcel: Parcel, reason: Reason) -> None:
        """The receiver needs no more."""
        current = self._find(node_id, parcel)
        if current is None:
            return
        if reason is Reason.INSTALLED:
            logger.info(
                "group %d: replica %d has its snapshot, %.1f MiB in %.1f s",
                parcel.gid,
                parcel.target,
                current.sent_bytes / limits.MIB,
                self._node.now_s - current.began_s,
            )
            current.replica.raft.snapshot_done(parcel.target, current.source.head.base_index)
            self._node.touch(current.replica)
            self._end()
        else:
            self._failed(current, "the receiver does not want it")

    def _find(self, node_id: int, parcel: Parcel) -> _Transfer | None:
        current = self._current
        if current is None or (current.node_id, current.parcel) != (node_id, parcel):
            return None
        return None if self._over(current) else current

    def _over(self, current: _Transfer) -> bool:
        replica = current.replica
        leads = replica.leading and replica.raft.term == current.term
        return replica.retired or not leads

    def _begin(self) -> bool:
        """Take the snapshot of the next one that needs it, and offer it."""
        node = self._node
        while self._wanted and not self._stalled:
            gid, replica_id = next(iter(self._wanted))
            replica = node.replicas.get(gid)
            if replica is None or not replica.leading:
                del self._wanted[gid, replica_id]
                continue
            node_id = replica.members.home(replica_id)
            if not replica.applied or not node.gossip.peer(node_id).connected:
                del self._wanted[gid, replica_id]
                replica.raft.snapshot_failed(replica_id)
                node.touch(replica)
                continue
            snapshot_id = node.random.getrandbits(64)
            try:
                source = SnapshotSource(replica.rows, snapshot_id, replica.state, self.chunk_bytes)
            except StoreStalled:
                self._stalled = True
                break
            del self._wanted[gid, replica_id]
            parcel = Parcel(gid, replica.replica_id, replica_id, snapshot_id)
            now_s = node.now_s
            self._current = _Transfer(
                replica, replica.raft.term, node_id, parcel, source, now_s, now_s, now_s
            )
            logger.info(
                "group %d: replica %d gets a snapshot as of entry %d",
                gid,
                replica_id,
                source.head.base_index,
            )
            self._offer(self._current)
            return self._current is not None
        return False

    def _offer(self, current: _Transfer) -> None:
        current.offered_s = self._node.now_s
        head, parcel = current.source.head, current.parcel
        raft = current.replica.raft
        metadata = transfer.encode_id(parcel.snapshot_id)
        if raft.offer_snapshot(parcel.target, head.base_index, head.base_term, metadata):
            self._node.touch(current.replica)
        else:
            self._end()  # it has caught up otherwise, or is no member any more

    def _failed(self, current: _Transfer, why: str) -> None:
        parcel = current.parcel
        logger.warning("group %d: no snapshot for replica %d: %s", parcel.gid, parcel.target, why)
        current.replica.raft.snapshot_failed(parcel.target)
        self._node.touch(current.replica)
        self._end()

    def _end(self) -> None:
        if self._current is not None:
            self._current.source.close()
            self._current = None

    def _within_budget(self) -> bool:
        """Whether the rate allows another chunk; what was not used is lost after a moment."""
        now_s = self._node.now_s
        rate = limits.SNAPSHOT_BYTES_PER_S
        earned_bytes = (now_s - self._budget_s) * rate
        self._budget_s = now_s
        most_bytes = rate * limits.SNAPSHOT_BURST_S
        self._budget_bytes = min(self._budget_bytes + earned_bytes, most_bytes)
        return self._budget_bytes > 0
