"""ReadIndex (dissertation, section 6.4; pitfalls 7 and 8 of the design)."""

from typing import Any

import pytest

from eraft.errors import NotLeader
from eraft.raft import RaftGroup, Role
from eraft.raft.confchange import Change, ChangeKind, ConfChange
from eraft.raft.reads import ReadRounds
from eraft.types import ConfState, HardState, Message, MessageKind
from tests.raft.network import GID, Network
from tests.raft.solo import Solo

HEARTBEAT = MessageKind.HEARTBEAT
HEARTBEAT_REPLY = MessageKind.HEARTBEAT_REPLY


def contexts(messages: object) -> set[int]:
    assert isinstance(messages, list | tuple)
    return {m.context for m in messages if isinstance(m, Message) and m.kind == HEARTBEAT}


def test_a_read_needs_a_quorum_that_answers_after_it_was_asked() -> None:
    solo = Solo(size=5).lead()
    ticket = solo.group.read_index()
    assert contexts(solo.take().messages) == {1}
    solo.hear(HEARTBEAT_REPLY, 2, context=1)
    solo.hear(HEARTBEAT_REPLY, 2, context=1)
    assert not solo.take().reads
    solo.hear(HEARTBEAT_REPLY, 3, context=1)
    assert solo.take().reads == [(ticket, 1)]
    solo.hear(HEARTBEAT_REPLY, 4, context=1)
    assert not solo.take().reads


def test_no_read_before_the_first_commit_of_the_term() -> None:
    """Until then a leader does not know what its predecessors have committed."""
    solo = Solo(terms=[1, 1], hard_state=HardState(1, 0, 1))
    solo.group.campaign()
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, term=2)
    solo.settle()
    solo.hear(MessageKind.VOTE_REPLY, 2)
    ticket = solo.group.read_index()
    for ready in solo.settle():
        assert not contexts(ready.messages)
    solo.acknowledge(2, 2)
    for ready in solo.settle():
        assert not contexts(ready.messages)
    solo.acknowledge(2, 3)
    assert contexts(solo.take().messages) == {1}
    solo.hear(HEARTBEAT_REPLY, 2, context=1)
    assert solo.take().reads == [(ticket, 3)]


def test_one_round_is_under_way_and_one_collects() -> None:
    solo = Solo().lead()
    first = [solo.group.read_index(), solo.group.read_index()]
    assert contexts(solo.take().messages) == {1}
    second = [solo.group.read_index(), solo.group.read_index()]
    assert not contexts(solo.take().messages)
    solo.hear(HEARTBEAT_REPLY, 2, context=1)
    ready = solo.take()
    assert [ticket for ticket, _ in ready.reads] == first
    assert contexts(ready.messages) == {2}
    solo.hear(HEARTBEAT_REPLY, 3, context=1)
    assert not solo.take().reads, "an old answer confirms nothing newer"
    solo.hear(HEARTBEAT_REPLY, 3, context=2)
    assert [ticket for ticket, _ in solo.take().reads] == second
    assert sorted(first + second) == first + second


def test_contexts_that_were_never_issued_confirm_nothing() -> None:
    solo = Solo().lead()
    solo.hear(HEARTBEAT_REPLY, 2, context=1)
    solo.hear(HEARTBEAT_REPLY, 2, context=7)
    ticket = solo.group.read_index()
    solo.take()
    for context in (0, 2, 7, 2**63):
        solo.hear(HEARTBEAT_REPLY, 2, context=context)
        assert not solo.take().reads
    solo.hear(HEARTBEAT_REPLY, 2, context=1)
    assert solo.take().reads == [(ticket, 1)]


def test_the_index_is_that_of_the_round_s_beginning() -> None:
    solo = Solo().lead()
    ticket = solo.group.read_index()
    solo.take()
    index = solo.group.propose(b"x")
    solo.settle()
    solo.acknowledge(2, index)
    solo.settle()
    solo.hear(HEARTBEAT_REPLY, 3, context=1)
    assert solo.take().reads == [(ticket, index - 1)]


