"""Changes of the members through the log: when they are taken, and what they change."""

import pytest

from eraft._impl import log as entries
from eraft.errors import ConfChangeRefused, InvariantViolation, NotLeader, ProtocolError
from eraft.raft import RaftGroup, Role
from eraft.raft.confchange import LEAVE_JOINT, Change, ChangeKind, ConfChange, Transition, encode
from eraft.types import ConfState, EntryKind, HardState, MessageKind
from tests.raft.network import Network
from tests.raft.solo import Solo, blob

CONF_CHANGE = EntryKind.CONF_CHANGE


def change(*changes: tuple[ChangeKind, int], how: Transition = Transition.AUTO) -> ConfChange:
    return ConfChange(tuple(Change(*one) for one in changes), how)


def voter(replica_id: int) -> ConfChange:
    return change((ChangeKind.ADD_VOTER, replica_id))


def learner(replica_id: int) -> ConfChange:
    return change((ChangeKind.ADD_LEARNER, replica_id))


def remove(replica_id: int) -> ConfChange:
    return change((ChangeKind.REMOVE, replica_id))


def made(solo: Solo, what: ConfChange, *peers: int) -> None:
    """The change is proposed, acknowledged by `peers` and applied."""
    index = solo.group.propose_conf_change(what)
    solo.settle()
    for peer in peers:
        solo.acknowledge(peer, index)
    solo.settle()
    assert solo.group.applied >= index


def test_a_change_takes_effect_when_it_is_applied() -> None:
    solo = Solo().lead()
    group = solo.group
    index = group.propose_conf_change(voter(4))
    assert group.conf == ConfState((1, 2, 3))
    assert group.log.kind(index) == CONF_CHANGE
    solo.settle()
    assert group.conf == ConfState((1, 2, 3))
    solo.acknowledge(2, index)
    ready = solo.take_apply()
    assert ready.apply == (index, index)
    assert group.conf == ConfState((1, 2, 3))
    assert group.apply_conf_change(index, group.log.payload(index)) == ConfState((1, 2, 3, 4))
    group.applied_to(index)
    assert [m.to for m in solo.take().messages if m.kind == MessageKind.APPEND] == [4]
    # Two of four are no majority.
    index = group.propose(b"x")
    solo.settle()
    solo.acknowledge(2, index)
    assert group.commit == index - 1
    solo.acknowledge(4, index)
    assert group.commit == index


def test_one_change_at_a_time() -> None:
    solo = Solo().lead()
    index = solo.group.propose_conf_change(learner(4))
    with pytest.raises(ConfChangeRefused, match=f"index {index} may be under way, applied is 1"):
        solo.group.propose_conf_change(learner(5))
    solo.settle()
    solo.acknowledge(2, index)
    ready = solo.take_apply()
    with pytest.raises(ConfChangeRefused, match="may be under way"):
        solo.group.propose_conf_change(learner(5))
    assert ready.apply
    solo.apply(*ready.apply)
    solo.group.propose_conf_change(learner(5))


def test_no_change_before_the_first_entry_of_the_term_is_committed() -> None:
    """Pitfall: an earlier leader's change may still be open (dissertation, 4.1, erratum)."""
    solo = Solo(terms=[1, 1], applied=2)
    group = solo.group
    group.campaign()
    for peer in (2, 3):
        solo.hear(
            MessageKind.PRE_VOTE_REPLY, peer, term=group.term + (group.role is not Role.CANDIDATE)
        )
    solo.settle()
    solo.hear(MessageKind.VOTE_REPLY, 2)
    solo.settle()
    assert group.role is Role.LEADER
    with pytest.raises(ConfChangeRefused, match="no entry of term 2 is committed"):
        group.propose_conf_change(voter(4))
    solo.acknowledge(2, 3)
    group.propose_conf_change(voter(4))


