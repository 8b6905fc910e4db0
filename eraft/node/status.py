"""STATUS: a node and its replicas at a glance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from eraft import IMPL, __version__
from eraft._impl import TRACED
from eraft.node.reads import Job
from eraft.node.shard import ShardReplica
from eraft.raft import Role, Status
from eraft.shardkv import keyspace
from eraft.shardkv.cluster import ClusterView
from eraft.types import METASERVER_GID, GroupState

if TYPE_CHECKING:
    from eraft.node.node import Node
    from eraft.node.replica import Replica


def with_keys(node: Node, done: Callable[[dict[str, Any]], None]) -> None:
    """Count the keys of every group in slices, and hand the status with them to `done`."""
    shards = [item for item in node.replicas.values() if isinstance(item, ShardReplica)]
    keys: dict[int, int] = {}

    def count_next() -> None:
        if len(keys) == len(shards):
            done(status(node, keys))
            return
        shard = shards[len(keys)]

        def counted(count: int) -> None:
            keys[shard.gid] = count
            count_next()

        node.start_job(Job(keyspace.count([shard.machine]), counted))

    count_next()


def status(node: Node, keys: Mapping[int, int]) -> dict[str, Any]:
    """The node at this moment; `keys` by gid, null for groups whose keys were not counted."""
    view = ClusterView(node.router, node.identity.cluster_id, node.now_s, node.wall_ms)
    return {
        "node_id": node.identity.node_id,
        "store_id": node.identity.store_id,
        "cluster_id": node.identity.cluster_id,
        "version": __version__,
        "impl": IMPL,
        "traced": TRACED,
        "pid": node.context.pid,
        "uptime_s": round(node.now_s - node.context.started_s, 3),
        "client": node.address.client,
        "peer": node.address.peer,
        "admin": node.address.admin,
        "role": view.role,
        "table_version": node.table.version,
        "quarantined": node.quarantined or None,
        "refuses_writes": node.room.full or None,
        "log": _log(node),
        "sends_snapshot": node.sending.progress,
        "connections": len(node.clients),
        "groups": _groups(node, keys),
        "stats": {**node.context.counters, **node.store.stats()},
    }


def _log(node: Node) -> dict[str, Any] | None:
    if node.quarantined:
        return None
    return {
        "size_bytes": node.log.size_bytes,
        "segments": node.log.segments,
        "durable": node.log.durable_position,
    }


def _groups(node: Node, keys: Mapping[int, int]) -> list[dict[str, Any]]:
    found = [_group(replica, keys.get(gid)) for gid, replica in node.replicas.items()]
    found += [_quarantined(node, state) for state in node.quarantines.values()]
    return sorted(found, key=lambda group: group["gid"])


def _quarantined(node: Node, state: GroupState) -> dict[str, Any]:
    return {
        "gid": state.gid,
        "replica_id": state.replica_id,
        "role": "quarantined",
        "quarantined": state.quarantined,
        "serving": False,
        "term": state.hard_state.term,
        "leader": None,
        "commit": state.hard_state.commit,
        "applied": state.base_index,
        "last_index": state.base_index,
        "log_size_bytes": node.log.log_bytes(state.gid),
        "voters": state.conf.voters,
        "outgoing": state.conf.outgoing,
        "learners": state.conf.learners,
        "change": None,
        "progress": [],
        "buckets": None if state.gid == METASERVER_GID or node.machine is not None else 0,
        "keys": None,
    }


def _role(status: Status) -> str:
    """A replica that does not vote, or does not know yet whether it does, is a learner."""
    if status.role == Role.FOLLOWER.value and not status.conf.votes(status.replica_id):
        return "learner"
    return status.role


def _group(replica: Replica, keys: int | None) -> dict[str, Any]:
    status = replica.raft.status()
    node = replica.node
    noted = replica.checks.noted
    owned = replica.machine.buckets_owned if isinstance(replica, ShardReplica) else None
    return {
        "gid": replica.gid,
        "replica_id": replica.replica_id,
        "role": _role(status),
        "quarantined": None,
        "serving": replica.serving,
        "term": status.term,
        "leader": replica.leader_node or None,
        "commit": status.commit,
        "applied": replica.applied,
        "last_index": status.last_index,
        "log_size_bytes": node.log.log_bytes(replica.gid),
        "buckets": owned,
        "keys": keys,
        "voters": status.conf.voters,
        "outgoing": status.conf.outgoing,
        "learners": status.conf.learners,
        "change": replica.reconciler.what or None,
        "progress": [
            {
                "replica_id": peer.replica_id,
                "node_id": replica.members.home(peer.replica_id),
                "match_index": peer.match_index,
                "state": peer.state,
            }
            for peer in status.peers
        ],
        "digest": {"index": noted.index, "digest": f"{noted.digest:08x}"},
    }