def test_acknowledged_appends_confirm_reads() -> None:
    solo = Solo().lead()
    ticket = solo.group.read_index()
    index = solo.group.propose(b"x")
    ready = solo.take()
    assert {m.context for m in ready.messages} == {1}
    solo.acknowledge(2, index, context=1)
    assert solo.take().reads == [(ticket, 1)]


def test_a_rejected_append_confirms_reads_too() -> None:
    """It shows as well that the peer has no newer leader."""
    solo = Solo().lead()
    ticket = solo.group.read_index()
    solo.take()
    solo.acknowledge(2, 1, context=1, reject=True)
    assert solo.take().reads == [(ticket, 1)]


def test_lost_messages_of_a_round_are_repeated_by_heartbeats() -> None:
    solo = Solo(heartbeat_ticks=2).lead()
    solo.group.read_index()
    solo.take()
    solo.group.tick()
    solo.group.tick()
    assert contexts(solo.take().messages) == {1}


def test_answers_of_another_term_confirm_nothing() -> None:
    solo = Solo().lead()
    old = solo.group.read_index()
    solo.take()
    solo.group.step_down("test")
    assert solo.take().lost_reads == [old]
    solo.group.campaign()
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, term=2)
    solo.settle()
    solo.hear(MessageKind.VOTE_REPLY, 2)
    solo.settle()
    solo.acknowledge(2, 2)
    solo.settle()
    assert solo.group.role is Role.LEADER
    new = solo.group.read_index()
    assert new > old
    assert contexts(solo.take().messages) == {1}
    solo.hear(HEARTBEAT_REPLY, 2, term=1, context=1)
    assert not solo.take().reads
    solo.hear(HEARTBEAT_REPLY, 2, term=2, context=1)
    assert solo.take().reads == [(new, 2)]


def test_a_question_of_an_earlier_leadership_confirms_nothing_in_a_later_one() -> None:
    """It arrives when who asked leads again: the answer is of the new term, but not to it."""
    solo = Solo(hard_state=HardState(5))
    for kind in (HEARTBEAT, MessageKind.APPEND):
        solo.hear(kind, 2, term=4, context=3)
        [reply] = solo.take().messages
        assert (reply.term, reply.reject, reply.context) == (5, True, 0)


def test_a_late_question_to_a_replica_that_later_elects_another_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Network(3, seed=2)
    old = net.leader()
    net.agree(3)
    assert old.group is not None
    others = [host for host in net.hosts.values() if host is not old]
    late = Message(HEARTBEAT, GID, old.replica_id, others[0].replica_id, old.group.term, context=1)
    old.read()  # with that very heartbeat; another one of its copies is late
    net.run(5)
    old.call(old.group.step_down, "test")
    for host in others:
        assert host.group is not None
        host.group.may_campaign = False
    net.run_until(lambda: old.role is Role.LEADER, 60, "the same leader in another term")
    for host in others:
        assert host.group is not None
        host.group.may_campaign = True
    net.agree(3)
    answered: list[Message] = []
    with monkeypatch.context() as patch:
        patch.setattr(net, "send", lambda host, message: answered.append(message))
        others[0].receive(late)
    [answer] = answered
    net.isolate(old.replica_id)
    net.run_until(lambda: len(net.leaders()) == 2, 60, "a second leader")
    net.leaders()[-1].propose(net.payload())
    net.run(2)
    assert len(net.oracle.committed) > old.group.commit
    confirmed = net.oracle.reads_confirmed
    old.read()
    old.receive(answer)
    assert net.oracle.reads_confirmed == confirmed


def test_a_read_that_was_confirmed_when_leadership_ended_is_reported_lost() -> None:
    solo = Solo().lead()
    ticket = solo.group.read_index()
    solo.take()
    solo.hear(HEARTBEAT_REPLY, 2, context=1)
    solo.group.step_down("test")
    assert solo.take().lost_reads == [ticket]