def test_only_the_leader_changes_and_only_what_is_possible() -> None:
    with pytest.raises(NotLeader):
        Solo().group.propose_conf_change(voter(4))
    solo = Solo().lead()
    last = solo.group.last_index
    with pytest.raises(ConfChangeRefused, match="not joint"):
        solo.group.propose_conf_change(LEAVE_JOINT)
    with pytest.raises(ConfChangeRefused, match="removes every voter"):
        solo.group.propose_conf_change(change(*[(ChangeKind.REMOVE, i) for i in (1, 2, 3)]))
    assert solo.group.last_index == last
    solo.group.propose_conf_change(voter(4))


def test_a_joint_configuration_needs_both_and_is_left_by_itself() -> None:
    solo = Solo().lead()
    group = solo.group
    made(solo, change((ChangeKind.REMOVE, 3), (ChangeKind.ADD_VOTER, 4)), 2)
    assert group.conf == ConfState((1, 2, 4), (), (1, 2, 3), auto_leave=True)
    leave = group.last_index
    assert group.log.kind(leave) == CONF_CHANGE
    assert group.log.payload(leave) == encode(LEAVE_JOINT)
    for peer in (3, 4):
        solo.acknowledge(peer, leave)
        solo.settle()
    assert group.conf == ConfState((1, 2, 4))
    assert group.last_index == leave


def test_one_half_alone_commits_nothing() -> None:
    solo = Solo().lead()
    group = solo.group
    what = [(ChangeKind.ADD_VOTER, i) for i in (4, 5)] + [(ChangeKind.REMOVE, i) for i in (2, 3)]
    made(solo, change(*what, how=Transition.JOINT_EXPLICIT), 2, 3)
    assert group.conf == ConfState((1, 4, 5), (), (1, 2, 3))
    index = group.propose(b"x")
    solo.settle()
    solo.acknowledge(4, index)
    solo.acknowledge(5, index)
    assert group.commit == index - 1
    solo.acknowledge(2, index)
    assert group.commit == index
    assert group.last_index == index, "left only when told to"
    group.propose_conf_change(LEAVE_JOINT)


def test_a_new_leader_leaves_the_joint_configuration() -> None:
    conf = ConfState((1, 2, 4), (), (1, 2, 3), auto_leave=True)
    solo = Solo(terms=[1], applied=1, conf=conf).lead()
    assert solo.group.conf == ConfState((1, 2, 4)) or solo.group.last_index == 3
    for peer in (2, 3):
        solo.acknowledge(peer, 3)
    solo.settle()
    assert solo.group.conf == ConfState((1, 2, 4))


def test_an_election_needs_both_halves() -> None:
    solo = Solo(conf=ConfState((1, 4, 5), (), (1, 2, 3)))
    group = solo.group
    group.campaign()
    assert [m.to for m in solo.take().messages] == [2, 3, 4, 5]
    for peer in (4, 5):
        solo.hear(MessageKind.PRE_VOTE_REPLY, peer, term=1)
    assert group.role is Role.PRE_CANDIDATE
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, term=1)
    assert group.role is Role.CANDIDATE


def test_learners_receive_and_decide_nothing() -> None:
    solo = Solo(conf=ConfState((1, 2, 3), (4,))).lead()
    group = solo.group
    index = group.propose(b"x")
    appends = [m.to for r in solo.settle() for m in r.messages if m.kind == MessageKind.APPEND]
    assert appends == [2, 3, 4]
    solo.acknowledge(4, index)
    assert group.commit == index - 1
    # Nor does it keep a leader in office.
    for _ in range(2 * solo.config.election_ticks):
        group.tick()
        if group.role is Role.LEADER:
            solo.hear(MessageKind.HEARTBEAT_REPLY, 4)
    assert group.role is Role.FOLLOWER


def test_a_learner_does_not_campaign_but_answers_for_the_candidate_to_judge() -> None:
    solo = Solo(conf=ConfState((2, 3), (1,)))
    for _ in range(50):
        solo.group.tick()
    solo.group.campaign()
    assert solo.group.role is Role.FOLLOWER
    assert not solo.take().messages
    solo.hear(MessageKind.VOTE, 2, term=1)
    assert [m.reject for m in solo.take().after] == [False]


