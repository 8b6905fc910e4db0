"""`eraft status`: what every node of a cluster says of itself, put together."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from eraft.cli import admin, cluster_file
from eraft.cli.arguments import CommandFailed, add_command, add_json
from eraft.errors import EraftError
from eraft.metaserver.table import ConfigTable
from eraft.types import BUCKETS

if TYPE_CHECKING:
    from eraft.cli.arguments import Commands

STATUS_S = 3.0
COUNT_S = 60.0
"""For counting all keys, which takes a second or two a million."""
TABLE_S = 3.0

TEXT = """
Asks one node for the config table and then all nodes of the table for their
state. Per group: who leads, term, commit and applied index, size of the log,
buckets and keys. Per node: role, address, uptime, implementation. A node that
does not answer and one whose log is damaged (quarantined) are said so.
So is a replica that is quarantined because its state is not that of its group.

Exit status 0 if at least one node answered.
"""
EXAMPLES = """
  eraft status --node 127.0.0.1:26379
  eraft status --dir ./try             a cluster made by `eraft cluster start --dir ./try`
  eraft status --dir ./try --json
"""

Status = dict[str, Any]


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "status", run, "show nodes and groups", TEXT, EXAMPLES)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--node", metavar="HOST:ADMINPORT", help="any node's admin address")
    where.add_argument("--dir", metavar="DIR", help="the directory of a local cluster")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.node:
        addresses = {0: args.node}
    else:
        cluster = cluster_file.read(Path(args.dir).absolute())
        addresses = {node.id: node.admin for node in cluster.nodes}
    report = gather(addresses, count_keys=True)
    print(orjson.dumps(report).decode() if args.json else "\n".join(describe(report)))
    return 0


def gather(addresses: dict[int, str], *, count_keys: bool = False) -> Status:
    """The report on the cluster that the given admin addresses belong to.

    `addresses` is node id -> address, with id 0 for a node that is not known
    yet. Raises CommandFailed if none of them answers.
    """
    answers = ask_all(addresses, count_keys=count_keys)
    answers = {answer.get("node_id", node): answer for node, answer in answers.items()}
    live = [answer for answer in answers.values() if "error" not in answer]
    if not live:
        raise CommandFailed(
            "no node answers: " + "; ".join(str(answer["error"]) for answer in answers.values())
        )
    table = newest_table([answer["admin"] for answer in live])
    if table is not None:
        known = {
            int(node): entry["admin"] for node, entry in table["nodes"].items() if entry["admin"]
        }
        others = {node: where for node, where in known.items() if node not in answers}
        answers |= ask_all(others, count_keys=count_keys)
    nodes = [{"node_id": node, **answers[node]} for node in sorted(answers)]
    return {
        "table_version": table["version"] if table else None,
        "opened": table["opened"] if table else None,
        "metaserver": "answers" if table else "does not answer",
        "nodes": nodes,
        "groups": group_rows(nodes),
    }


def ask_all(addresses: dict[int, str], *, count_keys: bool = False) -> dict[int, Status]:
    """STATUS of every node; one that does not answer gives {"admin", "error"}."""

    def ask(where: str) -> Status:
        try:
            answer: Status = admin.ask(where, "STATUS", answer_s=STATUS_S)
            if count_keys:  # only of a node that has just answered: this may take long
                answer = admin.ask(where, "STATUS", "KEYS", answer_s=COUNT_S)
        except EraftError as error:
            return {"admin": where, "error": str(error)}
        if not isinstance(answer, dict) or "node_id" not in answer:
            return {"admin": where, "error": f"{where}: this is not the status of an eraft node"}
        return answer

    if not addresses:
        return {}
    with ThreadPoolExecutor(min(32, len(addresses))) as pool:
        return dict(zip(addresses, pool.map(ask, addresses.values()), strict=True))


def newest_table(addresses: list[str]) -> Status | None:
    """The config table from the first node that gets it; None without a metaserver."""
    for where in addresses:
        try:
            table: Status = admin.ask(where, "META", "QUERY", answer_s=TABLE_S)
            ConfigTable.from_dict(table)
        except EraftError:
            continue
        return table
    return None


def group_rows(nodes: list[Status]) -> list[Status]:
    """One row per group from what its replicas say; the leader of the highest term speaks for it.

    Without a leader the figures are those of the replica that is furthest.
    """
    replicas: dict[int, list[Status]] = {}
    for node in nodes:
        for group in node.get("groups", ()):
            replicas.setdefault(group["gid"], []).append({"node_id": node["node_id"], **group})
    rows = []
    for gid in sorted(replicas):
        members = sorted(replicas[gid], key=lambda member: member["node_id"])
        leaders = [member for member in members if member["role"] == "leader"]
        sound = [member for member in members if not member.get("quarantined")]
        speaker = max(
            leaders or sound or members, key=lambda member: (member["term"], member["commit"])
        )
        rows.append(
            {
                "gid": gid,
                "leader": speaker["node_id"] if leaders else None,
                **{name: speaker.get(name) for name in GROUP_FIGURES},
                "replicas": members,
            }
        )
    return rows


GROUP_FIGURES = (
    *("term", "commit", "applied", "last_index", "log_size_bytes", "buckets", "keys"),
    *("voters", "outgoing", "learners", "change", "progress"),
)


def buckets_owned(groups: list[Status]) -> int:
    """How many buckets the groups' leaders own; the metaserver owns none."""
    return sum(group["buckets"] or 0 for group in groups)


