"""Brings a group's members to what the config table wants, one step at a time.

The table holds what is wanted, the group's configuration (`ConfState`) what
is. The leader of the group compares them: a new replica becomes a learner
first, and once it has nearly all of the leader's log one change makes all new
replicas voters and removes the old ones (joint consensus, dissertation,
sections 4.2.1 and 4.3). `next_step` decides from what there is just now and
remembers nothing, so another leader goes on where the last one stopped.

Before a leader changes anything it asks the metaserver, once in its term, how
far the table has come: an old table would bring removed replicas back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eraft import limits
from eraft.errors import RequestError
from eraft.metaserver.operations import Query, Settle
from eraft.metaserver.parts import Group
from eraft.raft.confchange import Change, ChangeKind
from eraft.types import ConfState

if TYPE_CHECKING:
    from eraft.node.replica import Replica

logger = logging.getLogger("eraft.reconcile")


@dataclass(slots=True, frozen=True)
class Situation:
    """What a leader knows of its group."""

    group: Group
    """What the config table wants."""
    conf: ConfState
    leader_id: int
    last_index: int
    matched: Mapping[int, int]
    """Up to where each other member has the leader's log."""
    reachable: frozenset[int]
    """The members that were heard of a short time ago, the leader among them."""


@dataclass(slots=True, frozen=True)
class Step:
    """What to do next: changes of the members, or to wait.

    A leader that is to leave tries first to let another replica lead. Only
    the report to the metaserver is left if `what` is empty.
    """

    what: str
    """For people."""
    changes: tuple[Change, ...] = ()
    transfer_to: int = 0


DONE = Step("")


