"""Who serves a bucket: this node, another one, nobody yet, nobody at all.

Decisions only: what is known of the config table, of who leads and of the
local groups' applied state comes in, an answer for one bucket comes out. Time
is monotonic seconds and always an argument.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from eraft import limits
from eraft._impl import resp
from eraft.metaserver.parts import UNOWNED
from eraft.metaserver.table import ConfigTable
from eraft.shardkv.ownership import State
from eraft.types import BUCKETS, split_address

CLUSTER_DOWN = resp.ReplyError(b"CLUSTERDOWN The cluster is down")
NOT_SERVED = resp.ReplyError(b"CLUSTERDOWN Hash slot not served")
TRY_AGAIN = resp.ReplyError(b"TRYAGAIN The slot has no leader that is known here")

SERVED = (State.OWNED, State.EXPORTING)
"""The states in which a group executes commands on a bucket."""

_SERVED_MASK = bytes(0xFF if state in SERVED else 0 for state in range(256))
_NONE_RUNS = re.compile(b"%c+" % State.NONE)

_FIRST_EPOCH = b"1"
_LONG_AGO_S = float("-inf")


class Ownership(Protocol):
    """What routing must know of a group's state machine."""

    @property
    def states(self) -> bytearray:
        """One `State` for each bucket, as of the last applied entry."""


class LocalGroup(Protocol):
    """A data group's replica on this node."""

    @property
    def gid(self) -> int:
        """Its group."""

    @property
    def serving(self) -> bool:
        """Whether it leads and has applied the first entry of its own term."""

    @property
    def following(self) -> bool:
        """Whether it follows a leader that it can ask for read positions."""

    @property
    def machine(self) -> Ownership:
        """Its state machine."""


@dataclass(slots=True, frozen=True)
class Serve:
    """The local replica of group `gid` serves the bucket."""

    gid: int


@dataclass(slots=True, frozen=True)
class Moved:
    """Another node does: `reply` is the redirection that names it."""

    reply: resp.ReplyError


@dataclass(slots=True, frozen=True)
class Hold:
    """Nobody is known to serve it just now; ask again when something has changed.

    Once it has waited long enough `reply` is its answer: it was certainly not executed.
    """

    reply: resp.ReplyError


@dataclass(slots=True, frozen=True)
class Refuse:
    """Nobody is meant to serve it."""

    reply: resp.ReplyError


HOLD = Hold(CLUSTER_DOWN)
Decision: TypeAlias = Serve | Moved | Hold | Refuse


class Lead(NamedTuple):
    """The newest claim to lead a group; `heard_s` is long ago if it was taken back."""

    term: int
    node_id: int
    heard_s: float


