"""Closed-loop clients that load a cluster, as cheap as Python makes them.

Each client has one connection per node and a window of `pipeline` commands:
it sends them to the nodes that own their keys, waits for all replies, sends
the next. Commands are encoded before the clock starts. Redirections are
followed and refused commands tried again, as a Redis Cluster client does; the
latency of a command counts from its first attempt.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import cast

from eraft import limits
from eraft._impl import hashing
from eraft.cli import address, admin
from eraft.errors import EraftError
from eraft.types import BUCKETS

RETRY_DELAY_S = 0.01
GIVE_UP_S = 30.0
REFRESH_EVERY_S = 1.0
RETRIED = (b"TRYAGAIN", b"CLUSTERDOWN", b"LOADING", b"MASTERDOWN")

_MINUS, _DOLLAR = b"-$"
_SIMPLE = b"+-:_#,"

Sent = tuple[int, float]
"""A command on its way: its place in the workload, and when it was first sent."""


@dataclass(slots=True, frozen=True)
class Workload:
    """The commands of one operation, one per key; all end with the same `tail`."""

    name: str
    heads: list[bytes]
    tail: bytes
    buckets: list[int]

    @staticmethod
    def make(name: str, command: bytes, keys: list[bytes], value: bytes | None) -> Workload:
        """`command key` for every key, or `command key value`."""
        start = b"*%d\r\n$%d\r\n%b\r\n" % (2 if value is None else 3, len(command), command)
        return Workload(
            name,
            [b"%b$%d\r\n%b\r\n" % (start, len(key), key) for key in keys],
            b"" if value is None else b"$%d\r\n%b\r\n" % (len(value), value),
            hashing.buckets_of(keys),
        )


class Topology:
    """Which node owns which bucket, as the nodes say; addresses are host:port."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.nodes = list(nodes)
        self.owners: list[str] = [self.nodes[0]] * BUCKETS
        self._asked_s = 0.0

    def learn(self) -> None:
        """Ask one node after the other for CLUSTER SLOTS; blocks. EraftError if none answers."""
        for place, where in enumerate(self.nodes):
            try:
                with admin.Connection(where, answer_s=2.0) as connection:
                    self._read(connection.call("CLUSTER", "SLOTS"))
                return
            except EraftError:
                if place == len(self.nodes) - 1:
                    raise

    def _read(self, reply: admin.Reply) -> None:
        for item in reply if isinstance(reply, list) else []:
            match item:
                case [int(start), int(end), [bytes(host), int(port), *_], *_]:
                    where = address_of(host.decode(), port)
                    self.owners[start : end + 1] = [where] * (end - start + 1)

    async def refresh(self) -> None:
        """`learn` off the loop, at most once a second; what fails is tried again later."""
        now_s = time.monotonic()
        if now_s - self._asked_s < REFRESH_EVERY_S:
            return
        self._asked_s = now_s
        try:
            await asyncio.to_thread(self.learn)
        except EraftError:
            return

    def moved(self, words: list[bytes]) -> bool:
        """Note a MOVED reply; False if it makes no sense."""
        if len(words) != 3 or not words[1].isdigit() or int(words[1]) >= BUCKETS:
            return False
        self.owners[int(words[1])] = words[2].decode(errors="replace")
        return True


