"""How much a leader sends before it is answered."""

from __future__ import annotations

from collections.abc import Mapping

from eraft import limits
from eraft.node.replica import Replica
from eraft.types import Message
from tests.sim.known import Violation


class FlowChecks:
    """One append at a time until the logs agree, then a window of some appends and bytes."""

    def __init__(self) -> None:
        self._sent: dict[int, dict[int, dict[int, int]]] = {}
        """By node and group: size of the last append to each replica in this turn."""

    def sent(self, node_id: int, message: Message) -> None:
        """An append leaves."""
        sizes = self._sent.setdefault(node_id, {}).setdefault(message.gid, {})
        sizes[message.to] = len(message.entries)

    def turned(self, node_id: int, replicas: Mapping[int, Replica]) -> None:
        """Look at the windows of the replicas that have sent appends."""
        if node_id in self._sent:
            for gid, sizes in self._sent.pop(node_id).items():
                if gid in replicas:
                    self._look(replicas[gid], sizes)

    def _look(self, replica: Replica, sent: dict[int, int]) -> None:
        most_bytes = replica.raft.config.bytes_in_flight
        leadership = replica.raft._leadership
        for peer in leadership._peers.values() if leadership is not None else ():
            window = 1 if peer.probing or peer.snapshotting else limits.APPENDS_IN_FLIGHT
            size_bytes = sent.get(peer.replica_id, peer.bytes_in_flight)
            if len(peer.in_flight) > window or peer.bytes_in_flight - size_bytes >= most_bytes:
                raise Violation(
                    f"flow control: group {replica.gid}, replica {peer.replica_id} ({peer.state}):"
                    f" {len(peer.in_flight)} appends of {peer.bytes_in_flight} bytes, the last one"
                    f" of {size_bytes}"
                )
