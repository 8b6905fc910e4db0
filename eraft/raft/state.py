"""What a replica knows of itself: its term, its role in it, and what is on its disk.

The state of figure 2 of the Raft paper, and how the role changes.
"""

from eraft._impl import log as entries
from eraft.errors import LogCorrupt
from eraft.raft.ballot import Ballot
from eraft.raft.config import Config, Role
from eraft.raft.durability import Durability
from eraft.raft.kinds import REPLY_TO
from eraft.raft.leader import Leadership
from eraft.raft.reads import FollowerReads
from eraft.raft.ready import RoleChange, SnapshotOffer
from eraft.types import HardState, Message

FOLLOWER = Role.FOLLOWER
PRE_CANDIDATE = Role.PRE_CANDIDATE
CANDIDATE = Role.CANDIDATE
LEADER = Role.LEADER


def check_restart(
    config: Config, hard_state: HardState, log: entries.EntryLog, applied: int
) -> None:
    """What is on disk must fit together, or the replica lost what it had promised.

    Raises `LogCorrupt`; such a replica must not take part.
    """
    where = f"group {config.gid}, replica {config.replica_id}"
    if applied < log.base_index:
        raise LogCorrupt(f"{where}: applied {applied}, but the log begins at {log.first_index}")
    if max(hard_state.commit, applied) > log.last_index:
        raise LogCorrupt(
            f"{where}: applied {applied} and committed {hard_state.commit}, but the log ends at"
            f" {log.last_index}"
        )
    if log.last_term > hard_state.term:
        raise LogCorrupt(
            f"{where}: the last entry is of term {log.last_term}, but the hard state is of term"
            f" {hard_state.term}"
        )


class ReplicaState:
    """What one replica of one group knows. The attributes are for reading only.

    role, term, vote, leader_id (0 unknown): paper, figure 2.
    commit: the last index known to be committed.
    applied: the last index that the host has reported as applied.
    conf: the configuration as of the last applied change.
    may_campaign: the host clears it while the replica could not lead well,
    for example because its disk stalls; it then stands in no election.
    """

    def __init__(
        self, config: Config, hard_state: HardState, log: entries.EntryLog, applied: int
    ) -> None:
        check_restart(config, hard_state, log, applied)
        self.config = config
        self.gid = config.gid
        self.replica_id = config.replica_id
        self.log = log
        self.role = FOLLOWER
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.leader_id = 0
        self.commit = max(hard_state.commit, applied)
        self.applied = applied
        self.may_campaign = True
        self.conf = config.conf
        self._peer_ids = tuple(i for i in config.conf.members if i != config.replica_id)
        self._listened_to: frozenset[int] = frozenset()
        self._removed: set[int] = set()
        """Members no longer, whom the host may still name to `listen_to`; who it does not name
        any more need not be remembered."""
        self._durability = Durability(log.last_index, hard_state.term, self.commit)
        self._leadership: Leadership | None = None
        self._pending_change = 0
        """The last entry that may change the configuration, as of the time when this replica led
        last: until it is applied, no other change may be proposed. At first that is whatever was
        inherited."""
        self._ballot: Ballot | None = None
        self._elapsed = 0
        self._timeout = 0
        self._draw_timeout()
        # What the next Ready has to tell; `_dirty` says that there may be something.
        self._dirty = True
        self._messages: list[Message] = []
        self._after: list[Message] = []
        self._offer: SnapshotOffer | None = None
        self._asked_reads = FollowerReads()
        self._ticket = 0
        self._lost_reads: list[int] = []
        self._role_changes: list[RoleChange] = []

    def step_down(self, why: str) -> None:
        """Stops leading or campaigning, in the same term; `why` is for people."""
        if self.role is not FOLLOWER:
            self._become_follower(self.term, 0, why)

    @property
    def _told_commit(self) -> int:
        """How far this replica may apply, and tells the others that the log is committed.

        A leader whose disk does not know yet that a change of the members is
        committed stops before it, also once it has stepped down. Else a
        replica that is out could be gone when this one, which lost power,
        comes back with the old configuration, and needs its vote: of two
        voters the one that stays would be stuck for ever.
        """
        change = self._pending_change
        if self.applied < change <= self.commit and self._durability.durable_commit < change:
            return change - 1
        return self.commit

    def _advance(self, index: int) -> None:
        """The commit index only grows."""
        if index > self.commit:
            self.commit = index

    def _hears_leader(self) -> bool:
        """Whether there is no reason to vote: the leader was heard of a short time ago.

        Without this a replica that was cut off could depose a leader that
        works (dissertation, section 4.2.3).
        """
        return self.leader_id != 0 and self._elapsed < self.config.election_ticks

    def _become(self, role: Role, leader_id: int, why: str) -> None:
        self.role = role
        self.leader_id = leader_id
        self._dirty = True
        self._role_changes.append(RoleChange(role, self.term, leader_id, why))
        self._lost_reads += self._asked_reads.drop()

    def _become_follower(self, term: int, leader_id: int, why: str) -> None:
        if self._leadership is not None:
            self._lost_reads += self._leadership.lost_reads()
            self._leadership = None
        self._ballot = None
        changed = (self.role, self.term, self.leader_id) != (FOLLOWER, term, leader_id)
        if term > self.term:
            self.term = term
            self.vote = 0
        self._draw_timeout()
        if changed:
            self._become(FOLLOWER, leader_id, why)

    def _draw_timeout(self) -> None:
        """A new election timeout begins: random, so that votes split rarely (paper, 5.2)."""
        ticks = self.config.election_ticks
        self._elapsed = 0
        self._timeout = self.config.random.randrange(ticks, 2 * ticks)

    def _reply(
        self,
        message: Message,
        *,
        term: int = 0,
        index: int = 0,
        log_term: int = 0,
        hint: int = 0,
        reject: bool = False,
        durable: bool = False,
    ) -> None:
        """Answers a request, with the own term unless another is given.

        With `durable` the answer waits for everything so far. So does one
        that confirms reads in a term that the disk does not know yet. To an
        earlier term's leader nothing is confirmed: it may lead this term by
        now, and have given the context to other reads.
        """
        context = message.context if message.term == self.term else 0
        reply = Message(
            REPLY_TO[message.kind],
            self.gid,
            self.replica_id,
            message.sender,
            term or self.term,
            index,
            log_term,
            self._told_commit,
            context,
            hint,
            reject,
        )
        durable = durable or (context != 0 and self._durability.durable_term != self.term)
        (self._after if durable else self._messages).append(reply)
