"""Which members a group has after a change (Raft dissertation, chapter 4).

Two majorities that decide at the same time must share a replica. A change of
a single voter keeps that by itself (section 4.1, `simple`). Any other goes
through a joint configuration, in which the old and the new voters both have
to agree (section 4.3): `enter_joint`, and `leave_joint` once that is in
effect. The rules are those of etcd-io/raft:

* A change takes effect when its entry is applied, not when it is appended.
  This is safe because only one change is under way at a time, and because
  nobody campaigns with a committed change that it has not applied.
* An outgoing voter that becomes a learner stays a voter of the outgoing half
  until the joint configuration is left (`ConfState.learners_next`).
* Adding a member that is there, or removing one that is not, changes nothing.

But for one: replica id 0 is refused, where etcd-io/raft passes over it.

Everything here is a pure function. Illegal changes raise `ConfChangeRefused`.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from eraft import limits
from eraft.errors import ConfChangeRefused, ProtocolError
from eraft.types import ConfState

REPLICA_ID_MAX = 2**64 - 1


class ChangeKind(IntEnum):
    """What happens to one replica."""

    ADD_VOTER = 1
    """It becomes a voter, also if it is a learner."""
    ADD_LEARNER = 2
    """It becomes a learner, also if it is a voter."""
    REMOVE = 3
    """It is a member no longer. Its id is never used again."""


class Transition(IntEnum):
    """How a list of changes is made."""

    AUTO = 0
    """A single change is simple; several go through a joint configuration, left by itself."""
    JOINT_AUTO = 1
    """Through a joint configuration that the leader leaves by itself."""
    JOINT_EXPLICIT = 2
    """Into a joint configuration that is left only by a change without any members."""


@dataclass(slots=True, frozen=True)
class Change:
    """One replica's part in a change of the configuration."""

    kind: ChangeKind
    replica_id: int