def test_candidates_ask_voters_only() -> None:
    solo = Solo(conf=ConfState((1, 2, 3), (4,)))
    solo.group.campaign()
    assert [m.to for m in solo.take().messages] == [2, 3]


def test_a_learner_becomes_a_voter_with_what_it_has() -> None:
    solo = Solo(conf=ConfState((1, 2), (4,))).lead()
    group = solo.group
    solo.acknowledge(4, group.last_index)
    made(solo, voter(4), 2)
    index = group.propose(b"x")
    solo.settle()
    solo.acknowledge(4, index)
    assert group.commit == index


def test_a_removed_leader_steps_down_once_that_is_committed() -> None:
    solo = Solo().lead()
    group = solo.group
    index = group.propose_conf_change(remove(1))
    solo.settle()
    solo.acknowledge(2, index)
    assert group.role is Role.LEADER, "its own half of the old majority still counts"
    solo.acknowledge(3, index)
    ready = solo.take_apply()
    assert ready.apply
    solo.apply(*ready.apply)
    assert group.role is Role.FOLLOWER
    last = solo.take()
    assert last.role_changes[-1].why == "is no voter any more"
    assert {(m.to, m.commit) for m in last.messages} == {(2, index), (3, index)}
    for _ in range(50):
        group.tick()
    assert group.role is Role.FOLLOWER, "who is not a member does not campaign"


def test_nobody_hears_of_a_change_before_the_leader_s_disk_knows_that_it_is_committed() -> None:
    """Of two voters one is removed, hears so and is gone; the other one must not need it again."""
    solo = Solo(2).lead()
    group = solo.group
    index = group.propose_conf_change(remove(2))
    solo.settle()
    before = HardState(group.term, group.vote, group.commit)
    solo.acknowledge(2, index)
    assert group.commit == index
    ready = solo.take()
    assert ready.hard_state == HardState(group.term, group.vote, index)
    assert ready.apply is None
    group.read_index()
    for _ in range(4):
        group.tick()
    group.tell_commit()
    solo.hear(MessageKind.PRE_VOTE, 2, term=group.term, index=1, log_term=1)
    told = [*ready.messages, *solo.take().messages]
    assert {m.kind for m in told} == {MessageKind.HEARTBEAT, MessageKind.PRE_VOTE_REPLY}
    assert all(m.commit < index for m in told), "a crash now leads back to the two of them"
    for state, leads in ((before, False), (ready.hard_state, True)):
        again = RaftGroup(solo.config, state, copy_of(group.log), 1)
        first, last = again.ready().apply or (0, -1)
        for at in range(first, last + 1):
            if again.log.kind(at) == CONF_CHANGE:
                again.apply_conf_change(at, again.log.payload(at))
        again.applied_to(max(last, 1))
        again.campaign()
        while again.has_ready():
            token = again.ready().token
            if token:
                again.persisted(token)
        assert (again.role is Role.LEADER) is leads
    group.persisted(ready.token)
    ready = solo.take()
    assert ready.apply == (index, index)
    group.tell_commit()
    assert {m.commit for m in solo.take().messages} == {index}


def test_a_leader_that_steps_down_does_not_tell_either_what_its_disk_does_not_know() -> None:
    """Its disk stalls with the commit index on the way: that is when it steps down."""
    solo = Solo(2).lead()
    group = solo.group
    index = group.propose_conf_change(remove(2))
    solo.settle()
    group.propose(b"longer than what the other one has")
    solo.acknowledge(2, index)
    assert group.commit == index
    tokens = [solo.take().token]
    group.step_down("the disk does not answer")
    solo.hear(MessageKind.PRE_VOTE, 2, term=group.term + 1, index=index, log_term=1)
    ready = solo.take()
    assert ready.apply is None
    (refusal,) = ready.messages
    assert refusal.reject and refusal.commit < index, "a crash now leads back to the two of them"
    group.persisted(max(*tokens, ready.token))
    assert solo.take().apply == (index, index)
    solo.hear(MessageKind.PRE_VOTE, 2, term=group.term + 1, index=index, log_term=1)
    assert {m.commit for m in solo.take().messages} == {index}


