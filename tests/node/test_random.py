"""Random clients and random trouble in a whole cluster: linearizable, nothing lost, and it goes on.

ERAFT_SEEDS sets how many seeds are tried, ERAFT_SEED the first one.
"""

from __future__ import annotations

import os
import re
from random import Random

import pytest

from eraft._impl import hashing
from eraft.node.replica import Replica
from eraft.storage import rows as layout
from eraft.types import BUCKETS
from tests.linear.checker import Operation, explain
from tests.node.world import Conversation, World, opened

FIRST_SEED = int(os.environ.get("ERAFT_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("ERAFT_SEEDS", "30")))
PHASES = 3
TROUBLE_TURNS = 40
WRITERS = 4
CALM_TURNS = 25
ANSWER_S = 12.0
"""A pipeline whose commands wait for one another is answered in this time, whatever happens."""

NOT_EXECUTED = (b"MOVED", b"CLUSTERDOWN", b"TRYAGAIN", b"MISCONF")
_REPLY = re.compile(rb"(?:([+:-])([^\r]*)|\$(-1|\d+))\r\n")


class Script:
    """A client that follows redirections and notes what it asked and was told."""

    def __init__(self, world: World, random: Random, number: int, keys: list[bytes]) -> None:
        self.world = world
        self.random = random
        self.number = number
        self.keys = keys
        self.history: dict[bytes, list[Operation]] = {key: [] for key in keys}
        self.clock = 0.0
        self.executed = 0
        self._waiting: list[Operation] = []
        self._connections = 0
        self._count = 0
        self._node = 0
        self._since_s = 0.0
        self._conversation: Conversation | None = None

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    def send(self, commands: list[tuple[str, bytes]]) -> None:
        """Send a pipeline of commands, each a name and a key."""
        conversation = self._connected()
        if conversation is None:
            return
        if not self._waiting:
            self._since_s = self.world.now_s
        data = b""
        for name, key in commands:
            self._count += 1
            value = b"<%d.%d>" % (self.number, self._count) if name in ("SET", "APPEND") else b""
            args = [name.encode(), key, *([value] if value else [])]
            args += [b"0", b"-1"] if name == "GETRANGE" else []
            data += b"*%d\r\n" % len(args)
            data += b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)
            connection = self.number * 10_000 + self._connections
            operation = Operation(name, value, self.clock, connection=connection, place=self._count)
            self._waiting.append(operation)
            self.history[key].append(operation)
        cut = self.random.randrange(len(data) + 1)
        conversation.send(data[:cut], data[cut:])

    def _connected(self) -> Conversation | None:
        if self._conversation is None and self.world.nodes:
            if self._node not in self.world.nodes:
                self._node = self.random.choice(list(self.world.nodes))
            self._connections += 1
            self._conversation = self.world.connect(self._node)
        return self._conversation

    def leave(self) -> None:
        """Hang up, or find out that the node is gone: what is not answered stays unknown."""
        if self._conversation is not None and self._node in self.world.nodes:
            self.world.disconnect(self._node, self._conversation)
        self._conversation = None
        self._waiting.clear()

    def listen(self) -> None:
        """Note the replies that have come."""
        if self._conversation is None:
            return
        if self._node not in self.world.nodes or self._conversation.closed:
            self.leave()
            return
        moved = 0
        place = 0
        data = self._conversation.received
        while match := _REPLY.match(data, place):
            kind, text, size = match.groups()
            place = match.end()
            if size is not None and size != b"-1":
                text, place = data[place : place + int(size)], place + int(size) + 2
            moved = self._told(self._waiting.pop(0), kind, text, size) or moved
        self._conversation.received = data[place:]
        if moved and not self._waiting:
            self.leave()
            self._node = moved
        waited_s = self.world.now_s - self._since_s
        assert not self._waiting or waited_s < ANSWER_S, f"client {self.number} waits for ever"

    def _told(self, operation: Operation, kind: bytes, text: bytes, size: bytes | None) -> int:
        """Note one reply; the node that it redirects to, else 0."""
        operation.returned = self.clock
        if size is not None:
            operation.result = None if size == b"-1" else text
        elif kind == b"+":
            operation.result = text.decode()
        elif kind == b":":
            operation.result = int(text)
        elif text.startswith(NOT_EXECUTED):
            for operations in self.history.values():
                operations[:] = [it for it in operations if it is not operation]
            found = re.match(rb"MOVED \d+ 10\.0\.0\.(\d+):", text)
            return int(found[1]) if found else 0
        else:
            assert text == b"TIMEOUT outcome unknown", text
            operation.returned = float("inf")
            return 0
        self.executed += 1
        return 0


class Trouble:
    """What can go wrong, at random, and all of it repaired."""

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random

    def strike(self) -> None:
        world, random = self.world, self.random
        chosen = random.choice(world.ids)
        other = random.choice([node_id for node_id in world.ids if node_id != chosen])
        match random.randrange(16):
            case 0:
                world.cut_link(chosen, other)
            case 1 | 2:
                world.isolate(world.leader(random.choice((1, 2))) or chosen)
            case 3 | 4:
                world.heal()
            case 5:
                world.slow.add((chosen, other))
            case 6 | 7:
                if chosen in world.nodes:
                    world.crash(chosen)
            case 8:
                self._restart()
            case 9:
                world.stalled ^= {chosen}
            case 10:
                world.stalled.clear()
            case 11:
                world.wall_offset_ms[chosen] = random.randint(-5000, 5000)
            case 12:
                if chosen in world.nodes:
                    world.nodes[chosen].free_disk(random.choice((0, 1 << 40)))
            case 13:
                self._step_down()
            case 14:
                world.paused.add(world.leader(random.choice((1, 2))) or chosen)
            case 15:
                world.paused.clear()

    def _restart(self) -> None:
        for node_id in self.world.ids:
            if node_id not in self.world.nodes:
                self.world.start(node_id)

    def _step_down(self) -> None:
        for node in self.world.nodes.values():
            for replica in node.replicas.values():
                if replica.leading and self.random.random() < 0.5:
                    replica.raft.step_down("trouble")
                    node.touch(replica)

    def replace_a_leader(self) -> None:
        """One stops for long enough, and does not hear of its successor first thing after."""
        leader = self.world.leader(self.random.choice((1, 2)))
        if leader:
            self.world.paused.add(leader)
            self.world.isolate(leader)

    def repair(self) -> None:
        """Everything works again."""
        world = self.world
        world.heal()
        world.stalled.clear()
        world.paused.clear()
        world.wall_offset_ms.clear()
        self._restart()
        for node in world.nodes.values():
            node.free_disk(1 << 40)


def keys_of_both(world: World) -> tuple[list[bytes], list[bytes]]:
    """Two keys for texts and two for numbers, of each kind one in each group."""
    owners = world.nodes[1].table.owners()
    assert len(owners) == BUCKETS
    texts, numbers = [], []
    for gid in (1, 2):
        for prefix, found in ((b"text%d", texts), (b"number%d", numbers)):
            keys = (prefix % number for number in range(1000))
            found.append(next(key for key in keys if owners[hashing.bucket_of(key)] == gid))
    return texts, numbers


def pipeline(
    random: Random, texts: list[bytes], numbers: list[bytes], reads_only: bool
) -> list[tuple[str, bytes]]:
    if reads_only:
        return [("GET", key) for key in random.sample(texts + numbers, random.choice((1, 2)))]
    commands = []
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        if random.random() < 0.6:
            name = random.choice(("SET", "SET", "GET", "GET", "APPEND", "GETRANGE"))
            commands.append((name, random.choice(texts)))
        else:
            commands.append((random.choice(("INCR", "INCR", "GET")), random.choice(numbers)))
    return commands


def rows_of(replica: Replica) -> list[tuple[bytes, bytes]]:
    """All rows but those that only one replica has; without the generation."""
    start, end = layout.generation_range(replica.rows.generation)
    return [(key[4:], row) for key, row in replica.rows.scan(start, end)]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_trouble(seed: int) -> None:
    world = opened(groups=2, seed=seed)
    random = Random(seed)
    texts, numbers = keys_of_both(world)
    scripts = [Script(world, random, number, texts + numbers) for number in range(1, 7)]
    trouble = Trouble(world, random)
    clock = 0.0
    strikes = random.choice((0.05, 0.15, 0.3))
    single = False

    def listen() -> None:
        nonlocal clock
        clock += 1
        for script in scripts:
            script.clock = clock
            script.listen()

    for turn in range(PHASES * (TROUBLE_TURNS + CALM_TURNS)):
        turn_of_phase = turn % (TROUBLE_TURNS + CALM_TURNS)
        if turn_of_phase == 0:
            single = random.random() < 0.4
            if single:
                trouble.replace_a_leader()
        if turn_of_phase == TROUBLE_TURNS:
            trouble.repair()
        elif turn_of_phase < TROUBLE_TURNS and not single and random.random() < strikes:
            trouble.strike()
        for script in scripts:
            listen()
            reads_only = script.number > WRITERS
            if random.random() < (0.01 if reads_only or not script.waits else 0.05):
                script.leave()
            if not script.waits or random.random() < (0.3 if reads_only else 0.1):
                script.send(pipeline(random, texts, numbers, reads_only))
        for _ in range(random.randrange(4)):
            world.step()
            listen()
        if random.random() < 0.7:
            world.elapse()

    trouble.repair()

    def settled() -> bool:
        listen()
        return world.ready(1) and world.ready(2) and not any(script.waits for script in scripts)

    world.until(settled)
    executed = [script.executed for script in scripts]
    for script in scripts:
        for key in texts + numbers:
            last = [("GETRANGE", key), ("SET" if key in texts else "INCR", key), ("GET", key)]
            before = script.executed
            while script.executed - before < len(last):
                before = script.executed
                script.send(last)
                world.until(lambda waiting=script: (listen(), not waiting.waits)[1])
    assert sum(executed) > 20, "the clients did too little to show anything"
    for key in texts + numbers:
        history = [operation for script in scripts for operation in script.history[key]]
        assert explain(history) == "", key
    world.tick(20)
    for gid in (0, 1, 2):
        replicas = [node.replicas[gid] for node in world.nodes.values()]
        assert len({(replica.applied, replica.raft.commit) for replica in replicas}) == 1
        first, *others = [rows_of(replica) for replica in replicas]
        assert first
        for other in others:
            assert other == first
