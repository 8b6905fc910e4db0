"""Clients that load the cluster and keep the history of every key.

Each is a thread in a closed loop over connections of its own. It sends a
command again only if it was certainly not executed. A command whose
connection broke, or whose answer did not come or was "outcome unknown", stays
in the history as unknown, and its value is never written again.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random
from typing import Self

from eraft._impl import hashing
from eraft.types import BUCKETS
from tests.chaos.cluster import GROUPS
from tests.cli.local import wait_until
from tests.cluster.nodes import Wire, command
from tests.linear.checker import Operation

ANSWER_S = (0.3, 1.0, 3.0)
"""How long the clients wait, each in its way; every command is answered within 2.5 s."""
CONNECT_S = 0.3
BACK_OFF_S = 0.01
INTERVAL_S = 0.004
"""Between the batches of one client, so that a history can be checked in reasonable time."""
KEYS = 6
KEY_OPERATIONS = 250
"""A key is given up for a new one after so many, so that its history stays short."""
PIPELINE = 4
PROGRESS = 20
REFUSED_S = 60.0

NOT_EXECUTED = (b"-MOVED", b"-CLUSTERDOWN", b"-TRYAGAIN", b"-MISCONF")
UNKNOWN = b"-TIMEOUT"

COMMANDS = {
    "list": ["APPEND", "GET"],
    "register": ["SET", "SET", "APPEND", "GET", "GET", "GET"],
    "counter": ["INCR", "INCR", "GET"],
}


def kind_of(key: str) -> str:
    return key.partition(":")[0]


def group_of(key: str) -> int:
    """The group that owns the key, of two."""
    return 1 if hashing.bucket_of(key.encode()) < BUCKETS // 2 else 2


class Keys:
    """A few keys at a time; each is replaced by a new one when it has seen enough."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made = 0
        self._left = Counter[str]()
        self._now = [self._make() for _ in range(KEYS)]

    def _make(self) -> str:
        kind = list(COMMANDS)[self._made % len(COMMANDS)]
        self._made += 1
        key = f"{kind}:{self._made}"
        self._left[key] = KEY_OPERATIONS
        return key

    def draw(self, chance: Random, count: int) -> str:
        """A key that `count` operations will be done on."""
        with self._lock:
            number = chance.randrange(KEYS)
            key = self._now[number]
            self._left[key] -= count
            if self._left[key] <= 0:
                self._now[number] = self._make()
            return key