@dataclass(slots=True, frozen=True)
class ConfChange:
    """The payload of an entry of kind CONF_CHANGE; without `changes` it leaves the joint state.

    `context` is the host's, for example the addresses of new members; at most
    `limits.CONF_CONTEXT_BYTES`.
    """

    changes: tuple[Change, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""


LEAVE_JOINT = ConfChange()


def simple(conf: ConfState, changes: Iterable[Change]) -> ConfState:
    """The configuration after changes that touch at most one voter; not in a joint one."""
    if conf.outgoing:
        raise ConfChangeRefused(f"{describe(conf)} is joint: no simple change before it is left")
    after = _changed(conf, changes)
    touched = set(conf.voters) ^ set(after.voters)
    if len(touched) > 1:
        raise ConfChangeRefused(
            f"a simple change touches one voter, not {sorted(touched)}: it needs a joint one"
        )
    return after


def enter_joint(conf: ConfState, changes: Iterable[Change], auto_leave: bool) -> ConfState:
    """The joint configuration on the way to the changed one; not from a joint one."""
    if conf.outgoing:
        raise ConfChangeRefused(f"{describe(conf)} is joint already")
    if not conf.voters:
        raise ConfChangeRefused("a configuration without voters cannot become joint")
    joint = ConfState(
        voters=conf.voters, learners=conf.learners, outgoing=conf.voters, auto_leave=auto_leave
    )
    return _changed(joint, changes)


def leave_joint(conf: ConfState) -> ConfState:
    """The incoming configuration alone."""
    if not conf.outgoing:
        raise ConfChangeRefused(f"{describe(conf)} is not joint: there is nothing to leave")
    return ConfState(voters=conf.voters, learners=_ordered({*conf.learners, *conf.learners_next}))


def changed(conf: ConfState, change: ConfChange) -> ConfState:
    """The configuration after the entry that carries `change` is applied."""
    if not change.changes:
        return leave_joint(conf)
    if change.transition is Transition.AUTO and len(change.changes) == 1:
        return simple(conf, change.changes)
    return enter_joint(conf, change.changes, change.transition is not Transition.JOINT_EXPLICIT)


def _changed(conf: ConfState, changes: Iterable[Change]) -> ConfState:
    """`conf` with other incoming voters and learners; the outgoing half stays."""
    voters, learners, next_learners = set(conf.voters), set(conf.learners), set(conf.learners_next)
    for change in changes:
        replica_id = change.replica_id
        if not 1 <= replica_id <= REPLICA_ID_MAX:
            raise ConfChangeRefused(f"{replica_id} is no replica id")
        voters.discard(replica_id)
        learners.discard(replica_id)
        next_learners.discard(replica_id)
        if change.kind is ChangeKind.ADD_VOTER:
            voters.add(replica_id)
        elif change.kind is ChangeKind.ADD_LEARNER:
            (next_learners if replica_id in conf.outgoing else learners).add(replica_id)
    after = ConfState(
        _ordered(voters),
        _ordered(learners),
        conf.outgoing,
        _ordered(next_learners),
        conf.auto_leave,
    )
    if not voters:
        raise ConfChangeRefused(f"the change removes every voter of {describe(conf)}")
    if len(after.members) > limits.CONF_MEMBERS:
        raise ConfChangeRefused(
            f"{len(after.members)} members, at most {limits.CONF_MEMBERS} are possible"
        )
    return after


def _ordered(replica_ids: set[int]) -> tuple[int, ...]:
    return tuple(sorted(replica_ids))


def describe(conf: ConfState) -> str:
    """The configuration for people: `voters 1 2 3, outgoing 1 2 4, learners 5`."""
    parts = [
        f"{name} {' '.join(map(str, replica_ids))}"
        for name, replica_ids in (
            ("voters", conf.voters),
            ("outgoing", conf.outgoing),
            ("learners", conf.learners),
            ("learners next", conf.learners_next),
        )
        if replica_ids
    ]
    return ", ".join(parts) + (", left by itself" if conf.auto_leave else "") or "no members"


def check(conf: ConfState) -> None:
    """Raises `ConfChangeRefused` if no group can have this configuration. No members are fine."""
    halves = (conf.voters, conf.outgoing, conf.learners, conf.learners_next)
    for replica_ids in halves:
        if len(set(replica_ids)) != len(replica_ids) or not all(
            isinstance(i, int) and 1 <= i <= REPLICA_ID_MAX for i in replica_ids
        ):
            raise ConfChangeRefused(f"{replica_ids} are not distinct replica ids")
    both = set(conf.learners) & {*conf.voters, *conf.outgoing}
    if both:
        raise ConfChangeRefused(f"{sorted(both)} both vote and learn")
    if not set(conf.learners_next) <= set(conf.outgoing) - set(conf.voters):
        raise ConfChangeRefused(f"{conf.learners_next} cannot become learners: not going out")
    if conf.auto_leave and not conf.outgoing:
        raise ConfChangeRefused("only a joint configuration can be left")
    if not conf.voters and conf != ConfState():
        raise ConfChangeRefused(f"{describe(conf)}: nobody votes")
    if len(conf.members) > limits.CONF_MEMBERS:
        raise ConfChangeRefused(
            f"{len(conf.members)} members, at most {limits.CONF_MEMBERS} are possible"
        )


# The payload of an entry, little-endian: u8 transition, u16 number of changes,
# for each u8 kind and u64 replica id, and what is left is the context.
_HEADER = struct.Struct("<BH")
_CHANGE = struct.Struct("<BQ")


def encode(change: ConfChange) -> bytes:
    """The payload of the entry; `ConfChangeRefused` if it is beyond a limit."""
    if len(change.changes) > limits.CONF_CHANGES:
        raise ConfChangeRefused(
            f"{len(change.changes)} changes at once, at most {limits.CONF_CHANGES} are possible"
        )
    if len(change.context) > limits.CONF_CONTEXT_BYTES:
        raise ConfChangeRefused(
            f"a context of {len(change.context)} bytes, the limit is {limits.CONF_CONTEXT_BYTES}"
        )
    for one in change.changes:
        if not 1 <= one.replica_id <= REPLICA_ID_MAX:
            raise ConfChangeRefused(f"{one.replica_id} is no replica id")
    return b"".join(
        (
            _HEADER.pack(change.transition, len(change.changes)),
            *(_CHANGE.pack(one.kind, one.replica_id) for one in change.changes),
            change.context,
        )
    )


def decode(payload: bytes) -> ConfChange:
    """The change in the payload of an entry; `ProtocolError` names what is wrong with it."""
    if len(payload) < _HEADER.size:
        raise ProtocolError(f"configuration change of {len(payload)} bytes")
    transition, count = _HEADER.unpack_from(payload)
    if transition not in _TRANSITIONS:
        raise ProtocolError(f"configuration change: unknown transition {transition}")
    end = _HEADER.size + count * _CHANGE.size
    if count > limits.CONF_CHANGES or end > len(payload):
        raise ProtocolError(
            f"configuration change of {len(payload)} bytes announces {count} changes"
        )
    if len(payload) - end > limits.CONF_CONTEXT_BYTES:
        raise ProtocolError(f"configuration change: a context of {len(payload) - end} bytes")
    changes = []
    for kind, replica_id in _CHANGE.iter_unpack(payload[_HEADER.size : end]):
        if kind not in _CHANGE_KINDS or not replica_id:
            raise ProtocolError(f"configuration change: kind {kind} of replica {replica_id}")
        changes.append(Change(ChangeKind(kind), replica_id))
    return ConfChange(tuple(changes), Transition(transition), payload[end:])


_TRANSITIONS = frozenset(int(transition) for transition in Transition)
_CHANGE_KINDS = frozenset(int(kind) for kind in ChangeKind)
