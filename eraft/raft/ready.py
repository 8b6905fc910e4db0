"""What a `RaftGroup` wants done, as data, and what it tells about itself.

The idea is etcd-io/raft's `Ready`: the core decides, the host acts, and the
order in which the host may act is part of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from eraft.raft.config import Role
from eraft.types import ConfState, HardState, Message


@dataclass(slots=True, frozen=True)
class RoleChange:
    """The replica's role, term or known leader became this."""

    role: Role
    term: int
    leader_id: int
    """The leader of `term` by replica id, 0 while unknown."""
    why: str
    """For people."""


@dataclass(slots=True, frozen=True)
class Fetch:
    """A peer needs entries that are no longer in memory.

    The host reads entries `first_index`.. from disk, at least one and beyond
    that at most `limit_bytes`, and calls `RaftGroup.fetched`, or
    `RaftGroup.fetch_failed`. Nothing else is sent to that peer until then.
    """

    replica_id: int
    first_index: int
    limit_bytes: int


@dataclass(slots=True, frozen=True)
class SnapshotOffer:
    """The leader offers a snapshot that is ahead of this replica.

    The host gets it from `sender`, its own way, and calls
    `RaftGroup.restored`. A later offer replaces an earlier one; the host may
    also go on with the earlier one: what is in a snapshot is committed,
    whoever offered it.
    """

    sender: int
    term: int
    index: int
    """The last entry that is in it, and its term."""
    log_term: int
    metadata: bytes
    """What the leader's host said of it; not checked here."""


@dataclass(slots=True, frozen=True)
class Restored:
    """A snapshot takes the place of everything that this replica had."""

    index: int
    term: int
    conf: ConfState


@dataclass(slots=True)
class Ready:
    """Everything that one `RaftGroup.ready` hands out; each part is handed out once.

    Duties of the host: persist in the order of the Readys; send `messages`
    whenever it likes; send `after` only when the persistence of this and of
    all earlier Readys has finished; apply whenever it likes, in order.
    """

    token: int = 0
    """Names what is to be persisted, 0 if there is nothing. When it and all before it are
    durable, call `RaftGroup.persisted(token)`."""

    restored: Restored | None = None
    """To persist first, atomically with `hard_state` and `entries`: what is on disk of this
    group until here is replaced, its log begins behind `index` with the state machine of the
    snapshot. Until it is durable a crash leads back to what was there before, so nothing of that
    may be deleted earlier."""

    hard_state: HardState | None = None
    """To persist, atomically with `entries`. A new term or vote always makes a token; a mere new
    commit index does only of a leader with a change of the members, else it comes with the next
    one."""

    first_index: int = 0
    """Where `entries` begin. On disk they replace everything from there on: what the log had at
    `first_index` and beyond is gone, also in the eyes of a recovery."""

    entries: bytes = b""
    """To persist: encoded entries."""

    messages: Sequence[Message] = ()
    """May leave at once: they promise nothing that a crash could break. A leader's appends are
    among them, so its own disk works in parallel with its followers (dissertation, 10.2.1)."""

    after: Sequence[Message] = ()
    """May leave only once everything handed out for persistence so far, here and in earlier
    Readys, is durable: votes, requests for votes, acknowledgements of entries. Also with token 0,
    if earlier tokens are not durable yet. If the process dies first they are never sent."""

    apply: tuple[int, int] | None = None
    """First and last index of the entries to apply next. They are committed and durable on this
    replica's own disk. Read them from `RaftGroup.log`, give those of kind CONF_CHANGE to
    `RaftGroup.apply_conf_change`, then call `RaftGroup.applied_to`. Before
    that call is also the time to tell which pending proposals were overwritten: one whose term
    is not `log.term(index)` of a range that is handed out here was not executed and never will
    be; before its index comes by here nothing is certain."""

    reads: Sequence[tuple[int, int]] = ()
    """(ticket, index): once `index` is applied, the state answers the read linearizably."""

    lost_reads: Sequence[int] = ()
    """Tickets that will not be confirmed: leadership or leader changed, or the leader did not
    answer. Asking again is safe."""

    fetches: Sequence[Fetch] = ()
    """Entries that peers need from this replica's disk."""

    snapshots: Sequence[int] = ()
    """Peers that need a snapshot: the host makes one and calls `RaftGroup.offer_snapshot`."""

    offer: SnapshotOffer | None = None
    """A snapshot that this replica should install."""

    role_changes: Sequence[RoleChange] = ()
    """What the replica became since the last Ready, oldest first."""


@dataclass(slots=True, frozen=True)
class PeerStatus:
    """What a leader knows of one peer."""

    replica_id: int
    match_index: int
    next_index: int
    state: str
    """`probe`, `replicate` or `snapshot`."""
    appends_in_flight: int
    bytes_in_flight: int
    active: bool
    """Heard of since the last check for a quorum."""


@dataclass(slots=True, frozen=True)
class Status:
    """A replica at a glance; `dataclasses.asdict` makes plain data of it."""

    gid: int
    replica_id: int
    role: str
    term: int
    vote: int
    leader_id: int
    commit: int
    applied: int
    durable_index: int
    first_index: int
    last_index: int
    log_size_bytes: int
    conf: ConfState
    transferee: int
    """The replica that leadership is being handed over to, 0 for none."""
    peers: tuple[PeerStatus, ...]
