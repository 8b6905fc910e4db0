"""`eraft cluster add-node`, `remove-node` and `replace-node`.

What they do to a local cluster: make and end node processes, and keep
cluster.json true. What happens to the groups is in `members`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import orjson

from eraft import limits
from eraft.cli import cluster_file, cluster_nodes, config
from eraft.cli.arguments import CommandFailed
from eraft.cli.cluster_file import HOST, PORTS_PER_NODE, Cluster, NodeEntry
from eraft.cli.init import parse_metaserver
from eraft.cli.members import NEW_NODE, Members, Table
from eraft.storage.directory import format_directory

ADD_TEXT = """
Formats and starts a new node, with the settings of the others, and waits until
it is registered. It has no replicas at first: --group gives it one of a group,
0 for the metaserver's, and waits until that one votes.
"""
REMOVE_TEXT = """
Takes a node out of the cluster: its replicas move to nodes that have none of
the group, the one with the fewest first, or, where there is none, the group
goes on with fewer replicas. Then the node leaves the config table, its process
is stopped, and its id is never used again. Its directory stays where it is.

Refused if a group would lose its quorum or its last replica, or is changing
already. The node itself need not run.
"""
REPLACE_TEXT = """
Replaces a node by a new one, or by --with NODE, which is there already: all
its replicas are made anew there, from the groups' other replicas, while the
cluster serves. This is what to do with a node whose disk is gone, and with one
that is quarantined, wholly or with some of its replicas. The old node need not
run; it is stopped in the end, and its directory stays where it is.