class Client(threading.Thread):
    """One client; one that is pinned to a node only reads, there.

    Attributes:
        history: what it did, by key; commands that were certainly not executed are not in it.
        answered: operations of known outcome, by group.
        refused: how often a command was certainly not executed, and sent again.
        failure: what must not happen, which ended the client.
    """

    def __init__(self, load: Load, number: int, pinned: str = "") -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.stopping = load.stopping
        self.history: dict[str, list[Operation]] = defaultdict(list)
        self.answered = Counter[int]()
        self.refused = 0
        self.failure = ""
        self._load = load
        self._number = number
        self._chance = Random(f"{load.seed} {number}")
        self._batch = PIPELINE if number % 4 == 1 else 1
        self._pinned = pinned
        self._answer_s = ANSWER_S[number % 3]
        self._values = 0
        self._connections: dict[str, tuple[Wire, int]] = {}
        self._opened = 0
        self._places = 0
        self._leaders: dict[int, str] = {}

    def run(self) -> None:
        try:
            self._load.enter()
            while not self.stopping.wait(INTERVAL_S):
                key = self._load.keys.draw(self._chance, self._batch)
                self.execute(key, [self._draw(key) for _ in range(self._batch)])
        except Exception as error:
            self.failure = f"{self.name}: {error!r}"
        finally:
            self.close()

    def close(self) -> None:
        for wire, _ in self._connections.values():
            wire.close()

    def _draw(self, key: str) -> tuple[str, bytes]:
        name = "GET" if self._pinned else self._chance.choice(COMMANDS[kind_of(key)])
        if name not in ("SET", "APPEND"):
            return name, b""
        self._values += 1
        return name, b"%d.%d>" % (self._number, self._values)

    def execute(self, key: str, commands: list[tuple[str, bytes]]) -> None:
        """Send commands on one key, again and again those that were not executed.

        One that is pinned lets go what its node refuses.
        """
        give_up_s = time.monotonic() + REFUSED_S
        while commands := self._attempt(key, commands):
            self.refused += len(commands)
            if self._pinned or self.stopping.wait(BACK_OFF_S):
                return
            assert time.monotonic() < give_up_s, f"{commands} on {key} is not executed for long"

    def _attempt(self, key: str, commands: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Send the commands once; those that were certainly not executed."""
        gid = group_of(key)
        where = self._pinned or self._leaders.pop(gid, "")
        where = where or self._chance.choice(self._load.addresses)
        try:
            wire, connection = self._connect(where)
        except OSError:
            return commands
        operations = []
        for name, value in commands:
            self._places += 1
            now_s = time.monotonic()
            operations.append(
                Operation(name, value, now_s, connection=connection, place=self._places)
            )
        refused: list[Operation] = []
        try:
            wire.send(b"".join(encode(key, it) for it in operations))
            # One after the other: what breaks in the middle leaves what came before it.
            refused.extend(it for it in operations if not self._receive(wire, gid, it))
            if not refused:
                self._leaders[gid] = where
        except OSError:
            # What was answered is known; everything after it is unknown.
            self._connections.pop(where)[0].close()
        self.history[key] += [it for it in operations if it not in refused]
        return [(it.name, it.value) for it in refused]

    def _receive(self, wire: Wire, gid: int, operation: Operation) -> bool:
        """Wait for the answer; False if the command was certainly not executed."""
        line = wire.line()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("closed before the answer, or in it")
        if line.startswith(NOT_EXECUTED):
            if line.startswith(b"-MOVED"):
                self._leaders[gid] = line.split()[2].decode()
            return False
        if line.startswith(UNKNOWN):
            return True
        operation.result = result(wire, line)
        operation.returned = time.monotonic()
        self.answered[gid] += 1
        return True

    def _connect(self, where: str) -> tuple[Wire, int]:
        """The connection to a node, and its number, of which no two clients have the same."""
        if where not in self._connections:
            wire = Wire(where, CONNECT_S)
            wire.socket.settimeout(self._answer_s)
            if self._pinned:
                assert wire.ask("READONLY") == b"+OK\r\n"
            self._opened += 1
            self._connections[where] = wire, self._number * 1_000_000 + self._opened
        return self._connections[where]


def encode(key: str, operation: Operation) -> bytes:
    return command(operation.name, key, *([operation.value] if operation.value else []))


def result(wire: Wire, line: bytes) -> bytes | int | str | None:
    """The reply that begins with this line."""
    if line == b"+OK\r\n":
        return "OK"
    if line.startswith(b":"):
        return int(line[1:])
    assert line.startswith(b"$"), f"a command of the load was answered {line!r}"
    length = int(line[1:])
    if length < 0:
        return None
    body = wire.file.read(length + 2)
    if len(body) < length + 2:
        raise ConnectionResetError("closed in an answer")
    return body[:-2]


class Load:
    """The clients of one run; `enter` is called in the thread of each, before it connects."""

    def __init__(
        self, addresses: list[str], seed: int, clients: int, enter: Callable[[], None]
    ) -> None:
        self.addresses = addresses
        self.seed = seed
        self.enter = enter
        self.keys = Keys()
        self.stopping = threading.Event()
        # One of four only reads, at one node after the other.
        where = itertools.cycle(addresses)
        self._clients = [
            Client(self, number, "" if number % 4 else next(where))
            for number in range(1, clients + 1)
        ]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the clients; what is under way is finished first, unless it is refused."""
        self.stopping.set()
        for client in self._clients:
            client.join()

    @property
    def failure(self) -> str:
        return next((client.failure for client in self._clients if client.failure), "")

    @property
    def refused(self) -> int:
        return sum(client.refused for client in self._clients)

    @property
    def least(self) -> int:
        """The operations of known outcome of the client that has the fewest."""
        return min(client.answered.total() for client in self._clients)

    def answered(self) -> Counter[int]:
        """How many operations have a known outcome, by group."""
        return sum((client.answered for client in self._clients), Counter())

    def pass_time(self, duration_s: float) -> None:
        """Let the clients work, as long as none has failed."""
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0 and not self.failure:
            self.stopping.wait(min(left_s, 0.1))
        assert not self.failure, self.failure

    def wait_progress(self) -> None:
        """Every group answers again."""
        before = self.answered()
        wait_until(
            lambda: (
                self.failure != ""
                or all(self.answered()[gid] >= before[gid] + PROGRESS for gid in GROUPS)
            ),
            "every group answers again",
        )
        assert not self.failure, self.failure

    def histories(self) -> dict[str, list[Operation]]:
        """What all clients did, by key, and at the end of each a read of what is there.

        After the clients have ended and everything is healed.
        """
        found: dict[str, list[Operation]] = defaultdict(list)
        reader = Client(self, 0)
        reader.stopping = threading.Event()
        for client in self._clients:
            for key, operations in client.history.items():
                found[key] += operations
        for key in found:
            reader.execute(key, [("GET", b"")])
            found[key] += reader.history[key]
        reader.close()
        assert all(operations[-1].known for operations in found.values())
        return found


def lost(histories: dict[str, list[Operation]]) -> int:
    """Acknowledged appends and increments that the last read of their key does not show.

    Of the keys that nothing but these is done to.
    """
    count = 0
    for key, operations in histories.items():
        end = operations[-1].result or b""
        known = [it for it in operations if it.known]
        if kind_of(key) == "list":
            count += sum(it.name == "APPEND" and it.value not in end for it in known)
        elif kind_of(key) == "counter":
            count += max(0, sum(it.name == "INCR" for it in known) - int(end or 0))
    return count