def copy_of(log: entries.EntryLog) -> entries.EntryLog:
    """What a restart finds of it."""
    copy = entries.EntryLog()
    copy.extend(1, log.slice(1, log.last_index, 1 << 30)[0])
    return copy


def test_messages_of_a_removed_replica_are_refused() -> None:
    solo = Solo().lead()
    made(solo, remove(3), 2)
    for kind in (MessageKind.APPEND_REPLY, MessageKind.VOTE, MessageKind.PRE_VOTE):
        with pytest.raises(ProtocolError, match=r"replica 1 \(voters 1 2\): refused.* from 3 to 1"):
            solo.hear(kind, 3, term=9)
    solo.group.listen_to([2, 3, 4])
    with pytest.raises(ProtocolError, match="from 3 to 1"):
        solo.hear(MessageKind.VOTE, 3, term=9)
    assert solo.group.term < 9


def test_removed_replicas_are_remembered_for_as_long_as_they_are_named() -> None:
    solo = Solo().lead()
    for replica_id in range(4, 40):
        solo.group.listen_to([2, 3, replica_id])
        made(solo, learner(replica_id), 2)
        made(solo, remove(replica_id), 2)
        with pytest.raises(ProtocolError, match=f"from {replica_id} to 1"):
            solo.hear(MessageKind.VOTE, replica_id, term=9)
        assert solo.group._removed == {replica_id}


def test_who_was_issued_but_is_not_known_yet_may_lead_and_ask() -> None:
    solo = Solo(terms=[1])
    for kind in (MessageKind.APPEND, MessageKind.VOTE, MessageKind.HEARTBEAT):
        with pytest.raises(ProtocolError, match="from 4 to 1"):
            solo.hear(kind, 4, term=2)
    solo.group.listen_to([1, 2, 3, 4])
    solo.hear(MessageKind.APPEND, 4, term=2, index=1, log_term=1, entries=blob(2))
    assert solo.group.leader_id == 4
    assert [m.to for m in solo.take().after] == [4]
    for kind in (MessageKind.APPEND_REPLY, MessageKind.VOTE_REPLY, MessageKind.HEARTBEAT_REPLY):
        with pytest.raises(ProtocolError, match="from 4 to 1"):
            solo.hear(kind, 4)


def test_no_campaign_with_a_committed_change_that_is_not_applied() -> None:
    """Its majority under the old configuration need not meet one under the newest."""
    solo = Solo(terms=[1])
    group = solo.group
    entries = Solo().group.log
    entries.append(1, CONF_CHANGE, encode(voter(4)))
    bytes_of_change, _ = entries.slice(1, 1, 1000)
    solo.hear(MessageKind.APPEND, 2, term=1, index=1, log_term=1, entries=bytes_of_change)
    ready = solo.take()
    group.persisted(ready.token)
    group.campaign()
    assert group.role is Role.PRE_CANDIDATE, "not committed yet"
    solo.hear(MessageKind.HEARTBEAT, 2, commit=2)
    ready = solo.take()
    assert ready.apply == (1, 2)
    group.campaign()
    assert group.role is Role.FOLLOWER
    solo.apply(1, 2)
    group.campaign()
    assert group.role is Role.PRE_CANDIDATE


def test_a_change_ends_a_campaign() -> None:
    entries = Solo().group.log
    entries.append(1, CONF_CHANGE, encode(voter(4)))
    solo = Solo(size=3)
    solo.hear(MessageKind.APPEND, 2, term=1, commit=1, entries=entries.slice(1, 1, 1000)[0])
    ready = solo.take()
    solo.group.persisted(ready.token)
    ready = solo.take()
    assert ready.apply == (1, 1)
    solo.apply(1, 1)
    assert solo.group.conf == ConfState((1, 2, 3, 4))


