"""Snapshots, the core's part: who needs one, offers, the switch, and every way it goes wrong."""

from typing import Any

import pytest

from eraft.errors import InvariantViolation, ProtocolError
from eraft.raft import RaftGroup, Ready, Restored, Role
from eraft.types import ConfState, HardState, MessageKind
from tests.raft.network import Network
from tests.raft.solo import Solo, blob

APPEND_REPLY = MessageKind.APPEND_REPLY
THREE = ConfState((1, 2, 3))


def leader_with_a_peer_that_is_behind() -> Solo:
    """Replica 3 has nothing; entries up to 10 are no longer in memory."""
    solo = Solo(terms=[1] * 10, applied=10, base=(0, 0))
    solo.group.log.compact(10)
    solo.lead()
    group = solo.group
    solo.hear(MessageKind.HEARTBEAT_REPLY, 3)
    # As a peer that has lost nothing but never had anything.
    peer = group._leadership._peers[3]  # type: ignore[union-attr]
    peer.match, peer.next, peer.probing = 0, 1, True
    return solo


def needs(solo: Solo) -> list[int]:
    return [replica_id for ready in solo.settle() for replica_id in ready.snapshots]


def test_a_peer_whose_entries_are_gone_needs_a_snapshot() -> None:
    solo = leader_with_a_peer_that_is_behind()
    group = solo.group
    group.propose(b"x")
    [fetch] = [f for r in solo.settle() for f in r.fetches]
    assert (fetch.replica_id, fetch.first_index) == (3, 1)
    group.fetch_failed(3, compacted=True)
    assert needs(solo) == [3]
    assert [p.state for p in group.status().peers] == ["replicate", "snapshot"]
    # Nothing but heartbeats until it is over; and it is said once.
    group.propose(b"y")
    assert 3 not in [m.to for r in solo.settle() for m in r.messages]
    assert not needs(solo)


def offered() -> Solo:
    solo = leader_with_a_peer_that_is_behind()
    solo.group.propose(b"x")
    solo.settle()
    solo.group.fetch_failed(3, compacted=True)
    solo.settle()
    assert solo.group.offer_snapshot(3, 10, 1, b"where to get it")
    return solo


def test_an_offer() -> None:
    solo = offered()
    [offer] = solo.take().messages
    assert (offer.kind, offer.to, offer.index, offer.log_term) == (MessageKind.SNAPSHOT, 3, 10, 1)
    assert offer.entries == b"where to get it"
    assert offer.term == solo.group.term


def test_what_can_be_offered_to_whom() -> None:
    solo = offered()
    assert not solo.group.offer_snapshot(2, 10, 1), "does not need one"
    assert not solo.group.offer_snapshot(9, 10, 1), "is no peer"
    with pytest.raises(InvariantViolation, match="a snapshot holds what is applied"):
        solo.group.offer_snapshot(3, solo.group.applied + 1, 1)
    solo.group.step_down("told to")
    assert not solo.group.offer_snapshot(3, 10, 1), "leads no more"
    solo.group.snapshot_done(3, 10)
    solo.group.snapshot_failed(3)


@pytest.mark.parametrize("told", [True, False])
def test_replication_goes_on_behind_the_snapshot(told: bool) -> None:
    solo = offered()
    solo.settle()
    if told:
        solo.group.snapshot_done(3, 10)
    else:
        solo.acknowledge(3, 10)
    [message] = [m for r in solo.settle() for m in r.messages if m.to == 3]
    assert (message.kind, message.index) == (MessageKind.APPEND, 10)
    assert message.entries
    match = solo.group.status().peers[1].match_index
    assert match == (0 if told else 10), "only what the replica acknowledges counts"


def test_an_older_acknowledgement_does_not_end_it() -> None:
    solo = offered()
    solo.settle()
    solo.acknowledge(3, 4)
    assert not [m for r in solo.settle() for m in r.messages if m.to == 3]
    assert solo.group.status().peers[1].state == "snapshot"


def test_a_peer_that_has_not_got_it_is_named_again() -> None:
    solo = offered()
    solo.settle()
    solo.group.snapshot_failed(3)
    assert not needs(solo), "not at once"
    for _ in range(solo.config.election_ticks):
        solo.hear(MessageKind.HEARTBEAT_REPLY, 2)
        solo.hear(MessageKind.HEARTBEAT_REPLY, 3)
        solo.group.tick()
    solo.hear(MessageKind.HEARTBEAT_REPLY, 3)
    [fetch] = [f for r in solo.settle() for f in r.fetches]
    assert fetch.first_index == 1
    solo.group.fetch_failed(3, compacted=True)
    assert needs(solo) == [3]


