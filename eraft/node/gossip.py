"""What nodes tell each other outside of Raft: who leads, their table, room on disk and time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from eraft import limits
from eraft._impl import frames
from eraft.errors import ProtocolError
from eraft.metaserver import schema
from eraft.metaserver.chain import VersionChain, follow
from eraft.metaserver.table import ConfigTable

Send = Callable[[int, bytes], None]
"""Sends an encoded frame to a node."""


@dataclass(slots=True)
class Peer:
    """What this node knows of another one; times are monotonic seconds of this node."""

    connected: bool = False
    full: bool = False
    leaving: bool = False
    clock_ms: int = 0
    heard_s: float = 0.0
    asked_s: float = -1.0


@dataclass(slots=True, frozen=True)
class Lead:
    """A claim to lead a group in a term."""

    gid: int
    term: int


class Gossip:
    """Announcements between nodes, and the spread of the config table.

    Every frame tells the sender's table version; a node that is behind asks
    the sender for the difference. It is committed, so any copy is valid.
    """

    def __init__(self, node_id: int, send: Send) -> None:
        self.node_id = node_id
        self.peers: dict[int, Peer] = {}
        self._send = send
        self._announced_s = -limits.LEADS_INTERVAL_S

    def peer(self, node_id: int) -> Peer:
        """The state kept of a node, made when it is first met."""
        peer = self.peers.get(node_id)
        if peer is None:
            peer = self.peers[node_id] = Peer()
        return peer

    # Clocks

    def capped_wall_ms(self, wall_ms: int, now_s: float) -> int:
        """The wall clock, at most the median of the peers' clocks plus CLOCK_AHEAD_MS."""
        clocks = sorted(
            peer.clock_ms + int((now_s - peer.heard_s) * 1000)
            for peer in self.peers.values()
            if peer.connected and peer.clock_ms
        )
        if not clocks:
            return wall_ms
        return min(wall_ms, clocks[len(clocks) // 2] + limits.CLOCK_AHEAD_MS)

    # Who leads

    def announcement_due(self, now_s: float) -> bool:
        """Whether the last announcement is an interval old."""
        return now_s - self._announced_s >= limits.LEADS_INTERVAL_S

    def announce(
        self,
        leads: list[Lead],
        version: int,
        *,
        full: bool,
        leaving: bool,
        wall_ms: int,
        now_s: float,
    ) -> None:
        """Tell every connected node what this one leads, and why it should not lead more.

        `full`: its disk has no room. `leaving`: it is about to stop.
        """
        self._announced_s = now_s
        body = orjson.dumps(
            {
                "leads": [[lead.gid, lead.term] for lead in leads],
                "clock": wall_ms,
                "version": version,
                "full": full,
                "leaving": leaving,
            }
        )
        frame = frames.encode_frame(frames.LEADS, body)
        for node_id, peer in self.peers.items():
            if peer.connected:
                self._send(node_id, frame)

    def heard(self, node_id: int, body: bytes, now_s: float) -> tuple[list[Lead], int]:
        """Another node's announcement: its leads and table version. ProtocolError if malformed."""
        where = f"announcement of node {node_id}"
        fields = ("leads", "clock", "version", "full", "leaving")
        found = schema.record(schema.document(body, where), where, fields)
        peer = self.peer(node_id)
        peer.clock_ms = schema.integer(found["clock"], f"{where}: clock", 0, schema.U63)
        peer.heard_s = now_s
        leads = []
        for item in schema.sequence(found["leads"], f"{where}: leads", limits.TABLE_GROUPS):
            pair = schema.sequence(item, f"{where}: lead", 2)
            if len(pair) != 2:
                raise ProtocolError(f"{where}: a lead must be [gid, term]")
            leads.append(
                Lead(
                    schema.integer(pair[0], f"{where}: gid", 0, schema.U32),
                    schema.integer(pair[1], f"{where}: term", 1, schema.U63),
                )
            )
        version = schema.integer(found["version"], f"{where}: version", 0, schema.U63)
        peer.full = schema.boolean(found["full"], f"{where}: full")
        peer.leaving = schema.boolean(found["leaving"], f"{where}: leaving")
        return leads, version

    # The config table

    def saw_version(self, node_id: int, version: int, own: int, now_s: float) -> None:
        """A frame of that node told its table version: ask for what this node does not have."""
        if version <= own:
            return
        peer = self.peer(node_id)
        if now_s - peer.asked_s >= limits.TABLE_REQUEST_INTERVAL_S:
            peer.asked_s = now_s
            body = orjson.dumps({"version": own})
            self._send(node_id, frames.encode_frame(frames.TABLE_REQUEST, body))

    def table_requested(self, node_id: int, body: bytes, chain: VersionChain) -> None:
        """Answer a node that is behind with what this node has."""
        where = f"table request of node {node_id}"
        found = schema.record(schema.document(body, where), where, ("version",))
        version = schema.integer(found["version"], f"{where}: version", 0, schema.U63)
        update = chain.update(version)
        if update is not None:
            self._send(node_id, frames.encode_frame(frames.TABLE, update))

    def table_received(
        self, node_id: int, body: bytes, table: ConfigTable
    ) -> list[tuple[ConfigTable, ConfigTable | None]]:
        """The versions after `table` that a node sent, each with the one before it."""
        self.peer(node_id).asked_s = -1.0
        return follow(table, body)
