"""A cluster of real processes for tests, driven by the console script, ended whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from eraft.cli import admin, processes

ERAFT = [sys.executable, "-P", "-m", "eraft"]
SEGMENT_SIZE_BYTES = 4 * 1024 * 1024
WAIT_S = 30.0


def eraft(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*ERAFT, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
        cwd="/",
    )


class Local:
    """What `eraft cluster start --dir` made, seen from outside."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._others: list[subprocess.Popen[bytes]] = []

    def start(self, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.cluster("start", *words, **environment)

    def cluster(self, operation: str, *words: object, **environment: str) -> Any:
        return eraft("cluster", operation, "--dir", self.directory, *words, **environment)

    def file(self) -> dict[str, Any]:
        contents: dict[str, Any] = json.loads((self.directory / "cluster.json").read_bytes())
        return contents

    def node(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(it for it in self.file()["nodes"] if it["name"] == name)
        return found

    def status(self) -> dict[str, Any]:
        result = eraft("status", "--dir", self.directory, "--json")
        assert result.returncode == 0, result.stderr
        report: dict[str, Any] = json.loads(result.stdout)
        return report

    def log(self, name: str) -> str:
        return Path(self.node(name)["log"]).read_text()

    def serve(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """A node process of the test's own."""
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd="/")
        self._others.append(process)
        return process

    def end(self) -> None:
        """End every process, by its id."""
        for process in self._others:
            process.kill()
            process.wait()
        if not (self.directory / "cluster.json").exists():
            return
        for node in self.file()["nodes"]:
            pids = {node["pid"], read_pid(node["data_dir"])}
            for pid in pids - {None}:
                if processes.state(pid, node["data_dir"]) != "stopped":
                    processes.send(pid, signal.SIGKILL)
                    assert processes.wait_gone(pid, WAIT_S)


def read_pid(data_dir: str) -> int | None:
    try:
        return int(Path(data_dir, "pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def answers(address: str) -> bool:
    """Whether a client or admin port answers a PING."""
    try:
        with admin.Connection(address, answer_s=1.0) as connection:
            return connection.call("PING") == b"PONG"
    except admin.Unreachable:
        return False


def wait_until(condition: Any, what: str) -> None:
    assert processes.wait_until(condition, WAIT_S), f"after {WAIT_S} s still not: {what}"
