"""`DIR/cluster.json`: what a cluster on this machine consists of, true after each command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from eraft.cli import processes
from eraft.cli.arguments import CommandFailed
from eraft.errors import ConfigError
from eraft.storage.directory import read_pid

FILE = "cluster.json"
LOCK = "cluster.lock"
MEMBERS_LOCK = "members.lock"
HOST = "127.0.0.1"
PORTS_BELOW = 32768  # from here on the kernel gives ports to outgoing connections
FREE_PORTS_FROM = 10000
PORTS_PER_NODE = 3


@dataclass(slots=True)
class NodeEntry:
    """One node; `state` is running, paused or stopped, `pid` None when stopped."""

    name: str
    id: int
    state: str
    pid: int | None
    client: str
    peer: str
    admin: str
    data_dir: str
    log: str
    command: list[str]

    def refresh(self) -> None:
        """See what is true now: a node may have died, or somebody else may have started it."""
        for pid in (self.pid, read_pid(self.data_dir)):
            self.state = processes.state(pid, self.data_dir)
            if self.state != "stopped":
                self.pid = pid
                return
        self.pid = None


@dataclass(slots=True)
class GroupEntry:
    """One data group and the names of its nodes."""

    gid: int
    nodes: list[str]


@dataclass(slots=True)
class Cluster:
    """The contents of the file."""

    cluster_id: str
    metaserver: list[str]
    nodes: list[NodeEntry]
    groups: list[GroupEntry]

    def node(self, name: str) -> NodeEntry:
        for node in self.nodes:
            if name in (node.name, str(node.id)):
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise ConfigError(f"there is no node {name!r}; there are {known}")

    def founding_list(self) -> str:
        """The argument of `eraft init --metaserver`."""
        members = [node for node in self.nodes if node.name in self.metaserver]
        return ",".join(f"{node.id}={node.peer}" for node in members)


def exists(directory: Path) -> bool:
    return (directory / FILE).exists()


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other commands on this cluster waiting."""
    with _lock(directory, LOCK, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _lock(directory: Path, name: str, how: int) -> Iterator[None]:
    try:
        descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def read(directory: Path) -> Cluster:
    """The cluster in the directory, as it is now. ConfigError if there is none."""
    path = directory / FILE
    try:
        values = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"{directory} has no {FILE}; `eraft cluster start --dir {directory}` makes a cluster"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path} is damaged: {error}") from None
    cluster = _parse(path, values)
    for node in cluster.nodes:
        node.refresh()
    return cluster


def _parse(path: Path, values: Any) -> Cluster:
    try:
        return Cluster(
            cluster_id=values["cluster_id"],
            metaserver=list(values["metaserver"]),
            nodes=[NodeEntry(**node) for node in values["nodes"]],
            groups=[GroupEntry(**group) for group in values["groups"]],
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def write(directory: Path, cluster: Cluster) -> None:
    """Replace the file: whoever reads it meanwhile sees the old one or the new one."""
    path = directory / FILE
    temporary = path.with_suffix(".tmp")
    data = orjson.dumps(asdict(cluster), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def kept_true(directory: Path, cluster: Cluster) -> Iterator[None]:
    """Write the cluster as it is at the end, also after an error. Needs the lock."""
    try:
        yield
    finally:
        _write_as_it_is(directory, cluster)


def _write_as_it_is(directory: Path, cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.refresh()
    write(directory, cluster)


@contextlib.contextmanager
def changing(directory: Path) -> Iterator[Cluster]:
    """The cluster in the directory, locked, and written back at the end."""
    read(directory)  # says so if there is none, before the lock's file is made
    with locked(directory):
        cluster = read(directory)
        with kept_true(directory, cluster):
            yield cluster


@contextlib.contextmanager
def changing_members(directory: Path) -> Iterator[Cluster]:
    """The cluster in the directory, for a command that changes which nodes it has.

    That takes long, and other commands do not wait for it. It alone changes
    which nodes there are, and of them everybody writes what is true. CommandFailed
    while another such command is at work.
    """
    read(directory)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_lock(directory, MEMBERS_LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            raise CommandFailed(
                "another command changes the members of this cluster; wait until it is done"
            ) from None
        cluster = read(directory)
        try:
            yield cluster
        finally:
            save(directory, cluster)


def save(directory: Path, cluster: Cluster) -> None:
    """Write the cluster as it is, from inside of `changing_members`."""
    with locked(directory):
        _write_as_it_is(directory, cluster)


def place_groups(groups: int, replicas: int, names: list[str]) -> list[GroupEntry]:
    """Groups 1..n, each on successive nodes, the first of each one further on."""
    count = len(names)
    return [
        GroupEntry(n + 1, [names[(n + k) % count] for k in range(replicas)]) for n in range(groups)
    ]


def choose_base_port(nodes: int) -> int:
    """The first of a run of free ports that is long enough for all nodes."""
    wanted = nodes * PORTS_PER_NODE
    for _ in range(200):
        base = random.randrange(FREE_PORTS_FROM, PORTS_BELOW - wanted)
        if all(processes.is_free(port) for port in range(base, base + wanted)):
            return base
    raise CommandFailed(f"found no {wanted} free ports in a row below {PORTS_BELOW}")
