"""The frames that arrive from other nodes: whom each is for, and whether its sender may send it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from eraft._impl import frames
from eraft._impl import log as entry_log
from eraft.errors import LogCorrupt, ProtocolError
from eraft.metaserver import operations
from eraft.node import transfer
from eraft.node.divergence import Report
from eraft.node.metaclient import encode_answer
from eraft.node.transfer import Parcel
from eraft.types import Message

if TYPE_CHECKING:
    from eraft.node.node import Node

logger = logging.getLogger("eraft.node")


class Inbound:
    """Hands what connected nodes send to those whom it concerns.

    What is not for a replica here, or not from where the other replica lives, is
    counted and has no effect.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    def take(self, node_id: int, kind: int, body: bytes) -> None:
        """A frame from a connected node; ProtocolError names what is wrong with it."""
        node = self._node
        if kind == frames.RAFT:
            version, messages = frames.decode_messages(body)
            node.gossip.saw_version(node_id, version, node.table.version, node.now_s)
            for message in messages:
                self._message(node_id, message)
            return
        if kind == frames.LEADS:
            was_full = node.gossip.peer(node_id).full
            leads, version = node.gossip.heard(node_id, body, node.now_s)
            if node.gossip.peer(node_id).full != was_full:
                node.room_changed()
            node.gossip.saw_version(node_id, version, node.table.version, node.now_s)
            node.heard_leads(node_id, leads)
            return
        node.stir()
        if kind == frames.TABLE_REQUEST:
            node.gossip.table_requested(node_id, body, node.catalog.chain)
        elif kind == frames.TABLE:
            node.catalog.received(node.gossip.table_received(node_id, body, node.table))
        elif kind == frames.META_REQUEST:
            self._meta_request(node_id, body)
        elif kind == frames.META_REPLY:
            node.meta.answered(node_id, body)
        elif kind in (frames.SNAPSHOT_REQUEST, frames.SNAPSHOT_CHUNK, frames.SNAPSHOT_END):
            self._snapshot_frame(node_id, kind, *transfer.decode(body))
        elif kind == frames.DIGEST:
            self._digest_reported(node_id, Report.decode(body))
        else:
            raise ProtocolError(f"frame of kind {kind} after the greeting")

    def _message(self, node_id: int, message: Message) -> None:
        node = self._node
        replica = node.replicas.get(message.gid)
        if replica is None or replica.members.home(message.sender) != node_id:
            node.context.count("messages_refused")
            return
        if message.entries and replica.choked:
            return
        # The entry that begins a term is empty: with it a group still gets a leader, for reads.
        if node.room.full and len(message.entries) > entry_log.ENTRY_HEADER_BYTES:
            return
        try:
            replica.step(message)
        except ProtocolError as error:
            node.context.count("messages_refused")
            logger.warning("message from node %d refused: %s", node_id, error)
        except LogCorrupt as error:
            node.context.count("messages_refused")
            replica.suspend(f"message from node {node_id}: {error}")

    def _snapshot_frame(self, node_id: int, kind: int, parcel: Parcel, rest: bytes) -> None:
        node = self._node
        replica = node.replicas.get(parcel.gid)
        ids = (parcel.source, parcel.target)
        if replica is None or replica.replica_id not in ids:
            node.context.count("messages_refused")
            return
        other = parcel.target if replica.replica_id == parcel.source else parcel.source
        if replica.members.home(other) != node_id:
            node.context.count("messages_refused")
        elif kind == frames.SNAPSHOT_REQUEST:
            node.sending.requested(node_id, parcel, *transfer.decode_request(rest))
        elif kind == frames.SNAPSHOT_CHUNK:
            node.receiving.chunk(node_id, parcel, rest)
        elif replica.replica_id == parcel.source:
            node.sending.ended(node_id, parcel, transfer.decode_end(rest))
        else:
            node.receiving.ended(node_id, parcel)

    def _digest_reported(self, node_id: int, report: Report) -> None:
        node = self._node
        replica = node.replicas.get(report.gid)
        if replica is None or replica.members.homes.get(report.replica_id) != node_id:
            node.context.count("messages_refused")
            return
        replica.checks.reported(report)

    def _meta_request(self, node_id: int, body: bytes) -> None:
        node = self._node
        request_id, _ = operations.decode(body)
        node.meta_requested(
            body, lambda answer: node.send_frame(node_id, encode_answer(request_id, answer))
        )
