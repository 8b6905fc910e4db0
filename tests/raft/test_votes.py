"""Terms and votes, message by message."""

from itertools import product
from typing import Any

import pytest

from eraft.errors import ConfigError, NotLeader, ProtocolError
from eraft.raft import Role
from eraft.raft.quorum import VoteResult, vote_result
from eraft.types import ConfState, HardState, MessageKind
from tests.raft.solo import Solo, blob, kinds

PRE_VOTE = MessageKind.PRE_VOTE
PRE_VOTE_REPLY = MessageKind.PRE_VOTE_REPLY
VOTE = MessageKind.VOTE
VOTE_REPLY = MessageKind.VOTE_REPLY
APPEND = MessageKind.APPEND
HEARTBEAT = MessageKind.HEARTBEAT


@pytest.mark.parametrize("size", range(1, 6))
def test_vote_result_against_every_way_the_rest_may_vote(size: int) -> None:
    voters = range(1, size + 1)
    for votes in product((True, False, None), repeat=size):
        known = {v: vote for v, vote in zip(voters, votes, strict=True) if vote is not None}
        ends = {
            2 * sum(end) > size
            for end in product((True, False), repeat=size)
            if all(end[v - 1] == vote for v, vote in known.items())
        }
        expected = {
            (True,): VoteResult.WON,
            (False,): VoteResult.LOST,
            (False, True): VoteResult.PENDING,
        }[tuple(sorted(ends))]
        assert vote_result(voters, {**known, 99: True}) is expected


@pytest.mark.parametrize(
    ("log_term", "index", "granted"),
    [(2, 3, True), (2, 4, True), (3, 1, True), (2, 2, False), (1, 9, False), (0, 0, False)],
)
@pytest.mark.parametrize("kind", [PRE_VOTE, VOTE])
def test_no_vote_for_a_log_that_lacks_entries(
    kind: MessageKind, log_term: int, index: int, granted: bool
) -> None:
    """The election restriction (paper, 5.4.1)."""
    solo = Solo(terms=[1, 2, 2])
    solo.hear(kind, 3, term=5, log_term=log_term, index=index)
    ready = solo.take()
    [reply] = [*ready.messages, *ready.after]
    assert reply.reject is not granted
    assert reply.to == 3


def test_one_vote_per_term() -> None:
    solo = Solo(size=5)
    solo.hear(VOTE, 2, term=1)
    solo.hear(VOTE, 3, term=1)
    solo.hear(VOTE, 2, term=1)
    assert [(m.to, m.reject) for m in solo.take().after] == [(2, False), (3, True), (2, False)]
    solo.hear(VOTE, 3, term=2)
    assert [(m.to, m.term, m.reject) for m in solo.take().after] == [(3, 2, False)]


def test_a_pre_vote_changes_nothing() -> None:
    solo = Solo(hard_state=HardState(3, 2))
    solo.hear(PRE_VOTE, 3, term=4)
    ready = solo.take()
    assert [(m.term, m.reject) for m in ready.messages] == [(4, False)]
    assert ready.token == 0
    assert (solo.group.term, solo.group.vote) == (3, 2)


def test_a_pre_vote_for_a_term_that_is_not_new_is_refused_with_the_own_term() -> None:
    solo = Solo(hard_state=HardState(3))
    for term in (2, 3):
        solo.hear(PRE_VOTE, 3, term=term)
        assert [(m.term, m.reject) for m in solo.take().messages] == [(3, True)]


def test_a_pre_candidate_that_learns_of_a_newer_term_takes_it() -> None:
    solo = Solo()
    solo.group.campaign()
    solo.hear(PRE_VOTE_REPLY, 2, term=6, reject=True)
    assert (solo.group.role, solo.group.term) == (Role.FOLLOWER, 6)


def test_a_pre_candidate_needs_a_majority_and_gives_up_without_one() -> None:
    solo = Solo(size=5)
    solo.group.campaign()
    solo.hear(PRE_VOTE_REPLY, 2, term=1)
    solo.hear(PRE_VOTE_REPLY, 2, term=1)
    assert solo.group.role is Role.PRE_CANDIDATE, "the same replica twice"
    for peer in (3, 4, 5):
        solo.hear(PRE_VOTE_REPLY, peer, term=0, reject=True)
    assert (solo.group.role, solo.group.term) == (Role.FOLLOWER, 0)


