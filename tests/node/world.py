"""A whole cluster in one process: real nodes on injected files, network and time.

Everything but sockets, threads and the clock is the real thing. A `World`
moves in steps: each step delivers what is in flight and lets every node have
its turn; ticks pass only when asked for. Tests cut links, stall disks, crash
and restart nodes.
"""

from collections.abc import Callable
from random import Random

from eraft import limits
from eraft._impl import frames
from eraft.node.client import Client
from eraft.node.node import Node
from eraft.node.options import NodeOptions
from eraft.node.outputs import Outputs
from eraft.storage.directory import Identity
from eraft.storage.founding import founding_state
from eraft.storage.memory_files import MemoryFiles
from eraft.storage.segments import Preparation
from eraft.storage.state import MemoryStore
from eraft.storage.wal import LogOptions, WriteAheadLog, WriteRequest, format_log
from eraft.types import NodeAddress

SEGMENT_BYTES = 256 * 1024
START_MS = 1_700_000_000_000


class Disk:
    """What a node leaves behind when it stops."""

    def __init__(self, identity: Identity, members: list[int], retention_bytes: int) -> None:
        self.identity = identity
        self.retention_bytes = retention_bytes
        self._salts = Random(identity.node_id)
        self.files = MemoryFiles()
        self.store = MemoryStore()
        state = founding_state(identity.node_id, members, identity.store_id)
        format_log(self.files, self.options, [] if state is None else [state])

    @property
    def options(self) -> LogOptions:
        return LogOptions(
            self.identity.store_id,
            segment_size_bytes=SEGMENT_BYTES,
            retention_bytes=self.retention_bytes,
            random_u64=lambda: self._salts.getrandbits(64),
        )


class Conversation:
    """A client of one node: what it sends, and the bytes that it got back."""

    def __init__(self, node: Node) -> None:
        self.received = b""
        self.closed = ""
        self.client: Client = node.connect("10.0.0.9:9", "10.0.0.1:1", self._ready, self._closed)

    def send(self, *commands: str | bytes) -> None:
        """Send inline commands (text) or raw bytes."""
        for command in commands:
            data = command.encode() + b"\r\n" if isinstance(command, str) else command
            self.client.receive(data)

    def _ready(self) -> None:
        """Output waits; the world takes it after the turn."""

    def _closed(self, why: str, at_once: bool) -> None:
        self.closed = why

    def take(self) -> None:
        if self.client.slots.output:
            self.received += self.client.slots.take()


