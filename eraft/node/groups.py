"""Which replicas live on this node: those that its log knows, and those that the table asks for."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from eraft._impl import log
from eraft.errors import LogCorrupt, ProtocolError, StoreStalled
from eraft.metaserver.founding import founding_table
from eraft.metaserver.machine import MetaMachine
from eraft.metaserver.table import ConfigTable
from eraft.node.hosted import HostedReplica
from eraft.node.meta import MetaReplica
from eraft.node.replica import Replica
from eraft.node.shard import ShardReplica
from eraft.shardkv.machine import ShardMachine
from eraft.storage.items import group_state_item, tombstone_item
from eraft.storage.snapshots import delete_generation, orphans
from eraft.storage.state import ReplicaRows
from eraft.storage.wal import WriteAheadLog
from eraft.types import METASERVER_GID, ConfState, GroupState, HardState, ReplicaAddress

if TYPE_CHECKING:
    from eraft.node.node import Node

logger = logging.getLogger("eraft.groups")


class Groups:
    """Makes the node's replicas. A replica is made once; its id is never used again."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._next_generation = 1
        self._removed: dict[int, int] = {}
        """By group: no replica with this id or a smaller one comes back to this node."""
        self._doomed: list[int] = []
        """Generations to delete, for which the store had no time yet."""

    def restore(self, write_ahead_log: WriteAheadLog) -> None:
        """Make the replicas that the log knows.

        LogCorrupt when a replica's state and its log contradict each other.
        """
        self._removed = dict(write_ahead_log.tombstones)
        named = {found.state.generation for found in write_ahead_log.groups.values()}
        self._doomed, self._next_generation = orphans(self._node.store, named)
        self.tick()
        for gid, found in sorted(write_ahead_log.groups.items()):
            if found.state.quarantined:
                self._node.quarantine(found.state)
                continue
            rows = ReplicaRows(self._node.store, found.state.generation)
            applied, applied_term, _ = rows.applied()
            entries = write_ahead_log.load(gid, applied, applied_term)
            state = _with_conf(found.state, rows)
            replica = self._make(state, found.hard_state, entries, rows)
            logger.info(
                "group %d: replica %d restored, log to %d, applied %d",
                replica.gid,
                replica.replica_id,
                entries.last_index,
                replica.applied,
            )

    def follow(self, table: ConfigTable) -> None:
        """Make the replicas that the config table wants on this node's store, end those it ended.

        One in whose place the table wants another one on the same store stays
        until it is out of its group: it may be needed for a quorum until then.
        """
        node = self._node
        hosted = dict(table.hosted(node.identity.node_id, node.identity.store_id))
        for gid, replica_id in self._known():
            if table.removed(gid, replica_id):
                self._end(gid)
        known = dict(self._known())
        for gid, own in hosted.items():
            group = table.groups[gid]
            if gid in known or own.replica_id <= self._removed.get(gid, 0):
                continue
            if own.replica_id not in group.founders:
                self.join(gid, own, group.members)
            elif gid != METASERVER_GID:  # `eraft init` alone founds that one
                self.found(gid, own, group.founders, group.members)
        for gid, group in table.groups.items():
            if gid in node.replicas:
                node.replicas[gid].members.follow(group.members)

    def _known(self) -> list[tuple[int, int]]:
        """(gid, replica id) of what is on this node."""
        node = self._node
        found = [(gid, replica.replica_id) for gid, replica in node.replicas.items()]
        return found + [(gid, state.replica_id) for gid, state in node.quarantines.items()]

    def _end(self, gid: int) -> None:
        replica = self._node.replicas.get(gid)
        if replica is not None:
            replica.leave()
        else:
            state = self._node.quarantines.pop(gid)
            self._bury(gid, state.replica_id, state.generation)

    def found(
        self,
        gid: int,
        own: ReplicaAddress,
        founders: tuple[int, ...],
        members: tuple[ReplicaAddress, ...],
    ) -> None:
        """Make a replica of a group that began with `founders` as its voters, all alike."""
        addresses = tuple(member for member in members if member.replica_id in founders)
        self._create(gid, own, ConfState(founders), addresses)

    def join(self, gid: int, own: ReplicaAddress, members: tuple[ReplicaAddress, ...]) -> None:
        """Make a replica of a group that is at work already.

        It knows no configuration, does not vote, and waits for the leader of
        the group, one of `members`, to send it a snapshot once it is a member.
        """
        self._create(gid, own, ConfState(), ())
        self._node.replicas[gid].members.follow(members)

    def remove(self, replica: Replica) -> None:
        """A replica is not of its group any more: nothing of it stays but a tombstone."""
        node, gid = self._node, replica.gid
        del node.replicas[gid]
        node.router.groups.pop(gid, None)
        self.close_lane(replica)
        self._bury(gid, replica.replica_id, replica.rows.generation)

    def close_lane(self, replica: Replica) -> None:
        """A replica takes part in nothing any more: its place in the tables of lanes is free."""
        node = self._node
        if isinstance(replica, ShardReplica):
            node.lanes[replica.ordinal] = node.shards[replica.ordinal] = None

    def _bury(self, gid: int, replica_id: int, generation: int) -> None:
        self._removed[gid] = replica_id
        outbox = self._node.outbox
        outbox.persist(tombstone_item(gid, replica_id))
        # The log must not lead back to rows that are gone.
        outbox.call_durable(lambda: self.delete(generation))
        logger.info("group %d: replica %d is not in the group any more", gid, replica_id)

    def next_generation(self) -> int:
        """A generation in which nothing was ever written."""
        self._next_generation += 1
        return self._next_generation - 1

    def delete(self, generation: int) -> None:
        """Delete the rows of a generation that nothing durable names any more."""
        self._doomed.append(generation)
        self.tick()

    def tick(self) -> None:
        """Delete what is to be deleted, once the store has time for it."""
        while self._doomed:
            try:
                delete_generation(self._node.store, self._doomed[-1])
            except StoreStalled:
                return
            self._doomed.pop()
            self._node.flushing.want_in_time()  # only then the room on disk is given back

    def _create(
        self,
        gid: int,
        own: ReplicaAddress,
        conf: ConfState,
        members: tuple[ReplicaAddress, ...],
    ) -> None:
        state = GroupState(gid, own.replica_id, self.next_generation(), conf, members)
        self._node.outbox.persist(group_state_item(state))
        rows = ReplicaRows(self._node.store, state.generation)
        self._make(state, HardState(), log.EntryLog(), rows)
        logger.info("group %d: replica %d created", gid, own.replica_id)

    def _make(
        self, state: GroupState, hard_state: HardState, entries: log.EntryLog, rows: ReplicaRows
    ) -> Replica:
        node = self._node
        replica: Replica
        if state.gid == METASERVER_GID:
            machine = MetaMachine(founding_table(node.identity.metaserver), node.table)
            replica = MetaReplica(node, state, hard_state, entries, rows, machine)
        elif node.machine is not None:
            hosted = node.machine(state.gid, rows)
            replica = HostedReplica(node, state, hard_state, entries, rows, hosted)
        else:
            shard = ShardReplica(node, state, hard_state, entries, rows, ShardMachine(rows))
            self._open_lane(shard)
            node.router.groups[state.gid] = shard
            replica = shard
        node.replicas[state.gid] = replica
        node.touch(replica)
        return replica

    def _open_lane(self, shard: ShardReplica) -> None:
        """Give the replica a place in the node's tables of lanes, a free one if there is one."""
        node = self._node
        place = node.shards.index(None, 1) if None in node.shards[1:] else len(node.shards)
        if place == len(node.shards):
            node.lanes.append(None)
            node.shards.append(None)
        shard.open_lane(place)
        node.lanes[place] = shard.lane
        node.shards[place] = shard


def _with_conf(state: GroupState, rows: ReplicaRows) -> GroupState:
    """The state as of the applied index: what the log has of the members may be older."""
    try:
        found = rows.conf()
    except ProtocolError as error:
        raise LogCorrupt(f"group {state.gid}: {error}") from None
    return state if found is None else replace(state, conf=found[0], members=found[1])
