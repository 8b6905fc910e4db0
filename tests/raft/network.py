"""A deterministic group: replicas, disks and a network in one process, driven by one seed.

Time is in ticks. Every replica lives on a `Host`, and an `Oracle` watches every step.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from eraft.errors import NotApplied
from eraft.raft import Config, Role
from eraft.types import ConfState, EntryKind, Message
from tests.raft.host import Host
from tests.raft.oracle import Oracle

GID = 7


@dataclass
class Faults:
    """What the network and the disks do; times in ticks."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: tuple[float, float] = (0.05, 0.15)
    late: float = 0.0
    """Share of messages that are delayed by up to `late_delay` more."""
    late_delay: float = 30.0
    write: tuple[float, float] = (0.02, 0.1)
    """What a write takes. What is handed out meanwhile is written together in the next."""
    acknowledge: tuple[float, float] = (0.0, 0.1)
    """From there until the replica is told."""
    transfer: tuple[float, float] = (0.5, 5.0)
    """What a snapshot takes to come over."""


class Network:
    """A group of replicas 1..n over a network that is as bad as `faults` says."""

    def __init__(self, size: int, seed: int, faults: Faults | None = None, **settings: Any) -> None:
        self.rng = Random(seed)
        self.faults = faults or Faults()
        self.flush_share = 0.3
        self.compact_share = 0.0
        self.restored = 0
        self.oracle = Oracle()
        self.now = 0.0
        self.messages = 0
        self.refused = 0
        self.entry_bytes = 0
        self.cut: set[tuple[int, int]] = set()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._payloads = 0
        self._settings = settings
        conf = ConfState(tuple(range(1, size + 1)))
        self.hosts: dict[int, Host] = {}
        self.founding = conf
        self.issued = set(conf.voters)
        self.gone: set[int] = set()
        """Who was removed by a change that somebody has applied."""
        for replica_id in conf.voters:
            self._make(replica_id, conf)

    def _make(self, replica_id: int, conf: ConfState) -> Host:
        config = Config(
            gid=GID,
            replica_id=replica_id,
            conf=conf,
            random=Random(self.rng.random()),
            **self._settings,
        )
        host = self.hosts[replica_id] = Host(self, config)
        return host

    def add_host(self, conf: ConfState) -> Host:
        """A new, empty replica, which `conf` is the founding configuration of, if it knows it."""
        replica_id = len(self.hosts) + 1
        self.issued.add(replica_id)
        for host in self.hosts.values():
            if host.group is not None:
                host.group.listen_to(self.issued)
        return self._make(replica_id, conf)

    # Time

    def at(self, delay: float, act: Callable[..., None], *args: Any) -> None:
        """Does something `delay` ticks from now."""
        self._order += 1
        heapq.heappush(self._events, (self.now + delay, self._order, act, args))

    def run(self, ticks: float) -> None:
        """Lets time pass."""
        end = self.now + ticks
        while self._events and self._events[0][0] <= end:
            self.now, _, act, args = heapq.heappop(self._events)
            act(*args)
        self.now = end

    def run_until(self, condition: Callable[[], Any], ticks: float, what: str) -> None:
        """Lets time pass until `condition` holds, which must be within `ticks`."""
        end = self.now + ticks
        while not condition():
            assert self._events and self._events[0][0] <= end, f"not within {ticks} ticks: {what}"
            self.now, _, act, args = heapq.heappop(self._events)
            act(*args)

    # Messages

    def send(self, host: Host, message: Message) -> None:
        self.oracle.sent(host, message)
        faults, rng = self.faults, self.rng
        self.messages += 1
        self.entry_bytes += len(message.entries)
        if (message.sender, message.to) in self.cut or rng.random() < faults.drop:
            return
        for _ in range(2 if rng.random() < faults.duplicate else 1):
            delay = rng.uniform(*faults.delay)
            if faults.late and rng.random() < faults.late:
                delay += rng.uniform(0, faults.late_delay)
            self.at(delay, self._deliver, replace(message))

    def _deliver(self, message: Message) -> None:
        if (message.sender, message.to) not in self.cut:
            self.hosts[message.to].receive(message)

    def partition(self, *sides: Iterable[int]) -> None:
        """Only replicas of one side reach each other; who is in none is alone."""
        side_of = {replica_id: n for n, side in enumerate(sides, 1) for replica_id in side}
        self.cut = {
            (a, b)
            for a in self.hosts
            for b in self.hosts
            if a != b and (side_of.get(a, -a) != side_of.get(b, -b))
        }

    def isolate(self, *replica_ids: int) -> None:
        """Cuts each of these from everybody."""
        self.partition([i for i in self.hosts if i not in replica_ids])

    def heal(self) -> None:
        self.cut = set()

    def tell_unreachable(self) -> None:
        """The links that are cut now are noticed by their senders."""
        for sender, to in sorted(self.cut):
            group = self.hosts[sender].group
            if group is not None:
                self.hosts[sender].call(group.unreachable, to)

    # What tests ask for

    def payload(self) -> bytes:
        """Distinct, so that nothing lost, doubled or resurrected can hide."""
        self._payloads += 1
        return b"command %d" % self._payloads

    def leaders(self) -> list[Host]:
        """Who believes to lead, newest term last."""
        found = [host for host in self.hosts.values() if host.role is Role.LEADER]
        return sorted(found, key=lambda host: host.group.term if host.group is not None else 0)

    def connected(self) -> list[Host]:
        """Who runs and can exchange messages with a majority."""

        def near(a: int, b: int) -> bool:
            up = self.hosts[a].group is not None and self.hosts[b].group is not None
            return up and (a, b) not in self.cut and (b, a) not in self.cut

        return [
            host
            for a, host in self.hosts.items()
            if sum(near(a, b) for b in self.hosts) > len(self.hosts) // 2
        ]

    def leader(self, ticks: float = 300) -> Host:
        """Waits for one leader that can reach a majority, followed by all who can reach it."""

        def agreed() -> Host | None:
            near = self.connected()
            for host in near:
                if host.role is Role.LEADER and all(
                    h.group is not None
                    and (h.replica_id, host.replica_id) not in self.cut
                    and h.group.leader_id == host.replica_id
                    for h in near
                ):
                    return host
            return None

        self.run_until(agreed, ticks, "a leader")
        found = agreed()
        assert found is not None
        return found

    def applied(self, payload: bytes) -> int:
        """On how many running replicas a command is applied."""
        for index, ((_, kind, known), _) in enumerate(self.oracle.committed, 1):
            if known == payload and kind == EntryKind.COMMANDS:
                return sum(
                    h.group is not None and h.group.applied >= index for h in self.hosts.values()
                )
        return 0

    def agree(self, replicas: int | None = None, ticks: float = 600) -> bytes:
        """A new command is applied on at least so many replicas, else on all that are connected.

        As a client would: whoever leads is asked again and again.
        """
        end = self.now + ticks
        while self.now < end:
            payload = self.payload()
            asked = [host for host in self.leaders() if self._try(host, payload)]
            if not asked:
                self.run(1)
                continue
            wanted = replicas or len(self.connected())
            retry = self.now + 40
            while self.now < retry:
                if self.applied(payload) >= wanted:
                    return payload
                self.run(1)
        raise AssertionError(f"no agreement within {ticks} ticks")

    def _try(self, host: Host, payload: bytes) -> bool:
        # Only one leader gets it: the payload must stay distinct.
        if host is not self.leaders()[-1]:
            return False
        try:
            host.propose(payload)
        except NotApplied:
            return False
        return True
