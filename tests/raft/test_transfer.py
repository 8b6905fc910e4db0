"""Leadership transfer (dissertation, section 3.10)."""

import pytest

from eraft.errors import NotApplied, NotLeader, TransferRefused, TransferUnderWay
from eraft.raft import Role
from eraft.types import ConfState, Message, MessageKind
from tests.raft.network import Network
from tests.raft.solo import Solo

TIMEOUT_NOW = MessageKind.TIMEOUT_NOW


def told(solo: Solo) -> list[Message]:
    return [m for r in solo.settle() for m in r.messages if m.kind == TIMEOUT_NOW]


def test_a_target_that_has_everything_is_told_at_once() -> None:
    solo = Solo().lead()
    solo.group.transfer_leadership(3)
    assert solo.group.transferee == 3
    assert [(m.to, m.term) for m in told(solo)] == [(3, solo.group.term)]
    assert not told(solo), "once"


def test_a_target_is_brought_up_to_date_first() -> None:
    solo = Solo().lead()
    index = solo.group.propose(b"x")
    solo.settle()
    solo.group.transfer_leadership(3)
    assert not told(solo)
    solo.acknowledge(2, index)
    assert not told(solo)
    solo.acknowledge(3, index)
    assert [m.to for m in told(solo)] == [3]


def test_proposals_are_refused_meanwhile_and_certainly_not_applied() -> None:
    solo = Solo().lead()
    last = solo.group.last_index
    solo.group.transfer_leadership(3)
    with pytest.raises(TransferUnderWay, match="hands over to replica 3") as caught:
        solo.group.propose(b"x")
    assert isinstance(caught.value, NotApplied)
    assert solo.group.last_index == last
    assert solo.group.status().transferee == 3


def test_it_gives_up_after_an_election_timeout() -> None:
    solo = Solo().lead()
    solo.group.transfer_leadership(3)
    for _ in range(solo.config.election_ticks):
        assert solo.group.transferee == 3
        for peer in (2, 3):
            solo.hear(MessageKind.HEARTBEAT_REPLY, peer)
        solo.group.tick()
    assert solo.group.role is Role.LEADER
    assert solo.group.transferee == 0
    solo.group.propose(b"x")


def test_it_is_over_when_the_link_to_the_target_is_lost() -> None:
    solo = Solo().lead()
    solo.group.transfer_leadership(3)
    solo.settle()
    solo.group.unreachable(2)
    assert solo.group.transferee == 3
    solo.group.unreachable(3)
    assert solo.group.transferee == 0
    solo.group.propose(b"x")


def test_who_cannot_be_the_target() -> None:
    with pytest.raises(NotLeader):
        Solo().group.transfer_leadership(2)
    solo = Solo(conf=ConfState((1, 2, 3), (4,))).lead()
    for replica_id in (4, 9):
        with pytest.raises(TransferRefused, match=f"replica {replica_id} is no voter"):
            solo.group.transfer_leadership(replica_id)
    solo.group.unreachable(3)
    with pytest.raises(TransferRefused, match="replica 3 is too far behind"):
        solo.group.transfer_leadership(3)
    solo.group.transfer_leadership(1)
    assert solo.group.transferee == 0


def test_another_target_takes_over() -> None:
    solo = Solo().lead()
    solo.group.transfer_leadership(3)
    solo.settle()
    solo.group.transfer_leadership(2)
    assert [m.to for m in told(solo)] == [2]


def test_the_target_skips_the_pre_vote_and_says_why() -> None:
    solo = Solo(terms=[1])
    solo.hear(MessageKind.HEARTBEAT, 2, term=1)
    solo.settle()
    solo.hear(TIMEOUT_NOW, 2)
    assert (solo.group.role, solo.group.term) == (Role.CANDIDATE, 2)
    ready = solo.take()
    assert [(m.kind, m.hint) for m in ready.after] == [(MessageKind.VOTE, 1)] * 2
    assert not ready.messages


def test_a_campaign_that_the_leader_asked_for_is_answered_though_it_is_heard() -> None:
    for hint, term in ((0, 1), (1, 2)):
        solo = Solo(terms=[1])
        solo.hear(MessageKind.HEARTBEAT, 2, term=1)
        solo.settle()
        solo.hear(MessageKind.VOTE, 3, term=2, index=1, log_term=1, hint=hint)
        assert solo.group.term == term


@pytest.mark.parametrize("conf", [ConfState((2, 3), (1,)), ConfState()])
def test_a_learner_that_is_told_stays_what_it_is(conf: ConfState) -> None:
    solo = Solo(conf=conf)
    solo.group.listen_to([2, 3])
    solo.hear(TIMEOUT_NOW, 2, term=1)
    assert solo.group.role is Role.FOLLOWER


def test_a_late_word_of_an_old_term_changes_nothing() -> None:
    solo = Solo(terms=[3])
    solo.hear(TIMEOUT_NOW, 2, term=2)
    assert (solo.group.role, solo.group.term) == (Role.FOLLOWER, 3)


def test_a_stalled_replica_does_not_take_over() -> None:
    solo = Solo(terms=[1])
    solo.group.may_campaign = False
    solo.hear(TIMEOUT_NOW, 2)
    assert solo.group.role is Role.FOLLOWER


def test_a_handover_loses_nothing_and_is_fast() -> None:
    net = Network(3, seed=3)
    net.agree(3)
    for _ in range(5):
        old = net.leader()
        target = old.replica_id % 3 + 1
        old.propose(net.payload())
        old.transfer(target)
        net.run_until(lambda: net.hosts[target].role is Role.LEADER, 3, "a handover")  # noqa: B023
        net.run(3)
        assert net.leaders() == [net.hosts[target]]
    net.agree(3)


def test_a_target_that_is_gone_is_given_up() -> None:
    net = Network(3, seed=3)
    net.agree(3)
    leader = net.leader()
    target = leader.replica_id % 3 + 1
    net.hosts[target].crash()
    leader.transfer(target)
    net.run(12)
    assert net.leaders() == [leader]
    net.agree(2)
