"""Who should lead what: leaders spread over the nodes, and handed over by one that should not lead.

That is one that is about to stop, and one whose disk has no room: its groups
would take no writes, although others of them could.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eraft import limits
from eraft.errors import NotApplied
from eraft.raft.ready import PeerStatus
from eraft.types import METASERVER_GID

if TYPE_CHECKING:
    from eraft.node.node import Node
    from eraft.node.replica import Replica

logger = logging.getLogger("eraft.leads")


def next_transfer(
    node_id: int, leads: Mapping[int, int], heirs: Mapping[int, Sequence[int]]
) -> tuple[int, int] | None:
    """The group that `node_id` should hand over and the node to lead it, None if all is well.

    `leads` says which node leads each group, `heirs` which nodes could take
    over the groups of `node_id`. Only a node that leads at least two groups
    fewer gets one: so each transfer evens things out and none is undone.
    """
    counts = Counter(leads.values())
    best: tuple[int, int, int] | None = None
    for gid, node_ids in sorted(heirs.items()):
        for heir in node_ids:
            if counts[node_id] - counts[heir] >= 2:
                best = min(best or (counts[heir], heir, gid), (counts[heir], heir, gid))
    return None if best is None else (best[2], best[1])


class Leads:
    """Hands leadership over: one group at a time to spread it, all of it if it must not lead.

    The metaserver's leader has next to nothing to do and is not counted.
    """

    def __init__(self, node: Node) -> None:
        self.leaving = False
        """Whether the node is about to stop: it hands over what it leads and takes nothing."""
        self._node = node
        self._tried: dict[int, set[int]] = {}
        self._due_s = self._next_s()
        self._try_s = node.now_s

    def tick(self) -> None:
        """One tick: hand over what is due."""
        now_s = self._node.now_s
        if self.leaving:
            self._hand_over_all()
        elif self._node.room.full:
            if now_s >= self._try_s:  # it may last long, and nobody may be able to take over
                self._try_s = now_s + limits.LEADS_INTERVAL_S
                self._hand_over_all()
        elif now_s >= self._due_s:
            self._tried.clear()
            self._due_s = self._next_s()
            self._spread()

    def leave(self) -> None:
        """Hand over everything that this node leads, until it stops."""
        self.leaving = True
        self._node.announce_soon()
        self._hand_over_all()

    @property
    def left(self) -> bool:
        """Whether this node leads nothing that another one could, and knows all new leaders.

        One that has just won has no heirs before the others have answered it.
        """
        node = self._node
        return not any(
            self._successors(replica) if replica.leading else not node.leader_of(replica.gid)
            for replica in node.replicas.values()
        )

    def _next_s(self) -> float:
        """When to look again: not all nodes at once."""
        interval_s = self._node.options.balance_interval_s
        return self._node.now_s + interval_s * (0.5 + self._node.random.random())

    def _spread(self) -> None:
        node = self._node
        leads = {gid: node.leader_of(gid) for gid in node.table.groups if gid != METASERVER_GID}
        if not all(leads.values()):
            return  # an election is under way somewhere
        mine = {gid: node.replicas[gid] for gid, home in leads.items() if self._mine(gid, home)}
        heirs = {gid: self._heirs(replica) for gid, replica in mine.items()}
        homes = {gid: [mine[gid].members.homes[it] for it in found] for gid, found in heirs.items()}
        choice = next_transfer(node.identity.node_id, leads, homes)
        if choice is not None:
            gid, home = choice
            self._hand_over(mine[gid], heirs[gid][homes[gid].index(home)])

    def _mine(self, gid: int, home: int) -> bool:
        return home == self._node.identity.node_id and gid in self._node.replicas

    def _hand_over_all(self) -> None:
        for replica in self._node.replicas.values():
            if replica.leading and not replica.raft.transferee:
                heirs = self._heirs(replica)
                if heirs:
                    tried = self._tried.setdefault(replica.gid, set())
                    tried.add(heirs[0])
                    self._hand_over(replica, heirs[0])

    def _successors(self, replica: Replica) -> list[PeerStatus]:
        """The voters that could lead instead, now or soon."""
        voters = replica.raft.conf.voters
        found = []
        for peer in replica.raft.status().peers:
            if peer.replica_id in voters and peer.state != "snapshot":
                home = self._node.gossip.peer(replica.members.homes[peer.replica_id])
                if home.connected and not home.full and not home.leaving:
                    found.append(peer)
        return found

    def _heirs(self, replica: Replica) -> list[int]:
        """The voters that could lead instead now, by replica id, the best one first."""
        tried = self._tried.get(replica.gid, ())
        found = [
            (it.replica_id in tried, not it.active, -it.match_index, it.replica_id)
            for it in self._successors(replica)
            if it.state == "replicate"
        ]
        return [replica_id for *_, replica_id in sorted(found)]

    def _hand_over(self, replica: Replica, heir: int) -> None:
        try:
            replica.raft.transfer_leadership(heir)
        except NotApplied as error:
            logger.info("group %d: not handed over: %s", replica.gid, error)
            return
        logger.info(
            "group %d: handing over to replica %d on node %d",
            replica.gid,
            heir,
            replica.members.homes[heir],
        )
        self._node.touch(replica)
