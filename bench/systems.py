"""The systems that `bench.redis` compares: how each is started, loaded and stopped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from eraft.cli import admin, cluster_file, status
from eraft.cli.arguments import CommandFailed
from eraft.errors import ConfigError, EraftError

T = TypeVar("T")

POLL_S = 0.02
HOST = "127.0.0.1"
START_S = 60.0
SETTLE_S = 20.0
STOP_S = 20.0


@dataclass(slots=True, frozen=True)
class Target:
    """Where to send the load, and what must not change meanwhile."""

    port: int
    leadership: tuple[int, ...] = ()


class System(Protocol):
    """A store under test."""

    name: str
    title: str

    def start(self, directory: Path) -> None:
        """Start it with its data under `directory`; return when it serves."""

    def target(self) -> Target:
        """Where the load goes now."""

    def settle(self) -> None:
        """Wait until what was acknowledged has reached all its processes."""

    def pids(self) -> list[int]:
        """Its server processes."""

    def stop(self) -> None:
        """End its processes; also after a start that failed."""


def program(name: str) -> str:
    """The path of a program that has to be installed."""
    found = shutil.which(name)
    if found is None:
        raise ConfigError(f"{name} is not installed: needed for this comparison")
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], T | None], timeout_s: float, what: Callable[[], str]) -> T:
    """Ask until the answer is true; CommandFailed after the timeout says what it waited for."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline_s:
            raise CommandFailed(f"after {timeout_s:g} s still waiting for {what()}")
        time.sleep(POLL_S)
    return value


class Redis:
    """redis-server with an fsync per write batch, alone or with replicas that do the same."""

    def __init__(self, name: str, title: str, replicas: int) -> None:
        self.name = name
        self.title = title
        self._replicas = replicas
        self._servers: list[subprocess.Popen[bytes]] = []
        self._ports: list[int] = []

    def start(self, directory: Path) -> None:
        server = program("redis-server")
        for place in range(1 + self._replicas):
            data = directory / f"{self.name}-{place}"
            data.mkdir()
            port = free_port()
            command = [server, "--bind", HOST, "--port", str(port), "--dir", str(data)]
            # Rewriting the file in the middle of a run would measure just that.
            command += ["--appendonly", "yes", "--appendfsync", "always"]
            command += ["--auto-aof-rewrite-percentage", "0", "--save", ""]
            command += ["--repl-diskless-sync-delay", "0"]
            if place:
                command += ["--replicaof", HOST, str(self._ports[0])]
            with (data / "log").open("wb") as log:
                self._servers.append(
                    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                )
            self._ports.append(port)
        wait_until(self._serves, START_S, lambda: f"{self.title} to start")

    def _serves(self) -> bool:
        if any(server.poll() is not None for server in self._servers):
            raise CommandFailed(f"{self.title}: a redis-server ended at once; see its log")
        try:
            return all(
                place == 0 or self._info(port).get("master_link_status") == "up"
                for place, port in enumerate(self._ports)
            ) and bool(self._info(self._ports[0]))
        except EraftError:
            return False

    def _info(self, port: int) -> dict[str, str]:
        with admin.Connection(f"{HOST}:{port}") as connection:
            reply = connection.call("INFO", "replication")
        lines = (reply if isinstance(reply, bytes) else b"").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def target(self) -> Target:
        return Target(self._ports[0])

    def settle(self) -> None:
        wanted = int(self._info(self._ports[0])["master_repl_offset"])

        def followed() -> bool:
            offsets = [int(self._info(port)["slave_repl_offset"]) for port in self._ports[1:]]
            return all(offset >= wanted for offset in offsets)

        wait_until(followed, SETTLE_S, lambda: f"the replicas of {self.title} to follow")

    def pids(self) -> list[int]:
        return [server.pid for server in self._servers]

    def stop(self) -> None:
        for server in self._servers:
            server.terminate()
        for server in self._servers:
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


class Eraft:
    """A cluster of three nodes with one group that owns every bucket."""

    GID = 1

    def __init__(self, name: str, title: str, impl: str) -> None:
        self.name = name
        self.title = title
        self._impl = impl
        self._directory: Path | None = None

    def start(self, directory: Path) -> None:
        self._directory = directory / self.name
        self._run("start", "--nodes", "3", "--groups", "1")
        for node in self._nodes():
            if node["traced"]:
                raise ConfigError(
                    "the compiled modules are built with line tracing, which must not be "
                    "measured: build again without ERAFT_TRACE"
                )
            if node["impl"] != self._impl:
                raise ConfigError(f"{self.title} runs the implementation {node['impl']}")

    def _run(self, operation: str, *words: str) -> None:
        command = [sys.executable, "-m", "eraft", "cluster", operation, *words]
        done = subprocess.run(
            [*command, "--dir", str(self._directory)],
            env={**os.environ, "ERAFT_IMPL": self._impl},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CommandFailed(f"{' '.join(command)}: {done.stderr.strip()}")

    def _nodes(self) -> list[status.Status]:
        """STATUS of all nodes; CommandFailed if one does not answer."""
        assert self._directory is not None
        cluster = cluster_file.read(self._directory)
        answers = status.ask_all({node.id: node.admin for node in cluster.nodes})
        for node_id, answer in answers.items():
            if "error" in answer:
                raise CommandFailed(f"{self.title}: node {node_id}: {answer['error']}")
        return [{"node_id": node_id, **answer} for node_id, answer in answers.items()]

    def _group(self) -> tuple[list[status.Status], status.Status]:
        nodes = self._nodes()
        for group in status.group_rows(nodes):
            if group["gid"] == self.GID:
                return nodes, group
        raise CommandFailed(f"{self.title}: no node has group {self.GID}")

    def target(self) -> Target:
        def led() -> Target | None:
            nodes, group = self._group()
            for node in nodes:
                if node["node_id"] == group["leader"]:
                    port = int(node["client"].rpartition(":")[2])
                    return Target(port, (group["leader"], group["term"]))
            return None

        return wait_until(led, SETTLE_S, lambda: f"{self.title} to elect a leader")

    def settle(self) -> None:
        def applied() -> bool:
            _, group = self._group()
            return len({(it["applied"], it["last_index"]) for it in group["replicas"]}) == 1

        wait_until(applied, SETTLE_S, lambda: f"the followers of {self.title}")

    def pids(self) -> list[int]:
        assert self._directory is not None
        return [node.pid or 0 for node in cluster_file.read(self._directory).nodes]

    def stop(self) -> None:
        if self._directory is not None and cluster_file.exists(self._directory):
            self._run("stop")


def all_systems() -> list[System]:
    """Those that are compared, in the order of the table."""
    return [
        Redis("redis", "Redis", replicas=0),
        Redis("replicas", "Redis+2", replicas=2),
        Eraft("eraft", "eraft", "cython"),
        Eraft("pure", "eraft pure", "python"),
    ]


def fsync_us(directory: Path, samples: int = 200) -> float:
    """The median time of an fdatasync after 4 KiB, which every figure depends on."""
    times: list[float] = []
    path = directory / "fsync"
    with path.open("wb", buffering=0) as file:
        for _ in range(samples):
            file.write(bytes(4096))
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - before)
    path.unlink()
    return sorted(times)[samples // 2] * 1e6
