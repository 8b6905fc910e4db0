"""A whole cluster in one process: real nodes on injected files, network and time.

Everything but sockets, threads and the clock is the real thing. A `World` is
a queue of events in simulated time; all chance comes from one seed. By
default nothing takes time and nothing goes wrong by itself: tests cut links,
stall disks, crash and restart nodes, and `settle` runs what there is to do
now, `tick` lets time pass. What must hold of every group at every moment is
checked all the time (`tests.sim.checks`).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any
from zlib import crc32

from eraft.errors import LogCorrupt, StorageError
from eraft.metaserver.table import ConfigTable
from eraft.node import hello
from eraft.node.node import Node
from eraft.node.options import NodeOptions
from eraft.storage.directory import Identity
from eraft.storage.machine import MachineFactory
from eraft.storage.wal import WriteAheadLog
from eraft.types import NodeAddress
from tests.sim.acting import Acting
from tests.sim.checks import Checks
from tests.sim.conditions import Conditions
from tests.sim.conversation import Conversation
from tests.sim.dice import Dice
from tests.sim.disk import Disk
from tests.sim.disk_work import Action, DiskWork
from tests.sim.network import Network

START_MS = 1_700_000_000_000
START_US = 1_000_000_000
TICK_US = 50_000
DISK_CHECK_TICKS = 20
EVENTS_LIMIT = 200_000
"""Of one moment: more means that the cluster goes round in circles."""

Event = tuple[int, int, int, int, Callable[..., None], tuple[Any, ...]]
"""When, a number that orders what is at the same time, node and its life (or 0), what to do."""


class World:
    """Nodes 1..n, the first `members` of them (all, if 0) founders of the metaserver."""

    def __init__(
        self,
        nodes: int = 3,
        seed: int = 1,
        members: int = 0,
        conditions: Conditions | None = None,
        disks: dict[int, Disk] | None = None,
        machine: MachineFactory | None = None,
    ) -> None:
        """With `disks` the nodes go on from there; `machine` is what hosts bring along."""
        self.machine = machine
        self.dice = Dice(seed)
        self.conditions = conditions or Conditions()
        self.now_us = START_US
        self.digest = 0
        """Checksum of everything that has arrived anywhere, and when."""
        self.wall_offset_ms: dict[int, int] = {}
        self.ids = list(range(1, nodes + 1))
        self.clock_rate = {node_id: self._rate() for node_id in self.ids}
        """How fast the clocks of nodes run."""
        self.nodes: dict[int, Node] = {}
        self.stalled: set[int] = set()
        self.paused: set[int] = set()
        self.conversations: dict[int, list[Conversation]] = {}
        self.on_failure: Callable[[int, StorageError], None] | None = None
        """What happens to a node whose disk fails; without it the error comes out."""
        self.on_record: Callable[[int, int], None] | None = None
        """Hears of each record that is written, how many bytes, before it is durable."""
        self.on_leader: Callable[[int, int], None] | None = None
        """Hears of each node that begins to lead, and which group."""
        self.story: list[str] | None = None
        self.actor = 0
        """The node that is doing something just now, for the story."""
        self.events = 0
        self._queue: list[Event] = []
        self._count = 0
        self._lives = dict.fromkeys(self.ids, 1)
        self._acting = {node_id: Acting(self, node_id) for node_id in self.ids}
        self._ticks: dict[int, int] = {}
        self._awake: set[int] = set()
        self._backlog: dict[int, list[Action]] = {}
        self.network = Network(self)
        self._disk_work = DiskWork(self)
        self.checks = Checks(self)
        founders = self.ids[: members or nodes]
        self.founders = founders
        self.metaserver = {node_id: f"10.0.0.{node_id}:7000" for node_id in founders}
        self.disks: dict[int, Disk] = disks or {}
        for node_id in self.ids:
            if disks is None:
                self.format(node_id, f"{node_id:032x}")
            self.start(node_id)

    # Nodes

    def _rate(self) -> float:
        return 1.0 + self.conditions.drift * (2 * self.dice.random() - 1)

    def add(self, metaserver: dict[int, str]) -> int:
        """A new node, which is told where the metaserver is; its id was never used before."""
        node_id = max(self._lives) + 1
        self.ids.append(node_id)
        self.clock_rate[node_id] = self._rate()
        self._lives[node_id] = 1
        self._acting[node_id] = Acting(self, node_id)
        self.format(node_id, f"{node_id:032x}", metaserver)
        self.start(node_id)
        return node_id

    def format(self, node_id: int, store_id: str, metaserver: dict[int, str] | None = None) -> None:
        """A new disk for a node, which finds the metaserver at its founders if not told."""
        self.checks.formatted(node_id)
        identity = Identity("test", node_id, store_id, metaserver or self.metaserver)
        self.disks[node_id] = Disk(identity, self.founders, self.conditions)

    def start(self, node_id: int) -> None:
        """Start a node on its disk. StorageError if that cannot be read."""
        disk = self.disks[node_id]
        address = NodeAddress(
            node_id,
            disk.identity.store_id,
            f"10.0.0.{node_id}:6379",
            f"10.0.0.{node_id}:7000",
            f"10.0.0.{node_id}:8000",
        )
        options = NodeOptions(
            data_dir=f"node{node_id}",
            segment_size_bytes=self.conditions.segment_bytes,
            log_retention_bytes=self.conditions.retention_bytes,
            log_tail_bytes=self.conditions.tail_bytes,
            check_ticks=self.conditions.check_ticks,
            heartbeat_ticks=self.conditions.heartbeat_ticks,
        )
        log, corrupt = None, ""
        self.actor = node_id
        try:
            log = WriteAheadLog.open(disk.files, disk.options)
        except LogCorrupt as error:
            corrupt = str(error)
        self.checks.opened(node_id, log, corrupt)
        dice = Dice(self.dice.getrandbits(64))
        node = Node(
            options,
            disk.identity,
            address,
            log,
            corrupt,
            disk.store,
            dice,
            100 + node_id,
            *self.clocks(node_id),
            self.machine,
        )
        for replica in node.replicas.values():
            replica.raft.config.append_limit_bytes = self.conditions.append_bytes
            replica.raft.config.bytes_in_flight = self.conditions.flight_bytes
        node.sending.chunk_bytes = self.conditions.chunk_bytes
        node.sending.window_bytes = 4 * self.conditions.chunk_bytes
        self.nodes[node_id] = node
        self.conversations[node_id] = []
        self._backlog[node_id] = []
        self._ticks[node_id] = 0
        self._disk_work.started(node_id)
        self.checks.started(node_id, node, log)
        self.tell(f"node {node_id} starts {node.quarantined and 'quarantined: '}{node.quarantined}")
        self.wake(node_id)
        self._tick_later(node_id)
        self.network.dial_all()

    def crash(self, node_id: int, power: bool = True) -> None:
        """Stop a node at once.

        A power cut loses what was not synced, in part or whole. If only the
        process dies, the files are as they were written, but not all of that
        is durable; the state store falls back all the same.
        """
        self.tell(f"node {node_id} {'loses its power' if power else 'is killed'}")
        disk = self.disks[node_id]
        if power:
            disk.files.crash(self.dice)
        disk.store.crash(self.dice)
        self._gone(node_id)

    def stop(self, node_id: int) -> None:
        """Stop a node in an orderly way."""
        self.tell(f"node {node_id} is stopped")
        with self.acting(node_id) as node:
            node.writing.write_all()
        self.disks[node_id].store.flush()
        self._gone(node_id)

    def _gone(self, node_id: int) -> None:
        del self.nodes[node_id]
        for conversation in self.conversations[node_id]:
            conversation.closed = conversation.closed or "the node is gone"
        self.paused.discard(node_id)
        self._lives[node_id] += 1
        self._awake.discard(node_id)
        self.checks.crashed(node_id)
        self.network.crashed(node_id)

    def connect(self, node_id: int) -> Conversation:
        """A client of the node."""
        conversation = Conversation(self, node_id)
        self.conversations[node_id].append(conversation)
        return conversation

    def life(self, node_id: int) -> int:
        """How often the node was started, 0 while it is down."""
        return self._lives[node_id] if node_id in self.nodes else 0

    # Time

    @property
    def now_s(self) -> float:
        """Simulated time in seconds."""
        return self.now_us / 1e6

    def clocks(self, node_id: int) -> tuple[int, float]:
        """The wall clock of a node, in ms, and its monotonic clock, in seconds."""
        now_us = self.now_us
        offset_ms = self.wall_offset_ms.get(node_id, 0)
        return START_MS + now_us // 1000 + offset_ms, now_us * self.clock_rate[node_id] / 1e6

    def tick(self, ticks: int = 1) -> None:
        """Let time pass, a tick at a time, and settle after each."""
        for _ in range(ticks):
            self.run_for(TICK_US)
            self.settle()

    def until(self, condition: Callable[[], bool], ticks: int = 400) -> None:
        """Let time pass until the condition holds."""
        for _ in range(ticks):
            if condition():
                return
            self.tick()
        raise AssertionError("the condition did not come true")

    def settle(self) -> None:
        """Do everything that there is to do at this moment."""
        self._touch_all()
        self.run_for(0)

    def step(self) -> None:
        """Do what there is to do just now, and nothing that follows from it."""
        self._touch_all()
        last = max((event[1] for event in self._queue if event[0] <= self.now_us), default=0)
        while self._queue and self._queue[0][0] <= self.now_us and self._queue[0][1] <= last:
            self.run_one()

    def _touch_all(self) -> None:
        """Tests change things directly: whatever that was, everybody has a look."""
        self.resume()
        for node_id in self.nodes:
            self.wake(node_id)

    def run_for(self, time_us: int) -> None:
        """Run the events of this time."""
        self.resume()
        queue, end_us = self._queue, self.now_us + time_us
        count, moment_us = 0, self.now_us
        while queue and queue[0][0] <= end_us:
            if queue[0][0] > moment_us:
                count, moment_us = 0, queue[0][0]
            count += 1
            assert count < EVENTS_LIMIT, "the cluster does not settle"
            self.run_one()
        self.now_us = end_us

    def run_one(self) -> None:
        """The next event, whenever it is."""
        self.now_us, _, node_id, life, what, details = heappop(self._queue)
        if node_id:
            if self._lives[node_id] != life:
                return
            backlog = self._backlog[node_id]
            if backlog or node_id in self.paused:
                backlog.append((what, details))
                return
        self.events += 1
        what(*details)

    def later(self, delay_us: int, node_id: int, what: Callable[..., None], *details: Any) -> None:
        """Do something after a time, to a node if it still lives its present life then."""
        self._count += 1
        life = self._lives[node_id] if node_id else 0
        heappush(self._queue, (self.now_us + delay_us, self._count, node_id, life, what, details))

    def resume(self) -> None:
        """Let go on what no longer stalls or pauses."""
        for node_id in self.nodes:
            self._disk_work.resume(node_id)
            if self._backlog[node_id] and node_id not in self.paused:
                self.later(0, 0, self._catch_up, node_id, self._lives[node_id])
                self.network.dial_all()

    def _catch_up(self, node_id: int, life: int) -> None:
        """Everything that came while the node was paused comes now."""
        while self._lives[node_id] == life and node_id not in self.paused:
            if not self._backlog[node_id]:
                return
            what, details = self._backlog[node_id].pop(0)
            self.events += 1
            what(*details)

    # What nodes do

    def acting(self, node_id: int) -> Acting:
        """Tell a node something: it knows the time, and has its turn afterwards."""
        return self._acting[node_id]

    def on_stage(self, node_id: int) -> Node:
        """The node that does something now; it knows the time."""
        node = self.nodes[node_id]
        self.actor = node_id
        node.at(*self.clocks(node_id))
        return node

    def failed(self, node_id: int, error: StorageError) -> None:
        """The disk of the node fails, which stops it."""
        if self.on_failure is None:
            raise error
        self.tell(f"node {node_id} stops: {error}")
        self.crash(node_id, power=False)
        self.on_failure(node_id, error)

    def told(self, node_id: int, node: Node) -> None:
        """Something happened to a node: it has a turn if that makes work for it."""
        if not node.quarantined:
            self.checks.woken(node_id, node)
        if node_id not in self._awake and node.has_work:
            self.wake(node_id)

    def wake(self, node_id: int) -> None:
        """The node has a turn soon."""
        if node_id not in self._awake:
            self._awake.add(node_id)
            self.later(self.dice.within(self.conditions.turn_us), node_id, self._turn, node_id)

    def _tick_later(self, node_id: int) -> None:
        delay_us = int(TICK_US / self.clock_rate[node_id])
        self.later(delay_us, node_id, self._tick, node_id)

    def _tick(self, node_id: int) -> None:
        self._tick_later(node_id)
        with self.acting(node_id) as node:
            node.tick()
            self._ticks[node_id] += 1
            if self._ticks[node_id] % DISK_CHECK_TICKS == 0:
                self._disk_work.check(node_id)
                self.checks.looked_at(node_id, node)

    def _turn(self, node_id: int) -> None:
        node = self.on_stage(node_id)
        try:
            outputs = node.drain()
        except StorageError as error:
            self.failed(node_id, error)
            return
        for to, data in outputs.frames.items():
            self.network.send(node_id, to, hello.MAIN, data)
        for to, data in outputs.bulk.items():
            self.network.send(node_id, to, hello.BULK, data)
        if outputs.record is not None:
            self._disk_work.write(node_id, outputs.record)
        if outputs.flush:
            self._disk_work.flush(node_id)
        try:
            node.apply()
        except StorageError as error:
            self.failed(node_id, error)
            return
        if outputs.record is not None:
            node.writing.write_meanwhile()
            for preparation in node.log.preparations():
                self._disk_work.prepare(node_id, preparation)
        for conversation in self.conversations[node_id]:
            conversation.take()
        if outputs.peers_changed:
            self.network.hang_up(node_id)
            self.network.dial(node_id)
        self._awake.discard(node_id)  # what its clients get in a turn needs no other one
        self.told(node_id, node)
        self.checks.turned(node_id, node)

    # Links

    def cut_link(self, a: int, b: int) -> None:
        """Cut both directions between two nodes; the connections break."""
        self.network.cut(a, b)

    def heal(self) -> None:
        """Mend all links."""
        self.network.heal()

    def isolate(self, node_id: int) -> None:
        """Cut a node off from all others."""
        for other in self.ids:
            if other != node_id:
                self.cut_link(node_id, other)

    # What can be told about it

    def witness(self, data: bytes | memoryview) -> None:
        """Something arrives just now; it goes into the digest."""
        self.digest = crc32(data, self.digest ^ (self.now_us & 0xFFFFFFFF))

    def tell(self, what: str) -> None:
        """Something for the story, if somebody reads it."""
        if self.story is not None:
            self.story.append(f"{(self.now_us - START_US) / 1e6:10.6f}  {what}")

    # Operators

    def meta(self, node_id: int, *words: str) -> bytes:
        """A META command on a node's admin port, until it is answered."""
        answers: list[bytes] = []
        admin = self.nodes[node_id].connect_admin(lambda: None, lambda why, at_once: None)
        with self.acting(node_id):
            admin.receive(" ".join(("META", *words)).encode() + b"\r\n")

        def answered() -> bool:
            if admin.slots.output:
                answers.append(admin.slots.take())
            return bool(answers)

        self.until(answered)
        return answers[0]

    def leader(self, gid: int) -> int:
        """The node that serves a group, 0 while there is none."""
        serving = [
            (node.replicas[gid].raft.term, node_id)
            for node_id, node in self.nodes.items()
            if gid in node.replicas and node.replicas[gid].serving
        ]
        return max(serving)[1] if serving else 0

    @property
    def table(self) -> ConfigTable:
        """The newest version of the config table that a node knows."""
        return max((node.table for node in self.nodes.values()), key=lambda it: it.version)

    def ready(self, gid: int) -> bool:
        """Whether the group is led and owns its buckets, and every node knows its leader."""
        leader = self.leader(gid)
        return bool(leader) and all(node.leader_of(gid) == leader for node in self.nodes.values())