def test_changes_are_applied_once_and_in_order() -> None:
    solo = Solo().lead()
    index = solo.group.propose_conf_change(learner(4))
    payload = solo.group.log.payload(index)
    with pytest.raises(InvariantViolation, match="changes are applied in order"):
        solo.group.apply_conf_change(index, payload)
    solo.settle()
    solo.acknowledge(2, index)
    solo.take_apply()
    solo.group.apply_conf_change(index, payload)
    with pytest.raises(InvariantViolation, match="changes are applied in order"):
        solo.group.apply_conf_change(index, payload)


@pytest.mark.parametrize("payload", [b"", b"nonsense", encode(LEAVE_JOINT)])
def test_an_impossible_change_in_the_log_changes_nothing(payload: bytes) -> None:
    entries = Solo().group.log
    entries.append(1, CONF_CHANGE, payload)
    solo = Solo()
    solo.hear(MessageKind.APPEND, 2, term=1, commit=1, entries=entries.slice(1, 1, 1000)[0])
    solo.settle()
    assert solo.group.applied == 1
    assert solo.group.conf == ConfState((1, 2, 3))


def test_a_replica_without_a_configuration_asks_for_a_snapshot() -> None:
    solo = Solo(conf=ConfState())
    solo.group.listen_to([2, 3])
    solo.hear(MessageKind.APPEND, 2, term=3, index=7, log_term=2)
    [reply] = solo.take().messages
    assert (reply.kind, reply.index, reply.reject) == (MessageKind.APPEND_REPLY, 0, True)
    for _ in range(50):
        solo.group.tick()
    assert solo.group.role is Role.FOLLOWER


def test_after_a_restart_what_was_not_applied_is_applied_again() -> None:
    solo = Solo()
    solo.group.log.append(1, CONF_CHANGE, encode(voter(4)))
    log = solo.group.log
    again = type(solo.group)(solo.config, HardState(1, 0, 1), log, 0)
    ready = again.ready()
    assert ready.apply == (1, 1)
    assert again.apply_conf_change(1, log.payload(1)) == ConfState((1, 2, 3, 4))


def test_a_group_moves_to_other_replicas_while_it_works() -> None:
    net = Network(3, seed=4)
    net.agree(3)
    for _ in range(3):
        net.add_host(net.founding)
    for replica_id in (4, 5, 6):
        net.leaders()[-1].change(learner(replica_id))
        net.agree(1)
    net.leaders()[-1].change(
        change(
            *[(ChangeKind.ADD_VOTER, i) for i in (4, 5, 6)],
            *[(ChangeKind.REMOVE, i) for i in (1, 2, 3)],
        )
    )
    net.run(60)
    for replica_id in (1, 2, 3):
        net.hosts[replica_id].crash()
    net.agree(3)
    assert net.leaders()[-1].group.conf == ConfState((4, 5, 6))  # type: ignore[union-attr]


def test_a_removed_replica_disturbs_nobody() -> None:
    net = Network(3, seed=5)
    net.agree(3)
    leader = net.leader()
    away = next(i for i in net.hosts if i != leader.replica_id)
    net.isolate(away)
    leader.change(remove(away))
    net.agree(2)
    net.heal()
    net.run(100)
    term = leader.group.term  # type: ignore[union-attr]
    assert net.leaders() == [leader]
    net.run(100)
    assert net.leaders() == [leader]
    assert leader.group.term == term  # type: ignore[union-attr]
    assert net.refused > 0


def test_a_campaign_ends_when_a_refusal_shows_a_change_that_is_not_applied() -> None:
    solo = Solo(size=3)
    solo.group.log.append(1, CONF_CHANGE, encode(voter(4)))
    log = solo.group.log
    group = solo.group = type(solo.group)(solo.config, HardState(1), log, 0)
    group.campaign()
    assert group.role is Role.PRE_CANDIDATE
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, commit=1, log_term=1, reject=True)
    assert (group.role, group.commit) == (Role.FOLLOWER, 1)
    solo.settle()
    assert group.conf == ConfState((1, 2, 3, 4))
    group.campaign()
    assert group.role is Role.PRE_CANDIDATE