def test_pre_votes_for_another_term_do_not_count() -> None:
    solo = Solo(hard_state=HardState(3))
    solo.group.campaign()
    for term in (3, 5):  # the first one is a late answer to the campaign that led to this term
        solo.hear(PRE_VOTE_REPLY, 2, term=term)
        assert (solo.group.role, solo.group.term) == (Role.PRE_CANDIDATE, 3)
    solo.hear(PRE_VOTE_REPLY, 2, term=4)
    assert (solo.group.role, solo.group.term) == (Role.CANDIDATE, 4)


def test_votes_of_an_earlier_term_do_not_count() -> None:
    solo = Solo(hard_state=HardState(3))
    solo.group.campaign()
    solo.hear(PRE_VOTE_REPLY, 2, term=4)
    solo.settle()
    solo.hear(VOTE_REPLY, 2, term=3)
    assert solo.group.role is Role.CANDIDATE
    solo.hear(VOTE_REPLY, 2, term=4)
    assert solo.group.role is Role.LEADER


def test_a_candidate_that_lost_follows() -> None:
    solo = Solo()
    solo.group.campaign()
    solo.hear(PRE_VOTE_REPLY, 2, term=1)
    solo.hear(VOTE_REPLY, 2, reject=True)
    solo.hear(VOTE_REPLY, 3, reject=True)
    assert (solo.group.role, solo.group.term) == (Role.FOLLOWER, 1)


@pytest.mark.parametrize("kind", [APPEND, HEARTBEAT])
def test_a_candidate_follows_the_leader_of_its_term(kind: MessageKind) -> None:
    solo = Solo()
    solo.group.campaign()
    solo.hear(PRE_VOTE_REPLY, 2, term=1)
    solo.hear(kind, 3)
    assert (solo.group.role, solo.group.leader_id) == (Role.FOLLOWER, 3)
    assert [c.role for c in solo.take().role_changes] == [
        Role.PRE_CANDIDATE,
        Role.CANDIDATE,
        Role.FOLLOWER,
    ]


@pytest.mark.parametrize("kind", [VOTE, PRE_VOTE])
def test_who_hears_a_leader_does_not_vote(kind: MessageKind) -> None:
    solo = Solo(election_ticks=10)
    solo.hear(HEARTBEAT, 2, term=1)
    solo.settle()
    solo.hear(kind, 3, term=9)
    assert not solo.take().messages
    assert solo.group.term == 1
    for _ in range(9):
        solo.group.tick()
    solo.hear(kind, 3, term=9)
    assert solo.group.term == 1
    solo.group.tick()
    solo.settle()
    solo.hear(kind, 3, term=9)
    ready = solo.take()
    assert [m.reject for m in [*ready.messages, *ready.after]] == [False]


def test_a_leader_does_not_vote_for_another() -> None:
    solo = Solo().lead()
    solo.hear(VOTE, 3, term=9, log_term=9, index=9)
    assert (solo.group.role, solo.group.term) == (Role.LEADER, 1)


@pytest.mark.parametrize("kind", [APPEND, HEARTBEAT, VOTE, PRE_VOTE])
def test_who_was_left_behind_hears_of_the_newer_term(kind: MessageKind) -> None:
    solo = Solo(hard_state=HardState(5))
    solo.hear(kind, 2, term=4, entries=blob(4) if kind == APPEND else b"")
    [reply] = solo.take().messages
    assert (reply.term, reply.reject, reply.kind) == (5, True, kind + 1)
    assert solo.group.last_index == 0
    assert solo.group.leader_id == 0


