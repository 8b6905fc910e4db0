"""Three processes of an example, started the way docs/library.md says, ended whatever happens."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from eraft.cli import admin, processes
from eraft.cli.cluster_file import choose_base_port
from eraft.storage.directory import format_directory
from tests.cli.local import SEGMENT_SIZE_BYTES, WAIT_S, wait_until
from tests.cluster.nodes import Wire

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
IDS = (1, 2, 3)
GID = 1


class Example:
    """A cluster of one of the programs in `examples/`."""

    def __init__(self, path: Path, program: str) -> None:
        self.path = path
        self.program = EXAMPLES / program
        base = choose_base_port(len(IDS))
        ports = {it: base + 3 * n for n, it in enumerate(IDS)}
        self.client = {it: f"127.0.0.1:{port}" for it, port in ports.items()}
        self.peer = {it: f"127.0.0.1:{port + 1}" for it, port in ports.items()}
        self.admin = {it: f"127.0.0.1:{port + 2}" for it, port in ports.items()}
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for node_id in IDS:
            size = SEGMENT_SIZE_BYTES
            format_directory(
                self.directory(node_id), "test", node_id, self.peer, segment_size_bytes=size
            )
            self.spawn(node_id)
        wait_until(self._joined, "the metaserver takes the join")
        wait_until(lambda: self.leader() != 0, "the group has a leader")

    def directory(self, node_id: int) -> str:
        return str(self.path / f"n{node_id}")

    def spawn(self, node_id: int) -> None:
        where = (self.client[node_id], self.peer[node_id], self.admin[node_id])
        command = [sys.executable, str(self.program), self.directory(node_id), *where]
        with (self.path / f"n{node_id}.log").open("ab") as output:
            self.processes[node_id] = subprocess.Popen(
                command, stdout=output, stderr=output, cwd="/"
            )

    def _joined(self) -> bool:
        try:
            admin.ask(self.admin[1], "META", "JOIN", GID, *IDS)
        except (admin.Refused, admin.Unreachable):
            return False
        return True

    def group(self, node_id: int) -> dict[str, Any]:
        """What a node says of its replica, nothing if it does not answer or has none."""
        try:
            status = admin.ask(self.admin[node_id], "STATUS")
        except admin.Unreachable:
            return {"serving": False}
        found: dict[int, dict[str, Any]] = {group["gid"]: group for group in status["groups"]}
        return found.get(GID, {"serving": False})

    def leader(self) -> int:
        """The node that leads the group, 0 if none says that it does."""
        return next((it for it in IDS if self.group(it)["serving"]), 0)

    def another_leader(self, before: int) -> int:
        wait_until(lambda: self.leader() not in (0, before), "another node leads")
        return self.leader()

    def ask(self, node_id: int, line: bytes) -> bytes:
        """The answer of a node to a line, b"" if there is none."""
        try:
            with Wire(self.client[node_id]) as wire:
                wire.send(line + b"\n")
                return wire.line().rstrip()
        except OSError:
            return b""

    def stop(self, node_id: int, number: signal.Signals = signal.SIGKILL) -> int:
        """End a process; its exit status."""
        process = self.processes.pop(node_id)
        process.send_signal(number)
        return process.wait(WAIT_S)

    def log(self, node_id: int) -> str:
        return (self.path / f"n{node_id}.log").read_text()

    def end(self) -> None:
        for node_id in list(self.processes):
            self.stop(node_id)


def wait_equal(example: Example) -> None:
    """All replicas have applied the same and say so with the same digest."""

    def equal() -> bool:
        groups = [example.group(it) for it in IDS]
        return len({(it.get("applied"), it.get("commit")) for it in groups}) == 1

    assert processes.wait_until(equal, WAIT_S)
