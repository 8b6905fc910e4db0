"""What must hold at every moment, whatever goes wrong: figure 3 of the Raft paper, and more.

The checks do not believe the nodes: what is durable they know from the
records whose sync has ended, what was promised from the messages that leave.
They learn of committed entries from whoever knows first that they are.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from eraft import limits
from eraft._impl import wal as codec
from eraft.errors import ProtocolError
from eraft.node.node import Node
from eraft.node.replica import Replica
from eraft.raft import Role, confchange
from eraft.raft.kinds import (
    APPEND,
    APPEND_REPLY,
    CONF_CHANGE,
    HEARTBEAT_REPLY,
    VOTE,
    VOTE_REPLY,
)
from eraft.storage import rows as layout
from eraft.storage.items import Item, decode_group_state, decode_hard_state
from eraft.storage.wal import WriteAheadLog
from eraft.types import ConfState, HardState, Message
from tests.sim.check_commits import CommitChecks
from tests.sim.check_elections import ElectionChecks
from tests.sim.check_flow import FlowChecks
from tests.sim.check_members import MemberChecks
from tests.sim.check_reads import ReadChecks
from tests.sim.known import (
    NOTHING,
    DocumentedLoss,
    DurableGroup,
    History,
    Seen,
    Violation,
    entries_of,
    parse_entries,
    recovered,
)

if TYPE_CHECKING:
    from tests.sim.world import World

LEADER = Role.LEADER
AFTER = frozenset((APPEND_REPLY, VOTE_REPLY, VOTE, HEARTBEAT_REPLY))
"""Kinds of messages that promise something."""
STALLED_S = 2 * limits.ELECTION_TICKS * limits.TICK_S
"""So long after its disk fell silent no node leads any more."""


class Checks:
    """The rules, and what has to be remembered to check them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.groups: dict[int, History] = {}
        self.destroyed: set[int] = set()
        """Nodes whose disk has lost something that was durable."""
        self.diverged: set[int] = set()
        """Nodes whose state a test has changed behind their back."""
        self.disks: dict[int, dict[int, DurableGroup]] = {}
        self.sent: Counter[int] = Counter()
        """Raft messages by kind."""
        self._positions: dict[int, int] = {}
        self._under_way: dict[int, deque[tuple[int, list[Item]]]] = {}
        self._written: set[int] = set()
        """Nodes whose disk has something new since their last turn."""
        self._since_us: dict[int, int] = {}
        self._seen: dict[int, dict[int, Seen]] = {}
        """By node and group, since the node has started."""
        self.commits = CommitChecks(self)
        self.members = MemberChecks(self, world)
        self._flow = FlowChecks()
        self._elections = ElectionChecks(self)
        self._reads = ReadChecks(self)

    # The disk

    def formatted(self, node_id: int) -> None:
        """The node has an empty disk."""
        self.disks.pop(node_id, None)

    def connected(self, sender: int, to: int, stores: tuple[str, str]) -> None:
        """A connection is there, or something arrives on it; `stores` are those of both ends."""
        self.members.connected(sender, to, stores)

    def opened(self, node_id: int, log: WriteAheadLog | None, corrupt: str) -> None:
        """A node recovers: it must find exactly what was durable, or say that it does not.

        What was under way when it stopped may be there or not, but whole
        records only, and not one without those before it.
        """
        if log is None:
            if node_id not in self.destroyed:
                raise Violation(f"recovery: node {node_id} calls an intact log corrupt: {corrupt}")
            return
        under_way = self._under_way.pop(node_id, deque())
        if node_id in self.disks:
            position = self._positions[node_id]
            if log.position < position:
                self._lost(node_id, position, log.position)
            while under_way and under_way[0][0] <= log.position:
                self._apply(node_id, *under_way.popleft())
            self._compare(node_id, log)
        else:
            self.disks[node_id] = {gid: recovered(log, gid) for gid in log.groups}
            for gid, group in log.groups.items():
                self.members.founded(node_id, gid, group.state.replica_id)
                self._learn(gid, log)
            self._positions[node_id] = log.position
        self._under_way[node_id] = deque()
        self._tail(node_id, log)

    def _learn(self, gid: int, log: WriteAheadLog) -> None:
        """What was durable before the beginning counts, too."""
        known = self.group(gid).entries
        before = log.groups[gid].base_term
        for index, (term, kind, payload) in enumerate(
            entries_of(log, gid), log.groups[gid].base_index + 1
        ):
            known[index, term] = (before, kind, payload)
            before = term

    def _tail(self, node_id: int, log: WriteAheadLog) -> None:
        """Nothing behind the last record can ever count again."""
        segment = log._current
        data = segment.file.pread(segment.size_bytes, 0)
        if data.find(segment.salt.to_bytes(8, "little"), segment.end) >= 0:
            raise Violation(
                f"recovery: node {node_id} leaves torn records in {segment.file.name} behind"
                f" offset {segment.end}"
            )

    def _lost(self, node_id: int, position: int, found: int) -> None:
        if node_id in self.destroyed and found == position - 1:
            raise DocumentedLoss(f"node {node_id} takes its damaged last record for a torn one")
        raise Violation(
            f"recovery: node {node_id} finds {found} records without complaint, {position} were"
            " durable"
        )

    def _compare(self, node_id: int, log: WriteAheadLog) -> None:
        disk = self.disks[node_id]
        if list(disk) != list(log.groups) and sorted(disk) != sorted(log.groups):
            raise Violation(
                f"recovery: node {node_id} has groups {list(log.groups)}, not {list(disk)}"
            )
        for gid, expected in disk.items():
            found = recovered(log, gid)
            first = max(found.base_index, expected.base_index)
            if (
                found.hard_state != expected.hard_state
                or found.last_index != expected.last_index
                or found.since(first) != expected.since(first)
            ):
                raise Violation(
                    f"recovery: node {node_id} finds {found} of group {gid} instead of {expected}"
                )

    def started(self, node_id: int, node: Node, log: WriteAheadLog | None) -> None:
        """Watch what the node hands to its disk and to others."""
        self._seen[node_id] = {}
        if node.quarantined and node_id not in self.destroyed:
            raise Violation(f"recovery: node {node_id} has intact disks, but {node.quarantined}")
        if log is None or node.quarantined:
            return
        for replica in node.replicas.values():
            self._watch(node_id, replica)
        append, send = log.append, node.send
        under_way = self._under_way[node_id]

        def watched_append(items: list[Item]) -> object:
            request = append(items)
            under_way.append((request.position, list(items)))
            self._since_us[node_id] = self._world.now_us
            return request

        def watched_send(to: int, message: Message, bulk: bool) -> None:
            kind = message.kind
            self.sent[kind] += 1
            if kind == VOTE:
                self._elections.asked(message)
            elif kind == APPEND:
                self._flow.sent(node_id, message)
            if message.context:
                self._reads.sent(message)
            if kind in AFTER:
                self._promised(node_id, message)
            send(to, message, bulk)

        log.append = watched_append  # type: ignore[method-assign,assignment]
        node.send = watched_send  # type: ignore[method-assign]

    def _watch(self, node_id: int, replica: Replica) -> Seen:
        self._elections.watch(node_id, replica)
        self._reads.watch(node_id, replica)
        seen = self._seen[node_id][replica.gid] = Seen(replica)
        return seen

    def crashed(self, node_id: int) -> None:
        """What is under way may become durable or not: `opened` finds out."""

    def durable(self, node_id: int, position: int) -> None:
        """The sync of a record has ended."""
        under_way = self._under_way[node_id]
        while under_way and under_way[0][0] <= position:
            self._apply(node_id, *under_way.popleft())

    def _apply(self, node_id: int, position: int, items: list[Item]) -> None:
        self._positions[node_id] = position
        self._written.add(node_id)
        disk = self.disks[node_id]
        for gid, kind, first_index, payload in items:
            if kind == codec.TOMBSTONE:
                gone = disk.pop(gid, None)
                if gone is not None:
                    self.members.buried(node_id, gid, gone.replica_id)
                continue
            group = disk.get(gid)
            if group is None:
                group = disk[gid] = DurableGroup()
            if kind == codec.ENTRIES:
                self._entries(node_id, gid, group, first_index, payload)
            elif kind == codec.HARD_STATE:
                self._hard_state(node_id, gid, group, decode_hard_state(payload))
            elif kind == codec.GROUP_STATE:
                state = decode_group_state(payload)
                group.replica_id = state.replica_id
                self.members.made(node_id, gid, state.replica_id)
                self._hard_state(node_id, gid, group, state.hard_state)
                group.base_index, group.base_term = state.base_index, state.base_term
                group.generation = state.generation
                group.terms.clear()

    def _hard_state(self, node_id: int, gid: int, group: DurableGroup, new: HardState) -> None:
        old = group.hard_state
        if (
            new.term < old.term
            or (new.term == old.term and old.vote not in (0, new.vote))
            or new.commit < old.commit
        ):
            raise Violation(f"hard state: node {node_id}, group {gid}: {new} follows {old}")
        if (new.term, new.vote) != (old.term, old.vote):
            self._elections.voted(node_id, gid, group.replica_id, new)
        group.hard_state = new

    def _entries(
        self, node_id: int, gid: int, group: DurableGroup, first_index: int, blob: bytes
    ) -> None:
        """Log matching: the same index and term, the same entry and the same before it."""
        known = self.group(gid).entries
        if not group.base_index < first_index <= group.last_index + 1:
            raise Violation(
                f"log: node {node_id}, group {gid}: entries from {first_index} on do not fit a log"
                f" from {group.base_index} to {group.last_index}"
            )
        before = group.term(first_index - 1)
        del group.terms[first_index - group.base_index - 1 :]
        for index, (term, kind, payload) in enumerate(parse_entries(blob), first_index):
            entry = (before, kind, payload)
            if known.setdefault((index, term), entry) != entry:
                raise Violation(
                    f"log matching: group {gid}, entry {index} of term {term} on node {node_id}"
                    f" is {entry}, elsewhere {known[index, term]}"
                )
            group.terms.append(term)
            before = term
            if kind == CONF_CHANGE:
                self._one_change(gid, group, index, term, payload)

    def _one_change(
        self, gid: int, group: DurableGroup, index: int, term: int, payload: bytes
    ) -> None:
        """A change waits for the one before it, and for its leader's first commit.

        Leaving a joint configuration need not wait for the latter: while it is not left
        nobody can commit another change (seed 339).
        """
        try:
            leaves = not confchange.decode(payload).changes
        except ProtocolError:
            return  # it changes nothing
        known = self.group(gid)
        place = index - 1
        while place > max(known.top, group.base_index):
            entry = known.entries[place, group.term(place)]
            if entry[1] == CONF_CHANGE:
                raise Violation(
                    f"one change at a time: group {gid}, entries {place} and {index} change the"
                    f" configuration, committed is only {known.top}"
                )
            place -= 1
        if index > known.top and group.term(known.top) != term and not leaves:
            raise Violation(
                f"change before the first commit: group {gid}, entry {index} of term {term} changes"
                f" the configuration, committed is {known.top} of term {group.term(known.top)}"
            )

    def group(self, gid: int) -> History:
        """What is known of a group."""
        found = self.groups.get(gid)
        if found is None:
            found = self.groups[gid] = History()
        return found

    # From time to time

    def looked_at(self, node_id: int, node: Node) -> None:
        """What need not be looked at after every turn."""
        stalled_s = 0.0
        if self._under_way.get(node_id):
            stalled_s = (self._world.now_us - self._since_us[node_id]) / 1e6
        for gid, replica in node.replicas.items():
            if stalled_s > STALLED_S and replica.leading:
                raise Violation(
                    f"stalled disk: node {node_id} leads group {gid} although its disk has not"
                    f" answered for {stalled_s} s"
                )

    # Promises

    def _promised(self, node_id: int, message: Message) -> None:
        """A message leaves that says what this replica will not forget: it must be durable."""
        group = self.disks[node_id].get(message.gid, NOTHING)
        state = group.hard_state
        if message.reject or state.term > message.term:
            return  # what it promised of an earlier term it cannot break any more
        if message.kind == APPEND_REPLY:
            kept = message.index <= group.last_index
        elif message.kind == HEARTBEAT_REPLY:
            kept = not message.context or state.term == message.term
        elif message.kind == VOTE:
            kept = (state.term, state.vote) == (message.term, message.sender)
        else:
            kept = (state.term, state.vote) == (message.term, message.to)
        if not kept:
            raise Violation(
                f"promise: node {node_id} sends {message}, but durable is {state} and a log to"
                f" {group.last_index}"
            )

    # Replicas

    def confs(self, node_id: int, replica: Replica) -> tuple[ConfState, ConfState]:
        """The configuration before the last turn and after it."""
        seen = self._seen[node_id].get(replica.gid)
        if seen is None or seen.replica is not replica:
            return replica.raft.conf, replica.raft.conf
        return seen.conf_before, seen.conf

    def woken(self, node_id: int, node: Node) -> None:
        """Something was told to a node, or it has had its turn: it wakes for what is left to do."""
        for gid, replica in node.replicas.items():
            if replica.raft._dirty and node._dirty.get(gid) is not replica:
                raise Violation(f"wakes: node {node_id} forgets group {gid}, which has work")

    def turned(self, node_id: int, node: Node) -> None:
        """A node has had its turn."""
        if node.quarantines and node_id not in self.diverged:
            raise Violation(f"equal replicas: node {node_id} quarantines {node.quarantines}")
        all_seen, written = self._seen[node_id], node_id in self._written
        self._written.discard(node_id)
        for gid, replica in node.replicas.items():
            seen = all_seen.get(gid)
            if seen is None or seen.replica is not replica:
                seen = self._watch(node_id, replica)
            raft = replica.raft
            seen.conf_before, seen.conf = seen.conf, raft.conf
            now = (raft.term, raft.commit, raft.role, replica.applied)
            if now != seen.now:
                before = seen.now or (0, raft.log.base_index, Role.FOLLOWER, 0)
                seen.now = now
                self._changed(node_id, replica, before, now)
            log = (raft.durable_index, raft.log.last_index, raft.log.last_term)
            if log != seen.log or written:
                seen.log = log
                self._durable(node_id, replica)
        self._flow.turned(node_id, node.replicas)

    def _durable(self, node_id: int, replica: Replica) -> None:
        """What a replica takes for durable is, as it is in its log now."""
        disk = self.disks[node_id].get(replica.gid)
        if disk is None or disk.generation != replica.rows.generation:
            return
        index, log = replica.raft.durable_index, replica.raft.log
        if index <= log.base_index or index <= disk.base_index:
            return
        term = log.term(index) if index <= log.last_index else 0
        if not term or disk.term(index) != term:
            raise Violation(
                f"durable: node {node_id} takes entry {index} of term {term} of group"
                f" {replica.gid} for durable, its disk has term {disk.term(index)}"
            )

    def _changed(
        self,
        node_id: int,
        replica: Replica,
        before: tuple[int, int, Role, int],
        now: tuple[int, int, Role, int],
    ) -> None:
        gid, group, raft = replica.gid, self.group(replica.gid), replica.raft
        term, commit, role, applied = now
        self._elections.turned(node_id, replica)
        self.members.applied(replica)
        counts = raft.conf.voters and not replica.retired
        if counts and group.confs.setdefault(applied, raft.conf) != raft.conf:
            raise Violation(
                f"configuration: node {node_id} has {raft.conf} as of entry {applied} of group"
                f" {gid}, others {group.confs[applied]}"
            )
        if term < before[0]:
            raise Violation(f"terms: node {node_id}, group {gid} goes from {before[0]} to {term}")
        led = before[2] is LEADER and before[0] == term
        if role is LEADER and not led:
            self._leads(node_id, replica, group)
            if self._world.on_leader is not None:
                self._world.later(0, 0, self._world.on_leader, node_id, gid)
        if commit < before[1]:
            raise Violation(f"commit: node {node_id}, group {gid} from {before[1]} to {commit}")
        if commit > before[1]:
            first = commit > group.top
            self.commits.advanced(node_id, replica, group, before[1] + 1, before[3])
            if role is LEADER and led and first and group.committed[commit][0] != term:
                raise Violation(
                    f"commit by count: node {node_id} leads group {gid} in term {term} and commits"
                    f" {commit} of term {group.committed[commit][0]}"
                )
        disk = self.disks[node_id].get(gid, NOTHING)
        if disk.generation != replica.rows.generation:
            # It has switched to a snapshot, whose rows are durable, but not that they count.
            self._switching(node_id, replica, disk, before[3])
        elif applied > before[3] and not self._may_apply(group, disk, applied, commit):
            raise Violation(
                f"applied: node {node_id}, group {gid} has applied {applied}, committed"
                f" {commit}, durable a log to {disk.last_index}, that entry of term"
                f" {disk.term(applied)}"
            )

    def _may_apply(self, group: History, disk: DurableGroup, index: int, commit: int) -> bool:
        """Whether the entry is committed, and the right one is on the replica's own disk."""
        known = group.committed.get(index)
        return index <= commit and (known is None or disk.has(index, known[0]))

    def _switching(
        self, node_id: int, replica: Replica, disk: DurableGroup, applied_before: int
    ) -> None:
        """Until the switch to a snapshot is durable a crash leads back: what counts then is there.

        And what counts afterwards is durable already.
        """
        where = f"node {node_id}, group {replica.gid}"
        store = self._world.disks[node_id].store
        if replica.applied != replica.raft.log.base_index:
            raise Violation(f"switch: {where} has applied {replica.applied} on top of a snapshot")
        if store.unflushed(replica.rows.generation.to_bytes(4, "big")):
            raise Violation(f"switch: {where} uses a snapshot that is not durable")
        counts = applied_before and disk.last_index  # else there was nothing yet
        if counts and store.get(layout.applied_key(disk.generation)) is None:
            raise Violation(f"switch: {where} has deleted what a crash would lead back to")

    def _leads(self, node_id: int, replica: Replica, group: History) -> None:
        raft = replica.raft
        other = group.leaders.setdefault(raft.term, replica.replica_id)
        if other != replica.replica_id:
            raise Violation(
                f"one leader per term: group {replica.gid}, replicas {other} and"
                f" {replica.replica_id} lead in term {raft.term}"
            )
        durable = self.disks[node_id][replica.gid].hard_state
        if (durable.term, durable.vote) != (raft.term, replica.replica_id):
            raise Violation(
                f"promise: node {node_id} leads group {replica.gid} in term {raft.term} by its own"
                f" vote, but durable is {durable}"
            )
        self._elections.leads(node_id, replica, self.confs(node_id, replica))
        index = group.top
        while index in group.committed and group.committed[index][1] >= raft.term:
            index -= 1
        if index <= raft.log.base_index or index not in group.committed:
            return
        if raft.log.last_index < index or raft.log.term(index) != group.committed[index][0]:
            raise Violation(
                f"leader completeness: node {node_id} leads group {replica.gid} in term"
                f" {raft.term} without entry {index}, committed in term {group.committed[index][1]}"
            )