def test_a_replica_that_knows_nothing_gets_one_though_the_log_is_all_there() -> None:
    solo = Solo(conf=ConfState((1, 2), (3,))).lead()
    peer = solo.group._leadership._peers[3]  # type: ignore[union-attr]
    peer.match, peer.next, peer.probing = 0, 2, True
    solo.hear(APPEND_REPLY, 3, index=0, reject=True)
    assert not needs(solo), "a refusal of an older term's append looks like this"
    solo.hear(APPEND_REPLY, 3, index=0, hint=1, reject=True)
    assert needs(solo) == [3]
    solo.hear(APPEND_REPLY, 3, index=0, hint=1, reject=True)
    assert not needs(solo), "once"


# The other side


def follower(**settings: Any) -> Solo:
    solo = Solo(terms=[1, 1, 2], applied=1, hard_state=HardState(4, 0, 1), **settings)
    solo.settle()
    return solo


def offer(solo: Solo, index: int = 9, log_term: int = 3, sender: int = 2, **fields: Any) -> Ready:
    solo.hear(MessageKind.SNAPSHOT, sender, index=index, log_term=log_term, **fields)
    return solo.take()


def test_an_offer_is_handed_out() -> None:
    solo = follower()
    ready = offer(solo, entries=b"there")
    assert ready.offer is not None
    assert (ready.offer.sender, ready.offer.index, ready.offer.log_term) == (2, 9, 3)
    assert (ready.offer.term, ready.offer.metadata) == (4, b"there")
    assert not ready.after
    assert solo.group.leader_id == 2


def test_the_switch() -> None:
    solo = follower()
    offer(solo)
    assert solo.group.restored(9, 3, ConfState((1, 2, 4)))
    group = solo.group
    assert (group.commit, group.applied, group.last_index, group.durable_index) == (9, 9, 9, 0)
    assert group.log.base_term == 3
    assert group.conf == ConfState((1, 2, 4))
    ready = solo.take()
    assert ready.restored == Restored(9, 3, ConfState((1, 2, 4)))
    assert ready.hard_state == HardState(4, 0, 9)
    assert ready.token
    assert not ready.messages
    [answer] = ready.after
    assert (answer.kind, answer.to, answer.index, answer.reject) == (APPEND_REPLY, 2, 9, False)
    group.persisted(ready.token)
    assert group.durable_index == 9
    solo.hear(MessageKind.APPEND, 2, index=9, log_term=3, commit=10, entries=blob(4))
    ready = solo.take()
    assert (ready.first_index, ready.apply) == (10, None)
    group.persisted(ready.token)
    assert solo.take().apply == (10, 10)


def test_nothing_is_applied_before_the_switch_is_durable() -> None:
    solo = follower()
    solo.hear(MessageKind.APPEND, 2, index=3, log_term=2, entries=blob(2, 2))
    old = solo.take()
    assert solo.group.restored(9, 3, THREE)
    solo.hear(MessageKind.APPEND, 2, index=9, log_term=3, commit=10, entries=blob(4))
    switch = solo.take()
    assert (switch.restored is not None, switch.first_index) == (True, 10)
    solo.group.persisted(old.token)
    assert solo.group.durable_index == 0, "what is durable of the old log says nothing of this one"
    assert solo.take().apply is None
    solo.group.persisted(switch.token)
    assert solo.group.durable_index == 10
    assert solo.take().apply == (10, 10)


@pytest.mark.parametrize(
    ("index", "log_term"), [(1, 1), (2, 1), (3, 2)], ids=["committed", "there", "last"]
)
def test_what_the_log_has_needs_no_snapshot(index: int, log_term: int) -> None:
    solo = follower()
    ready = offer(solo, index, log_term)
    assert ready.offer is None
    assert ready.after[0].index == solo.group.commit >= index
    assert solo.group.last_index == 3
    # Also if it has it only when the snapshot is here.
    assert not solo.group.restored(index, log_term, THREE)
    ready = solo.take()
    assert ready.restored is None
    assert ready.after[0].index >= index


def test_a_stale_or_doubled_snapshot_changes_nothing() -> None:
    solo = follower()
    offer(solo)
    assert solo.group.restored(9, 3, THREE)
    solo.settle()
    assert not solo.group.restored(9, 3, THREE)
    assert not solo.group.restored(5, 3, ConfState((1,)))
    ready = solo.take()
    assert ready.restored is None
    assert [m.index for m in ready.after] == [9, 9]
    assert offer(solo).offer is None
    assert solo.group.conf == THREE


def test_another_leader_may_come_in_between() -> None:
    solo = follower()
    offer(solo)
    solo.hear(MessageKind.HEARTBEAT, 3, term=5)
    assert solo.group.restored(9, 3, THREE)
    ready = solo.take()
    assert [(m.to, m.term) for m in ready.after] == [(3, 5)]
    assert ready.hard_state == HardState(5, 0, 9)