def describe(report: Status) -> list[str]:
    """The report for people."""
    lines = []
    for node in report["nodes"]:
        if "error" in node:
            lines.append(f"!! node {node['node_id']} DOES NOT ANSWER: {node['error']}")
        if node.get("quarantined"):
            lines.append(f"!! node {node['node_id']} IS QUARANTINED: {node['quarantined']}")
            lines.append("   it neither votes nor serves until it is replaced from its peers")
        for group in node.get("groups", ()):
            if group.get("quarantined"):
                where = f"group {group['gid']} on node {node['node_id']}"
                lines.append(f"!! {where} IS QUARANTINED: {group['quarantined']}")
                lines.append("   this replica neither votes nor serves until it is replaced")
        if node.get("refuses_writes"):
            lines.append(f"!! node {node['node_id']} REFUSES WRITES: {node['refuses_writes']}")
    lines += [
        f"!! group {group['gid']} HAS NO LEADER: its buckets are not served"
        for group in report["groups"]
        if group["gid"] and group["leader"] is None
    ]
    if report["table_version"] is None:
        lines.append("!! the metaserver does not answer: its group has no leader")
    else:
        opened = "open" if report["opened"] else "not open yet"
        lines.append(f"config table version {report['table_version']}, {opened}")
    lines += ["", *columns(NODE_TITLES, [node_cells(node) for node in report["nodes"]])]
    lines += ["", *columns(GROUP_TITLES, [group_cells(group) for group in report["groups"]])]
    owned = buckets_owned(report["groups"])
    changes = [line for group in report["groups"] for line in changes_of(group)]
    lines += ["", *changes] if changes else []
    if any(group["buckets"] is not None for group in report["groups"]):
        lines += ["", f"{owned} of {BUCKETS} buckets owned"]
    return lines


def changes_of(group: Status) -> list[str]:
    """What is under way in a group's membership."""
    lines = []
    if group["outgoing"]:
        old, new = (" ".join(map(str, group[half])) for half in ("outgoing", "voters"))
        lines.append(f"group {group['gid']}: joint configuration, from replicas {old} to {new}")
    for learner in group["progress"] or ():
        if learner["replica_id"] in (group["learners"] or ()):
            how_far = f"{learner['match_index']} of {group['last_index']} entries"
            if learner["state"] == "snapshot":
                how_far = "receives a snapshot"
            lines.append(
                f"group {group['gid']}: replica {learner['replica_id']} on node"
                f" {learner['node_id']} is a learner: {how_far}"
            )
    if group["change"]:
        lines.append(f"group {group['gid']}: the leader {group['change']}")
    return lines


NODE_TITLES = ("node", "state", "role", "client", "admin", "table", "uptime", "impl", "pid")


def node_cells(node: Status) -> tuple[str, ...]:
    if "error" in node:
        return (str(node["node_id"]), "DOWN", "-", "-", node["admin"], "-", "-", "-", "-")
    return (
        str(node["node_id"]),
        "QUARANTINED" if node["quarantined"] else "up",
        node["role"],
        node["client"],
        node["admin"],
        str(node["table_version"]),
        duration(node["uptime_s"]),
        node["impl"],
        str(node["pid"]),
    )


GROUP_TITLES = (
    "group",
    "leader",
    "term",
    "commit",
    "applied",
    "log",
    "buckets",
    "keys",
    "replicas",
)


def group_cells(group: Status) -> tuple[str, ...]:
    name = "0 (metaserver)" if group["gid"] == 0 else str(group["gid"])
    leader = "NONE" if group["leader"] is None else f"node {group['leader']}"
    replicas = " ".join(f"{it['node_id']}:{it['role']}@{it['applied']}" for it in group["replicas"])
    figures = (group["term"], group["commit"], group["applied"])
    return (
        name,
        leader,
        *map(str, figures),
        size(group["log_size_bytes"]),
        *("-" if group[name] is None else str(group[name]) for name in ("buckets", "keys")),
        replicas,
    )


def columns(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[n]) for row in [titles, *rows]) for n in range(len(titles))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [titles, *rows]
    ]


def duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def size(size_bytes: int) -> str:
    if size_bytes < 1024:
        return f"{size_bytes} B"
    if size_bytes < 1024 * 1024:
        return f"{size_bytes / 1024:.0f} KiB"
    return f"{size_bytes / (1024 * 1024):.1f} MiB"
