"""A cluster and its clients for scenarios that say themselves what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from eraft.node.replica import Replica
from tests.linear.checker import explain_all
from tests.sim.clients import Script
from tests.sim.conditions import Conditions
from tests.sim.dice import Dice
from tests.sim.opening import histories_of, reopened
from tests.sim.run import rows_of

GID = 1
STEP_US = 10_000


SMALL_LOG = {"segment_bytes": 8 * 1024, "retention_bytes": 1024, "tail_bytes": 1024}
"""Sizes for conditions under which a log keeps only what its own groups need."""
SMALL_LOG_LIMIT_BYTES = 8 * SMALL_LOG["segment_bytes"]
"""What such a log takes on disk at most while its groups go on, spare segments included."""
FILLING = "x" * 1000


def reliable(**sizes: int) -> Conditions:
    """A fast network that loses nothing by itself, and good disks."""
    return Conditions(
        network_us=(200, 1_000),
        client_us=(100, 300),
        dial_us=(20_000, 200_000),
        notice_us=(100, 1_000),
        disk_us=(200, 1_000),
        flush_us=(10_000, 500_000),
        **sizes,
    )


def unreliable(**sizes: int) -> Conditions:
    """0 to 26 ms on the way, and one message in ten is lost."""
    conditions = reliable(**sizes)
    conditions.network_us = (0, 26_000)
    conditions.drop = 0.1
    return conditions


def reordering(**sizes: int) -> Conditions:
    """The same, and many messages come up to 2.2 s later."""
    conditions = unreliable(**sizes)
    conditions.late = 0.3
    conditions.late_us = (200_000, 2_200_000)
    return conditions


class Scene:
    """One group on every node of a cluster, and clients that do what they are told."""

    def __init__(
        self,
        nodes: int = 3,
        seed: int = 1,
        clients: int = 1,
        conditions: Conditions | None = None,
    ) -> None:
        self.world = reopened(1, nodes, seed, conditions or reliable())
        self.dice = Dice(seed)
        self.histories = histories_of(self.world, 1)
        self.key = self.histories.texts[0]
        self.clients = [
            Script(self.world, self.histories, number, self.dice)
            for number in range(1, clients + 1)
        ]

    # Time

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(int(seconds * 1e6 / STEP_US)):
            for client in self.clients:
                client.look()
            self.world.run_for(STEP_US)

    def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let time pass until the condition holds; it has to within that time."""
        for _ in range(int(seconds * 1e6 / STEP_US)):
            if condition():
                return
            self.run(STEP_US / 1e6)
        raise AssertionError("the condition did not come true")

    # The cluster

    def replica(self, node_id: int) -> Replica:
        """The replica of the group on a node."""
        return self.world.nodes[node_id].replicas[GID]

    def generation(self, node_id: int) -> int:
        """Of the node's rows of the group: another one since it went on from a snapshot."""
        return self.replica(node_id).rows.generation

    def compacted(self, node_id: int) -> int:
        """The last entry of the group that is not in the node's log any more."""
        return self.world.nodes[node_id].log.groups[GID].base_index

    def log_bytes(self) -> int:
        """What the largest log takes on disk."""
        return max(node.log.size_bytes for node in self.world.nodes.values())

    @property
    def leader(self) -> int:
        """The node that serves the group, of several the one of the newest term; else 0."""
        return self.world.leader(GID)

    @property
    def term(self) -> int:
        """The newest term of any replica."""
        return max(self.replica(node_id).raft.term for node_id in self.world.nodes)

    def others(self, *nodes: int) -> list[int]:
        """All nodes but these."""
        return [node_id for node_id in self.world.ids if node_id not in nodes]

    def leads_among(self, nodes: Iterable[int]) -> int:
        """Wait until one of these nodes serves as leader."""
        nodes = list(nodes)
        self.until(lambda: self.leader in nodes)
        return self.leader

    def cut_off(self, *nodes: int) -> None:
        """These nodes are each by themselves."""
        for node_id in nodes:
            self.world.isolate(node_id)

    def join(self, *nodes: int) -> None:
        """These nodes hear and are heard again, by all that are not cut off."""
        for a in nodes:
            for b in self.others(a):
                self.world.network.unblock(a, b)
                self.world.network.unblock(b, a)
        self.world.network.dial_all()

    def part(self, *nodes: int) -> None:
        """These nodes hear each other only, and so do the others."""
        self.world.heal()
        for a in nodes:
            for b in self.others(*nodes):
                self.world.cut_link(a, b)

    def crash(self, *nodes: int) -> None:
        """These nodes lose their power."""
        for node_id in nodes:
            if node_id in self.world.nodes:
                self.world.crash(node_id)

    def restart(self, *nodes: int) -> None:
        """These nodes run, if they do not yet."""
        for node_id in nodes:
            if node_id not in self.world.nodes:
                self.world.start(node_id)

    # Clients

    def ask(self, node_id: int, commands: list[tuple[str, bytes]], client: int = 0) -> Script:
        """Send commands to a certain node; it is left to the caller to wait."""
        script = self.clients[client]
        script.go_to(node_id)
        script.send(commands)
        return script

    def execute(
        self, commands: list[tuple[str, bytes]], seconds: float = 10.0, client: int = 0
    ) -> None:
        """Send commands until they have been executed: none of them again that may have been."""
        script = self.clients[client]

        def attempted() -> bool:
            for command in list(left):
                if script.waiting:
                    return False
                before = script.executed
                script.send([command])
                self.until(lambda: not script.waiting, seconds)
                if script.executed > before:
                    left.remove(command)
                else:
                    script.go_to(self.dice.choice(sorted(self.world.nodes)))
            return not left

        left = list(commands)
        self.until(attempted, seconds)

    def compact(self, among: Iterable[int] = (), seconds: float = 10.0) -> None:
        """Write until the logs of these nodes (or all that run) have nothing of what is there now.

        Who is not among them and has not got it yet can only get it by a snapshot.
        """
        nodes = list(among or self.world.nodes)
        last = max(self.replica(node_id).raft.last_index for node_id in nodes)
        end_s = self.world.now_s + seconds
        while any(self.compacted(node_id) <= last for node_id in nodes):
            assert self.world.now_s < end_s, "the logs are not compacted"
            leader = self.leads_among(nodes)
            conversation = self.world.connect(leader)
            conversation.send(f"SET filling {FILLING}")
            self.until(lambda at=leader, it=conversation: it.received or self.leader != at)
            conversation.hang_up()
            self.run(0.1)

    def agree(self, count: int = 1, among: Iterable[int] = (), seconds: float = 10.0) -> None:
        """That many writes are executed, and these nodes (or all that run) have them applied."""
        self.execute([("APPEND", self.key)] * count, seconds)
        nodes = list(among or self.world.nodes)
        self.until(lambda: self._equal(nodes), seconds)

    def _equal(self, nodes: list[int]) -> bool:
        leader = self.leader
        last = self.replica(leader).raft.last_index if leader else -1
        return all(self.replica(node_id).applied == last for node_id in nodes)

    def reckon(self) -> None:
        """Everything works again; all replicas are equal, all histories linearizable."""
        world, conditions = self.world, self.world.conditions
        conditions.drop = conditions.late = conditions.duplicate = 0.0
        world.heal()
        self.restart(*world.ids)
        self.until(lambda: not any(client.waiting for client in self.clients), 15.0)
        self.execute([("GETRANGE", key) for key in self.histories.texts], 30.0)
        self.agree(seconds=30.0)
        first, *rest = [rows_of(self.replica(node_id)) for node_id in world.ids]
        assert all(rows == first for rows in rest), "the replicas are not equal"
        assert explain_all(self.histories.of_key) == ""
