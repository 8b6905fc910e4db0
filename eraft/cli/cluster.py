"""`eraft cluster`: a whole cluster on this machine, to try it and to test it.

A convenience over `eraft init`, `eraft serve` and `eraft meta`: there is
nothing here that they cannot do.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from eraft.cli import (
    cluster_file,
    cluster_members,
    cluster_nodes,
    cluster_start,
    config,
    status,
)
from eraft.cli.arguments import add_command, add_json, positive, seconds

if TYPE_CHECKING:
    from eraft.cli.arguments import Commands

TEXT = """
Makes, starts and breaks a cluster of node processes on this machine, all under
one directory. DIR/cluster.json says what there is: nodes with their addresses,
process ids and command lines, and groups; it is true after each command.
"""
EXAMPLES = """
  eraft cluster start --dir ./try           3 nodes, 2 groups with 3 replicas each
  eraft cluster status --dir ./try
  eraft cluster kill n2 --dir ./try         as a crash would
  eraft cluster restart n2 --dir ./try
  eraft cluster replace-node n2 --dir ./try by a new node, whatever happened to n2
  eraft cluster stop --dir ./try
"""
START_TEXT = """
Starts a cluster and returns when it serves: all buckets are owned, every node
has the newest config table, and each group has answered a linearizable read.
With a directory that has a cluster already it starts the nodes that are
stopped; flags must then be the same as the first time, or left out.

The setting flags are those of `eraft serve` and are passed on to every node.
"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands, "cluster", None, "a whole cluster on this machine", TEXT, EXAMPLES
    )
    inner = parser.add_subparsers(title="operations", metavar="OPERATION", required=True)

    start = add_command(
        inner, "start", run_start, "start a cluster, or its stopped nodes", START_TEXT
    )
    start.add_argument("--nodes", type=positive, metavar="N", help="node processes (default 3)")
    start.add_argument("--groups", type=positive, metavar="N", help="data groups (default 2)")
    start.add_argument(
        "--replicas", type=positive, metavar="N", help="replicas per group (default 3)"
    )
    start.add_argument(
        "--base-port",
        type=positive,
        metavar="P",
        help="client ports P, P+1, ..., then peer, then admin ports (default: free ones)",
    )
    start.add_argument(
        "--timeout-s", type=seconds, default=60.0, metavar="S", help="give up after (default 60)"
    )
    config.add_flags(start, without=("data_dir", *config.ADDRESSES))
    stop = add_command(inner, "stop", run_stop, "stop all nodes cleanly (SIGTERM)")
    shown = add_command(inner, "status", status.run, "the same as `eraft status --dir DIR`")
    shown.set_defaults(node=None)
    add_json(shown)
    operations = [start, stop, shown]
    for name, run, summary in (
        ("kill", run_kill, "kill a node with SIGKILL; returns when the process is gone"),
        ("restart", run_restart, "start a node again; returns when it answers clients"),
        ("pause", run_pause, "stop a node's process for a while (SIGSTOP)"),
        ("resume", run_resume, "let a paused node go on (SIGCONT)"),
    ):
        operation = add_command(inner, name, run, summary)
        operation.add_argument("name", metavar="NODE", help="n1, n2, ... or the node id")
        operations.append(operation)
    operations += add_member_parsers(inner)
    for operation in operations:
        operation.add_argument(
            "--dir", required=True, metavar="DIR", help="the cluster's directory"
        )


def add_member_parsers(inner: Commands) -> list[argparse.ArgumentParser]:
    """The operations that change which nodes there are."""
    add = add_command(
        inner, "add-node", cluster_members.run_add, "add a node", cluster_members.ADD_TEXT
    )
    add.add_argument(
        "--group",
        type=int,
        action="append",
        default=[],
        metavar="GID",
        help="a group that gets a replica there; may be repeated",
    )
    remove = add_command(
        inner,
        "remove-node",
        cluster_members.run_remove,
        "move a node's replicas away and remove it",
        cluster_members.REMOVE_TEXT,
    )
    replace = add_command(
        inner,
        "replace-node",
        cluster_members.run_replace,
        "make a node's replicas anew on another one",
        cluster_members.REPLACE_TEXT,
    )
    replace.add_argument(
        "--with", dest="by", metavar="NODE", help="a node that is there (default: a new one)"
    )
    for operation in (remove, replace):
        operation.add_argument("name", metavar="NODE", help="n1, n2, ... or the node id")
    for operation in (add, remove, replace):
        operation.add_argument(
            "--timeout-s", type=seconds, default=600.0, metavar="S", help="give up after (600)"
        )
        add_json(operation)
    return [add, remove, replace]


def directory(args: argparse.Namespace) -> Path:
    return Path(args.dir).absolute()


def run_start(args: argparse.Namespace) -> int:
    plan = cluster_start.Plan(
        args.nodes, args.groups, args.replicas, args.base_port, config.given_flags(args)
    )
    cluster = cluster_start.start(directory(args), plan, args.timeout_s)
    for node in cluster.nodes:
        print(f"{node.name}: pid {node.pid}, client {node.client}, admin {node.admin}")
    port = cluster.nodes[0].client.rpartition(":")[2]
    print(f"the cluster serves; try: redis-cli -c -p {port}")
    return 0


def run_stop(args: argparse.Namespace) -> int:
    with cluster_file.changing(directory(args)) as cluster:
        cluster_nodes.stop(cluster.nodes)
    print(f"stopped {len(cluster.nodes)} nodes")
    return 0


def run_kill(args: argparse.Namespace) -> int:
    with cluster_file.changing(directory(args)) as cluster:
        node = cluster.node(args.name)
        pid = cluster_nodes.kill(node)
    print(f"killed {node.name}, pid {pid}")
    return 0


def run_restart(args: argparse.Namespace) -> int:
    with cluster_file.changing(directory(args)) as cluster:
        node = cluster.node(args.name)
        cluster_nodes.stop([node])
        cluster_nodes.spawn(node)
        cluster_nodes.wait_answers(node)
    print(f"{node.name}: pid {node.pid}, answers clients at {node.client}")
    return 0


def run_pause(args: argparse.Namespace) -> int:
    with cluster_file.changing(directory(args)) as cluster:
        node = cluster.node(args.name)
        cluster_nodes.signal_and_wait(node, signal.SIGSTOP, "paused")
    print(f"paused {node.name}, pid {node.pid}")
    return 0


def run_resume(args: argparse.Namespace) -> int:
    with cluster_file.changing(directory(args)) as cluster:
        node = cluster.node(args.name)
        cluster_nodes.signal_and_wait(node, signal.SIGCONT, "running")
    print(f"resumed {node.name}, pid {node.pid}")
    return 0