Refused if a group has no quorum without the node, or is changing already.
"""


def run_add(args: argparse.Namespace) -> int:
    directory = Path(args.dir).absolute()
    with cluster_file.changing_members(directory) as cluster:
        members = _members(args, cluster, leaving=None)
        _check_addable(members, args.group)
        node = _add_node(directory, cluster, members)
        for gid in args.group:
            members.add(gid, node.id)
        _finish(args, cluster, members, {"added": node.name, "node_id": node.id})
    return 0


def run_remove(args: argparse.Namespace) -> int:
    with cluster_file.changing_members(Path(args.dir).absolute()) as cluster:
        node = cluster.node(args.name)
        if len(cluster.nodes) == 1:
            raise CommandFailed(f"{node.name} is the only node of the cluster")
        members = _members(args, cluster, leaving=node)
        table = members.table()
        load = dict.fromkeys(members.serving() - {node.id}, 0)
        for group in table["groups"].values():
            for replica in group["replicas"]:
                if replica["node_id"] in load:
                    load[replica["node_id"]] += 1

        def target(gid: str, group: Table) -> int | None:
            taken = {replica["node_id"] for replica in group["replicas"]}
            free = sorted((count, it) for it, count in load.items() if it not in taken)
            if not free:
                return None
            load[free[0][1]] += 1
            return free[0][1]

        members.move(node.id, target)
        _remove_node(cluster, members, node)
        _finish(args, cluster, members, {"removed": node.name, "node_id": node.id})
    return 0


def run_replace(args: argparse.Namespace) -> int:
    directory = Path(args.dir).absolute()
    with cluster_file.changing_members(directory) as cluster:
        node = cluster.node(args.name)
        members = _members(args, cluster, leaving=node)
        if args.by:
            successor = cluster.node(args.by)
            if successor is node:
                raise CommandFailed(f"{node.name} cannot be replaced by itself")
            if successor.id not in members.serving():
                raise CommandFailed(f"{successor.name} does not serve; start it first")
        else:
            _check_replaceable(members, node)
            successor = _add_node(directory, cluster, members)
        members.move(node.id, lambda gid, group: successor.id)
        _remove_node(cluster, members, node)
        result = {"replaced": node.name, "by": successor.name, "node_id": successor.id}
        _finish(args, cluster, members, result)
    return 0


def _members(args: argparse.Namespace, cluster: Cluster, leaving: NodeEntry | None) -> Members:
    """Asks running nodes only, the leaving one last: it may be what is broken."""
    running = [it for it in cluster.nodes if it.state == "running"]
    nodes = sorted(running, key=lambda it: it is leaving)

    def say(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    return Members({node.id: node.admin for node in nodes}, say, args.timeout_s)


def _check_addable(members: Members, gids: list[int]) -> None:
    """Refuse before a node is made for nothing."""
    groups = members.table()["groups"]
    for gid in map(str, gids):
        group = groups.get(gid)
        if group is None:
            raise CommandFailed(f"there is no group {gid}")
        if group["joining"] or group["leaving"]:
            raise _changing(gid)
        members.check_quorum(gid, group, NEW_NODE)


def _check_replaceable(members: Members, node: NodeEntry) -> None:
    """The same."""
    for gid, group in members.table()["groups"].items():
        here = [it["replica_id"] for it in group["replicas"] if it["node_id"] == node.id]
        if here:
            if (group["joining"] or group["leaving"]) and here[0] not in group["joining"]:
                raise _changing(gid)
            members.check_quorum(gid, group, NEW_NODE, node.id)


def _changing(gid: str) -> CommandFailed:
    return CommandFailed(f"group {gid} is changing already; see `eraft status`")


def _add_node(directory: Path, cluster: Cluster, members: Members) -> NodeEntry:
    """A new node that is formatted, started and registered."""
    table = members.table()
    used = {node.id for node in cluster.nodes} | {*table["removed_nodes"]}
    node = _entry(directory, cluster.nodes[0], max(used | {*map(int, table["nodes"])}) + 1)
    format_directory(
        node.data_dir,
        cluster.cluster_id,
        node.id,
        parse_metaserver(_metaserver(table)),
        segment_size_bytes=_segment_size_bytes(node.command),
    )
    cluster_nodes.spawn(node)
    cluster.nodes.append(node)
    cluster_file.save(directory, cluster)
    cluster_nodes.wait_answers(node)
    members.wait_registered(node.id)
    members.know(node.id, node.admin)
    return node


def _entry(directory: Path, like: NodeEntry, node_id: int) -> NodeEntry:
    """A node with free ports and the settings of another one."""
    name = f"n{node_id}"
    data_dir = str(directory / name)
    base = cluster_file.choose_base_port(1)
    ports = dict(zip(config.BOUND, range(base, base + PORTS_PER_NODE), strict=True))
    addresses = {kind: f"{HOST}:{port}" for kind, port in ports.items()}
    command = list(like.command)
    for key, value in {"data_dir": data_dir, **addresses}.items():
        command[command.index(config.flag(key)) + 1] = value
    return NodeEntry(
        name=name,
        id=node_id,
        state="stopped",
        pid=None,
        **addresses,
        data_dir=data_dir,
        log=str(directory / f"{name}.log"),
        command=command,
    )


def _metaserver(table: Table) -> str:
    """Where a new node finds the metaserver: its present members."""
    members = [replica["node_id"] for replica in table["groups"]["0"]["replicas"]]
    return ",".join(f"{it}={table['nodes'][str(it)]['peer']}" for it in members)


def _segment_size_bytes(command: list[str]) -> int:
    flag = config.flag("segment_size_bytes")
    return int(command[command.index(flag) + 1]) if flag in command else limits.SEGMENT_SIZE_BYTES


def _remove_node(cluster: Cluster, members: Members, node: NodeEntry) -> None:
    members.forget(node.id)
    cluster_nodes.stop([node])
    cluster.nodes.remove(node)


def _finish(
    args: argparse.Namespace, cluster: Cluster, members: Members, result: dict[str, Any]
) -> None:
    """cluster.json says what the table says; the result is shown."""
    table = members.table()
    names = {node.id: node.name for node in cluster.nodes}

    def homes(gid: str) -> list[str]:
        ids = [replica["node_id"] for replica in table["groups"][gid]["replicas"]]
        return [names[it] for it in ids if it in names]

    cluster.metaserver = homes("0")
    for group in cluster.groups:
        group.nodes = homes(str(group.gid))
    if args.json:
        print(orjson.dumps({**result, "table_version": table["version"]}).decode())
    else:
        words = ", ".join(f"{key} {value}" for key, value in result.items() if key != "node_id")
        print(f"{words.replace(', by', ' by')}, node id {result['node_id']}")
