"""The next step from the members that a group has to those that it is to have."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eraft import limits
from eraft.metaserver.parts import Group
from eraft.node.reconcile import DONE, Situation, Step, next_step, report
from eraft.raft.confchange import Change, ChangeKind, ConfChange, changed, leave_joint
from eraft.types import ConfState, ReplicaAddress

LAST = 10_000


def home(replica_id: int, node_id: int | None = None) -> ReplicaAddress:
    """By default replica n is on node n."""
    return ReplicaAddress(replica_id, replica_id if node_id is None else node_id, "s")


def group(*wanted: int, joining: tuple[int, ...] = (), leaving: tuple[int, ...] = ()) -> Group:
    return Group(1, tuple(map(home, wanted)), (1, 2, 3), joining, tuple(map(home, leaving)))


def step(
    wanted: Group,
    conf: ConfState,
    leader_id: int = 1,
    behind: dict[int, int] | None = None,
    unreachable: set[int] = frozenset(),  # type: ignore[assignment]
) -> Step:
    matched = {it: LAST - (behind or {}).get(it, 0) for it in conf.members if it != leader_id}
    reachable = frozenset({*conf.members} - unreachable)
    return next_step(Situation(wanted, conf, leader_id, LAST, matched, reachable))


def voters(*ids: int, learners: tuple[int, ...] = ()) -> ConfState:
    return ConfState(ids, learners)


ADD_VOTER, ADD_LEARNER, REMOVE = ChangeKind
REPLACE = group(1, 2, 4, joining=(4,), leaving=(3,))


def test_nothing_to_do() -> None:
    assert step(group(1, 2, 3), voters(1, 2, 3)) is DONE
    assert step(REPLACE, voters(1, 2, 4)) is DONE  # only the report is missing


def test_a_new_replica_learns_first() -> None:
    found = step(REPLACE, voters(1, 2, 3))
    assert found == Step("adds replica 4 on node 4 as a learner", (Change(ADD_LEARNER, 4),))


def test_a_learner_waits_until_it_has_caught_up() -> None:
    conf = voters(1, 2, 3, learners=(4,))
    near = limits.PROMOTE_WITHIN_ENTRIES
    assert not step(REPLACE, conf, behind={4: near + 1}).changes
    assert step(REPLACE, conf, behind={4: near}).changes
    found = step(REPLACE, conf, unreachable={4})
    assert not found.changes
    assert (
        found.what == "waits until replica 4 on node 4 has caught up; replica 4 cannot be reached"
    )


def test_a_learner_without_a_snapshot_is_not_near_the_end_of_a_short_log() -> None:
    situation = Situation(
        REPLACE, voters(1, 2, 3, learners=(4,)), 1, 20, {2: 20, 3: 20}, frozenset((1, 2, 3, 4))
    )
    assert not next_step(situation).changes


def test_the_new_one_votes_and_the_old_one_leaves_in_one_change() -> None:
    found = step(REPLACE, voters(1, 2, 3, learners=(4,)), unreachable={3})
    assert found.changes == (Change(ADD_VOTER, 4), Change(REMOVE, 3))
    assert found.what == "makes replica 4 a voter and removes replica 3"


def test_nothing_is_done_in_a_joint_configuration() -> None:
    conf = ConfState((1, 2, 4), (), (1, 2, 3), (), True)
    assert step(REPLACE, conf) == Step("waits until the joint configuration is left")


def test_no_step_loses_the_quorum() -> None:
    found = step(group(1, 2, leaving=(3,)), voters(1, 2, 3), unreachable={2})
    assert not found.changes
    assert "of the voters 1 2 it would have then, 1 can be reached and 2 are needed" in found.what
    assert step(group(1, 2, leaving=(3,)), voters(1, 2, 3)).changes == (Change(REMOVE, 3),)
    single = Group(1, (home(4, 1),), (1,), (4,), (home(1),))
    assert "refuses to remove the only voter" in step(single, voters(1)).what


def test_a_leader_hands_over_before_it_removes_itself() -> None:
    conf = voters(1, 2, 3, learners=(4,))
    found = step(REPLACE, conf, leader_id=3, behind={2: 5})
    itself = (Change(ADD_VOTER, 4), Change(REMOVE, 3))
    assert (found.transfer_to, found.changes) == (1, itself)
    moved = group(4, joining=(4,), leaving=(3,))
    assert step(moved, voters(3, learners=(4,)), leader_id=3).changes == (
        Change(ADD_VOTER, 4),
        Change(REMOVE, 3),
    )


def test_a_learner_that_is_wanted_no_more_is_given_up() -> None:
    wanted = group(1, 2, 5, joining=(5,), leaving=(3, 4))
    found = step(wanted, voters(1, 2, 3, learners=(4,)), unreachable={4})
    assert found.changes == (Change(REMOVE, 4),)


def test_in_place_the_old_one_leaves_first() -> None:
    wanted = Group(1, (home(1), home(2), home(4, 3)), (1, 2, 3), (4,), (home(3),))
    assert step(wanted, voters(1, 2, 3), unreachable={3}).changes == (Change(REMOVE, 3),)
    assert step(wanted, voters(1, 2)).what == "waits until the replaced replica is forgotten"
    forgotten = Group(1, (home(1), home(2), home(4, 3)), (1, 2, 3), (4,))
    assert step(forgotten, voters(1, 2)).changes == (Change(ADD_LEARNER, 4),)


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        (voters(1, 2, 3), ((), ())),
        (voters(1, 2, 3, learners=(4,)), ((), ())),
        (ConfState((1, 2, 4), (), (1, 2, 3), (), True), ((4,), ())),
        (voters(1, 2, 4), ((4,), (3,))),
    ],
)
def test_what_the_leader_reports(
    conf: ConfState, expected: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    assert report(REPLACE, conf) == expected


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_change_gets_there_by_steps_that_keep_a_quorum(data: st.DataObject) -> None:
    """Without faults each step is legal, keeps a majority in reach, and the last one arrives."""
    before = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5, unique=True))
    keep = [it for it in before if data.draw(st.booleans())]
    fresh = data.draw(st.integers(0 if keep else 1, 3))
    homes = data.draw(st.lists(st.integers(1, 9), min_size=3, max_size=3, unique=True))
    joining = tuple(ReplicaAddress(11 + n, homes[n], "s") for n in range(fresh))
    taken = {it.node_id for it in joining}
    kept = tuple(home(it) for it in keep if it not in taken)
    leaving = tuple(home(it) for it in before if home(it) not in kept)
    wanted = Group(1, kept + joining, (1,), tuple(it.replica_id for it in joining), leaving)
    conf, leader_id = ConfState(tuple(sorted(before))), before[0]
    for _ in count():
        assert _ < 30, (wanted, conf)
        joined, left = report(wanted, conf)
        wanted = Group(
            1,
            wanted.replicas,
            (1,),
            tuple(it for it in wanted.joining if it not in joined),
            tuple(it for it in wanted.leaving if it.replica_id not in left),
        )
        if not wanted.changing:
            break
        found = step(wanted, conf, leader_id)
        if found.transfer_to:
            assert found.transfer_to in conf.voters
            leader_id = found.transfer_to
        elif found.changes:
            after = changed(conf, ConfChange(found.changes))
            conf = leave_joint(after) if after.outgoing else after
            assert conf.voters
            leader_id = leader_id if leader_id in conf.voters else conf.voters[0]
        elif not kept and len(leaving) == len(joining) == 1:
            assert "refuses to remove the only voter" in found.what
            return
        elif "refuses to remove the only voter" in found.what:
            assert all(it.node_id in {old.node_id for old in leaving} for it in joining)
            return
    assert conf.voters == tuple(sorted(it.replica_id for it in wanted.replicas))
    assert not conf.learners
