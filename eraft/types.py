"""Plain data that several layers share; imports nothing of eraft."""

from dataclasses import dataclass, field
from enum import IntEnum

BUCKETS = 16384
METASERVER_GID = 0


class EntryKind(IntEnum):
    """What the payload of a log entry is."""

    COMMANDS = 0
    """A batch for the state machine."""
    NOOP = 1
    """The empty first entry of a leader's term."""
    CONF_CHANGE = 2
    """A change of the group's members (see `eraft.raft.confchange`)."""
    CHECK = 3
    """The host compares the replicas' digests here (see `eraft.node.divergence`)."""


class MessageKind(IntEnum):
    """The Raft messages; the comments say which fields carry what."""

    PRE_VOTE = 1
    """index, log_term: the candidate's last entry; term: the term it would campaign in."""
    PRE_VOTE_REPLY = 2
    """reject; with it commit and log_term: the last entry known to be committed."""
    VOTE = 3
    """index, log_term: the candidate's last entry; hint: 1 if the leader told it to
    campaign, so that who hears that leader still answers."""
    VOTE_REPLY = 4
    """As PRE_VOTE_REPLY."""
    APPEND = 5
    """index, log_term: the entry before `entries`; commit; context: read sequence; entries."""
    APPEND_REPLY = 6
    """index: last matched entry, or with reject the refused previous index, and then
    index and term of the follower's best guess in hint and log_term; commit: the
    follower's own; context: echoed. With reject, index 0 and hint 1 it does not know
    the group yet and takes only a snapshot."""
    HEARTBEAT = 7
    """commit (never beyond what the follower is known to match); context."""
    HEARTBEAT_REPLY = 8
    """context: echoed."""
    TIMEOUT_NOW = 9
    """The leader tells a voter that has all its entries to campaign at once."""
    SNAPSHOT = 10
    """index, log_term: the last entry in a snapshot that the leader offers; entries: what
    its host says of it. Answered with APPEND_REPLY once it is installed or not needed."""
    READ_INDEX = 11
    """context: a follower's number for the reads that it asks a position for."""
    READ_INDEX_REPLY = 12
    """index: the position; context: echoed; reject: the replica does not lead."""


@dataclass(slots=True)
class Message:
    """One Raft message between two replicas of a group.

    `entries` is a run of encoded entries (see `_pure.log`): the same bytes
    that are in the log's memory and in its records.
    """

    kind: int
    gid: int
    sender: int
    to: int
    term: int
    index: int = 0
    log_term: int = 0
    commit: int = 0
    context: int = 0
    hint: int = 0
    reject: bool = False
    entries: bytes = b""


@dataclass(slots=True, frozen=True)
class HardState:
    """What a replica must not forget: `vote` is a replica id, 0 for none."""

    term: int = 0
    vote: int = 0
    commit: int = 0


@dataclass(slots=True, frozen=True)
class ConfState:
    """The members of a group by replica id (Raft dissertation, chapter 4, as in etcd-io/raft).

    While `outgoing` is not empty the configuration is joint: every decision
    needs a majority of `voters` and one of `outgoing`. Learners receive the
    log and decide nothing. Without any member the configuration is not known
    yet: a new replica that waits for its first snapshot.
    """

    voters: tuple[int, ...] = ()
    """The voters; in a joint configuration the incoming ones."""
    learners: tuple[int, ...] = ()
    outgoing: tuple[int, ...] = ()
    """The voters before the joint configuration, empty if it is not joint."""
    learners_next: tuple[int, ...] = ()
    """Outgoing voters that become learners when the joint configuration is left."""
    auto_leave: bool = False
    """The leader leaves the joint configuration by itself, once it is in effect."""

    @property
    def members(self) -> tuple[int, ...]:
        """Everybody, each once, in order."""
        return tuple(sorted({*self.voters, *self.learners, *self.outgoing, *self.learners_next}))

    def votes(self, replica_id: int) -> bool:
        """Whether the replica's vote counts, in either half."""
        return replica_id in self.voters or replica_id in self.outgoing


@dataclass(slots=True, frozen=True)
class ReplicaAddress:
    """Where a replica lives: its id is issued once and bound to a store."""

    replica_id: int
    node_id: int
    store_id: str = ""


@dataclass(slots=True, frozen=True)
class NodeAddress:
    """Where a node listens, each as host:port, and the store it was registered with."""

    node_id: int
    store_id: str
    client: str
    peer: str
    admin: str


def split_address(address: str) -> tuple[str, int]:
    """Host and port of host:port, an IPv6 host without its brackets; ("", 0) of ""."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port or 0)


@dataclass(slots=True, frozen=True)
class GroupState:
    """The founding (or replacing) record of a replica in the write-ahead log."""

    gid: int
    replica_id: int
    generation: int
    conf: ConfState
    members: tuple[ReplicaAddress, ...] = field(default=())
    hard_state: HardState = HardState()
    base_index: int = 0
    base_term: int = 0
    quarantined: str = ""
    """Why the replica does not take part any more, if so."""