def address_of(host: str, port: int) -> str:
    """host:port, with brackets where an IPv6 address needs them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Latencies:
    """A histogram: 1 us wide up to 1 s, then 1 ms wide up to a minute."""

    def __init__(self) -> None:
        self._fine = array("Q", bytes(8 * 1_000_000))
        self._coarse = array("Q", bytes(8 * 60_000))

    def add(self, seconds: float) -> None:
        micros = int(seconds * 1e6)
        if micros < 1_000_000:
            self._fine[micros] += 1
        else:
            self._coarse[min(micros // 1000, 59_999)] += 1

    def percentiles_s(self, wanted: Iterable[float]) -> list[float]:
        """For each fraction (ascending) the latency which that part did not exceed."""
        total = sum(self._fine) + sum(self._coarse)
        cells = ((count, micros * 1e-6) for micros, count in enumerate(self._fine))
        slow = ((count, millis * 1e-3) for millis, count in enumerate(self._coarse))
        found: list[float] = []
        seen, value_s = 0, 0.0
        parts = (part for cells_of in (cells, slow) for part in cells_of if part[0])
        for fraction in wanted:
            while seen < fraction * total:
                count, value_s = next(parts)
                seen += count
            found.append(value_s)
        return found


@dataclass(slots=True)
class Outcome:
    """What came of a run so far."""

    finished: int = 0
    """Commands that were answered, errors not among them."""
    elapsed_s: float = 0.0
    retries: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)


class Loader:
    """One run: so many requests, or so many seconds."""

    def __init__(
        self,
        topology: Topology,
        workload: Workload,
        order: Iterable[int],
        clients: int,
        pipeline: int,
        requests: int | None,
        seconds: float | None,
    ) -> None:
        self.topology = topology
        self.workload = workload
        self.pipeline = pipeline
        self.outcome = Outcome()
        self._order = cycle(order)
        self._left = requests
        self._seconds = seconds
        self._started = self._last = 0.0
        self._clients = [_Client(self) for _ in range(clients)]
        self._busy = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Outcome:
        """Load until the requests or the seconds are used up and all answers are in."""
        loop = asyncio.get_running_loop()
        self._all_done: asyncio.Future[None] = loop.create_future()
        if self._seconds is not None:
            loop.call_later(self._seconds, self.stop)
        self._started = self._last = time.perf_counter()
        self._busy = len(self._clients)
        for client in self._clients:
            client.next_window()
        try:
            await self._all_done
        finally:
            for client in self._clients:
                client.close()
        self.outcome.elapsed_s = self._last - self._started
        return self.outcome

    def stop(self) -> None:
        """Start no more commands."""
        self._left = 0

    @property
    def share_done(self) -> float:
        """How much of the run is over, from 0 to 1."""
        if self._seconds is not None:
            return min(1.0, (time.perf_counter() - self._started) / self._seconds)
        done = self.outcome.finished + self.outcome.errors.total()
        return done / max(1, done + (self._left or 0))

    def take(self) -> list[int]:
        """The places of the next window of commands, none when the run is over."""
        count = self.pipeline
        if self._left is not None:
            count = min(count, self._left)
            self._left -= count
        return list(islice(self._order, count))

    def idle(self) -> None:
        """A client has nothing more to do."""
        self._last = time.perf_counter()
        self._busy -= 1
        if self._busy == 0 and not self._all_done.done():
            self._all_done.set_result(None)

    def refresh(self) -> None:
        """Learn the topology anew beside the run."""
        task = asyncio.get_running_loop().create_task(self.topology.refresh())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Client:
    """One window of commands and a connection to every node that owns some of their keys."""

    __slots__ = ("_channels", "_loader", "_waiting")

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._channels: dict[str, _Channel] = {}
        self._waiting = 0

    def next_window(self) -> None:
        places = self._loader.take()
        self._waiting = len(places)
        if not places:
            self._loader.idle()
            return
        now_s = time.perf_counter()
        self.send([(place, now_s) for place in places])

    def send(self, commands: list[Sent]) -> None:
        """Send each command to the node that owns its key."""
        workload, owners = self._loader.workload, self._loader.topology.owners
        heads, tail, buckets = workload.heads, workload.tail, workload.buckets
        if len(commands) == 1:
            place = commands[0][0]
            self._channel(owners[buckets[place]]).send(heads[place] + tail, commands)
            return
        by_node: dict[str, list[Sent]] = {}
        for command in commands:
            by_node.setdefault(owners[buckets[command[0]]], []).append(command)
        for where, part in by_node.items():
            data = tail.join([heads[place] for place, _ in part]) + tail
            self._channel(where).send(data, part)

    def _channel(self, where: str) -> _Channel:
        channel = self._channels.get(where)
        if channel is None or channel.closed:
            channel = self._channels[where] = _Channel(self, self._loader.outcome, where)
        return channel

    def answered(self, count: int) -> None:
        """So many commands of the window are over."""
        self._waiting -= count
        if self._waiting == 0:
            self.next_window()

    def refused(self, command: Sent, line: bytes) -> None:
        """An error reply: follow it, try again, or count it."""
        words = line.split()
        code = words[0] if words else b""
        if code == b"MOVED" and self._loader.topology.moved(words):
            self._loader.refresh()
            self.retry([command], f"MOVED for {GIVE_UP_S:g} s", 0.0)
        elif code in RETRIED:
            self.retry([command], f"{code.decode()} for {GIVE_UP_S:g} s")
        else:
            self.failed(line.decode(errors="replace"), 1)

    def retry(self, commands: list[Sent], why: str, delay_s: float = RETRY_DELAY_S) -> None:
        """Send again what certainly was not executed."""
        now_s = time.perf_counter()
        again = [command for command in commands if now_s - command[1] < GIVE_UP_S]
        if again:
            self._loader.outcome.retries += len(again)
            asyncio.get_running_loop().call_later(delay_s, self.send, again)
        if len(again) < len(commands):
            self.failed(why, len(commands) - len(again))

    def failed(self, why: str, count: int) -> None:
        self._loader.outcome.errors[why] += count
        self.answered(count)

    def unreachable(self, commands: list[Sent], why: str) -> None:
        """The node took no connection, so nothing was sent."""
        self._loader.refresh()
        self.retry(commands, why)

    def lost(self, count: int, where: str) -> None:
        """A connection ended before so many replies."""
        self._loader.refresh()
        if count:
            self.failed(f"{where}: connection lost, outcome unknown", count)

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


class _Channel(asyncio.Protocol):
    """A connection of one client to one node; replies come in the order of the commands."""

    def __init__(self, client: _Client, outcome: Outcome, where: str) -> None:
        self.closed = False
        self._client = client
        self._outcome = outcome
        self._where = where
        self._pending: deque[Sent] = deque()
        self._unsent: list[bytes] = []
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            host, port = address.parse(self._where, "address of a node")
            await asyncio.get_running_loop().create_connection(lambda: self, host, port)
        except (OSError, EraftError) as error:
            self.closed = True
            self._client.unreachable(list(self._pending), f"{self._where}: {error}")

    def send(self, data: bytes, commands: list[Sent]) -> None:
        self._pending.extend(commands)
        if self._transport is None:
            self._unsent.append(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._connecting.cancel()
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        count = len(self._pending)
        self._pending.clear()
        self._client.lost(count, self._where)

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        if self._rest:
            data = self._rest + data
        add, pending = self._outcome.latencies.add, self._pending
        refused: list[tuple[Sent, bytes]] = []
        start = count = 0
        try:
            while start < len(data) and (end := reply_end(data, start)):
                command = pending.popleft()
                if data[start] == _MINUS:
                    refused.append((command, data[start + 1 : end - 2]))
                else:
                    count += 1
                    add(now_s - command[1])
                start = end
        except (ValueError, IndexError):  # not RESP, or a reply to nothing: the rest is worthless
            if self._transport is not None:
                self._transport.abort()
            start = len(data)
        self._rest = data[start:]
        self._outcome.finished += count
        for command, line in refused:
            self._client.refused(command, line)
        if count:
            self._client.answered(count)


def reply_end(data: bytes, start: int) -> int:
    """Where the reply at `start` ends, 0 if not all of it is there yet.

    Only replies that are one value; ValueError for anything else.
    """
    end = data.find(b"\r\n", start) + 2
    if end == 1:
        if len(data) - start > limits.CLIENT_OUTPUT_BYTES:
            raise ValueError("a reply without an end")
        return 0
    if data[start] == _DOLLAR:
        size_bytes = int(data[start + 1 : end - 2])
        if size_bytes >= 0:
            end += size_bytes + 2
        return end if end <= len(data) else 0
    if data[start] not in _SIMPLE:
        raise ValueError("not a reply of one value")
    return end
