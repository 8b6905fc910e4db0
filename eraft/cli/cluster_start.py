"""`eraft cluster start`: from a directory to a cluster that serves."""

import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eraft import limits
from eraft._impl import hashing
from eraft.cli import admin, cluster_file, cluster_nodes, config, processes, status
from eraft.cli.arguments import CommandFailed
from eraft.cli.cluster_file import HOST, PORTS_BELOW, PORTS_PER_NODE, Cluster, NodeEntry
from eraft.cli.init import parse_metaserver
from eraft.errors import ConfigError, EraftError
from eraft.storage.directory import format_directory
from eraft.types import BUCKETS

METASERVER_NODES = 3


@dataclass(slots=True, frozen=True)
class Plan:
    """What the flags ask for; None where a flag was not given."""

    nodes: int | None
    groups: int | None
    replicas: int | None
    base_port: int | None
    settings: dict[str, Any]


def start(directory: Path, plan: Plan, timeout_s: float) -> Cluster:
    """Make the cluster or start what is stopped of it, and wait until it serves.

    Raises:
        ConfigError: the flags do not fit together or not to the directory.
        CommandFailed: a node does not come up, or the cluster does not serve
            in time; what this call has started is stopped again.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--dir {directory}: {error.strerror}") from error
    if not cluster_file.exists(directory) and not (directory / cluster_file.LOCK).exists():
        check_empty(directory)  # before the lock's file is made
    with cluster_file.locked(directory):
        if cluster_file.exists(directory):
            cluster = cluster_file.read(directory)
            check_same(cluster, plan)
        else:
            cluster = new_cluster(directory, plan)
        with cluster_file.kept_true(directory, cluster):
            format_nodes(cluster, plan)
            started = cluster_nodes.start_stopped(cluster)
            cluster_file.write(directory, cluster)
            try:
                Starter(cluster, timeout_s).run()
            except BaseException:
                cluster_nodes.stop(started)
                raise
    return cluster


def check_empty(directory: Path) -> None:
    """ConfigError if the directory has anything in it that is not of a cluster."""
    if any(path.name != cluster_file.LOCK for path in directory.iterdir()):
        raise ConfigError(f"{directory} is not empty and has no {cluster_file.FILE}: give another")


def new_cluster(directory: Path, plan: Plan) -> Cluster:
    count, groups = plan.nodes or 3, plan.groups or 2
    replicas = plan.replicas or min(3, count)
    if replicas > min(count, limits.GROUP_REPLICAS):
        raise ConfigError(
            f"--replicas {replicas}: a group has at most one replica on each of the {count} nodes"
            f" and at most {limits.GROUP_REPLICAS}"
        )
    check_empty(directory)
    base = plan.base_port or cluster_file.choose_base_port(count)
    if base < 1024 or base + count * PORTS_PER_NODE > PORTS_BELOW:
        raise ConfigError(
            f"--base-port {base}: {count} nodes need {count * PORTS_PER_NODE} ports"
            f" from 1024 on and below {PORTS_BELOW}"
        )
    nodes = [new_node(directory, n, base, count, plan.settings) for n in range(count)]
    names = [node.name for node in nodes]
    return Cluster(
        cluster_id=f"local-{secrets.token_hex(4)}",
        metaserver=names[: METASERVER_NODES if count >= METASERVER_NODES else 1],
        nodes=nodes,
        groups=cluster_file.place_groups(groups, replicas, names),
    )


def new_node(
    directory: Path, n: int, base_port: int, count: int, settings: dict[str, Any]
) -> NodeEntry:
    name = f"n{n + 1}"
    data_dir = str(directory / name)
    addresses = {kind: f"{HOST}:{base_port + n + k * count}" for k, kind in enumerate(config.BOUND)}
    command = [sys.executable, "-P", "-m", "eraft", "serve"]
    for key, value in {"data_dir": data_dir, **addresses, **settings}.items():
        command += [config.flag(key), str(value)]
    return NodeEntry(
        name=name,
        id=n + 1,
        state="stopped",
        pid=None,
        **addresses,
        data_dir=data_dir,
        log=str(directory / f"{name}.log"),
        command=command,
    )


def check_same(cluster: Cluster, plan: Plan) -> None:
    """Refuse flags that are not those the cluster was made with."""
    first = cluster.nodes[0]
    have: dict[str, Any] = {
        "--nodes": len(cluster.nodes),
        "--groups": len(cluster.groups),
        "--replicas": len(cluster.groups[0].nodes),
        "--base-port": int(first.client.rpartition(":")[2]),
    }
    want: dict[str, Any] = dict(
        zip(have, (plan.nodes, plan.groups, plan.replicas, plan.base_port), strict=True)
    )
    for name, value in plan.settings.items():
        flag = config.flag(name)
        want[flag] = str(value)
        given = flag in first.command
        have[flag] = first.command[first.command.index(flag) + 1] if given else "the default"
    for flag, value in want.items():
        if value is not None and value != have[flag]:
            raise ConfigError(
                f"{flag} {value}: the cluster was made with {have[flag]}; "
                "leave the flag out, or make another cluster in another directory"
            )


def format_nodes(cluster: Cluster, plan: Plan) -> None:
    """`eraft init` for the nodes that have no data directory yet."""
    size = plan.settings.get("segment_size_bytes", limits.SEGMENT_SIZE_BYTES)
    for node in cluster.nodes:
        path = Path(node.data_dir)
        if not path.exists() or not any(path.iterdir()):
            format_directory(
                node.data_dir,
                cluster.cluster_id,
                node.id,
                parse_metaserver(cluster.founding_list()),
                segment_size_bytes=size,
            )


class Starter:
    """Waits for one thing after the other until the cluster serves."""

    def __init__(self, cluster: Cluster, timeout_s: float) -> None:
        self._cluster = cluster
        self._where = cluster.nodes[0].admin
        self._deadline_s = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._problem = "nothing was tried"

    def run(self) -> None:
        for step in (self._all_answer, self._registered, self._groups_joined, self._serves):
            self._wait(step)

    def _wait(self, step: Callable[[], bool]) -> None:
        """Repeat a step until it is True; it says what is still missing by an EraftError."""

        def attempt() -> bool:
            for node in self._cluster.nodes:
                cluster_nodes.check_alive(node)
            try:
                return step()
            except EraftError as error:
                self._problem = str(error)
                return False

        left_s = max(0.0, self._deadline_s - time.monotonic())
        if not processes.wait_until(attempt, left_s):
            raise CommandFailed(f"gave up after {self._timeout_s:g} s: {self._problem}")

    def _all_answer(self) -> bool:
        for node in self._cluster.nodes:
            with admin.Connection(node.admin, answer_s=1.0) as connection:
                connection.call("PING")
        return True

    def _table(self) -> dict[str, Any]:
        table: dict[str, Any] = admin.ask(self._where, "META", "QUERY")
        return table

    def _registered(self) -> bool:
        known = self._table()["nodes"]
        for node in self._cluster.nodes:
            if not known.get(str(node.id), {}).get("store_id"):
                raise CommandFailed(f"{node.name} has not registered with the metaserver")
        return True

    def _groups_joined(self) -> bool:
        """Join what is missing and open: repeated from the table's state if an answer is lost."""
        ids = {node.name: node.id for node in self._cluster.nodes}
        table = self._table()
        for group in self._cluster.groups:
            if str(group.gid) not in table["groups"]:
                nodes = [ids[name] for name in group.nodes]
                admin.ask(self._where, "META", "JOIN", group.gid, *nodes)
        if not table["opened"]:
            admin.ask(self._where, "META", "OPEN")
        return True

    def _serves(self) -> bool:
        """All buckets owned, one table version everywhere, a linearizable read per group."""
        table = self._table()
        answers = status.ask_all({node.id: node.admin for node in self._cluster.nodes})
        for node in self._cluster.nodes:
            answer = answers[node.id]
            if "error" in answer:
                raise CommandFailed(f"{node.name}: {answer['error']}")
            if answer["table_version"] != table["version"]:
                raise CommandFailed(
                    f"{node.name} has config table version {answer['table_version']}, "
                    f"the newest is {table['version']}"
                )
        groups = status.group_rows([answers[node.id] for node in self._cluster.nodes])
        leaderless = [group["gid"] for group in groups if group["leader"] is None]
        if leaderless:
            raise CommandFailed(f"groups {leaderless} have no leader")
        owned = status.buckets_owned(groups)
        if owned != BUCKETS:
            raise CommandFailed(f"{owned} of {BUCKETS} buckets are owned")
        leaders = {group["gid"]: self._cluster.node(str(group["leader"])) for group in groups}
        self._read_from_each(table, leaders)
        self._check_views(table, leaders)
        return True

    def _read_from_each(self, table: dict[str, Any], leaders: dict[int, NodeEntry]) -> None:
        """A GET from every group that has buckets; its leader answers it linearizably."""
        first_buckets = {gid: start for start, _, gid in table["buckets"]}
        for gid, bucket in first_buckets.items():
            node = leaders[gid]
            try:
                with admin.Connection(node.client) as connection:
                    connection.call("GET", key_in(bucket))
            except EraftError as error:
                raise CommandFailed(f"group {gid} does not answer a read: {error}") from error

    def _check_views(self, table: dict[str, Any], leaders: dict[int, NodeEntry]) -> None:
        """Every node names the leaders to clients: some keep what they are told first."""
        wanted = {start: leaders[gid].client for start, _, gid in table["buckets"]}
        for node in self._cluster.nodes:
            with admin.Connection(node.client) as connection:
                slots: Any = connection.call("CLUSTER", "SLOTS")
            named = {start: f"{first[0].decode()}:{first[1]}" for start, _, first, *_ in slots}
            if named != wanted:
                raise CommandFailed(f"{node.name} does not know the leaders of all groups yet")


def key_in(bucket: int) -> bytes:
    """A key of the bucket."""
    n = 0
    while hashing.bucket_of(key := b"eraft-start-%d" % n) != bucket:
        n += 1
    return key
