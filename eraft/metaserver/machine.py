"""The metaserver's state machine: requests in, versions of the config table out."""

from dataclasses import replace
from typing import Any

from eraft import limits
from eraft.errors import InvariantViolation, ProtocolError
from eraft.metaserver import members, operations
from eraft.metaserver.balance import first_assignment
from eraft.metaserver.chain import VersionChain
from eraft.metaserver.members import Outcome, Reply
from eraft.metaserver.operations import (
    Change,
    Forget,
    Join,
    Open,
    Query,
    Register,
    Replicas,
    Settle,
)
from eraft.metaserver.parts import Group
from eraft.metaserver.requests import RequestLog
from eraft.metaserver.table import ConfigTable
from eraft.storage.state import ReplicaRows
from eraft.types import METASERVER_GID, NodeAddress, ReplicaAddress


class MetaMachine:
    """Keeps the config table in the rows of the metaserver's replica.

    An entry is one request (see `operations`). Each that changes the table
    makes the next version. Every reply is remembered, a refusal too: the same
    request id again gets the same reply and changes nothing. Askers send a
    request again while they wait; a second copy must not carry out what they
    were told is refused. All state is in the rows; the table held here is a copy of the
    newest version in them.
    """

    def __init__(self, founding: ConfigTable, known: ConfigTable | None = None) -> None:
        """`founding` is version 0, the same on every replica (see `founding_table`).

        `known` is a version that the node has read already, mostly the newest one.
        """
        self._founding = founding
        self._newest = known or founding

    def table(self, rows: ReplicaRows) -> ConfigTable:
        """The newest version, as far as applied."""
        newest = VersionChain(rows).newest
        if newest is None:
            return self._founding
        if newest != self._newest.version:
            self._newest = _readable(VersionChain(rows).at(newest), newest)
        return self._newest

    def query(self, rows: ReplicaRows, query: Query) -> Reply:
        """The JSON form of the wanted version, as far as applied."""
        table = self.table(rows)
        if query.version is None or query.version == table.version:
            return table.to_dict()
        if query.version > table.version:
            return f"no version {query.version}: the newest is {table.version}"
        try:
            found = VersionChain(rows).at(query.version)
        except ProtocolError as error:
            return str(error)
        # Of what came with a snapshot only the newest version was looked at.
        return found.to_dict() if found is not None else f"version {query.version} is not there"

    def apply(
        self, rows: ReplicaRows, index: int, term: int, payload: bytes, replies: list[Any] | None
    ) -> None:
        """Carry out the request in `payload` and append its Reply to `replies`."""
        reply = self._apply(rows, payload)
        if replies is not None:
            replies.append(reply)

    def _apply(self, rows: ReplicaRows, payload: bytes) -> Reply:
        try:
            request_id, operation = operations.decode(payload)
        except ProtocolError as error:
            return str(error)
        if isinstance(operation, Query):
            return self.query(rows, operation)
        requests = RequestLog(rows)
        seen = requests.find(request_id, operation)
        if seen is not None:
            return seen
        table = self.table(rows)
        changed, reply = _outcome(table, operation)
        if changed is not table and not isinstance(reply, str):
            chain = VersionChain(rows)
            if chain.newest is None:
                chain.append(table, None)
            chain.append(changed, table)
            self._newest = changed
        requests.remember(request_id, operation, reply)
        return reply


def _readable(table: ConfigTable | None, version: int) -> ConfigTable:
    if table is None:
        raise InvariantViolation(f"every version of the config table stays readable: {version}")
    return table


def _outcome(table: ConfigTable, operation: Change) -> Outcome:
    match operation:
        case Register():
            return _register(table, operation)
        case Join():
            return _join(table, operation)
        case Open():
            return _open(table)
        case Replicas():
            return members.change(table, operation)
        case Settle():
            return members.settle(table, operation)
        case Forget():
            return members.forget(table, operation)


def _register(table: ConfigTable, wanted: Register) -> Outcome:
    """A founding member's first registration also binds its metaserver replica to its store."""
    node_id, store_id = wanted.node_id, wanted.store_id
    node = NodeAddress(node_id, store_id, wanted.client, wanted.peer, wanted.admin)
    known = table.nodes.get(node_id)
    if known == node:
        return table, {"version": table.version}
    if node_id in table.removed_nodes:
        return table, f"node {node_id} was removed from the cluster: its node id is not used again"
    if known is None and len(table.nodes) >= limits.TABLE_NODES:
        return table, f"no more than {limits.TABLE_NODES} nodes can register"
    if known is not None and known.store_id not in ("", store_id):
        return table, (
            f"node {node_id} is registered with store {known.store_id}, not {store_id}: "
            "a wiped node must come back under a new node id"
        )
    groups = table.groups
    if known is not None and known.store_id == "":
        groups = {gid: _bound(group, node_id, store_id) for gid, group in groups.items()}
    changed = replace(
        table,
        version=table.version + 1,
        groups=groups,
        nodes=dict(sorted({**table.nodes, node_id: node}.items())),
    )
    return changed, {"version": changed.version}


def _bound(group: Group, node_id: int, store_id: str) -> Group:
    def bound(replicas: tuple[ReplicaAddress, ...]) -> tuple[ReplicaAddress, ...]:
        return tuple(
            replace(it, store_id=store_id) if it.node_id == node_id else it for it in replicas
        )

    return replace(group, replicas=bound(group.replicas), leaving=bound(group.leaving))


def _join(table: ConfigTable, wanted: Join) -> Outcome:
    if wanted.gid in table.groups:
        return table, f"group {wanted.gid} has already joined"
    if len(table.groups) >= limits.TABLE_GROUPS:
        return table, f"no more than {limits.TABLE_GROUPS} groups can join"
    replicas: list[ReplicaAddress] = []
    for replica_id, node_id in enumerate(wanted.nodes, start=table.next_replica_id):
        node = table.nodes.get(node_id)
        if node is None or node.store_id == "":
            return table, f"node {node_id} has not registered"
        replicas.append(ReplicaAddress(replica_id, node_id, node.store_id))
    groups = {**table.groups, wanted.gid: Group.founded(wanted.weight, tuple(replicas))}
    changed = replace(
        table,
        version=table.version + 1,
        next_replica_id=table.next_replica_id + len(replicas),
        groups=dict(sorted(groups.items())),
    )
    reply: dict[str, Any] = {
        "version": changed.version,
        "gid": wanted.gid,
        "replicas": [replica.replica_id for replica in replicas],
    }
    if table.opened:
        reply["note"] = f"the cluster is open: group {wanted.gid} stays empty until buckets move"
    return changed, reply


def _open(table: ConfigTable) -> Outcome:
    if table.opened:
        return table, "the cluster is already open"
    weights = {gid: group.weight for gid, group in table.groups.items() if gid != METASERVER_GID}
    if not weights:
        return table, "no group has joined: a cluster opens with at least one"
    changed = replace(table, version=table.version + 1, opened=True)
    changed = changed.with_owners(first_assignment(weights))
    counts = {str(gid): changed.bucket_count(gid) for gid in weights}
    return changed, {"version": changed.version, "buckets": counts}