def test_a_single_voter_confirms_by_itself() -> None:
    net = Network(1, seed=1)
    leader = net.leader()
    leader.read()
    net.run_until(lambda: net.oracle.reads_confirmed, 10, "a read")
    net.agree(1)
    before = net.oracle.reads_confirmed
    leader.read()
    assert net.oracle.reads_confirmed == before + 1, "at once"


def test_a_leader_that_was_replaced_confirms_nothing() -> None:
    net = Network(3, seed=2)
    old = net.leader()
    net.agree(3)
    net.isolate(old.replica_id)
    net.run_until(lambda: len(net.leaders()) == 2, 60, "a second leader")
    confirmed = net.oracle.reads_confirmed
    if old.role is Role.LEADER:
        old.read()
    net.agree(2)
    net.run(100)
    assert net.oracle.reads_confirmed == confirmed
    assert not net.oracle.asked, "the old leader said that its reads are lost"


def test_rounds_alone() -> None:
    rounds = ReadRounds(ConfState((1, 2, 3)))
    for ticket in (1, 2, 3):
        rounds.ask(ticket)
    assert rounds.begin(1, 8)
    assert not rounds.begin(1, 8)
    rounds.ask(4)
    assert rounds.drop() == [1, 2, 3, 4]
    rounds.answered(9, 1)
    assert not rounds.confirmed, "a stranger"
    rounds.answered(3, 1)
    assert rounds.confirmed == [(1, 8), (2, 8), (3, 8)]
    assert rounds.drop() == [1, 2, 3, 4]


# Reads of followers


def following(**settings: Any) -> Solo:
    solo = Solo(terms=[1], **settings)
    solo.hear(MessageKind.HEARTBEAT, 2, term=1)
    solo.settle()
    return solo


def question(solo: Solo) -> Message:
    [message] = [m for r in solo.settle() for m in r.messages]
    assert message.kind == MessageKind.READ_INDEX
    return message


def test_a_follower_asks_its_leader() -> None:
    solo = following()
    first, second = solo.group.read_index(), solo.group.read_index()
    asked = question(solo)
    assert (asked.to, asked.term) == (2, 1)
    third = solo.group.read_index()
    assert not [m for r in solo.settle() for m in r.messages], "one question at a time"
    solo.hear(MessageKind.READ_INDEX_REPLY, 2, index=7, context=asked.context)
    ready = solo.take()
    assert ready.reads == [(first, 7), (second, 7)]
    [again] = ready.messages
    assert again.context != asked.context
    solo.hear(MessageKind.READ_INDEX_REPLY, 2, index=7, context=asked.context)
    assert not solo.take().reads, "an answer to what was asked before"
    solo.hear(MessageKind.READ_INDEX_REPLY, 2, index=9, context=again.context)
    assert solo.take().reads == [(third, 9)]


def test_an_answer_of_before_a_restart_confirms_nothing() -> None:
    solo = following()
    solo.group.read_index()
    old = question(solo)
    again = RaftGroup(solo.config, HardState(1), solo.group.log, 0)
    solo.group = again
    solo.hear(MessageKind.HEARTBEAT, 2, term=1)
    solo.settle()
    again.read_index()
    solo.settle()
    solo.hear(MessageKind.READ_INDEX_REPLY, 2, index=7, context=old.context)
    assert not solo.take().reads


def test_the_leader_of_a_follower_confirms_a_round_first() -> None:
    solo = Solo().lead()
    solo.hear(MessageKind.READ_INDEX, 3, context=77)
    messages = [m for r in solo.settle() for m in r.messages]
    assert {m.kind for m in messages} == {MessageKind.HEARTBEAT}
    solo.hear(MessageKind.HEARTBEAT_REPLY, 2, context=messages[0].context)
    ready = solo.take()
    [reply] = ready.messages
    assert (reply.kind, reply.to) == (MessageKind.READ_INDEX_REPLY, 3)
    assert (reply.index, reply.context, reply.reject) == (solo.group.commit, 77, False)
    assert not ready.reads


