"""The Raft core with one's own transport, disk and clock: three replicas in one process.

    python examples/transport.py

The network of this program is a queue of bytes that loses every tenth message,
its disk a copy in memory, its clock a loop. What is between them is all that a
host has to do; a real one has sockets, files and a timer in their place.
"""

import json
from dataclasses import asdict, replace
from random import Random

from eraft.raft import Config, EntryLog, RaftGroup, Ready, Role
from eraft.types import ConfState, EntryKind, HardState, Message

MEMBERS = (1, 2, 3)


def encode(message: Message) -> bytes:
    head = {**asdict(message), "entries": ""}
    return json.dumps(head).encode() + b"\n" + message.entries


def decode(data: bytes) -> Message:
    head, _, entries = data.partition(b"\n")
    return replace(Message(**json.loads(head)), entries=entries)


class Disk:
    """What survives a crash; a real one has written and synced it when `write` returns."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.log = EntryLog()

    def write(self, ready: Ready) -> None:
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:  # they replace everything from their first index on
            if ready.first_index <= self.log.last_index:
                self.log.truncate(ready.first_index)
            self.log.extend(ready.first_index, ready.entries)

    def read(self) -> EntryLog:
        log = EntryLog()
        if self.log.last_index:
            log.extend(1, self.log.slice(1, self.log.last_index, 1 << 62)[0])
        return log


class Host:
    """One replica: its core, its disk, and a state machine that is a list of words."""

    def __init__(self, replica_id: int, disk: Disk, network: "Network") -> None:
        conf = ConfState(MEMBERS)
        config = Config(gid=1, replica_id=replica_id, conf=conf, random=Random(replica_id))
        self.raft = RaftGroup(config, disk.hard_state, disk.read())
        self.disk, self.network = disk, network
        self.words: list[str] = []

    def turn(self) -> None:
        """Everything that the core wants done, in an order that keeps its promises."""
        while self.raft.has_ready():
            ready = self.raft.ready()
            if ready.token:
                self.disk.write(ready)
                self.raft.persisted(ready.token)
            for message in (*ready.messages, *ready.after):
                self.network.send(message.to, encode(message))
            if ready.apply is not None:
                self.apply(*ready.apply)

    def apply(self, first: int, last: int) -> None:
        log = self.raft.log
        for index in range(first, last + 1):
            if log.kind(index) == EntryKind.COMMANDS:
                self.words.append(log.payload(index).decode())
        self.raft.applied_to(last)


class Network:
    """All replicas, and what is on its way between them."""

    def __init__(self) -> None:
        self.disks = {replica_id: Disk() for replica_id in MEMBERS}
        self.hosts = {it: Host(it, disk, self) for it, disk in self.disks.items()}
        self.queue: list[tuple[int, bytes]] = []
        self.random = Random(7)

    def send(self, to: int, data: bytes) -> None:
        if self.random.random() > 0.1:
            self.queue.append((to, data))

    def tick(self) -> None:
        """What was sent arrives, then time passes for everybody."""
        queue, self.queue = self.queue, []
        for to, data in queue:
            if to in self.hosts:
                self.hosts[to].raft.step(decode(data))
        for host in self.hosts.values():
            host.raft.tick()
            host.turn()

    def leader(self) -> Host:
        while True:
            for host in self.hosts.values():
                if host.raft.role is Role.LEADER:
                    return host
            self.tick()

    def say(self, word: str) -> None:
        """Propose a word and wait until it is applied everywhere.

        Here no proposal is lost with its leader; elsewhere a client gives up, or asks again.
        """
        self.leader().raft.propose(word.encode())
        while not all(word in host.words for host in self.hosts.values()):
            self.tick()


def main() -> None:
    network = Network()
    network.say("one")
    network.say("two")
    leader = network.leader().raft.replica_id
    print(f"replica {leader} leads and is stopped")
    del network.hosts[leader]
    network.say("three")
    print(f"replica {network.leader().raft.replica_id} leads now")
    network.hosts[leader] = Host(leader, network.disks[leader], network)  # from its disk alone
    network.say("four")
    for replica_id, host in sorted(network.hosts.items()):
        print(f"replica {replica_id} has {' '.join(host.words)}")


if __name__ == "__main__":
    main()
