"""Processes of nodes: started detached, found again by process id, waited for."""

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from eraft.cli.arguments import CommandFailed

POLL_S = 0.02
LOG_TAIL_LINES = 8


def spawn(command: Sequence[str], log: Path) -> int:
    """Start a process that outlives this one: own session, output appended to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )
    # Whoever starts it is soon gone; a warning that it still runs would be noise.
    process.returncode = 0
    return process.pid


def state(pid: int | None, data_dir: str) -> str:
    """`running`, `paused` or `stopped`: whether `pid` serves `data_dir`.

    A process id may have gone to another program since; that the directory is
    among its arguments tells.
    """
    if pid is None:
        return "stopped"
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "stopped"
    condition = stat.rpartition(")")[2].split()[0]
    if condition in "ZX":
        return "stopped"
    # A process that has just begun to run its program has no arguments for a moment.
    if data_dir.encode() not in arguments and arguments != [b""]:
        return "stopped"
    return "paused" if condition in "Tt" else "running"


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise CommandFailed(f"process {pid}: {error.strerror}: who started it?") from error


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Wait until the process has ended; False if it still runs."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Ask again and again until the answer is True; False if it never was."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def log_tail(log: str) -> str:
    """The last lines of a node's log, indented, for an error message."""
    try:
        with open(log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"  ({log}: {error.strerror})"
    lines = text.splitlines()[-LOG_TAIL_LINES:]
    return "\n".join("  " + line for line in lines) or "  (its log is empty)"


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether one can listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