def report(group: Group, conf: ConfState) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of what the table has under way: who has become a voter, and who is no member any more."""
    joined = tuple(it for it in group.joining if it in conf.voters)
    left = tuple(it.replica_id for it in group.leaving if it.replica_id not in conf.members)
    return joined, left


def next_step(now: Situation) -> Step:
    """The next step from what is to what is wanted.

    No step leaves a group whose voters the leader cannot reach a majority of:
    then it waits and says so. A replica that is to take the place of another
    one on the same node is added only when that one is out.
    """
    group, conf = now.group, now.conf
    if conf.outgoing:
        return Step("waits until the joint configuration is left")
    leaving = {it.replica_id for it in group.leaving}
    occupied = {it.node_id for it in group.leaving}
    in_place = {
        it.replica_id
        for it in group.replicas
        if it.node_id in occupied and it.replica_id not in conf.members
    }
    for replica_id in conf.learners:
        if replica_id in leaving:
            what = f"gives up {_named(group, replica_id)}, which is wanted no more"
            return Step(what, (Change(ChangeKind.REMOVE, replica_id),))
    for replica_id in group.joining:
        if replica_id not in conf.members and replica_id not in in_place:
            what = f"adds {_named(group, replica_id)} as a learner"
            return Step(what, (Change(ChangeKind.ADD_LEARNER, replica_id),))
    learners = [it for it in group.joining if it in conf.learners]
    lagging = [it for it in learners if not _caught_up(now, it)]
    if lagging:
        names = ", ".join(_named(group, it) for it in lagging)
        gone = [it for it in lagging if it not in now.reachable]
        why = f"; replica {_ids(gone)} cannot be reached" if gone else ""
        return Step(f"waits until {names} has caught up{why}")
    target = {*conf.voters} - leaving | {*learners}
    if target == {*conf.voters}:
        return Step("waits until the replaced replica is forgotten") if in_place else DONE
    return _change_voters(now, target)


def _named(group: Group, replica_id: int) -> str:
    node_id = next(it.node_id for it in group.members if it.replica_id == replica_id)
    return f"replica {replica_id} on node {node_id}"


def _caught_up(now: Situation, replica_id: int) -> bool:
    """Whether the learner will not hold up commits as a voter."""
    matched = now.matched.get(replica_id, 0)
    near = matched + limits.PROMOTE_WITHIN_ENTRIES >= now.last_index
    return matched > 0 and near and replica_id in now.reachable


def _change_voters(now: Situation, target: set[int]) -> Step:
    """All learners become voters, and all that are not wanted leave, in one change."""
    conf = now.conf
    if not target:
        return Step("refuses to remove the only voter before there is another one")
    needed = len(target) // 2 + 1
    reached = target & now.reachable
    if len(reached) < needed:
        return Step(
            "refuses to go on without a quorum: of the voters"
            f" {_ids(target)} it would have then, {_ids(reached) or 'none'} can be reached and"
            f" {needed} are needed"
        )
    joining = sorted(target - {*conf.voters})
    leaving = sorted({*conf.voters} - target)
    changes = [Change(ChangeKind.ADD_VOTER, it) for it in joining]
    changes += [Change(ChangeKind.REMOVE, it) for it in leaving]
    stay = target & {*conf.voters} & now.reachable
    if now.leader_id not in target and stay:
        successor = max(sorted(stay), key=lambda it: now.matched.get(it, 0))
        what = f"hands over to replica {successor}, because it leaves"
        return Step(what, tuple(changes), successor)
    parts = [f"makes replica {_ids(joining)} a voter"] if joining else []
    parts += [f"removes replica {_ids(leaving)}"] if leaving else []
    return Step(" and ".join(parts), tuple(changes))


def _ids(replica_ids: set[int] | list[int]) -> str:
    return " ".join(map(str, sorted(replica_ids)))


class Reconciler:
    """Carries out the steps for one replica while it leads its group."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.what = ""
        """What is being done or waited for, for people; empty if all is as wanted."""
        self._term = 0
        self._seen: dict[int, int] = {}
        """When each member was heard of last, in ticks."""
        self._tick = 0
        self._transfers = 0
        self._known: int | None = None
        """The version that the metaserver had at some time of this term."""
        self._proposed = 0
        """The index of the last change that this replica proposed."""
        self._asking = self._reporting = False

    def tick(self) -> None:
        """Do what there is to do, if this replica leads."""
        replica, raft = self._replica, self._replica.raft
        leads = replica.serving and replica.leading
        group = replica.node.table.groups.get(replica.gid) if leads else None
        if group is None or not group.changing:
            self._say("")
            return
        if raft.term != self._term:
            self._begin(raft.term)
        if not raft.transferee and replica.applied >= self._proposed:
            self._go_on(group)

    def _begin(self, term: int) -> None:
        """This replica has come to lead in a new term: what was asked in another one is void."""
        self._term = term
        self._known = None
        self._seen.clear()
        self._transfers = 0
        self._proposed = 0
        self._asking = self._reporting = False

    def _go_on(self, group: Group) -> None:
        step = next_step(self._situation(group))
        if not self._up_to_date():
            self._say("waits for the metaserver to confirm the config table")
            return
        joined, left = report(group, self._replica.raft.conf)
        if (joined or left) and not self._reporting:
            self._report(Settle(self._replica.gid, joined, left))
        self._take(step)

    def _situation(self, group: Group) -> Situation:
        replica = self._replica
        self._tick += 1
        status = replica.raft.status()
        for peer in status.peers:
            if peer.active:
                self._seen[peer.replica_id] = self._tick
        # The core forgets with every check for a quorum who was active; a crash shows at once.
        since = self._tick - replica.raft.config.election_ticks
        peers = replica.node.gossip.peers
        reachable = {
            replica_id
            for replica_id, tick in self._seen.items()
            if tick > since
            and (home := peers.get(replica.members.home(replica_id))) is not None
            and home.connected
        }
        return Situation(
            group,
            status.conf,
            replica.replica_id,
            status.last_index,
            {peer.replica_id: peer.match_index for peer in status.peers},
            frozenset(reachable | {replica.replica_id}),
        )

    def _say(self, what: str) -> None:
        if what != self.what:
            self.what = what
            if what:
                logger.info("group %d: the leader %s", self._replica.gid, what)

    # The metaserver

    def _up_to_date(self) -> bool:
        """Whether this node's table is not older than what an earlier leader may have acted on."""
        meta, term = self._replica.node.meta, self._term
        if self._known is not None:
            return self._replica.node.table.version >= self._known

        def answered(answer: dict[str, Any]) -> None:
            if term == self._term:
                self._asking = False
                if "ok" in answer:
                    self._known = answer["ok"]["version"]

        if not self._asking:
            self._asking = True
            meta.request(Query(), answered)
        return False

    def _report(self, settle: Settle) -> None:
        term = self._term

        def answered(answer: dict[str, Any]) -> None:
            if term == self._term:
                self._reporting = False
                if "error" in answer:
                    logger.warning("group %d: report: %s", settle.gid, answer["error"])

        self._reporting = True
        self._replica.node.meta.request(settle, answered)

    # The group

    def _take(self, step: Step) -> None:
        replica = self._replica
        self._say(step.what)
        try:
            if step.transfer_to and self._transfers < limits.RECONCILE_TRANSFERS:
                self._transfers += 1
                replica.raft.transfer_leadership(step.transfer_to)
                replica.node.touch(replica)
            elif step.changes:
                self._propose(step.changes)
        except RequestError as error:
            self._say(f"{step.what}: not now: {error}")

    def _propose(self, changes: tuple[Change, ...]) -> None:
        replica = self._replica
        group = replica.node.table.groups[replica.gid]
        added = {it.replica_id for it in changes if it.kind is not ChangeKind.REMOVE}
        addresses = [it for it in group.members if it.replica_id in added]
        replica.members.propose(changes, addresses, lambda _: None)
        self._proposed = replica.raft.last_index
