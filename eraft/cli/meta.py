"""`eraft meta`: changes and shows the config table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import orjson

from eraft.cli import admin
from eraft.cli.arguments import add_command, add_json, positive

if TYPE_CHECKING:
    from eraft.cli.arguments import Commands

TEXT = """
The config table says which group owns which bucket (hash slot), where each
group's replicas are and where each node listens. Every change makes the next
version, and every version can be read again. Any node's admin address will do;
it asks the metaserver.

First all groups join, then the table is opened, once: this splits the 16384
buckets between the groups.
"""
EXAMPLES = """
  eraft meta join 1 1 2 3 --node 127.0.0.1:26379     group 1 on the nodes 1, 2 and 3
  eraft meta join 2 1 2 3 --node 127.0.0.1:26379
  eraft meta open --node 127.0.0.1:26379             split the buckets between them
  eraft meta query --node 127.0.0.1:26379            the newest version
  eraft meta replicas 1 --add 4 --remove 3 --node 127.0.0.1:26379
  eraft meta forget 3 --node 127.0.0.1:26379         once no group needs node 3
  eraft meta query 2 --node 127.0.0.1:26379          version 2
"""
REPLICAS_TEXT = """
Changes which nodes are to have a replica of a group, the metaserver's (0) too.
The answer is what the table wants from now on; the group's leader carries it
out: the new replica learns, then votes, and the old one is out in the same
step. `eraft status` shows how far it is. A node in both lists gets a new
replica in place of its old one. A group that would lose its quorum by it waits.
"""


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "meta", None, "change and show the config table", TEXT, EXAMPLES)
    inner = parser.add_subparsers(title="operations", metavar="OPERATION", required=True)

    join = add_command(inner, "join", run_join, "add a group on some nodes")
    join.add_argument("gid", type=positive, metavar="GID", help="the new group's number")
    join.add_argument("nodes", type=positive, nargs="+", metavar="NODE_ID", help="one per replica")
    join.add_argument(
        "--weight", type=positive, metavar="N", help="share of the buckets (default 1)"
    )
    replicas = add_command(
        inner, "replicas", run_replicas, "give a group other replicas", REPLICAS_TEXT
    )
    replicas.add_argument("gid", type=int, help="the group's number, 0 for the metaserver")
    for flag, what in (("--add", "get a new replica"), ("--remove", "lose theirs")):
        replicas.add_argument(
            flag, type=positive, nargs="+", default=[], metavar="node_id", help=f"nodes that {what}"
        )
    forget = add_command(
        inner, "forget", run_forget, "remove a node without replicas; its id is never used again"
    )
    forget.add_argument("node_id", type=positive)
    opened = add_command(inner, "open", run_open, "split the buckets between the groups, once")
    query = add_command(inner, "query", run_query, "show a version of the table")
    query.add_argument(
        "version", type=int, nargs="?", metavar="VERSION", help="default: the newest"
    )
    leave = add_command(inner, "leave", run_leave, "remove a group (not available yet)")
    leave.add_argument("gid", type=positive, metavar="GID")
    move = add_command(inner, "move", run_move, "move buckets to a group (not available yet)")
    move.add_argument("gid", type=positive, metavar="GID")
    move.add_argument("buckets", nargs="+", metavar="BUCKET", help="0..16383, or 0-100")
    for operation in (join, replicas, forget, opened, query, leave, move):
        operation.add_argument(
            "--node", required=True, metavar="HOST:ADMINPORT", help="any node's admin address"
        )
        add_json(operation)


def run_join(args: argparse.Namespace) -> int:
    weight = [] if args.weight is None else ["WEIGHT", args.weight]
    return _change(args, "JOIN", args.gid, *args.nodes, *weight)


def run_replicas(args: argparse.Namespace) -> int:
    words = [args.gid, "ADD", *args.add, "REMOVE", *args.remove]
    return _change(args, "REPLICAS", *words)


def run_forget(args: argparse.Namespace) -> int:
    return _change(args, "FORGET", args.node_id)


def run_open(args: argparse.Namespace) -> int:
    return _change(args, "OPEN")


def run_leave(args: argparse.Namespace) -> int:
    return _change(args, "LEAVE", args.gid)


def run_move(args: argparse.Namespace) -> int:
    return _change(args, "MOVE", args.gid, *args.buckets)


def run_query(args: argparse.Namespace) -> int:
    version = [] if args.version is None else [args.version]
    table = admin.ask(args.node, "META", "QUERY", *version)
    print(orjson.dumps(table).decode() if args.json else "\n".join(describe(table)))
    return 0


def _change(args: argparse.Namespace, *words: str | int) -> int:
    answer = admin.ask(args.node, "META", *words)
    if args.json:
        print(orjson.dumps(answer).decode())
        return 0
    version = answer.get("version") if isinstance(answer, dict) else answer
    print(
        f"{words[0].lower() if isinstance(words[0], str) else ''}: config table version {version}"
    )
    note = answer.get("note") if isinstance(answer, dict) else None
    if note:
        print(note)
    return 0


def describe(table: dict[str, Any]) -> list[str]:
    """The table for people."""
    lines = [f"version {table['version']}, {'open' if table['opened'] else 'not open yet'}"]
    for node_id, node in sorted(table["nodes"].items(), key=lambda item: int(item[0])):
        lines.append(
            f"node {node_id}: client {node['client']}, peer {node['peer']}, "
            f"admin {node['admin']}, store {node['store_id']}"
            if node["store_id"]
            else f"node {node_id}: peer {node['peer']}, has not registered yet"
        )
    for gid, group in sorted(table["groups"].items(), key=lambda item: int(item[0])):
        nodes = ", ".join(str(replica["node_id"]) for replica in group["replicas"])
        ranges = [(start, end) for start, end, owner in table["buckets"] if owner == int(gid)]
        count = sum(end - start + 1 for start, end in ranges)
        shown = " ".join(f"{start}-{end}" for start, end in ranges)
        what = "metaserver" if gid == "0" else f"weight {group['weight']}, {count} buckets {shown}"
        lines.append(f"group {gid}: nodes {nodes}; {what.strip()}")
        if group["joining"]:
            joining = " ".join(map(str, group["joining"]))
            lines.append(f"group {gid}: joining: replica {joining}")
        for replica in group["leaving"]:
            old, node = replica["replica_id"], replica["node_id"]
            lines.append(f"group {gid}: leaving: replica {old} on node {node}")
    return lines
