"""Snapshots that arrive from other nodes, one for each group at most."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eraft import limits
from eraft.errors import ProtocolError, StoreStalled
from eraft.node import transfer
from eraft.node.transfer import Parcel, Reason
from eraft.raft import SnapshotOffer
from eraft.storage.snapshots import SnapshotSink

if TYPE_CHECKING:
    from eraft.node.node import Node
    from eraft.node.replica import Replica

logger = logging.getLogger("eraft.snapshots")


@dataclass(slots=True)
class _Incoming:
    """A snapshot of which some part is here."""

    replica: Replica
    node_id: int
    parcel: Parcel
    sink: SnapshotSink
    asked_s: float
    moved_s: float
    """When it came forward last."""
    again: bool = False
    """Something could not be taken: ask for it with the next tick."""
    refusals: int = 0


class SnapshotReceiver:
    """Fills fresh generations with what the leaders of this node's replicas send.

    A chunk that cannot be taken, because the store stalls or the chunk is
    wrong, is dropped, and asked for again: nothing queues up here. Once all
    is here the store is flushed, and only then the replica switches over.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._incoming: dict[int, _Incoming] = {}

    def offered(self, replica: Replica, offer: SnapshotOffer) -> None:
        """The leader has a snapshot for the replica."""
        try:
            snapshot_id = transfer.decode_id(offer.metadata)
        except ProtocolError as error:
            self._refused(replica.gid, error)
            return
        node, gid = self._node, replica.gid
        parcel = Parcel(gid, offer.sender, replica.replica_id, snapshot_id)
        found = self._incoming.get(gid)
        if found is not None:
            if found.parcel == parcel:
                self._ask(found, again=True)
            if found.parcel == parcel or found.sink.complete:
                return
            self._drop(found, "there is a newer one")
        generation = node.groups.next_generation()
        sink = SnapshotSink(node.store, gid, snapshot_id, generation, replica.check_row)
        now_s = node.now_s
        node_id = replica.members.home(offer.sender)
        self._incoming[gid] = _Incoming(replica, node_id, parcel, sink, now_s, now_s)
        logger.info(
            "group %d: a snapshot as of entry %d comes from node %d", gid, offer.index, node_id
        )
        self._ask(self._incoming[gid], again=True)

    def chunk(self, node_id: int, parcel: Parcel, chunk: bytes) -> None:
        """The next part of a snapshot."""
        found = self._find(node_id, parcel)
        if found is None:
            self._refused(parcel.gid, f"chunk of unknown snapshot {parcel.snapshot_id}")
            self._node.send_bulk(node_id, parcel.end(Reason.REFUSED))
            return
        sink = found.sink
        if found.again or sink.complete:
            return
        if self._node.room.full:
            found.again = True
            return
        try:
            taken = sink.add(chunk)
        except StoreStalled:
            found.again = True
            return
        except ProtocolError as error:
            found.again = True
            found.refusals += 1
            self._refused(parcel.gid, error)
            if found.refusals >= limits.SNAPSHOT_REFUSALS:
                self._give_up(found, "too much of it is wrong")
            return
        if not taken:
            return
        found.refusals = 0
        found.moved_s = self._node.now_s
        self._ask(found, again=False)
        if found.sink.complete:
            self._node.flushing.call_flushed(lambda: self._flushed(found))

    def ended(self, node_id: int, parcel: Parcel) -> None:
        """The sender does not have it any more."""
        found = self._find(node_id, parcel)
        if found is not None and not found.sink.complete:
            self._drop(found, "the sender does not have it any more")

    def tick(self) -> None:
        """Ask again for what was lost, and give up what does not come forward."""
        now_s = self._node.now_s
        for found in list(self._incoming.values()):
            if now_s - found.moved_s > limits.SNAPSHOT_KEEP_S and not found.sink.complete:
                self._give_up(found, "nothing comes any more")
            elif found.again:
                found.again = False
                self._ask(found, again=True)
            elif now_s - found.asked_s >= limits.SNAPSHOT_RETRY_S:
                self._ask(found, again=not found.sink.complete)

    def forget(self, gid: int) -> None:
        """The replica is gone."""
        found = self._incoming.get(gid)
        if found is not None:
            self._drop(found, "the replica is gone")

    def _find(self, node_id: int, parcel: Parcel) -> _Incoming | None:
        found = self._incoming.get(parcel.gid)
        if found is None or (found.node_id, found.parcel) != (node_id, parcel):
            return None
        return found

    def _ask(self, found: _Incoming, again: bool) -> None:
        found.asked_s = self._node.now_s
        found.again = False
        self._node.send_bulk(found.node_id, found.parcel.request(again, found.sink.cursor))

    def _flushed(self, found: _Incoming) -> None:
        """All rows are durable: the replica switches over."""
        node, parcel = self._node, found.parcel
        if self._incoming.get(parcel.gid) is not found:
            return
        del self._incoming[parcel.gid]
        try:
            switched = found.replica.takeover.install(
                found.sink, lambda: self._installed(parcel, found.node_id)
            )
        except ProtocolError as error:
            self._refused(parcel.gid, error)
            node.send_bulk(found.node_id, parcel.end(Reason.REFUSED))
            switched = False
        else:
            if not switched:  # it has come as far by itself
                self._installed(parcel, found.node_id)
        if not switched:
            node.groups.delete(found.sink.generation)

    def _installed(self, parcel: Parcel, node_id: int) -> None:
        """The switch to a snapshot is durable."""
        self._node.send_bulk(node_id, parcel.end(Reason.INSTALLED))

    def _give_up(self, found: _Incoming, why: str) -> None:
        self._drop(found, why)
        self._node.send_bulk(found.node_id, found.parcel.end(Reason.REFUSED))

    def _drop(self, found: _Incoming, why: str) -> None:
        logger.info("group %d: the snapshot that comes is dropped: %s", found.parcel.gid, why)
        del self._incoming[found.parcel.gid]
        self._node.groups.delete(found.sink.generation)

    def _refused(self, gid: int, why: object) -> None:
        self._node.context.count("snapshot_chunks_refused")
        logger.warning("group %d: refused: %s", gid, why)