class Router:
    """What one node knows of who serves what.

    `groups` are the replicas of data groups on this node, by gid; their
    owner keeps it up to date.
    """

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.table = ConfigTable()
        self.groups: dict[int, LocalGroup] = {}
        self.leads: dict[int, Lead] = {}
        self._down: set[int] = set()
        self._owners = [UNOWNED] * BUCKETS
        self._clients: dict[int, bytes] = {}

    # What is known

    def set_table(self, table: ConfigTable) -> None:
        """Route by this version of the config table from now on."""
        self.table = table
        self._owners = table.owners()
        self._clients = {
            node_id: b"%s:%d" % (host.encode(), port)
            for node_id, node in table.nodes.items()
            for host, port in [split_address(node.client)]
            if port
        }

    def note_lead(self, gid: int, term: int, node_id: int, now_s: float) -> None:
        """A node says that it leads a group: a higher term wins, the same one is renewed."""
        known = self.leads.get(gid)
        if known is None or term > known.term or (term, node_id) == known[:2]:
            self.leads[gid] = Lead(term, node_id, now_s)

    def note_leads(self, node_id: int, leads: Iterable[tuple[int, int]], now_s: float) -> None:
        """A node says that it leads these groups, as (gid, term), and no others."""
        claimed = set()
        for gid, term in leads:
            claimed.add(gid)
            self.note_lead(gid, term, node_id, now_s)
        for gid, known in self.leads.items():
            if known.node_id == node_id and gid not in claimed:
                self.leads[gid] = known._replace(heard_s=_LONG_AGO_S)

    def link_down(self, node_id: int) -> None:
        """The connection to a node is gone: it is not counted on."""
        self._down.add(node_id)

    def link_up(self, node_id: int) -> None:
        """The connection to a node is there again."""
        self._down.discard(node_id)

    def reachable(self, node_id: int) -> bool:
        """Whether no connection to the node is known to be gone."""
        return node_id not in self._down

    # Who leads

    def leader(self, gid: int, now_s: float) -> int:
        """The node that leads a group and can be counted on, 0 when none is known."""
        group = self.groups.get(gid)
        if group is not None and group.serving:
            return self.node_id
        lead = self.leads.get(gid)
        if lead is None or lead.node_id in self._down or now_s - lead.heard_s > limits.LEAD_STALE_S:
            return 0
        return lead.node_id

    def head(self, gid: int) -> int:
        """The node to name first for a group: its last known leader, else its first replica.

        While the connection to the leader is gone it is another node that can
        be reached, which holds commands until there is a leader, or knows it
        better than this one. Some clients look only once, right after their
        own connection broke, and would go on with the dead node.
        """
        node_ids = self.table.groups[gid].node_ids
        group = self.groups.get(gid)
        if group is not None and group.serving:
            return self.node_id
        lead = self.leads.get(gid)
        head = lead.node_id if lead is not None and lead.node_id in node_ids else node_ids[0]
        if self.reachable(head):
            return head
        others = (node_id for node_id in node_ids if node_id != self.node_id)
        return next(filter(self.reachable, others), head)

    # Decisions

    def route(self, bucket: int, now_s: float, *, write: bool, readonly: bool) -> Decision:
        """Who serves a command on `bucket`.

        The applied state of the local groups decides what this node serves;
        the config table only says where to look. With `readonly`, which a
        client asks for, a follower serves what is no `write`.
        """
        owner = self._owners[bucket]
        group = self.groups.get(owner)
        if group is not None and group.serving and group.machine.states[bucket] in SERVED:
            return Serve(owner)
        for group in self.groups.values():
            if group.machine.states[bucket] in SERVED:
                if group.serving:
                    return Serve(group.gid)
                if owner == UNOWNED:  # the table is behind: the group took it over already
                    owner = group.gid
        if owner == UNOWNED:
            return Refuse(NOT_SERVED)
        if readonly and not write:
            group = self.groups.get(owner)
            if group is not None and group.following and group.machine.states[bucket] in SERVED:
                return Serve(owner)
        moved = self._moved(bucket, self.leader(owner, now_s))
        if moved is None:
            return HOLD
        return Moved(moved)

    def redirect(self, bucket: int) -> resp.ReplyError:
        """The answer to a command that was rejected at apply: its group does not own `bucket`."""
        owner = self._owners[bucket]
        if owner == UNOWNED:
            return NOT_SERVED
        lead = self.leads.get(owner)
        moved = self._moved(bucket, lead.node_id) if lead is not None else None
        return TRY_AGAIN if moved is None else moved

    def _moved(self, bucket: int, node_id: int) -> resp.ReplyError | None:
        """The redirection to a node, None if it is this one or clients cannot reach it."""
        address = self._clients.get(node_id)
        if address is None or node_id == self.node_id or node_id in self._down:
            return None
        return resp.ReplyError(b"MOVED %d %s" % (bucket, address))

    # Ownership

    def claim(self, gid: int, machine: Ownership) -> list[bytes] | None:
        """The command by which a group takes what the table's opening assigned to it.

        None when it has taken everything; what it ever had is not claimed
        again, whoever owns it now.
        """
        states = machine.states
        ranges: list[bytes] = []
        for start, end, _ in self.table.ranges(gid):
            if states.find(State.NONE, start, end + 1) < 0:  # much faster, and the usual case
                continue
            for run in _NONE_RUNS.finditer(states, start, end + 1):
                ranges += b"%d" % run.start(), b"%d" % (run.end() - 1)
        return [b"_OWN", _FIRST_EPOCH, *ranges] if ranges else None

    @staticmethod
    def admit_table(admit: bytearray, ordinal: int, group: LocalGroup, admits: bool) -> None:
        """Let the parser admit plain commands to lane `ordinal` (1..255) exactly where it may.

        `admit` has one byte for each bucket: the ordinal of the lane that
        takes its plain commands, else 0. Those of other lanes stay. It is
        changed in place, because the parsers of all connections share it.
        """
        clear = bytearray(range(256))
        clear[ordinal] = 0
        lanes = admit.translate(clear)
        if admits and group.serving:
            # All buckets at once, as digits of large numbers: a loop over
            # scattered buckets would hold up the node for milliseconds.
            mask = int.from_bytes(group.machine.states.translate(_SERVED_MASK), "big")
            others = int.from_bytes(lanes, "big")
            mine = int.from_bytes(bytes((ordinal,)) * BUCKETS, "big")
            lanes[:] = (others ^ ((others ^ mine) & mask)).to_bytes(BUCKETS, "big")
        admit[:] = lanes
