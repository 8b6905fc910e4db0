"""A cluster whose nodes have a network namespace and a disk each."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from eraft import limits
from eraft.cli import admin, processes
from tests.chaos.disks import Disk
from tests.chaos.namespaces import Network
from tests.cli.local import WAIT_S, wait_until
from tests.cluster.nodes import Node

CLIENTS = "clients"
DISK_BYTES = 256 * limits.MIB
FREE_DISK_BYTES = 16 * limits.MIB
GROUPS = (1, 2)
PORTS = (6379, 16379, 26379)


class ChaosNode(Node):
    """One node, on the host and the disk of its name."""

    def __init__(self, node_id: int, directory: Path, network: Network, disk_bytes: int) -> None:
        self.node_id = node_id
        self.name = f"n{node_id}"
        self.disk = Disk(directory / f"{self.name}.img", disk_bytes)
        super().__init__(self.disk.path / "data", "--free-disk-bytes", FREE_DISK_BYTES)
        self.log = directory / f"{self.name}.log"
        self.network = network
        address = network.addresses[self.name]
        self.client, self.peer, self.admin = (f"{address}:{port}" for port in PORTS)

    def spawn(self, *_: object) -> None:
        """Start the process on its host and its disk; Ctrl-C does not reach it."""
        if not self.disk.mounted:
            self.disk.mount()
        super().spawn(self.network.prefix(self.name), start_new_session=True)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        assert self.stop() == -signal.SIGKILL, f"{self.name} had ended before it was killed"

    def power_off(self) -> None:
        """Cut the power of the disk, then end the process; what was not synced is gone."""
        self.disk.cut_power()
        self.end()
        self.disk.unmount()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def paused(self) -> bool:
        assert self.process is not None
        return processes.state(self.process.pid, str(self.path)) == "paused"

    def groups(self) -> dict[int, dict[str, Any]]:
        """What it says of its replicas; nothing while it does not answer."""
        try:
            found = admin.ask(self.admin, "STATUS", answer_s=1.0)["groups"]
        except (admin.Unreachable, admin.Refused):
            return {}
        return {group["gid"]: group for group in found}

    def end(self) -> None:
        """Make sure that the process has ended, whatever it does."""
        if self.running:
            self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(WAIT_S)


class ChaosCluster:
    """Three nodes, the metaserver and two groups on all of them; a context.

    At its end nothing of it is left but the files in its directory.
    """

    def __init__(self, directory: Path, *flags: object, disk_bytes: int = DISK_BYTES) -> None:
        self.directory = directory
        self._flags = [str(flag) for flag in flags]
        self._disk_bytes = disk_bytes
        self._stack = ExitStack()
        self.nodes: list[ChaosNode] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.network = stack.enter_context(Network(["n1", "n2", "n3", CLIENTS]))
            for node_id in (1, 2, 3):
                node = ChaosNode(node_id, self.directory, self.network, self._disk_bytes)
                node.flags += self._flags
                stack.callback(node.disk.unmount)
                stack.callback(node.end)
                self.nodes.append(node)
            self._found()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _found(self) -> None:
        founding = {node.node_id: node.peer for node in self.nodes}
        for node in self.nodes:
            node.disk.mount()
            node.format(node.node_id, founding).start()
        where = self.nodes[0].admin
        for gid in GROUPS:
            wait_until(lambda gid=gid: joined(where, gid, list(founding)), f"group {gid} joins")
        admin.ask(where, "META", "OPEN")
        self.wait_healthy()

    def start(self) -> None:
        """Start what does not run, all at the same time."""
        for node in self.nodes:
            if not node.running:
                node.spawn()
        for node in self.nodes:
            node.wait_answers()

    def leader(self, gid: int) -> ChaosNode | None:
        """The node that says that it leads the group, in the newest term."""
        found = {node.name: node.groups().get(gid) for node in self.nodes if node.running}
        terms = {name: group["term"] for name, group in found.items() if group and group["serving"]}
        return next(
            (it for it in self.nodes if terms and it.name == max(terms, key=terms.get)), None
        )

    def wait_for_leader(self, gid: int) -> ChaosNode:
        wait_until(lambda: self.leader(gid) is not None, f"group {gid} has a leader")
        leader = self.leader(gid)
        return leader or self.wait_for_leader(gid)

    def wait_healthy(self) -> None:
        """All nodes run, each group has one leader, and the followers are where it was by then."""
        wait_until(lambda: all(node.running for node in self.nodes), "all nodes run")
        for gid in (0, *GROUPS):
            commit = self.wait_for_leader(gid).groups().get(gid, {}).get("commit", 0)
            wait_until(
                lambda gid=gid, commit=commit: all(
                    node.groups().get(gid, {}).get("applied", -1) >= commit for node in self.nodes
                ),
                f"all replicas of group {gid} have applied entry {commit}",
            )
        wait_until(self._owned, "all buckets are owned")

    def _owned(self) -> bool:
        return sum(self.nodes[0].groups().get(gid, {}).get("buckets", 0) for gid in GROUPS) == 16384

    def logs(self) -> str:
        """The ends of the nodes' logs, for a failure that has to be explained."""
        return "\n".join(
            f"{node.name}:\n{processes.log_tail(str(node.log))}" for node in self.nodes
        )


def joined(where: str, gid: int, node_ids: list[int]) -> bool:
    """Ask the metaserver for the group; False if it has to be asked again."""
    try:
        admin.ask(where, "META", "JOIN", gid, *node_ids)
    except admin.Refused as error:
        return "already joined" in str(error)  # an earlier answer was lost
    except admin.Unreachable:
        return False
    return True
