"""Configurations and what changes make of them."""

from contextlib import suppress
from random import Random

import pytest

from eraft import limits
from eraft.errors import ConfChangeRefused, ProtocolError
from eraft.raft import confchange
from eraft.raft.confchange import (
    LEAVE_JOINT,
    Change,
    ChangeKind,
    ConfChange,
    Transition,
    changed,
    check,
    decode,
    describe,
    encode,
    enter_joint,
    leave_joint,
    simple,
)
from eraft.types import ConfState

KINDS = {"v": ChangeKind.ADD_VOTER, "l": ChangeKind.ADD_LEARNER, "r": ChangeKind.REMOVE}


def changes(text: str) -> tuple[Change, ...]:
    """`v4 l5 r1`: add voter 4, add learner 5, remove 1."""
    return tuple(Change(KINDS[word[0]], int(word[1:])) for word in text.split())


THREE = ConfState((1, 2, 3))


@pytest.mark.parametrize(
    ("before", "what", "after"),
    [
        (THREE, "v4", ConfState((1, 2, 3, 4))),
        (THREE, "l4", ConfState((1, 2, 3), (4,))),
        (THREE, "r2", ConfState((1, 3))),
        (THREE, "l2", ConfState((1, 3), (2,))),
        (ConfState((1,), (2,)), "v2", ConfState((1, 2))),
        (ConfState((1,), (2,)), "r2", ConfState((1,))),
        (ConfState((1,), (2,)), "l2", ConfState((1,), (2,))),
        (THREE, "v2", THREE),
        (THREE, "r9", THREE),
        (THREE, "v4 r4", THREE),
        (THREE, "l4 l5 r3", ConfState((1, 2), (4, 5))),
        (ConfState(), "v1", ConfState((1,))),
    ],
)
def test_simple_changes(before: ConfState, what: str, after: ConfState) -> None:
    assert simple(before, changes(what)) == after
    check(after)


@pytest.mark.parametrize(
    ("before", "what", "joint", "after"),
    [
        (
            THREE,
            "r1 r2 v4 v5",
            ConfState((3, 4, 5), (), (1, 2, 3)),
            ConfState((3, 4, 5)),
        ),
        (
            THREE,
            "l1 v4",
            ConfState((2, 3, 4), (), (1, 2, 3), (1,)),
            ConfState((2, 3, 4), (1,)),
        ),
        (
            ConfState((1, 2, 3), (4,)),
            "v4 r3 l5",
            ConfState((1, 2, 4), (5,), (1, 2, 3)),
            ConfState((1, 2, 4), (5,)),
        ),
        (THREE, "l1 v1", ConfState((1, 2, 3), (), (1, 2, 3)), THREE),
        (THREE, "l1 r1", ConfState((2, 3), (), (1, 2, 3)), ConfState((2, 3))),
    ],
)
def test_joint_changes(before: ConfState, what: str, joint: ConfState, after: ConfState) -> None:
    assert enter_joint(before, changes(what), auto_leave=False) == joint
    check(joint)
    assert leave_joint(joint) == after
    check(after)


@pytest.mark.parametrize(
    ("before", "what", "error"),
    [
        (THREE, "v4 v5", r"touches one voter, not \[4, 5\]"),
        (THREE, "r1 v4", r"touches one voter, not \[1, 4\]"),
        (ConfState((1,)), "r1", "removes every voter of voters 1"),
        (ConfState((1,)), "l1", "removes every voter"),
        (ConfState((1, 2), (), (2, 3)), "v4", "voters 1 2, outgoing 2 3 is joint"),
        (THREE, "v0", "0 is no replica id"),
        (THREE, "v18446744073709551616", "18446744073709551616 is no replica id"),
    ],
)
def test_illegal_simple_changes(before: ConfState, what: str, error: str) -> None:
    with pytest.raises(ConfChangeRefused, match=error):
        simple(before, changes(what))


def test_illegal_joint_changes() -> None:
    joint = enter_joint(THREE, changes("v4 r1"), auto_leave=True)
    with pytest.raises(ConfChangeRefused, match="is joint already"):
        enter_joint(joint, changes("v5 r2"), auto_leave=True)
    with pytest.raises(ConfChangeRefused, match="voters 1 2 3 is not joint"):
        leave_joint(THREE)
    with pytest.raises(ConfChangeRefused, match="without voters"):
        enter_joint(ConfState(), changes("v1"), auto_leave=True)
    with pytest.raises(ConfChangeRefused, match="removes every voter"):
        enter_joint(THREE, changes("r1 r2 l3"), auto_leave=True)
    many = tuple(Change(ChangeKind.ADD_LEARNER, i) for i in range(10, limits.CONF_MEMBERS + 9))
    with pytest.raises(ConfChangeRefused, match="members, at most"):
        simple(THREE, many)


def test_which_way_a_change_goes() -> None:
    assert changed(THREE, ConfChange(changes("v4"))) == ConfState((1, 2, 3, 4))
    joint = ConfState((1, 2, 3, 4), (), (1, 2, 3), auto_leave=True)
    assert changed(THREE, ConfChange(changes("v4"), Transition.JOINT_AUTO)) == joint
    assert changed(joint, LEAVE_JOINT) == ConfState((1, 2, 3, 4))
    two = changed(THREE, ConfChange(changes("v4 r1")))
    assert two == ConfState((2, 3, 4), (), (1, 2, 3), auto_leave=True)
    stays = changed(THREE, ConfChange(changes("v4 r1"), Transition.JOINT_EXPLICIT))
    assert stays == ConfState((2, 3, 4), (), (1, 2, 3))