def test_a_leader_that_was_left_behind_follows() -> None:
    solo = Solo().lead()
    solo.group.propose(b"x")
    tickets = [solo.group.read_index()]
    solo.acknowledge(2, 0, term=2, reject=True)
    assert (solo.group.role, solo.group.term) == (Role.FOLLOWER, 2)
    ready = solo.take()
    assert ready.lost_reads == tickets
    assert [(c.role, c.term, c.leader_id) for c in ready.role_changes] == [(Role.FOLLOWER, 2, 0)]
    for ask in (solo.group.read_index, lambda: solo.group.propose(b"y")):
        with pytest.raises(NotLeader):
            ask()


def test_a_second_leader_in_a_term_is_refused() -> None:
    solo = Solo()
    solo.hear(HEARTBEAT, 2, term=1)
    with pytest.raises(ProtocolError, match="one leader per term"):
        solo.hear(HEARTBEAT, 3, term=1)
    assert solo.group.leader_id == 2
    leader = Solo().lead()
    with pytest.raises(ProtocolError, match="one leader per term"):
        leader.hear(APPEND, 3)


def test_election_timeouts_are_random_and_in_range() -> None:
    seen = set()
    solo = Solo(election_ticks=10)
    for _ in range(200):
        ticks = 1
        solo.group.tick()
        while solo.group.role is Role.FOLLOWER:
            solo.group.tick()
            ticks += 1
        seen.add(ticks)
        solo.hear(HEARTBEAT, 2, term=1)
    assert seen == set(range(10, 20))


def test_a_replica_that_may_not_campaign_does_not() -> None:
    solo = Solo(size=1)
    solo.group.may_campaign = False
    for _ in range(100):
        solo.group.tick()
    solo.group.campaign()
    assert solo.group.role is Role.FOLLOWER
    solo.group.may_campaign = True
    for _ in range(20):
        solo.group.tick()
        solo.settle()
    assert solo.group.role is Role.LEADER


def test_stepping_down_keeps_term_and_vote() -> None:
    solo = Solo().lead()
    term = solo.group.term
    ticket = solo.group.read_index()
    solo.group.step_down("the disk stalls")
    ready = solo.take()
    assert [(c.role, c.term, c.leader_id, c.why) for c in ready.role_changes] == [
        (Role.FOLLOWER, term, 0, "the disk stalls")
    ]
    assert ready.lost_reads == [ticket]
    assert ready.token == 0
    assert (solo.group.term, solo.group.vote) == (term, 1)
    solo.group.step_down("again")
    assert not solo.take().role_changes


@pytest.mark.parametrize(
    "fields", [{"sender": 4}, {"sender": 1}, {"sender": 0}, {"to": 2}, {"gid": 8}]
)
@pytest.mark.parametrize("kind", list(MessageKind))
def test_strangers_are_refused(kind: MessageKind, fields: dict[str, int]) -> None:
    solo = Solo()
    with pytest.raises(ProtocolError, match="refused a message of group"):
        solo.hear(kind, **{"sender": 2, "term": 9, **fields})
    assert solo.group.term == 0
    assert not solo.take().messages


def test_unknown_kinds_are_refused() -> None:
    for term in (1, 2, 3):
        solo = Solo(hard_state=HardState(2))
        with pytest.raises(ProtocolError, match="unknown kind 99"):
            solo.hear(99, term=term)  # type: ignore[arg-type]
        assert solo.group.term == 2


def test_requests_for_votes_are_kinds_of_their_own() -> None:
    solo = Solo(size=5)
    solo.group.campaign()
    ready = solo.take()
    assert kinds(ready.messages) == [PRE_VOTE] * 4
    assert {m.to for m in ready.messages} == {2, 3, 4, 5}
    assert {m.term for m in ready.messages} == {1}
    assert solo.group.term == 0


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (3, {"heartbeat_ticks": 10, "election_ticks": 10}),
        (3, {"heartbeat_ticks": 0}),
        (3, {"append_limit_bytes": 0}),
        (3, {"appends_in_flight": 0}),
        (3, {"bytes_in_flight": 0}),
        (3, {"uncommitted_bytes": 0}),
        (3, {"conf": ConfState((1, 1))}),
        (3, {"conf": ConfState((1,), (1,))}),
    ],
)
def test_settings_that_cannot_work(size: int, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="group 7"):
        Solo(size=size, **settings)
