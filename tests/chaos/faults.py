"""The faults: each breaks something, lets time pass, puts it right, and proves that it happened.

A fault is a context: entering it breaks, leaving it heals. An AssertionError
says that the fault did not happen, which makes the run invalid.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from random import Random

from eraft import limits
from eraft.cli import admin
from eraft.cli.members import Members
from tests.chaos.cluster import CLIENTS, ChaosCluster, ChaosNode
from tests.chaos.fill import VALUE_BYTES, fill
from tests.cli.local import WAIT_S, wait_until
from tests.cluster.damage import bad_syncs, durable_byte, flipped, tear

LEFT_BEHIND_BYTES = 24 * limits.MIB


@dataclass(slots=True)
class Scene:
    """Where a fault happens: the node that it hits, if it hits one, often a leader."""

    cluster: ChaosCluster
    victim: ChaosNode
    chance: Random

    @property
    def others(self) -> list[ChaosNode]:
        return [node for node in self.cluster.nodes if node is not self.victim]

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.cluster.nodes]


Fault = Callable[[Scene], AbstractContextManager[None]]


# Processes


@contextmanager
def kill(scene: Scene) -> Iterator[None]:
    """SIGKILL; the page cache survives."""
    scene.victim.kill()
    yield
    scene.victim.start()


@contextmanager
def stop(scene: Scene) -> Iterator[None]:
    """SIGTERM: the node hands over what it leads and ends."""
    assert scene.victim.stop(signal.SIGTERM) == 0
    yield
    scene.victim.start()


@contextmanager
def kill_all(scene: Scene) -> Iterator[None]:
    """SIGKILL for every node at once."""
    for node in scene.cluster.nodes:
        node.send(signal.SIGKILL)
    for node in scene.cluster.nodes:
        node.kill()
    yield
    scene.cluster.start()


@contextmanager
def pause(scene: Scene) -> Iterator[None]:
    """SIGSTOP: the kernel goes on to acknowledge what arrives."""
    scene.victim.send(signal.SIGSTOP)
    wait_until(lambda: scene.victim.paused, "the node is paused")
    try:
        yield
        assert scene.victim.paused
    finally:
        scene.victim.send(signal.SIGCONT)


@contextmanager
def sleep_and_wake_alone(scene: Scene) -> Iterator[None]:
    """The node is paused until it leads no group any more, and wakes cut off from the others.

    Until it notices, it believes that it leads, and clients ask it.
    """
    victim, cluster = scene.victim, scene.cluster
    led = [gid for gid, group in victim.groups().items() if group["serving"]]
    with cut_off(scene):
        with pause(scene):
            for gid in led:
                wait_until(lambda gid=gid: cluster.leader(gid) is not None, "it has a successor")
        yield


# Disks


@contextmanager
def power_cut(scene: Scene) -> Iterator[None]:
    """One node loses power: nothing that it had not synced is there afterwards."""
    scene.victim.power_off()
    yield
    scene.victim.start()


@contextmanager
def power_cut_all(scene: Scene) -> Iterator[None]:
    """All nodes lose power at once."""
    for node in scene.cluster.nodes:
        node.disk.cut_power()
    for node in scene.cluster.nodes:
        node.power_off()
    yield
    scene.cluster.start()


@contextmanager
def full_disk(scene: Scene) -> Iterator[None]:
    """The disk gets full, to a byte or to the last few megabytes, and has room again later."""
    with _full([scene.victim], scene.chance):
        yield


@contextmanager
def two_full_disks(scene: Scene) -> Iterator[None]:
    """The disks of a majority get full."""
    with _full([scene.victim, scene.chance.choice(scene.others)], scene.chance):
        yield


@contextmanager
def _full(nodes: list[ChaosNode], chance: Random) -> Iterator[None]:
    try:
        for node in nodes:
            node.disk.fill(chance.choice((0, 0, 4 * limits.MIB)))
        for node in nodes:
            wait_until(lambda n=node: refuses_writes(n) or not n.running, "the disk is full")
        yield
    finally:
        for node in nodes:
            node.disk.empty()
    for node in nodes:
        if not node.running:
            node.start()
        wait_until(lambda n=node: not refuses_writes(n), "the node takes writes again")


def refuses_writes(node: ChaosNode) -> bool:
    try:
        return admin.ask(node.admin, "STATUS", answer_s=1.0)["refuses_writes"] is not None
    except (admin.Unreachable, admin.Refused):
        return False


@contextmanager
def failing_sync(scene: Scene) -> Iterator[None]:
    """The next fdatasync of the node fails with EIO: it has to stop, and is started again."""
    victim = scene.victim
    assert victim.process is not None
    said = len(victim.text())
    with bad_syncs(victim.process.pid, "error=EIO"):
        wait_until(lambda: not victim.running, "the node stops")
    assert victim.process.wait() == 1
    assert "fsync is not retried" in victim.text()[said:]
    yield
    victim.start()


@contextmanager
def torn_tail(scene: Scene) -> Iterator[None]:
    """The node dies before its last record, which nobody acknowledged, is written to its end."""
    victim = scene.victim
    victim.kill()
    said = len(victim.text())
    name = tear(victim.path)
    yield
    victim.start()
    assert f"{name}: a torn tail of " in victim.text()[said:]


@contextmanager
def flipped_bit(scene: Scene) -> Iterator[None]:
    """A bit of the log rots: the node says so and takes no part, until the bit is as it was."""
    victim = scene.victim
    victim.kill()
    with flipped(*durable_byte(victim.path, scene.chance)):
        victim.start()
        assert admin.ask(victim.admin, "STATUS")["quarantined"]
        yield
        assert admin.ask(victim.admin, "STATUS")["quarantined"]
        victim.kill()
    victim.start()


@contextmanager
def wipe(scene: Scene) -> Iterator[None]:
    """The node loses its directory: formatted again it is refused, until the old one is back."""
    victim = scene.victim
    victim.kill()
    kept = victim.path.with_name("kept")
    victim.path.rename(kept)
    said = len(victim.text())
    victim.format(victim.node_id, {node.node_id: node.peer for node in scene.cluster.nodes})
    victim.start()
    victim.wait_text(f"node {victim.node_id} comes with another store", said)
    yield
    victim.end()
    shutil.rmtree(victim.path)
    kept.rename(victim.path)
    victim.start()


@contextmanager
def left_behind(scene: Scene) -> Iterator[None]:
    """The node is away for longer than the log goes back: it needs snapshots."""
    victim = scene.victim
    victim.kill()
    said = len(victim.text())
    fill([node.client for node in scene.others], LEFT_BEHIND_BYTES // VALUE_BYTES)
    yield
    victim.start()
    victim.wait_text(": a snapshot as of entry ", said)


@contextmanager
def replace(scene: Scene) -> Iterator[None]:
    """The node loses its directory; one with a new id takes its place, by an operator's steps."""
    victim, nodes = scene.victim, scene.cluster.nodes
    gone = victim.node_id
    victim.kill()
    shutil.rmtree(victim.path)
    yield
    victim.node_id = max(node.node_id for node in nodes) + 1
    victim.format(victim.node_id, {node.node_id: node.peer for node in scene.others})
    victim.start()
    members = Members({node.node_id: node.admin for node in nodes}, lambda _: None, WAIT_S)
    members.wait_registered(victim.node_id)
    members.move(gone, lambda *_: victim.node_id)
    members.forget(gone)
    assert {group["role"] for group in victim.groups().values()} <= {"follower", "leader"}


