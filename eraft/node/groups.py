"""Which replicas live on this node: those that its log knows, and those that the table asks for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from eraft._impl import log
from eraft.metaserver.founding import founding_table
from eraft.metaserver.machine import MetaMachine
from eraft.metaserver.table import ConfigTable
from eraft.node.meta import MetaReplica
from eraft.node.replica import Replica
from eraft.node.shard import ShardReplica
from eraft.shardkv.machine import ShardMachine
from eraft.storage.items import group_state_item
from eraft.storage.snapshots import delete_orphans
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

    def restore(self, write_ahead_log: WriteAheadLog) -> None:
        """Make the replicas that the log knows.

        LogCorrupt when a replica's state and its log contradict each other.
        """
        named = {found.state.generation for found in write_ahead_log.groups.values()}
        self._next_generation = delete_orphans(self._node.store, named)
        for gid, found in sorted(write_ahead_log.groups.items()):
            if found.state.quarantined:
                self._node.quarantine(found.state)
                continue
            rows = ReplicaRows(self._node.store, found.state.generation)
            applied, applied_term, _ = rows.applied()
            entries = write_ahead_log.load(gid, applied, applied_term)
            replica = self._make(found.state, found.hard_state, entries, rows)
            logger.info(
                "group %d: replica %d restored, log to %d, applied %d",
                replica.gid,
                replica.replica_id,
                entries.last_index,
                replica.applied,
            )

    def follow(self, table: ConfigTable) -> None:
        """Make the replicas that the config table wants on this node's store."""
        identity = self._node.identity
        for gid, replica in table.hosted(identity.node_id, identity.store_id):
            known = gid in self._node.replicas or gid in self._node.quarantines
            if not known and gid != METASERVER_GID:
                self._create(gid, replica, table.groups[gid].replicas)

    def _create(self, gid: int, own: ReplicaAddress, members: tuple[ReplicaAddress, ...]) -> None:
        state = GroupState(
            gid=gid,
            replica_id=own.replica_id,
            generation=self._next_generation,
            conf=ConfState(tuple(member.replica_id for member in members)),
            members=members,
        )
        self._next_generation += 1
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
            machine = MetaMachine(founding_table(node.identity.metaserver))
            replica = MetaReplica(node, state, hard_state, entries, rows, machine)
        else:
            shard = ShardReplica(node, state, hard_state, entries, rows, ShardMachine(rows))
            shard.open_lane(len(node.lanes))
            node.lanes.append(shard.lane)
            node.shards.append(shard)
            node.router.groups[state.gid] = shard
            replica = shard
        node.replicas[state.gid] = replica
        node.touch(replica)
        return replica