class World:
    """Nodes 1..n, the first `members` of them (all, if 0) founders of the metaserver."""

    def __init__(
        self,
        nodes: int = 3,
        seed: int = 1,
        members: int = 0,
        retention_bytes: int = limits.LOG_RETENTION_BYTES,
    ) -> None:
        self.random = Random(seed)
        self.now_s = 1000.0
        self.wall_offset_ms: dict[int, int] = {}
        self.ids = list(range(1, nodes + 1))
        self.nodes: dict[int, Node] = {}
        self.cut: set[tuple[int, int]] = set()
        self.slow: set[tuple[int, int]] = set()
        self.stalled: set[int] = set()
        self.paused: set[int] = set()
        self.conversations: dict[int, list[Conversation]] = {}
        self._frames: list[tuple[int, int, bytes]] = []
        self._writes: dict[int, list[WriteRequest]] = {}
        self._flushes: dict[int, int] = {}
        self._preparations: dict[int, list[Preparation]] = {}
        self._up: set[tuple[int, int]] = set()
        founders = self.ids[: members or nodes]
        metaserver = {node_id: f"10.0.0.{node_id}:7000" for node_id in founders}
        self.disks = {
            node_id: Disk(
                Identity("test", node_id, f"{node_id:032x}", metaserver), founders, retention_bytes
            )
            for node_id in self.ids
        }
        for node_id in self.ids:
            self.start(node_id)

    # Nodes

    def start(self, node_id: int) -> None:
        """Start a node on its disk."""
        disk = self.disks[node_id]
        address = NodeAddress(
            node_id,
            disk.identity.store_id,
            f"10.0.0.{node_id}:6379",
            f"10.0.0.{node_id}:7000",
            f"10.0.0.{node_id}:8000",
        )
        self.nodes[node_id] = Node(
            NodeOptions(
                data_dir=f"node{node_id}",
                segment_size_bytes=SEGMENT_BYTES,
                log_retention_bytes=disk.retention_bytes,
            ),
            disk.identity,
            address,
            WriteAheadLog.open(disk.files, disk.options),
            "",
            disk.store,
            Random(self.random.getrandbits(64)),
            100 + node_id,
            self.wall_ms(node_id),
            self.now_s,
        )
        self._writes[node_id] = []
        self._preparations[node_id] = []
        self.conversations[node_id] = []

    def crash(self, node_id: int) -> None:
        """Stop a node as a power cut does: what was not synced is lost, in part or whole."""
        del self.nodes[node_id]
        self.paused.discard(node_id)
        disk = self.disks[node_id]
        disk.files.crash(self.random)
        disk.store.crash(self.random)
        self._writes[node_id] = []
        self._preparations[node_id] = []
        self._flushes.pop(node_id, None)
        self._frames = [item for item in self._frames if node_id not in item[:2]]
        self._up = {link for link in self._up if node_id not in link}
        for other, node in self.nodes.items():
            self._at(other)
            node.peer_down(node_id)

    def connect(self, node_id: int) -> Conversation:
        """A client of the node."""
        conversation = Conversation(self.nodes[node_id])
        self.conversations[node_id].append(conversation)
        return conversation

    def disconnect(self, node_id: int, conversation: Conversation) -> None:
        """The client hangs up."""
        self.conversations[node_id].remove(conversation)
        self._at(node_id).disconnect(conversation.client)

    # Time

    def wall_ms(self, node_id: int) -> int:
        return START_MS + int(self.now_s * 1000) + self.wall_offset_ms.get(node_id, 0)

    def _at(self, node_id: int) -> Node:
        node = self.nodes[node_id]
        node.at(self.wall_ms(node_id), self.now_s)
        return node

    def tick(self, ticks: int = 1) -> None:
        """Let time pass, a tick at a time, and settle after each."""
        for _ in range(ticks):
            self.elapse()
            self.settle()

    def elapse(self) -> None:
        """One tick passes; what it leads to happens in the next steps."""
        self.now_s += 0.05
        for node_id in self._running():
            self._at(node_id).tick()

    def until(self, condition: Callable[[], bool], ticks: int = 400) -> None:
        """Let time pass until the condition holds."""
        for _ in range(ticks):
            if condition():
                return
            self.tick()
        raise AssertionError("the condition did not come true")

    # Steps

    def settle(self, steps: int = 200) -> None:
        """Step until nothing is in flight."""
        for _ in range(steps):
            if not self.step():
                return
        raise AssertionError("the cluster does not settle")

    def step(self) -> bool:
        """Deliver what is in flight, give every node its turn; False if nothing happened."""
        happened = self._connect_links()
        arriving, self._frames = self._frames, []
        for sender, to, data in arriving:
            if (sender, to) in self.slow or to in self.paused:
                self._frames.append((sender, to, data))
            elif to in self.nodes and (sender, to) in self._up:
                for kind, body in frames.FrameReader(1 << 30).feed(data):
                    self._at(to).frame(sender, kind, body)
                happened = True
        for node_id in self._running():
            happened = self._finish_writes(node_id) or happened
            happened = self._finish_work(node_id) or happened
        for node_id in self._running():
            happened = self._turn(node_id) or happened
        return happened

    def _running(self) -> list[int]:
        """The nodes whose processes run: not those that are paused, as SIGSTOP does."""
        return [node_id for node_id in self.nodes if node_id not in self.paused]

    def _connect_links(self) -> bool:
        happened = False
        for a in self.nodes:
            for b in self.nodes:
                known = a != b and b in self.nodes[a].table.nodes
                if known and (a, b) not in self.cut and (a, b) not in self._up:
                    self._up.add((a, b))
                    self._at(a).peer_up(b)
                    happened = True
        return happened

    def cut_link(self, a: int, b: int) -> None:
        """Cut both directions between two nodes; the connections break."""
        self._frames = [item for item in self._frames if {*item[:2]} != {a, b}]
        for link in ((a, b), (b, a)):
            self.cut.add(link)
            self._up.discard(link)
            if link[0] in self.nodes:
                self._at(link[0]).peer_down(link[1])

    def heal(self) -> None:
        """Mend all links."""
        self.cut.clear()
        self.slow.clear()

    def isolate(self, node_id: int) -> None:
        """Cut a node off from all others."""
        for other in self.ids:
            if other != node_id:
                self.cut_link(node_id, other)

    def _finish_writes(self, node_id: int) -> bool:
        if node_id in self.stalled:
            return False
        writes, self._writes[node_id] = self._writes[node_id], []
        for request in writes:
            request.file.pwrite(request.data, request.offset)
            request.file.sync()
            self._at(node_id).log_durable(request.position)
        return bool(writes)

    def _finish_work(self, node_id: int) -> bool:
        """What a turn has begun beside the loop, a flush or a segment, ends in the next step."""
        if node_id in self.stalled:
            return False
        preparations, self._preparations[node_id] = self._preparations[node_id], []
        for preparation in preparations:
            preparation.run(self.disks[node_id].files)
            self.nodes[node_id].log.prepared(preparation)
        batches = self._flushes.pop(node_id, None)
        if batches is not None:
            self.disks[node_id].store.flushed(batches)
            self._at(node_id).store_flushed()
        return bool(preparations) or batches is not None

    def _turn(self, node_id: int) -> bool:
        node = self._at(node_id)
        outputs: Outputs = node.drain()
        assert outputs.again or not node._dirty, "nothing wakes the node for what is left to do"
        for queues in (outputs.frames, outputs.bulk):
            for to, data in queues.items():
                if (node_id, to) in self._up:
                    self._frames += [(node_id, to, frame) for frame in data]
        if outputs.record is not None:
            self._writes[node_id].append(outputs.record)
            self._preparations[node_id] += node.log.preparations()
        if outputs.flush:
            self._flushes[node_id] = self.disks[node_id].store.batches
        for conversation in self.conversations[node_id]:
            conversation.take()
        begun = outputs.record is not None or outputs.flush
        return outputs.again or begun or bool(outputs.frames or outputs.bulk)

    # Operators

    def meta(self, node_id: int, *words: str) -> bytes:
        """A META command on a node's admin port, until it is answered."""
        answers: list[bytes] = []
        admin = self.nodes[node_id].connect_admin(lambda: None, lambda why, at_once: None)
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

    def ready(self, gid: int) -> bool:
        """Whether the group is led and owns its buckets, and every node knows its leader."""
        leader = self.leader(gid)
        return bool(leader) and all(node.leader_of(gid) == leader for node in self.nodes.values())


def opened(
    groups: int = 1,
    nodes: int = 3,
    seed: int = 1,
    retention_bytes: int = limits.LOG_RETENTION_BYTES,
) -> World:
    """A cluster whose groups 1..n own all buckets, each with a replica on every node."""
    world = World(nodes, seed, retention_bytes=retention_bytes)
    world.until(lambda: world.ready(0))
    world.until(lambda: all(len(node.table.nodes) == nodes for node in world.nodes.values()))
    world.until(
        lambda: all(
            address.client for node in world.nodes.values() for address in node.table.nodes.values()
        )
    )
    for gid in range(1, groups + 1):
        assert world.meta(1, "JOIN", str(gid), *map(str, world.ids)).startswith(b"$")
    assert world.meta(1, "OPEN").startswith(b"$")
    world.until(lambda: all(world.ready(gid) for gid in range(1, groups + 1)))
    world.until(lambda: all(_owned(world, gid) for gid in range(1, groups + 1)))
    return world


def _owned(world: World, gid: int) -> bool:
    return all(node.replicas[gid].machine.buckets_owned > 0 for node in world.nodes.values())