# The network


@contextmanager
def _cut(scene: Scene, pairs: list[tuple[str, str]]) -> Iterator[None]:
    network = scene.cluster.network
    before = network.dropped()
    network.cut(pairs)
    try:
        yield
        wait_until(lambda: network.dropped() > before, "packets are dropped")
    finally:
        network.heal()


def mute(scene: Scene) -> AbstractContextManager[None]:
    """The node hears, but nothing that it sends reaches the other nodes."""
    return _cut(scene, [(scene.victim.name, other.name) for other in scene.others])


def deaf(scene: Scene) -> AbstractContextManager[None]:
    """The node sends, but hears nothing of the other nodes."""
    return _cut(scene, [(other.name, scene.victim.name) for other in scene.others])


def cut_off(scene: Scene) -> AbstractContextManager[None]:
    """Nothing passes between the node and the other nodes; clients reach all of them."""
    return _cut(scene, both_ways(scene.victim.name, [other.name for other in scene.others]))


def away(scene: Scene) -> AbstractContextManager[None]:
    """Neither nodes nor clients reach the node."""
    everybody = [*(other.name for other in scene.others), CLIENTS]
    return _cut(scene, both_ways(scene.victim.name, everybody))


def one_link(scene: Scene) -> AbstractContextManager[None]:
    """Nothing passes from the node to one other."""
    return _cut(scene, [(scene.victim.name, scene.chance.choice(scene.others).name)])


def answers_lost(scene: Scene) -> AbstractContextManager[None]:
    """Commands of clients reach the node, but no answer comes back."""
    return _cut(scene, [(scene.victim.name, CLIENTS)])


def both_ways(name: str, others: list[str]) -> list[tuple[str, str]]:
    return [pair for other in others for pair in ((name, other), (other, name))]


CUTS: list[Fault] = [mute, deaf, cut_off, away, one_link, answers_lost]
ALL: list[Fault] = [
    kill,
    kill_all,
    stop,
    pause,
    sleep_and_wake_alone,
    power_cut,
    power_cut_all,
    full_disk,
    two_full_disks,
    failing_sync,
    torn_tail,
    flipped_bit,
    wipe,
    left_behind,
    replace,
    *CUTS,
]
BESIDE_CUTS: list[Fault] = [kill, kill_all, stop, pause, power_cut, power_cut_all, full_disk]
