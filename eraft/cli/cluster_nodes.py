"""What is done to the node processes of a local cluster."""

import signal
from pathlib import Path

from eraft.cli import admin, processes
from eraft.cli.arguments import CommandFailed
from eraft.cli.cluster_file import Cluster, NodeEntry
from eraft.errors import EraftError

STOP_S = 20.0
ANSWER_S = 30.0


def spawn(node: NodeEntry) -> None:
    """Start the node's process."""
    node.pid = processes.spawn(node.command, Path(node.log))


def start_stopped(cluster: Cluster) -> list[NodeEntry]:
    """Start all nodes that are stopped and return them."""
    for node in cluster.nodes:
        if node.state == "paused":
            raise CommandFailed(f"{node.name} is paused; `eraft cluster resume {node.name}` first")
    stopped = [node for node in cluster.nodes if node.state == "stopped"]
    for node in stopped:
        spawn(node)
    return stopped


def check_alive(node: NodeEntry) -> None:
    """Raise if the node's process has ended, with what it said last."""
    if processes.state(node.pid, node.data_dir) == "stopped":
        raise CommandFailed(
            f"{node.name} did not stay up; the end of {node.log}:\n{processes.log_tail(node.log)}"
        )


def wait_answers(node: NodeEntry) -> None:
    """Wait until the node's client port answers a PING."""

    def answers() -> bool:
        check_alive(node)
        try:
            with admin.Connection(node.client, answer_s=1.0) as connection:
                return connection.call("PING") == b"PONG"
        except EraftError:
            return False

    if not processes.wait_until(answers, ANSWER_S):
        raise CommandFailed(f"{node.name} does not answer clients after {ANSWER_S:g} s")


def live_pid(node: NodeEntry) -> int:
    """The node's process id; an error if it is stopped."""
    if node.pid is None:
        raise CommandFailed(f"{node.name} is stopped")
    return node.pid


def kill(node: NodeEntry) -> int:
    """End the process as a crash would and wait until it is gone; returns its id."""
    pid = live_pid(node)
    processes.send(pid, signal.SIGKILL)
    if not processes.wait_gone(pid, STOP_S):
        raise CommandFailed(f"{node.name}: process {pid} is still there")
    return pid


def stop(nodes: list[NodeEntry]) -> None:
    """Stop them cleanly, all at once; one that hangs is killed and said so."""
    running = [(node.name, node.pid) for node in nodes if node.pid is not None]
    for _, pid in running:
        processes.send(pid, signal.SIGTERM)
        processes.send(pid, signal.SIGCONT)
    hung = []
    for name, pid in running:
        if not processes.wait_gone(pid, STOP_S):
            processes.send(pid, signal.SIGKILL)
            processes.wait_gone(pid, STOP_S)
            hung.append(name)
    if hung:
        raise CommandFailed(
            f"{', '.join(hung)} did not stop within {STOP_S:g} s of SIGTERM and was killed"
        )


def signal_and_wait(node: NodeEntry, number: signal.Signals, wanted: str) -> None:
    """Send a signal and wait until the process is `running` or `paused`."""
    pid = live_pid(node)
    processes.send(pid, number)
    if not processes.wait_until(lambda: processes.state(pid, node.data_dir) == wanted, STOP_S):
        raise CommandFailed(f"{node.name} is not {wanted} after {STOP_S:g} s")
