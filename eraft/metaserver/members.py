"""Changes of who is to be in a group, and of which nodes there are.

The table holds what is wanted. Its replicas join and leave step by step: the
group's leader changes the configuration and reports (`settle`), and only then
are the old ones forgotten.
"""

from dataclasses import replace
from typing import Any, TypeAlias

from eraft import limits
from eraft.metaserver.operations import Forget, Replicas, Settle
from eraft.metaserver.parts import Group
from eraft.metaserver.table import ConfigTable
from eraft.types import ReplicaAddress

Reply: TypeAlias = dict[str, Any] | str
"""A JSON object, or the text of an error: nothing was changed then."""

Outcome: TypeAlias = tuple[ConfigTable, Reply]
"""The table after a request, the same object if it changes nothing, and the reply."""


def change(table: ConfigTable, wanted: Replicas) -> Outcome:
    """Other replicas for a group. While it is changing, no further voter is taken away."""
    gid = wanted.gid
    group = table.groups.get(gid)
    if group is None:
        return table, f"there is no group {gid}"
    why = _refusal(table, group, wanted)
    if why:
        return table, f"group {gid}: {why}"
    fresh = tuple(
        ReplicaAddress(replica_id, node_id, table.nodes[node_id].store_id)
        for replica_id, node_id in enumerate(wanted.add, start=table.next_replica_id)
    )
    fresh_ids = tuple(it.replica_id for it in fresh)
    dropped = tuple(it for it in group.replicas if it.node_id in wanted.remove)
    kept = tuple(it for it in group.replicas if it not in dropped)
    dropped_ids = {it.replica_id for it in dropped}
    changed = replace(
        _with_group(
            table,
            gid,
            replace(
                group,
                replicas=kept + fresh,
                joining=tuple(it for it in group.joining if it not in dropped_ids) + fresh_ids,
                leaving=group.leaving + dropped,
            ),
        ),
        next_replica_id=table.next_replica_id + len(fresh),
    )
    return changed, {
        "version": changed.version,
        "gid": gid,
        "joining": list(fresh_ids),
        "leaving": sorted(dropped_ids),
    }


def _refusal(table: ConfigTable, group: Group, wanted: Replicas) -> str:
    """Why the change cannot be, "" if it can."""
    homes = {it.node_id: it for it in group.replicas}
    for node_id in wanted.remove:
        if node_id not in homes:
            return f"it has no replica on node {node_id}"
        if group.changing and homes[node_id].replica_id not in group.joining:
            return f"it is changing already ({_under_way(group)}): no other voter can leave now"
    for node_id in wanted.add:
        node = table.nodes.get(node_id)
        if node is None or node.store_id == "":
            return f"node {node_id} has not registered"
        if node_id in homes and node_id not in wanted.remove:
            return f"it has a replica on node {node_id} already"
    count = len(group.replicas) + len(wanted.add) - len(wanted.remove)
    if count < 1:
        return "it would have no replica left"
    if count > limits.GROUP_REPLICAS:
        return f"it would have {count} replicas, at most {limits.GROUP_REPLICAS} are possible"
    if len(group.leaving) + len(wanted.remove) > limits.GROUP_LEAVING:
        return f"{len(group.leaving)} replicas are still leaving: wait until they have"
    return ""


def _under_way(group: Group) -> str:
    parts = [f"replica {it} is joining" for it in group.joining]
    parts += [f"replica {it.replica_id} on node {it.node_id} is leaving" for it in group.leaving]
    return ", ".join(parts)


def settle(table: ConfigTable, report: Settle) -> Outcome:
    """What has been done is not under way any more; replicas that left are forgotten."""
    group = table.groups.get(report.gid)
    if group is None:
        return table, f"there is no group {report.gid}"
    settled = replace(
        group,
        joining=tuple(it for it in group.joining if it not in report.joined),
        leaving=tuple(it for it in group.leaving if it.replica_id not in report.left),
    )
    if settled == group:
        return table, {"version": table.version}
    changed = _with_group(table, report.gid, settled)
    return changed, {"version": changed.version}


def forget(table: ConfigTable, wanted: Forget) -> Outcome:
    """A node leaves the table, once no replica is on it."""
    node_id = wanted.node_id
    if node_id in table.removed_nodes:
        return table, {"version": table.version}
    if node_id not in table.nodes:
        return table, f"there is no node {node_id}"
    gids = [
        gid
        for gid, group in sorted(table.groups.items())
        if any(it.node_id == node_id for it in group.members)
    ]
    if gids:
        groups = ", ".join(map(str, gids))
        return table, f"node {node_id} still has replicas of group {groups}"
    if len(table.removed_nodes) >= limits.TABLE_REMOVED_NODES:
        return table, f"no more than {limits.TABLE_REMOVED_NODES} nodes can be removed"
    changed = replace(
        table,
        version=table.version + 1,
        nodes={key: node for key, node in table.nodes.items() if key != node_id},
        removed_nodes=tuple(sorted((*table.removed_nodes, node_id))),
    )
    return changed, {"version": changed.version}


def _with_group(table: ConfigTable, gid: int, group: Group) -> ConfigTable:
    """The next version, with this group changed."""
    return replace(table, version=table.version + 1, groups={**table.groups, gid: group})
