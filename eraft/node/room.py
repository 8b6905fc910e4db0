"""Room on the disks: a group takes writes while its leader and a quorum have some left."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from eraft._impl import resp
from eraft.raft.quorum import VoteResult, vote_result

if TYPE_CHECKING:
    from eraft.node.node import Node
    from eraft.node.replica import Replica

logger = logging.getLogger("eraft.node")


class DiskRoom:
    """Whether this node's disk has room for writes, and what follows from all that is known.

    A node below its free-disk mark takes no entries, and tells all others so.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.full = ""
        """Why this node takes no entries, "" while it does."""

    def measure(self, free_bytes: int) -> bool:
        """How much room the data directory's file system has; whether that changes anything."""
        mark_bytes = self._node.options.free_disk_bytes
        full = free_bytes < mark_bytes
        if full == bool(self.full):
            return False
        self.full = (
            f"free disk space {free_bytes >> 20} MiB is below {mark_bytes >> 20} MiB "
            f"on node {self._node.identity.node_id}"
            if full
            else ""
        )
        logger.warning("%s", self.full or "there is room on the disk again")
        return True

    def refuse_writes(self, replica: Replica) -> resp.ReplyError | None:
        """Why the group that this replica leads takes no writes now, if so."""
        why = self.full or self._quorum_is_full(replica)
        return resp.ReplyError(b"MISCONF eraft refuses writes: " + why.encode()) if why else None

    def _quorum_is_full(self, replica: Replica) -> str:
        """Which disks are in the way of a quorum; who cannot be reached is no help either."""
        homes = {r: home for r, home in replica.members.homes.items() if r != replica.replica_id}
        peers = {r: self._node.gossip.peer(home) for r, home in homes.items()}
        full = sorted(home for r, home in homes.items() if peers[r].full)
        if not full:
            return ""
        room = {r: peer.connected and not peer.full for r, peer in peers.items()}
        room[replica.replica_id] = True
        conf = replica.raft.conf
        if vote_result(conf.voters, room, conf.outgoing) is VoteResult.WON:
            return ""
        nodes = ", ".join(map(str, full))
        return f"group {replica.gid} has no quorum with free disk space (too little: nodes {nodes})"
