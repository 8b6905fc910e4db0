"""Clusters and single nodes as processes, and bare sockets to their ports."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from redis.cluster import RedisCluster

from bench.memory import rss_bytes
from eraft.cli import admin, processes
from eraft.cli.cluster_file import choose_base_port
from eraft.storage.directory import format_directory
from tests.cli.local import ERAFT, SEGMENT_SIZE_BYTES, WAIT_S, Local, answers, wait_until

# Leaders stay where the tests found them, and nothing is logged that no test asked for: else a node
# could acknowledge entries between the damage that a test does and its repair, which forgets them.
FLAGS = (
    *("--segment-size-bytes", SEGMENT_SIZE_BYTES),
    *("--balance-interval-s", 3600),
    *("--check-ticks", 1_000_000),
)
ANSWER_S = 10.0


class Cluster(Local):
    """A cluster that its tests break and mend, asked over its admin ports."""

    def names(self) -> list[str]:
        return [node["name"] for node in self.file()["nodes"]]

    def client(self, name: str = "n1", **options: Any) -> Any:
        """redis-py as anybody would make it."""
        host, port = self.node(name)["client"].split(":")
        options = {"socket_timeout": ANSWER_S, "decode_responses": True, **options}
        return RedisCluster(host=host, port=int(port), **options)

    def wire(self, name: str = "n1") -> Wire:
        return Wire(self.node(name)["client"])

    def node_status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = admin.ask(self.node(name)["admin"], "STATUS", "KEYS")
        return found

    def keys(self, name: str) -> int:
        """How many keys the replicas of a node hold."""
        found = admin.ask(self.node(name)["admin"], "STATUS", "KEYS")
        return sum(group["keys"] or 0 for group in found["groups"])  # the metaserver has none

    def groups(self, name: str) -> dict[int, dict[str, Any]]:
        return {group["gid"]: group for group in self.node_status(name)["groups"]}

    def leader(self, gid: int) -> str:
        """The name of the node that leads a group, "" if none says that it does."""
        for node in self.file()["nodes"]:
            if node["state"] == "running" and self.groups(node["name"])[gid]["serving"]:
                return str(node["name"])
        return ""

    def wait_for_leader(self, gid: int) -> str:
        wait_until(lambda: self.leader(gid) != "", f"group {gid} has a leader")
        return self.leader(gid)

    def do(self, operation: str, *words: object, **environment: str) -> None:
        """A command of `eraft cluster` that has to succeed."""
        result = self.cluster(operation, *words, **environment)
        assert result.returncode == 0, result.stderr

    def mend(self) -> None:
        """All nodes run and serve."""
        states = {
            node["name"]: processes.state(node["pid"], node["data_dir"])
            for node in self.file()["nodes"]
        }
        for name, state in states.items():
            if state == "paused":
                self.do("resume", name)
        if "stopped" in states.values() or any(
            node["state"] != "running" for node in self.file()["nodes"]
        ):
            self.do("start")

    def wait_equal(self) -> None:
        """All replicas have applied everything that any of them knows to be committed."""

        def equal() -> bool:
            found = [self.groups(name) for name in self.names()]
            positions = [{gid: group["applied"] for gid, group in it.items()} for it in found]
            commits = [{gid: group["commit"] for gid, group in it.items()} for it in found]
            return all(it == positions[0] for it in positions + commits)

        wait_until(equal, "all replicas have applied the same")


class Node:
    """One node with a directory and free ports of its own."""

    def __init__(self, path: Path, *flags: object) -> None:
        self.path = path
        self.log = path.with_suffix(".log")
        base = choose_base_port(1)
        self.client, self.peer, self.admin = (f"127.0.0.1:{base + n}" for n in range(3))
        self.flags = [str(flag) for flag in flags]
        self.process: subprocess.Popen[bytes] | None = None

    def format(self, node_id: int = 1, metaserver: dict[int, str] | None = None) -> Self:
        """Format the directory, by default as that of the metaserver's only member."""
        founding = metaserver or {node_id: self.peer}
        format_directory(
            str(self.path), "test", node_id, founding, segment_size_bytes=SEGMENT_SIZE_BYTES
        )
        return self

    @property
    def command(self) -> list[str]:
        addresses = ["--client", self.client, "--peer", self.peer, "--admin", self.admin]
        words = [*ERAFT, "serve", "--data-dir", str(self.path), *addresses]
        return [*words, *map(str, FLAGS), *self.flags]

    def start(self, prefix: Iterable[str] = (), **options: Any) -> Self:
        self.spawn(prefix, **options)
        return self.wait_answers()

    def spawn(self, prefix: Iterable[str] = (), **options: Any) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*prefix, *self.command], stdout=output, stderr=output, cwd="/", **options
            )

    def wait_answers(self) -> Self:
        process = self.process
        assert process is not None
        wait_until(lambda: answers(self.admin) or process.poll() is not None, "the node answers")
        assert process.poll() is None, self.text()
        return self

    def refused(self, prefix: Iterable[str] = ()) -> str:
        """Serve, which must not start; what it says."""
        command = [*prefix, *self.command]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=WAIT_S, check=False
        )
        assert result.returncode == 2, (result.returncode, result.stderr)
        assert "Traceback" not in result.stderr
        return result.stderr

    def open(self, *node_ids: int) -> None:
        """Let one group on this node, or on those that are named, own every bucket."""
        wait_until(lambda: self._join(node_ids or (1,)), "the metaserver takes the join")
        admin.ask(self.admin, "META", "OPEN")
        wait_until(lambda: self._buckets() == 16384, "the node owns all buckets")

    def _join(self, node_ids: Iterable[int]) -> bool:
        try:
            admin.ask(self.admin, "META", "JOIN", 1, *node_ids)
        except admin.Refused:
            return False
        return True

    @property
    def serves(self) -> bool:
        """Whether it leads a data group."""
        return any(group["serving"] for group in self.status()["groups"] if group["gid"])

    def _buckets(self) -> int:
        return sum(group["buckets"] or 0 for group in self.status()["groups"])

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = admin.ask(self.admin, "STATUS", "KEYS")
        return found

    def text(self) -> str:
        return self.log.read_text()

    def wait_text(self, text: str, since: int = 0) -> None:
        """Wait until the log says so, after its first `since` characters."""
        wait_until(lambda: text in self.text()[since:], f"the log says {text!r}")

    def rss_bytes(self) -> int:
        assert self.process is not None
        return rss_bytes(self.process.pid)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End the process; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()


class Wire:
    """A bare connection to a port."""

    def __init__(self, where: str, timeout_s: float = ANSWER_S, **options: Any) -> None:
        host, _, port = where.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout_s, **options)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        return self.file.readline()

    def ask(self, *args: bytes | str | int) -> bytes:
        """Send one command; the first line of its reply."""
        self.send(command(*args))
        return self.line()

    def rest(self) -> bytes:
        """Everything that comes until the other side closes."""
        try:
            return self.file.read()
        except ConnectionResetError:
            return b""


def command(*args: bytes | str | int) -> bytes:
    words = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(it), it) for it in words)


def segments(data_dir: Path | str) -> list[Path]:
    """The files of a log, in no order that means anything."""
    return sorted(Path(data_dir, "log").glob("*.log"))