def test_no_answer_before_the_leaders_first_commit() -> None:
    """Pitfall: ReadIndex served before the leader's first commit in its term."""
    solo = Solo()
    solo.group.campaign()
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, term=1)
    solo.settle()
    solo.hear(MessageKind.VOTE_REPLY, 2)
    solo.settle()
    assert solo.group.role is Role.LEADER
    solo.hear(MessageKind.READ_INDEX, 3, context=77)
    assert not [m for r in solo.settle() for m in r.messages]
    solo.acknowledge(2, 1)
    assert [m.context for r in solo.settle() for m in r.messages if m.to == 3][-1] == 1


def test_who_does_not_lead_refuses() -> None:
    solo = following()
    solo.hear(MessageKind.READ_INDEX, 3, context=77)
    [reply] = [m for r in solo.settle() for m in (*r.messages, *r.after)]
    assert (reply.kind, reply.reject) == (MessageKind.READ_INDEX_REPLY, True)
    solo.hear(MessageKind.READ_INDEX, 3, term=0, context=77)
    [reply] = [m for r in solo.settle() for m in (*r.messages, *r.after)]
    assert (reply.term, reply.reject, reply.context) == (1, True, 0)


@pytest.mark.parametrize(
    ("kind", "sender"),
    [
        (MessageKind.HEARTBEAT, 3),
        (MessageKind.HEARTBEAT, 2),
        (MessageKind.VOTE_REPLY, 3),
    ],
)
def test_follower_reads_are_lost_with_the_leader_or_the_term(
    kind: MessageKind, sender: int
) -> None:
    solo = following()
    tickets = [solo.group.read_index()]
    asked = question(solo)
    tickets.append(solo.group.read_index())
    solo.hear(kind, sender, term=2)
    assert solo.take().lost_reads == tickets
    solo.hear(MessageKind.READ_INDEX_REPLY, 2, index=7, context=asked.context)
    assert not solo.take().reads


def test_follower_reads_are_lost_by_refusal_and_in_time() -> None:
    solo = following()
    ticket = solo.group.read_index()
    asked = question(solo)
    solo.hear(MessageKind.READ_INDEX_REPLY, 2, reject=True, context=asked.context + 1)
    assert not solo.take().lost_reads
    solo.hear(MessageKind.READ_INDEX_REPLY, 2, reject=True, context=asked.context)
    assert solo.take().lost_reads == [ticket]
    ticket = solo.group.read_index()
    solo.settle()
    lost: list[int] = []
    for _ in range(solo.config.election_ticks):
        assert not lost
        solo.group.tick()
        solo.hear(MessageKind.HEARTBEAT, 2)
        lost += solo.take().lost_reads
    assert lost == [ticket]


def test_who_knows_no_leader_cannot_ask() -> None:
    with pytest.raises(NotLeader, match="knows no leader"):
        Solo().group.read_index()


def test_a_follower_cannot_flood_its_leader() -> None:
    solo = Solo().lead()
    for context in range(100):
        solo.hear(MessageKind.READ_INDEX, 3, context=context)
    leadership = solo.group._leadership
    assert leadership is not None
    assert len(leadership.remote_reads) == 2
    solo.group.step_down("told to")
    assert not solo.take().lost_reads, "they are not this replica's"


def test_learners_read_too() -> None:
    net = Network(3, seed=8)
    net.agree(3)
    learner = net.add_host(net.founding)
    change = ConfChange((Change(ChangeKind.ADD_LEARNER, learner.replica_id),))
    net.leaders()[-1].change(change)
    net.agree(4)
    confirmed = net.oracle.reads_confirmed
    learner.read()
    net.run_until(lambda: net.oracle.reads_confirmed > confirmed, 5, "a read")