def test_random_changes_against_what_they_say() -> None:
    """A joint change ends where the same changes, each by itself, end; majorities overlap."""
    rng = Random(5)
    made = 0
    for _ in range(20_000):
        ids = range(1, 8)
        voters = rng.sample(ids, rng.randint(1, 5))
        learners = [i for i in ids if i not in voters and rng.random() < 0.3]
        before = ConfState(tuple(sorted(voters)), tuple(learners))
        some = tuple(
            Change(rng.choice(list(ChangeKind)), rng.choice(ids)) for _ in range(rng.randint(1, 5))
        )
        wanted_voters, wanted_learners = set(voters), set(learners)
        for change in some:
            wanted_voters.discard(change.replica_id)
            wanted_learners.discard(change.replica_id)
            if change.kind is ChangeKind.ADD_VOTER:
                wanted_voters.add(change.replica_id)
            elif change.kind is ChangeKind.ADD_LEARNER:
                wanted_learners.add(change.replica_id)
        if not wanted_voters:
            with pytest.raises(ConfChangeRefused):
                enter_joint(before, some, auto_leave=True)
            continue
        after = ConfState(tuple(sorted(wanted_voters)), tuple(sorted(wanted_learners)))
        joint = enter_joint(before, some, auto_leave=True)
        check(joint)
        assert joint.outgoing == before.voters
        assert leave_joint(joint) == after
        if len(set(voters) ^ wanted_voters) <= 1:
            assert simple(before, some) == after
            made += 1
        else:
            with pytest.raises(ConfChangeRefused):
                simple(before, some)
    assert made > 3_000


@pytest.mark.parametrize(
    ("conf", "error"),
    [
        (ConfState((1, 1)), "not distinct"),
        (ConfState((0, 1)), "not distinct replica ids"),
        (ConfState((1,), (1,)), r"\[1\] both vote and learn"),
        (ConfState((1,), (2,), (2,)), r"\[2\] both vote and learn"),
        (ConfState((1,), (), (), (2,)), "cannot become learners"),
        (ConfState((1, 2), (), (2, 3), (2,)), "cannot become learners"),
        (ConfState((1,), auto_leave=True), "only a joint configuration"),
        (ConfState((), (1,)), "nobody votes"),
        (ConfState(tuple(range(1, limits.CONF_MEMBERS + 2))), "at most"),
    ],
)
def test_impossible_configurations(conf: ConfState, error: str) -> None:
    with pytest.raises(ConfChangeRefused, match=error):
        check(conf)


def test_members() -> None:
    conf = ConfState((3, 1), (7,), (1, 5), (5,))
    assert conf.members == (1, 3, 5, 7)
    assert [i for i in conf.members if conf.votes(i)] == [1, 3, 5]
    assert describe(conf) == "voters 3 1, outgoing 1 5, learners 7, learners next 5"
    assert describe(ConfState()) == "no members"
    check(ConfState())


def test_changes_survive_their_encoding() -> None:
    rng = Random(6)
    for _ in range(300):
        change = ConfChange(
            tuple(
                Change(rng.choice(list(ChangeKind)), rng.randint(1, 2**64 - 1))
                for _ in range(rng.randint(0, 5))
            ),
            rng.choice(list(Transition)),
            rng.randbytes(rng.randint(0, 20)),
        )
        assert decode(encode(change)) == change


def test_what_cannot_be_encoded() -> None:
    with pytest.raises(ConfChangeRefused, match="changes at once"):
        encode(ConfChange(changes("v1 ") * (limits.CONF_CHANGES + 1)))
    with pytest.raises(ConfChangeRefused, match="context of"):
        encode(ConfChange(context=b"x" * (limits.CONF_CONTEXT_BYTES + 1)))
    with pytest.raises(ConfChangeRefused, match="0 is no replica id"):
        encode(ConfChange(changes("v0")))


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", "of 0 bytes"),
        (b"\x00\x01", "of 2 bytes"),
        (b"\x03\x00\x00", "unknown transition 3"),
        (b"\x00\x01\x00" + b"\x01" + b"\x00" * 7, "announces 1 changes"),
        (b"\x00\xff\xff" + b"\x01" * 9 * 65535, "announces 65535 changes"),
        (b"\x00\x01\x00\x04" + b"\x01" * 8, "kind 4 of replica"),
        (b"\x00\x01\x00\x01" + b"\x00" * 8, "kind 1 of replica 0"),
        (b"\x00\x00\x00" + b"x" * (limits.CONF_CONTEXT_BYTES + 1), "a context of 65537 bytes"),
    ],
)
def test_hostile_payloads(payload: bytes, error: str) -> None:
    with pytest.raises(ProtocolError, match=error):
        decode(payload)


def test_nonsense_is_refused_or_decoded_never_worse() -> None:
    rng = Random(7)
    good = confchange.encode(ConfChange(changes("v4 r1 l9"), context=b"there"))
    for _ in range(5_000):
        data = bytearray(good if rng.random() < 0.7 else rng.randbytes(rng.randint(0, 40)))
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
        with suppress(ProtocolError):
            decode(bytes(data[: rng.randint(0, len(data))]))
