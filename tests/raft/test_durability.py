"""What is promised only once it is on disk (pitfalls 1, 2, 3, 10 and 13 of the design)."""

import pytest

from eraft.errors import InvariantViolation, LogCorrupt
from eraft.raft import Role
from eraft.raft.durability import Durability
from eraft.types import HardState, MessageKind
from tests.raft.solo import Solo, blob, kinds

APPEND = MessageKind.APPEND
VOTE = MessageKind.VOTE


def test_a_vote_waits_for_the_disk() -> None:
    solo = Solo()
    solo.hear(VOTE, 2, term=3)
    ready = solo.take()
    assert ready.token
    assert ready.hard_state == HardState(term=3, vote=2)
    assert kinds(ready.after) == [MessageKind.VOTE_REPLY]
    assert not ready.messages
    assert not ready.after[0].reject


def test_a_vote_survives_a_restart() -> None:
    solo = Solo(hard_state=HardState(term=3, vote=2))
    solo.hear(VOTE, 3, term=3)
    assert [m.reject for m in solo.take().after] == [True]
    solo.hear(VOTE, 2, term=3)
    assert [m.reject for m in solo.take().after] == [False]


def test_votes_are_asked_for_once_the_own_vote_and_the_log_are_durable() -> None:
    """Else a crash could bring the candidate back in the same term with a shorter log."""
    solo = Solo()
    solo.hear(APPEND, 2, term=1, entries=blob(1, 1))
    assert solo.take().token == 1  # not durable yet
    solo.group.campaign()
    solo.hear(MessageKind.PRE_VOTE_REPLY, 3, term=2)
    ready = solo.take()
    assert solo.group.role is Role.CANDIDATE
    assert kinds(ready.messages) == [MessageKind.PRE_VOTE] * 2
    assert kinds(ready.after) == [VOTE] * 2
    assert ready.hard_state == HardState(term=2, vote=1)


def test_the_own_vote_counts_once_it_is_durable() -> None:
    solo = Solo(size=1)
    solo.group.campaign()
    ready = solo.take()
    assert solo.group.role is Role.CANDIDATE
    solo.group.persisted(ready.token)
    assert solo.group.role is Role.LEADER


def test_an_older_record_does_not_make_the_own_vote_durable() -> None:
    solo = Solo()
    solo.hear(APPEND, 2, term=1, entries=blob(1))
    old = solo.take().token
    solo.group.campaign()
    solo.hear(MessageKind.PRE_VOTE_REPLY, 3, term=2)
    new = solo.take().token
    solo.hear(MessageKind.VOTE_REPLY, 2, term=2, reject=True)
    solo.group.persisted(old)
    solo.hear(MessageKind.VOTE_REPLY, 3, term=2)
    assert solo.group.role is Role.CANDIDATE, "one vote of three"
    solo.group.persisted(new)
    assert solo.group.role is Role.LEADER


def test_term_and_vote_and_entries_share_a_record() -> None:
    solo = Solo(terms=[1, 1], hard_state=HardState(1))
    solo.hear(APPEND, 2, term=2, index=1, log_term=1, entries=blob(2, 2))
    ready = solo.take()
    assert ready.hard_state == HardState(term=2)
    assert (ready.first_index, ready.entries) == (2, blob(2, 2))


def test_entries_are_acknowledged_once_they_are_durable() -> None:
    solo = Solo()
    solo.hear(APPEND, 2, term=1, entries=blob(1, 1), context=5)
    ready = solo.take()
    assert not ready.messages
    [reply] = ready.after
    assert (reply.index, reply.context, reply.reject) == (2, 5, False)
    # The same message again: nothing to persist, but the answer still has to wait.
    solo.hear(APPEND, 2, term=1, entries=blob(1, 1), context=6)
    ready = solo.take()
    assert ready.token == 0
    assert not ready.messages
    assert [m.index for m in ready.after] == [2]


def test_a_read_is_confirmed_only_in_a_durable_term() -> None:
    solo = Solo()
    solo.hear(MessageKind.HEARTBEAT, 2, term=4, context=1)
    ready = solo.take()
    assert not ready.messages
    assert kinds(ready.after) == [MessageKind.HEARTBEAT_REPLY]
    solo.group.persisted(ready.token)
    solo.hear(MessageKind.HEARTBEAT, 2, term=4, context=2)
    ready = solo.take()
    assert kinds(ready.messages) == [MessageKind.HEARTBEAT_REPLY]
    assert not ready.after


def test_a_leader_counts_itself_once_its_own_disk_has_the_entry() -> None:
    solo = Solo().lead()
    index = solo.group.propose(b"x")
    ready = solo.take()
    assert kinds(ready.messages) == [APPEND] * 2, "sent in parallel with the own disk"
    solo.acknowledge(2, index)
    assert solo.group.commit == index - 1
    solo.group.persisted(ready.token)
    assert solo.group.commit == index


def test_followers_can_commit_without_the_leader_s_disk_but_it_does_not_apply() -> None:
    solo = Solo().lead()
    index = solo.group.propose(b"x")
    token = solo.take().token
    solo.acknowledge(2, index)
    solo.acknowledge(3, index)
    assert solo.group.commit == index
    assert solo.take().apply is None
    solo.group.persisted(token)
    assert solo.take().apply == (index, index)