def test_without_a_leader_nobody_is_answered() -> None:
    solo = follower()
    offer(solo)
    for _ in range(30):
        solo.group.tick()
    solo.take()
    assert solo.group.role is Role.PRE_CANDIDATE
    assert solo.group.restored(9, 3, THREE)
    assert solo.group.role is Role.FOLLOWER
    assert not solo.take().after


def test_a_leader_has_everything() -> None:
    solo = Solo(terms=[1, 1]).lead()
    assert not solo.group.restored(90, 1, THREE)
    assert solo.group.last_index == 3


def test_a_divergent_tail_goes_with_the_rest() -> None:
    solo = follower()
    solo.hear(MessageKind.APPEND, 2, index=3, log_term=2, entries=blob(*[2] * 20))
    solo.settle()
    assert solo.group.last_index == 23
    assert solo.group.restored(9, 3, THREE)
    assert solo.group.last_index == 9


def test_votes_go_on_meanwhile() -> None:
    solo = follower()
    offer(solo)
    solo.hear(MessageKind.VOTE, 3, term=6, index=20, log_term=3, hint=1)
    [vote] = solo.take().after
    assert not vote.reject
    solo.hear(MessageKind.HEARTBEAT, 3)
    assert solo.group.leader_id == 3


def test_a_new_replica_gets_its_configuration() -> None:
    solo = Solo(conf=ConfState())
    solo.group.listen_to([2, 3])
    ready = offer(solo, term=4)
    assert ready.offer is not None
    assert solo.group.restored(9, 3, ConfState((2, 3), (1,)))
    assert solo.take().restored is not None
    assert solo.group.conf.members == (1, 2, 3)


def test_after_a_restart_behind_the_switch() -> None:
    solo = follower()
    assert solo.group.restored(9, 3, THREE)
    ready = solo.take()
    assert ready.hard_state is not None
    log = type(solo.group.log)(9, 3)
    again = RaftGroup(solo.config, ready.hard_state, log, 9)
    assert (again.commit, again.applied, again.durable_index) == (9, 9, 9)


@pytest.mark.parametrize(("index", "log_term"), [(0, 1), (9, 0), (9, 5), (1 << 62, 1)])
def test_offers_of_nonsense_are_refused(index: int, log_term: int) -> None:
    solo = follower()
    with pytest.raises(ProtocolError, match=f"offers a snapshot up to entry {index} of term"):
        offer(solo, index, log_term)
    assert solo.take().offer is None


@pytest.mark.parametrize(
    ("index", "term", "conf", "error"),
    [
        (9, 5, THREE, "no snapshot can end with entry 9 of term 5"),
        (9, 0, THREE, "entry 9 of term 0"),
        (0, 1, THREE, "entry 0 of term 1"),
        (1 << 62, 1, THREE, f"entry {1 << 62} of term 1"),
        (9, 3, ConfState(), "no members"),
        (9, 3, ConfState((1, 1)), "not distinct replica ids"),
        (9, 3, ConfState((1,), (1,)), "both vote and learn"),
    ],
)
def test_snapshots_of_nonsense_are_refused(
    index: int, term: int, conf: ConfState, error: str
) -> None:
    solo = follower()
    with pytest.raises(ProtocolError, match=error):
        solo.group.restored(index, term, conf)
    assert solo.group.last_index == 3


def test_only_what_is_applied_is_compacted() -> None:
    solo = Solo(terms=[1, 1, 1], applied=2)
    with pytest.raises(InvariantViolation, match="only what is applied is compacted: 3"):
        solo.group.compact(3)
    solo.group.compact(2)
    solo.group.compact(1)
    assert solo.group.log.base_index == 2


def test_a_refusal_says_what_is_committed() -> None:
    """Else voters that lack only that knowledge can wait for a replica that votes no more."""
    solo = Solo(terms=[1, 1, 1])
    solo.group.campaign()
    solo.take()
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, term=1, commit=3, log_term=2, reject=True)
    assert solo.group.commit == 0, "not the same entry"
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, term=1, commit=4, log_term=1, reject=True)
    assert solo.group.commit == 0, "not there"
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, term=1, commit=2, log_term=1, reject=True)
    assert solo.group.commit == 2
    assert solo.group.role is Role.PRE_CANDIDATE
    other = Solo(terms=[1, 1, 1], applied=2)
    other.hear(MessageKind.PRE_VOTE, 3, term=2, index=1, log_term=1)
    [refusal] = other.take().messages
    assert (refusal.reject, refusal.commit, refusal.log_term) == (True, 2, 1)


def test_a_follower_that_slept_gets_a_snapshot_and_a_new_one_too() -> None:
    net = Network(3, seed=6, tail_bytes=100)
    net.flush_share = net.compact_share = 1.0
    net.agree(3)
    leader = net.leader()
    sleeper = net.hosts[leader.replica_id % 3 + 1]
    sleeper.crash()
    for _ in range(40):
        net.agree(2)
    sleeper.start()
    net.add_host(ConfState())
    net.agree(3)
    assert net.restored == 1
