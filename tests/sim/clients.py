"""Clients that follow redirections and write down what they asked and were told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.linear.checker import Operation
from tests.sim.checks import Violation
from tests.sim.conversation import Conversation
from tests.sim.dice import Dice
from tests.sim.world import World

NOT_EXECUTED = (b"MOVED", b"CLUSTERDOWN", b"TRYAGAIN", b"MISCONF")
PATIENCE_US = 12_000_000
"""A pipeline whose commands wait for one another is answered in this time, whatever happens."""

_REPLY = re.compile(rb"(?:([+:-])([^\r]*)|\$(-1|\d+))\r\n")
_MOVED = re.compile(rb"MOVED \d+ 10\.0\.0\.(\d+):")

TEXT_COMMANDS = ("SET", "SET", "SET", "GET", "GET", "GET", "APPEND", "APPEND", "GETRANGE", "GETSET")
NUMBER_COMMANDS = ("INCR", "INCR", "GET")


@dataclass(slots=True)
class Histories:
    """What all clients did to each key, in the order in which they did and heard it."""

    texts: list[bytes]
    numbers: list[bytes]
    of_key: dict[bytes, list[Operation]] = field(default_factory=dict)
    moment: int = 0

    def __post_init__(self) -> None:
        self.of_key = {key: [] for key in self.texts + self.numbers}

    def now(self) -> int:
        """A moment after all others."""
        self.moment += 1
        return self.moment


class Script:
    """One client; it never sends again what may have been executed."""

    def __init__(
        self,
        world: World,
        histories: Histories,
        number: int,
        dice: Dice,
        readonly: bool = False,
    ) -> None:
        """With `readonly` it only reads, from whichever node it is connected with."""
        self.world = world
        self.histories = histories
        self.number = number
        self.dice = dice
        self.readonly = readonly
        self.executed = 0
        self.waiting: list[tuple[bytes, Operation]] = []
        self._orders = 0
        """Counts the connections, and anew after each write that has timed out: what is sent
        once that is known is not ordered behind it any more."""
        self._count = 0
        self._node = 0
        self._since_us = 0
        self._greeted = True
        """Whether the node has answered READONLY, if it was asked."""
        self._conversation: Conversation | None = None

    def send(self, commands: list[tuple[str, bytes]]) -> None:
        """Send a pipeline of commands, each a name and a key."""
        conversation = self._connected()
        if conversation is None:
            return
        if not self.waiting:
            self._since_us = self.world.now_us
        data = b""
        called = self.histories.now()
        connection = self.number * 100_000 + self._orders
        for name, key in commands:
            self._count += 1
            writes = name in ("SET", "APPEND", "GETSET")
            value = b"<%d.%d>" % (self.number, self._count) if writes else b""
            args = [name.encode(), key, *([value] if value else [])]
            args += [b"0", b"-1"] if name == "GETRANGE" else []
            data += b"*%d\r\n" % len(args)
            data += b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)
            operation = Operation(name, value, called, connection=connection, place=self._count)
            self.waiting.append((key, operation))
            self.histories.of_key[key].append(operation)
        if self.world.story is not None:
            asked = ", ".join(
                f"{it.name} {key.decode()} {it.value.decode()}".strip()
                for key, it in self.waiting[-len(commands) :]
            )
            self.world.tell(f"client {self.number} asks node {self._node}: {asked}")
        cut = self.dice.randrange(len(data) + 1)
        conversation.send(*(part for part in (data[:cut], data[cut:]) if part))

    def _connected(self) -> Conversation | None:
        world = self.world
        if self._conversation is None and world.nodes:
            if self._node not in world.nodes:
                self._node = self.dice.choice(list(world.nodes))
            self._orders += 1
            self._conversation = world.connect(self._node)
            self._conversation.on_data = self.listen
            if self.readonly:
                self._greeted = False
                self._conversation.send("READONLY")
        return self._conversation

    def go_to(self, node_id: int) -> None:
        """The next commands go to this node."""
        if self._node != node_id or self._conversation is None:
            self.leave("wanted elsewhere")
            self._node = node_id

    def leave(self, why: str) -> None:
        """Hang up, or find out that the node is gone: what is not answered stays unknown."""
        conversation, self._conversation = self._conversation, None
        if conversation is None:
            return
        self.world.tell(f"client {self.number} leaves node {self._node}: {why}")
        conversation.on_data = None
        conversation.hang_up()
        self._greeted = True
        self._node = 0 if self.dice.random() < 0.5 else self._node
        self.waiting.clear()

    def look(self) -> None:
        """Notice that the connection is gone, or that nothing is answered."""
        conversation = self._conversation
        if conversation is None:
            return
        if conversation.closed:
            self.leave(conversation.closed)
        elif self.waiting and self._node in self.world.paused:
            self._since_us = self.world.now_us
        elif self.waiting and self.world.now_us - self._since_us > PATIENCE_US:
            raise Violation(
                f"answers: client {self.number} waits for ever at node {self._node}:"
                f" {self.waiting[0][1]}"
            )

    def listen(self) -> None:
        """Note the replies that have come."""
        conversation = self._conversation
        if conversation is None:
            return
        moved = 0
        place = 0
        data = conversation.received
        moment = self.histories.now()
        while match := _REPLY.match(data, place):
            kind, text, size = match.groups()
            end = match.end()
            if size is not None and size != b"-1":
                if len(data) < end + int(size) + 2:
                    break
                text, end = data[end : end + int(size)], end + int(size) + 2
            place = end
            if not self._greeted:
                if (kind, text) != (b"+", b"OK"):
                    raise Violation(f"answers: client {self.number} gets {text!r} for READONLY")
                self._greeted = True
                continue
            if not self.waiting:
                raise Violation(f"answers: client {self.number} gets {data!r} for nothing")
            key, operation = self.waiting.pop(0)
            moved = self._told(key, operation, moment, kind, text, size) or moved
            self._since_us = self.world.now_us
        conversation.received = data[place:]
        if moved and not self.waiting:
            self.leave("moved")
            # Who reads from followers tries another one, not always the leader.
            self._node = self.dice.choice(self.world.ids) if self.readonly else moved

    def _told(
        self,
        key: bytes,
        operation: Operation,
        moment: int,
        kind: bytes,
        text: bytes,
        size: bytes | None,
    ) -> int:
        """Note one reply; the node to go on with if it is to be another one, else 0."""
        if self.world.story is not None:
            shown = "nothing" if size == b"-1" else text.decode()
            self.world.tell(
                f"client {self.number} is told by node {self._node}: {operation.name}"
                f" {key.decode()} {operation.value.decode()} -> {shown}"
            )
        if kind == b"-":
            if text.startswith(NOT_EXECUTED):
                if operation.value:
                    self.world.checks.commits.refused(operation.value, f"client {self.number}")
                history = self.histories.of_key[key]
                history[:] = [it for it in history if it is not operation]
                found = _MOVED.match(text)
                return int(found[1]) if found else int(self.dice.choice(self.world.ids))
            if text != b"TIMEOUT outcome unknown":
                raise Violation(f"answers: {operation} is answered {text!r}")
            # Reads that were sent behind it need not wait for it any more (seed 98).
            operation.connection = 0
            self._orders += 1
            return 0
        operation.returned = moment
        self.executed += 1
        if size is not None:
            operation.result = None if size == b"-1" else text
        elif kind == b":":
            operation.result = int(text)
        if operation.value:
            self.world.checks.commits.acknowledged(operation.value, f"client {self.number}")
        return 0