def test_a_follower_applies_only_what_is_on_its_own_disk() -> None:
    solo = Solo()
    solo.hear(APPEND, 2, term=1, entries=blob(1, 1, 1), commit=2)
    first = solo.take()
    assert solo.group.commit == 2
    assert first.apply is None
    solo.hear(APPEND, 2, term=1, index=3, log_term=1, entries=blob(1), commit=4)
    second = solo.take()
    solo.group.persisted(first.token)
    assert solo.take().apply == (1, 3)
    solo.group.persisted(second.token)
    assert solo.take().apply == (4, 4)


def test_an_acknowledgement_of_replaced_entries_says_nothing_about_the_new_ones() -> None:
    """The ABA problem: same indexes, other entries."""
    solo = Solo()
    solo.hear(APPEND, 2, term=1, entries=blob(1, 1, 1))
    old = solo.take().token
    solo.hear(APPEND, 3, term=2, index=1, log_term=1, entries=blob(2, 2), commit=3)
    new = solo.take()
    assert new.first_index == 2
    solo.group.persisted(old)
    assert solo.group.durable_index == 1
    assert solo.take().apply == (1, 1)
    solo.group.persisted(new.token)
    assert solo.group.durable_index == 3
    assert solo.take().apply == (2, 3)


def test_a_truncation_takes_durability_back() -> None:
    solo = Solo(terms=[1, 1, 1])
    assert solo.group.durable_index == 3
    solo.hear(APPEND, 2, term=2, index=1, log_term=1, entries=blob(2, 2))
    assert solo.group.durable_index == 1
    ready = solo.take()
    assert (ready.first_index, ready.entries) == (2, blob(2, 2))


def test_entries_replaced_before_they_were_handed_out_leave_no_gap() -> None:
    solo = Solo()
    solo.hear(APPEND, 2, term=1, entries=blob(1, 1, 1))
    solo.hear(APPEND, 3, term=2, index=2, log_term=1, entries=blob(2, 2))
    ready = solo.take()
    assert (ready.first_index, ready.entries) == (1, blob(1, 1, 2, 2))


def test_a_new_leader_s_own_match_is_what_is_durable() -> None:
    solo = Solo()
    solo.hear(APPEND, 2, term=1, entries=blob(1))
    solo.take()
    solo.group.campaign()
    solo.hear(MessageKind.PRE_VOTE_REPLY, 3, term=2)
    late = solo.take().token
    solo.hear(MessageKind.VOTE_REPLY, 2)
    solo.hear(MessageKind.VOTE_REPLY, 3)
    assert solo.group.role is Role.LEADER
    solo.take()
    solo.acknowledge(2, 2)
    assert solo.group.commit == 0, "only one disk has entry 2"
    solo.group.persisted(late)
    assert solo.group.commit == 0


def test_a_mere_commit_index_is_not_worth_a_record() -> None:
    solo = Solo(terms=[1, 1])
    solo.hear(MessageKind.HEARTBEAT, 2, commit=2)
    ready = solo.take()
    assert (ready.token, ready.hard_state) == (0, None)
    solo.hear(APPEND, 2, index=2, log_term=1, entries=blob(1))
    assert solo.take().hard_state == HardState(term=1, commit=2), "it comes with the next one"


def test_tokens_are_acknowledged_together_and_again() -> None:
    durability = Durability(0, 0, 0)
    assert [durability.hand_out(index, 1, index - 1) for index in (1, 2, 3)] == [1, 2, 3]
    durability.acknowledge(2)
    assert durability.durable_index == 2
    durability.acknowledge(1)
    assert durability.durable_index == 2
    durability.acknowledge(3)
    assert durability.durable_index == 3
    with pytest.raises(InvariantViolation, match="token 4"):
        durability.acknowledge(4)


@pytest.mark.parametrize(
    ("terms", "hard_state", "applied", "base", "why"),
    [
        ([1, 1], HardState(1), 3, (0, 0), "applied 3.* ends at 2"),
        ([1, 1], HardState(1, 0, 3), 0, (0, 0), "committed 3.* ends at 2"),
        ([1, 1], HardState(1), 4, (5, 1), "applied 4.* begins at 6"),
        ([1, 2], HardState(1), 0, (0, 0), "term 2.* term 1"),
    ],
)
def test_a_replica_whose_state_does_not_fit_together_does_not_start(
    terms: list[int], hard_state: HardState, applied: int, base: tuple[int, int], why: str
) -> None:
    with pytest.raises(LogCorrupt, match=why):
        Solo(terms=terms, hard_state=hard_state, applied=applied, base=base)


def test_a_restart_goes_on_where_it_was() -> None:
    solo = Solo(terms=[1, 1, 2, 2], hard_state=HardState(3, 2, 1), applied=2)
    assert (solo.group.term, solo.group.vote, solo.group.commit) == (3, 2, 2)
    assert solo.take().apply is None
    solo = Solo(terms=[1, 1, 2, 2], hard_state=HardState(3, 2, 3), applied=1)
    assert solo.group.has_ready()
    assert solo.take().apply == (2, 3)


def test_the_host_reports_what_it_applied_in_order() -> None:
    solo = Solo(terms=[1, 1, 1], hard_state=HardState(1, 0, 3))
    assert solo.take().apply == (1, 3)
    solo.group.applied_to(2)
    assert solo.take().apply is None, "handed out once"
    for wrong in (1, 4):
        with pytest.raises(InvariantViolation, match="applied in order"):
            solo.group.applied_to(wrong)
    solo.group.applied_to(3)
