"""Runs scenarios: a group as a script of commands, with what they do written under them.

A line `> command` is followed by its output, up to an empty line; `#` begins
a comment. Nothing is left to chance or time: a message is delivered when
`settle` says so, a disk is as fast as thought unless it is stalled.

`python -m tests.raft.script` writes the output of every scenario anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from eraft._impl import log as entries
from eraft.errors import NotApplied, ProtocolError
from eraft.raft import Config, RaftGroup, Ready
from eraft.raft.confchange import LEAVE_JOINT, Change, ChangeKind, ConfChange, Transition, describe
from eraft.types import ConfState, EntryKind, HardState, Message, MessageKind

DIRECTORY = Path(__file__).parent / "scenarios"
GID = 7
KINDS = {"v": ChangeKind.ADD_VOTER, "l": ChangeKind.ADD_LEARNER, "r": ChangeKind.REMOVE}
HOW = {
    "auto": Transition.AUTO,
    "joint": Transition.JOINT_AUTO,
    "explicit": Transition.JOINT_EXPLICIT,
}


class NoChance(Random):
    """Replica n waits n - 1 ticks longer than the shortest election timeout."""

    def __init__(self, replica_id: int) -> None:
        super().__init__(0)
        self.replica_id = replica_id
        self.drawn = 0

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return start + self.replica_id - 1

    def getrandbits(self, k: int) -> int:
        self.drawn += 1
        return self.replica_id * 100 + self.drawn


class Replica:
    """A replica and what is on its disk."""

    def __init__(self, replica_id: int, conf: ConfState, terms: tuple[int, ...] = ()) -> None:
        self.random = NoChance(replica_id)
        self.replica_id = replica_id
        self.conf = conf
        self.hard_state = HardState(terms[-1] if terms else 0)
        self.log = entries.EntryLog()
        for index, term in enumerate(terms, 1):
            self.log.append(term, EntryKind.COMMANDS, b"old-%d" % index)
        self.applied = 0
        self.stalled: list[Ready] | None = None
        self.group: RaftGroup | None = None
        self.start()

    def start(self) -> None:
        config = Config(
            gid=GID,
            replica_id=self.replica_id,
            conf=self.conf,
            random=self.random,
            election_ticks=10,
            heartbeat_ticks=3,
        )
        log = entries.EntryLog(self.log.base_index, self.log.base_term)
        blob, _ = self.log.slice(self.log.first_index, self.log.last_index, 1 << 40)
        log.extend(self.log.first_index, blob)
        self.group = RaftGroup(config, self.hard_state, log, self.applied)
        self.stalled = None

    def write(self, ready: Ready) -> None:
        if ready.restored is not None:
            self.log = entries.EntryLog(ready.restored.index, ready.restored.term)
            self.applied, self.conf = ready.restored.index, ready.restored.conf
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:
            if ready.first_index <= self.log.last_index:
                self.log.truncate(ready.first_index)
            self.log.extend(ready.first_index, ready.entries)


class Scenario:
    """The world of one script; each method without underscore is a command."""

    def __init__(self) -> None:
        self._replicas: dict[int, Replica] = {}
        self._messages: list[Message] = []
        self._cut: set[int] = set()
        self._said: list[str] = []

    def _run(self, command: str) -> list[str]:
        self._said = []
        name, *words = command.split()
        try:
            getattr(self, name)(*words)
        except NotApplied as error:
            self._say(f"{type(error).__name__}: {error}")
        return self._said or ["-"]

    def _say(self, text: str) -> None:
        self._said.append(text)

    def _group(self, replica_id: str) -> RaftGroup:
        group = self._replicas[int(replica_id)].group
        assert group is not None, f"replica {replica_id} is down"
        return group

    # Commands

    def group(self, *ids: str) -> None:
        """`group 1 2 3 learners 4`: these replicas, with nothing in their logs."""
        halves = " ".join(ids).partition("learners")
        voters, learners = (tuple(map(int, half.split())) for half in halves[::2])
        conf = ConfState(voters, learners)
        for replica_id in conf.members:
            self._replicas[replica_id] = Replica(replica_id, conf)
        self._introduce()

    def log(self, replica_id: str, *terms: str) -> None:
        """`log 2 1 1 3`: before anything happens, the log of 2 has entries of these terms."""
        conf = self._replicas[int(replica_id)].conf
        self._replicas[int(replica_id)] = Replica(int(replica_id), conf, tuple(map(int, terms)))
        self._introduce()

    def new(self, replica_id: str) -> None:
        """A replica that knows nothing of the group."""
        self._replicas[int(replica_id)] = Replica(int(replica_id), ConfState())
        self._introduce()

    def _introduce(self) -> None:
        for replica in self._replicas.values():
            if replica.group is not None:
                replica.group.listen_to(self._replicas)

    def tick(self, replica_id: str, count: str = "1") -> None:
        """Time passes for one replica."""
        for _ in range(int(count)):
            self._group(replica_id).tick()
        self._drain()

    def campaign(self, replica_id: str) -> None:
        self._group(replica_id).campaign()
        self._drain()

    def propose(self, replica_id: str, payload: str) -> None:
        self._group(replica_id).propose(payload.encode())
        self._drain()

    def read(self, replica_id: str) -> None:
        self._say(f"{replica_id} asks with ticket {self._group(replica_id).read_index()}")
        self._drain()

    def change(self, replica_id: str, how: str, *changes: str) -> None:
        """`change 1 auto v4 r2`: add 4, remove 2; or `leave` to leave the joint configuration."""
        change = LEAVE_JOINT
        if how != "leave":
            some = tuple(Change(KINDS[word[0]], int(word[1:])) for word in changes)
            change = ConfChange(some, HOW[how])
        self._group(replica_id).propose_conf_change(change)
        self._drain()

    def transfer(self, replica_id: str, to: str) -> None:
        self._group(replica_id).transfer_leadership(int(to))
        self._drain()

    def failed(self, replica_id: str, peer: str) -> None:
        """The host of the leader has given up sending a snapshot."""
        self._group(replica_id).snapshot_failed(int(peer))
        self._drain()

    def compact(self, replica_id: str, index: str) -> None:
        """Entries up to there are gone, also from the disk."""
        self._group(replica_id).compact(int(index))
        self._replicas[int(replica_id)].log.compact(int(index))

    def cut(self, *ids: str) -> None:
        """Nothing gets to these replicas or from them."""
        self._cut |= set(map(int, ids))

    def heal(self) -> None:
        self._cut = set()

    def stall(self, replica_id: str) -> None:
        """The disk finishes nothing until `resume`."""
        self._replicas[int(replica_id)].stalled = []

    def resume(self, replica_id: str) -> None:
        replica = self._replicas[int(replica_id)]
        waiting, replica.stalled = replica.stalled or [], None
        for ready in waiting:
            self._written(replica, ready)
        self._drain()

    def crash(self, replica_id: str) -> None:
        """What is not on the disk is lost."""
        self._replicas[int(replica_id)].group = None

    def restart(self, replica_id: str) -> None:
        self._replicas[int(replica_id)].start()
        self._introduce()
        self._drain()

    def hear(self, kind: str, sender: str, to: str, *fields: str) -> None:
        """`hear APPEND 3 1 term=9`: a message that no replica has sent."""
        numbers = {name: int(value) for name, _, value in (f.partition("=") for f in fields)}
        message = Message(MessageKind[kind], GID, int(sender), int(to), numbers.pop("term"))
        for name, value in numbers.items():
            setattr(message, name, value)
        self._deliver(message)
        self._drain()

    def settle(self) -> None:
        """Messages are delivered, and what follows from them, until nothing moves."""
        for _ in range(100):
            if not self._messages:
                return
            self.round()
        raise AssertionError("does not settle")

    def round(self, count: str = "1") -> None:
        """What is on its way now is delivered, but not yet what follows from it."""
        for _ in range(int(count)):
            messages, self._messages = self._messages, []
            for message in messages:
                self._deliver(message)
            self._drain()

    def lose(self) -> None:
        """What is on its way gets lost."""
        self._say(f"{len(self._messages)} messages are lost")
        self._messages = []

    def status(self) -> None:
        for replica_id, replica in sorted(self._replicas.items()):
            group = replica.group
            if group is None:
                self._say(f"{replica_id} is down")
                continue
            self._say(
                f"{replica_id} {group.role.value} term {group.term} leader {group.leader_id}"
                f" commit {group.commit} applied {group.applied} last {group.last_index}"
                f" | {describe(group.conf)}"
            )

    def entries(self, replica_id: str) -> None:
        """The log in memory."""
        log = self._group(replica_id).log
        if log.base_index:
            self._say(f"behind {log.base_index} of term {log.base_term}")
        for index in range(log.first_index, log.last_index + 1):
            kind = EntryKind(log.kind(index)).name
            text = log.payload(index).decode() if kind == "COMMANDS" else ""
            self._say(f"{index} term {log.term(index)} {kind} {text}".rstrip())

    # What follows

    def _deliver(self, message: Message) -> None:
        receiver = self._replicas.get(message.to)
        if self._cut & {message.sender, message.to} or receiver is None or receiver.group is None:
            return
        try:
            receiver.group.step(message)
        except ProtocolError as error:
            self._say(f"refused: {error}")

    def _send(self, message: Message) -> None:
        self._say(describe_message(message))
        self._messages.append(message)

    def _drain(self) -> None:
        busy = True
        while busy:
            busy = False
            for _, replica in sorted(self._replicas.items()):
                while replica.group is not None and replica.group.has_ready():
                    busy = True
                    self._handle(replica, replica.group, replica.group.ready())

    def _handle(self, replica: Replica, group: RaftGroup, ready: Ready) -> None:
        name = replica.replica_id
        for change in ready.role_changes:
            self._say(f"{name} is {change.role.value} of term {change.term}: {change.why}")
        for message in ready.messages:
            self._send(message)
        if replica.stalled is not None:
            replica.stalled.append(ready)
        else:
            self._written(replica, ready)
        if ready.apply is not None:
            self._apply(replica, group, *ready.apply)
        for ticket, index in ready.reads:
            self._say(f"{name} may serve ticket {ticket} from {index} on")
        for ticket in ready.lost_reads:
            self._say(f"{name} has lost ticket {ticket}")
        for fetch in ready.fetches:
            self._fetch(replica, group, fetch.replica_id, fetch.first_index)
        for peer in ready.snapshots:
            self._say(f"{name} makes a snapshot for {peer}")
            group.offer_snapshot(peer, group.applied, group.log.term(group.applied))
        if ready.offer is not None:
            offer = ready.offer
            conf = self._group(str(offer.sender)).conf
            done = group.restored(offer.index, offer.log_term, conf)
            self._say(f"{name} {'installs' if done else 'does not need'} snapshot {offer.index}")

    def _written(self, replica: Replica, ready: Ready) -> None:
        replica.write(ready)
        for message in ready.after:
            self._send(message)
        if ready.token and replica.group is not None:
            replica.group.persisted(ready.token)

    def _apply(self, replica: Replica, group: RaftGroup, first: int, last: int) -> None:
        self._say(f"{replica.replica_id} applies {first}..{last}")
        for index in range(first, last + 1):
            if group.log.kind(index) == EntryKind.CONF_CHANGE:
                conf = group.apply_conf_change(index, group.log.payload(index))
                self._say(f"{replica.replica_id} has {describe(conf)}")
        group.applied_to(last)
        replica.applied, replica.conf = last, group.conf

    def _fetch(self, replica: Replica, group: RaftGroup, peer: int, first: int) -> None:
        disk = replica.log
        if first <= disk.base_index:
            group.fetch_failed(peer, compacted=True)
            return
        blob, _ = disk.slice(first, disk.last_index, 1 << 20)
        group.fetched(peer, first, disk.term(first - 1), blob)


def describe_message(m: Message) -> str:
    kind = MessageKind(m.kind)
    text = f"{m.sender} -> {m.to} {kind.name} term {m.term}"
    fields: dict[str, Any] = {
        "index": m.index,
        "log_term": m.log_term,
        "commit": m.commit,
        "context": m.context,
        "hint": m.hint,
    }
    text += "".join(f" {name} {value}" for name, value in fields.items() if value)
    if kind is MessageKind.APPEND:
        text += f" entries {entries.check_entries(m.entries)}"
    return text + (" reject" if m.reject else "")


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command or comment, its lines of output); an empty line ends a block."""
    command, output = "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith(("> ", "#")) or not line:
            if command:
                yield command, output
            command, output = line, []
        elif command:
            output.append(line)


def written(text: str) -> str:
    """The script with the output that its commands have now."""
    scenario = Scenario()
    parts: list[str] = []
    for command, _ in blocks(text):
        if command.startswith("#"):
            if parts and parts[-1] != "" and not parts[-1].startswith("#"):
                parts.append("")
            parts.append(command)
            continue
        parts += [command, *scenario._run(command[2:]), ""]
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    for path in sorted(DIRECTORY.glob("*.txt")):
        path.write_text(written(path.read_text()))
