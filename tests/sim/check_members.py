"""Who comes and goes: replicas and nodes are made once, join late enough and leave for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eraft import limits
from eraft.metaserver.table import ConfigTable, Group
from eraft.node.replica import Replica
from eraft.types import ConfState
from tests.sim.known import Violation

if TYPE_CHECKING:
    from tests.sim.checks import Checks
    from tests.sim.world import World

BEHIND_ENTRIES = 2 * limits.PROMOTE_WITHIN_ENTRIES
"""A replica that becomes a voter lacks less, some entries that are applied in one go included."""


class MemberChecks:
    """The rules of ids, of members that come and go, and of nodes that are out."""

    def __init__(self, checks: Checks, world: World) -> None:
        self._checks = checks
        self._world = world
        self.orderly = False
        """Whether the config table alone says who votes: then enough replicas do, and what they
        need they have."""
        self.taken_out: set[int] = set()
        """Replicas that a test makes leave while they are members."""
        self._homes: dict[int, tuple[int, int]] = {}
        """Of each replica id that there ever was: group and node."""
        self._buried: set[int] = set()
        self._newest: dict[int, tuple[int, ConfState]] = {}
        """Of each group the members as of the last applied entry, and that entry."""
        self._left: dict[int, set[int]] = {}
        """Who was a member of a group and is not any more."""
        self._out: dict[int, int] = {}
        """The nodes that are out of the cluster, and the version of the config table since then."""
        self._stores: dict[int, str] = {}
        """Of each node the first one that a config table had."""
        self._judged: dict[tuple[int, int, str], ConfigTable] = {}
        """By which config table a node does not mind another one with its disk, rightly."""

    # Replicas

    def founded(self, node_id: int, gid: int, replica_id: int) -> None:
        """A new disk has a founder of the group, although that replica may have left long ago.

        Then nobody lets that node in, whose disk it was: see `connected`.
        """
        home = self._homes.setdefault(replica_id, (gid, node_id))
        if home != (gid, node_id):
            raise Violation(
                f"replica ids: {replica_id} is on node {node_id} in group {gid}, it was on node"
                f" {home[1]} in group {home[0]}"
            )

    def made(self, node_id: int, gid: int, replica_id: int) -> None:
        """It is durable that a replica is on a node."""
        self.founded(node_id, gid, replica_id)
        if replica_id in self._buried:
            raise Violation(f"replica ids: {replica_id} comes back to node {node_id}")

    def buried(self, node_id: int, gid: int, replica_id: int) -> None:
        """It is durable that a replica will never be again."""
        self._buried.add(replica_id)
        _, conf = self._newest.get(gid, (0, ConfState()))
        if replica_id in conf.members and replica_id not in self.taken_out:
            raise Violation(
                f"removed: node {node_id} has deleted replica {replica_id} of group {gid}, which"
                f" has {conf}"
            )

    def applied(self, replica: Replica) -> None:
        """A replica has applied more: maybe it is the first one with other members."""
        gid, conf = replica.gid, replica.raft.conf
        index, before = self._newest.get(gid, (-1, conf))
        if replica.applied <= index:
            return
        self._newest[gid] = (replica.applied, conf)
        if conf == before:
            return
        left = self._left.setdefault(gid, set())
        if not left.isdisjoint(conf.members):
            raise Violation(f"removed: group {gid} has {conf}, but {sorted(left)} have left it")
        left.update({*before.members} - {*conf.members})
        if self.orderly:
            for replica_id in sorted({*conf.voters} - {*before.voters}):
                self._has_caught_up(replica, replica_id)
            if replica.leading:
                self._enough(replica.node.table.groups[gid], before, conf)

    def _has_caught_up(self, replica: Replica, replica_id: int) -> None:
        home = replica.members.home(replica_id)
        disk = self._checks.disks.get(home, {}).get(replica.gid)
        last = disk.last_index if disk is not None and disk.replica_id == replica_id else 0
        if home not in self._checks.destroyed and (
            not last or last + BEHIND_ENTRIES < replica.applied
        ):
            raise Violation(
                f"promotion: replica {replica_id} of group {replica.gid} votes as of entry"
                f" {replica.applied}, but has a log to {last}"
            )

    def _enough(self, group: Group, before: ConfState, conf: ConfState) -> None:
        """No fewer voters than before or after what the config table has under way."""
        settled = len(group.replicas) - len(group.joining)
        leaving = [it for it in group.leaving if before.votes(it.replica_id)]
        places = {it.node_id for it in group.leaving}
        after = [it for it in group.replicas if it.node_id not in places]
        least = min(settled + len(leaving), len(after))
        if len(conf.voters) < least:
            raise Violation(f"voters: {conf} follows {before}, but {group} needs {least}")

    # Nodes

    def out(self, node_id: int, version: int) -> None:
        """A node has left the cluster, as of that version of the config table."""
        self._out[node_id] = version
        self._judged.clear()

    def connected(self, sender: int, to: int, stores: tuple[str, str]) -> None:
        """Each end has to mind who the other one is, as far as it can know."""
        self._accepts(to, sender, stores[0])
        if sender in self._world.nodes:
            self._accepts(sender, to, stores[1])

    def _accepts(self, other: int, one: int, store_id: str) -> None:
        """Node `other` does not mind `one`, which has to be the one that it should know."""
        table = self._world.nodes[other].table
        if self._judged.get((other, one, store_id)) is table:
            return
        if other not in self._out and table.version >= self._out.get(one, table.version + 1):
            raise Violation(f"removed node: node {other} does not mind that {one} is out")
        known = table.nodes.get(one)
        if known is not None and known.store_id:  # else it cannot know better
            first = self._stores.setdefault(one, known.store_id)
            if store_id != first:
                raise Violation(f"wiped node: node {other} does not mind that {one} has a new disk")
        self._judged[other, one, store_id] = table
