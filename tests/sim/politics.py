"""Who leads and who votes, as operators and chance would have it."""

from __future__ import annotations

from contextlib import suppress

from eraft.errors import EraftError
from eraft.limits import ANSWER_DEADLINE_S
from eraft.node import members
from eraft.node.node import Node
from eraft.node.replica import Replica
from eraft.raft.confchange import Change, ChangeKind, ConfChange, Transition
from eraft.types import Message, MessageKind
from tests.sim.dice import Dice
from tests.sim.known import change_ahead
from tests.sim.world import World

STAND_TRIES = 200
STAND_US = 300


class Glance:
    """A read of nothing: what matters is its position."""

    after_writes = False
    barrier = 0

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s

    def serve(self, replica: Replica) -> bool:
        """That it is served is enough."""
        return True

    def reroute(self, node: Node) -> None:
        """It is not asked again."""

    def expire(self) -> None:
        """Nobody waits for it."""


class Politics:
    """Kinds of trouble that leaders and members make."""

    def __init__(self, world: World, dice: Dice) -> None:
        self.world = world
        self.dice = dice

    def step_down(self) -> None:
        """Leaders give up."""
        for node_id, node in self.world.nodes.items():
            if node_id not in self.world.paused:
                for replica in node.replicas.values():
                    if replica.leading and self.dice.random() < 0.5:
                        replica.raft.step_down("the simulation wants it")
                        node.touch(replica)
                        self.world.wake(node_id)

    def campaign(self) -> None:
        """Somebody wants to lead."""
        node_id = self.dice.choice(self.world.ids)
        if node_id in self.world.nodes and node_id not in self.world.paused:
            with self.world.acting(node_id) as node:
                for replica in node.replicas.values():
                    replica.raft.campaign()
                    node.touch(replica)

    def rivals(self) -> None:
        """Several replicas are told to campaign, in the same term and without asking first.

        A leader that gives up handing over and tries another heir can bring that about.
        """
        found = self._leading()
        if found is None:
            return
        node_id, replica = found
        raft = replica.raft
        heirs = self.dice.sample([it for it in raft.conf.members if it != raft.replica_id], 3)
        self._tell(f"group {replica.gid}: replicas {heirs} are all to lead")
        with self.world.acting(node_id) as node:
            for heir in heirs:
                message = Message(
                    MessageKind.TIMEOUT_NOW, raft.gid, raft.replica_id, heir, raft.term
                )
                node.send(replica.members.home(heir), message, False)

    def hand_over(self) -> None:
        """A leader lets another replica lead."""
        found = self._leading()
        if found is not None:
            self._hand_over(*found)

    def hand_over_early(self, node_id: int, gid: int) -> None:
        """So does one that has just begun to lead."""
        if node_id not in self.world.paused:
            replica = self.world.nodes[node_id].replicas.get(gid)
            if replica is not None:
                self._hand_over(node_id, replica)

    def _hand_over(self, node_id: int, replica: Replica) -> None:
        heir = self.dice.choice(replica.raft.conf.members)
        with self.world.acting(node_id) as node, suppress(EraftError):
            replica.raft.transfer_leadership(heir)
            self._tell(f"group {replica.gid} is handed over to replica {heir}")
            node.touch(replica)

    def reconfigure(self) -> None:
        """Some voters become learners and some learners voters; maybe again at once.

        At least two stay voters.
        """
        found = self._leading()
        if found is None:
            return
        node_id, replica = found
        if self.dice.random() < 0.5:
            one = self.dice.choice([*self.world.nodes, node_id])
            self.world.later(0, one, self._stand_unready, one, replica.gid, STAND_TRIES)
        for _ in range(self.dice.choice((1, 1, 2))):
            change = self._change(replica)
            if change.changes:
                with self.world.acting(node_id), suppress(EraftError):
                    replica.members.propose(
                        change.changes, (), lambda error: None, change.transition
                    )
                    self._tell(f"group {replica.gid}: {change}")

    def _stand_unready(self, node_id: int, gid: int, tries: int) -> None:
        """A node stands for election just when a change is committed that it has not applied."""
        replica = self.world.nodes[node_id].replicas.get(gid)
        if replica is None:
            return
        raft = replica.raft
        if change_ahead(raft) and node_id not in self.world.paused:
            with self.world.acting(node_id) as node:
                raft.step_down("the simulation wants it")
                raft.campaign()
                node.touch(replica)
        elif tries:
            self.world.later(STAND_US, node_id, self._stand_unready, node_id, gid, tries - 1)

    def change_early(self, node_id: int, gid: int) -> None:
        """The members are to change before the new leader has committed anything."""
        replica = self.world.nodes[node_id].replicas.get(gid)
        if node_id in self.world.paused or replica is None:
            return
        change = self._change(replica)
        if change.changes:
            with self.world.acting(node_id) as node, suppress(EraftError):
                replica.raft.propose_conf_change(change)
                self._tell(f"group {replica.gid}, early: {change}")
                node.touch(replica)

    def read_early(self, node_id: int, gid: int) -> None:
        """Somebody reads from the new leader before it has committed anything."""
        if node_id not in self.world.paused:
            with self.world.acting(node_id) as node:
                replica = node.replicas.get(gid)
                if replica is not None:
                    replica.read(Glance(node.now_s + ANSWER_DEADLINE_S))

    def _change(self, replica: Replica) -> ConfChange:
        """Other voters; nothing if that cannot be just now."""
        conf = replica.raft.conf
        transition = self.dice.choice((Transition.AUTO, Transition.JOINT_AUTO))
        if conf.outgoing or len(conf.members) < 2:
            return ConfChange((), transition, members.encode(()))
        voters = self.dice.sample(conf.members, self.dice.randint(2, len(conf.members)))
        changes = tuple(
            Change(ChangeKind.ADD_VOTER if it in voters else ChangeKind.ADD_LEARNER, it)
            for it in conf.members
            if (it in voters) != (it in conf.voters)
        )
        return ConfChange(changes, transition, members.encode(()))

    def _leading(self) -> tuple[int, Replica] | None:
        """The leader of a group, if it can act just now."""
        gid = self.dice.choice(sorted(self.world.checks.groups))
        node_id = self.world.leader(gid)
        if not node_id or node_id in self.world.paused:
            return None
        return node_id, self.world.nodes[node_id].replicas[gid]

    def _tell(self, what: str) -> None:
        self.world.tell(f"! {what}")
