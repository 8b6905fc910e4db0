"""The leader's side of replication, message by message."""

import sys

import pytest

from eraft.errors import Overloaded, ProtocolError
from eraft.raft import Fetch, Role
from eraft.raft.progress import Progress
from eraft.types import EntryKind, HardState, Message, MessageKind
from tests.raft.solo import Solo, appends, blob, kinds, terms

HEARTBEAT_REPLY = MessageKind.HEARTBEAT_REPLY


def test_a_term_begins_with_an_empty_entry() -> None:
    solo = Solo().lead()
    assert solo.group.log.kind(1) == EntryKind.NOOP
    assert solo.group.log.payload(1) == b""


def test_entries_of_earlier_terms_are_not_committed_by_counting() -> None:
    """Paper, figure 8: a majority has entry 2 of term 2, and yet it may be replaced."""
    solo = Solo(size=5, terms=[1, 2], hard_state=HardState(3))
    group = solo.group
    group.campaign()
    for peer in (2, 3):
        solo.hear(MessageKind.PRE_VOTE_REPLY, peer, term=4)
    solo.settle()
    for peer in (2, 3):
        solo.hear(MessageKind.VOTE_REPLY, peer)
    solo.settle()
    assert group.role is Role.LEADER
    for peer in (2, 3, 4):
        solo.acknowledge(peer, 2)
    assert group.commit == 0
    for peer in (2, 3):
        solo.acknowledge(peer, 3)
    assert group.commit == 3, "committed together with the first entry of the own term"


def test_a_peer_that_probes_gets_one_append_at_a_time() -> None:
    solo = Solo(terms=[1, 1])
    solo.group.campaign()
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, term=2)
    solo.settle()
    solo.hear(MessageKind.VOTE_REPLY, 2)
    first = appends(solo.take().messages)
    assert [(m.index, m.log_term) for m in first] == [(2, 1)]
    solo.group.propose(b"x")
    assert not appends(solo.take().messages)
    solo.acknowledge(2, 3)
    assert [m.index for m in appends(solo.take().messages)] == [3]


def test_the_window_bounds_what_is_in_flight_and_batches_grow() -> None:
    solo = Solo(appends_in_flight=2).lead()
    group = solo.group
    sent = []
    for _ in range(10):
        group.propose(b"x")
        sent += appends(solo.take().messages)
    assert [m.index for m in sent] == [1, 2]
    solo.acknowledge(2, 2)
    [batch] = appends(solo.take().messages)
    assert batch.index == 3
    assert len(batch.entries) == 8 * len(blob(1)), "all that was proposed meanwhile"
    status = {peer.replica_id: peer for peer in group.status().peers}
    assert status[2].appends_in_flight == 2
    assert (status[2].match_index, status[2].next_index) == (2, 12)
    assert status[3].appends_in_flight == 2


def test_a_slow_peer_costs_no_memory() -> None:
    """What is applied leaves the memory whatever the peers have; they are served from disk."""
    solo = Solo(tail_bytes=1000).lead()
    group = solo.group
    for _ in range(300):
        index = group.propose(bytes(100))
        token = solo.take().token
        group.persisted(token)
        solo.acknowledge(2, index)  # replica 3 never answers
        ready = solo.take()
        assert ready.apply is not None
        group.applied_to(ready.apply[1])
        assert group.log.size_bytes <= 1000 + 113
    assert group.log.base_index > 290
    assert {p.replica_id: p.appends_in_flight for p in group.status().peers}[3] == 2


def test_append_messages_are_bounded() -> None:
    solo = Solo(append_limit_bytes=3 * len(blob(1))).lead()
    group = solo.group
    for _ in range(7):
        group.propose(b"x")
    sent = appends(solo.take().messages)
    assert [(m.index, len(m.entries) // len(blob(1))) for m in sent] == [(1, 3), (4, 3)]
    group.propose(bytes(1000))
    solo.take()
    solo.acknowledge(2, 7)
    sent = appends(solo.take().messages)
    assert [m.index for m in sent] == [7, 8]
    assert len(sent[1].entries) == 1013, "one entry at least"


def test_a_gap_makes_the_leader_ask_again_from_what_is_certain() -> None:
    solo = Solo().lead()
    solo.group.propose(b"x")
    solo.take()
    solo.group.propose(b"y")
    solo.take()
    # The first append was lost, so the second does not fit.
    solo.acknowledge(2, 2, reject=True, hint=1, log_term=1)
    [again] = appends(solo.take().messages)
    assert again.index == 1
    assert len(again.entries) == 2 * len(blob(1))
    # An answer to the lost one's duplicate comes late.
    solo.acknowledge(2, 1, reject=True, hint=0)
    assert not appends(solo.take().messages)
    solo.acknowledge(2, 3)
    assert solo.group.commit == 1
    assert [m.index for m in appends(solo.take().messages)] == []


def follower_of(terms_of_leader: list[int], term: int, **settings: int) -> Solo:
    """A leader in `term` with this log, whose peers have not answered yet."""
    solo = Solo(terms=terms_of_leader, hard_state=HardState(term - 1), **settings)
    solo.group.campaign()
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, term=term)
    solo.settle()
    solo.hear(MessageKind.VOTE_REPLY, 2)
    return solo


def test_divergent_terms_are_stepped_over_on_both_sides() -> None:
    leader = follower_of([1] * 3 + [5] * 40 + [6] * 40, 8)
    follower = Solo(terms=[1] * 3 + [4] * 60 + [7] * 5, hard_state=HardState(7))
    rounds = 0
    leader_ready = leader.take()
    while True:
        sent = appends(leader_ready.messages)
        assert len(sent) == 1
        rounds += 1
        follower.group.step(
            Message(**{f: getattr(sent[0], f) for f in Message.__slots__} | {"to": 1, "sender": 2})
        )
        ready = follower.take()
        [reply] = [*ready.messages, *ready.after]
        leader.group.step(
            Message(**{f: getattr(reply, f) for f in Message.__slots__} | {"to": 1, "sender": 2})
        )
        if not reply.reject:
            break
        leader_ready = leader.take()
    assert rounds <= 4
    assert terms(follower) == terms(leader)


def test_what_a_follower_committed_bounds_the_search_below_the_memory() -> None:
    leader = Solo(terms=[3, 3], base=(50, 3), applied=50, hard_state=HardState(3))
    leader.group.campaign()
    leader.hear(MessageKind.PRE_VOTE_REPLY, 2, term=4)
    leader.settle()
    leader.hear(MessageKind.VOTE_REPLY, 2)
    [first] = appends(leader.take().messages)
    assert first.index == 52
    # The follower has 40 entries, of which 30 are committed and the rest of a term nobody else had.
    leader.acknowledge(2, 52, reject=True, hint=40, log_term=2, commit=30)
    ready = leader.take()
    assert ready.fetches == [Fetch(2, 31, leader.config.append_limit_bytes)]


def leader_without_memory() -> Solo:
    """Leads term 2, all 11 entries are applied and on disk only; replica 2 has 3 or 4 of them."""
    leader = follower_of([1] * 10, 2, tail_bytes=1, election_ticks=10)
    leader.settle()
    leader.acknowledge(3, 11)
    leader.settle()
    assert leader.group.log.base_index == 11
    leader.acknowledge(2, 10, reject=True, hint=4, log_term=1, commit=3)
    return leader


def test_entries_below_the_memory_come_from_disk() -> None:
    leader = leader_without_memory()
    group = leader.group
    assert leader.take().fetches == [Fetch(2, 4, leader.config.append_limit_bytes)]
    group.propose(b"x")
    ready = leader.take()
    assert not ready.fetches, "asked once"
    assert not appends(ready.messages), "and nothing else is sent meanwhile"
    group.fetched(2, 3, 1, blob(1))
    group.fetched(3, 4, 1, blob(1))
    assert not appends(leader.take().messages), "not what was asked for"
    group.fetched(2, 4, 1, blob(1, 1, 1))
    [message] = appends(leader.take().messages)
    assert (message.index, message.log_term, message.entries) == (3, 1, blob(1, 1, 1))
    assert message.commit == 11
    leader.acknowledge(2, 6)
    assert leader.take().fetches == [Fetch(2, 7, leader.config.append_limit_bytes)]


@pytest.mark.parametrize("empty", [False, True])
def test_a_fetch_that_fails_is_tried_again_when_the_peer_is_heard(empty: bool) -> None:
    leader = leader_without_memory()
    group = leader.group
    assert len(leader.take().fetches) == 1
    if empty:
        group.fetched(2, 4, 1, b"")
    else:
        group.fetch_failed(2)
    leader.hear(HEARTBEAT_REPLY, 2)
    assert not leader.take().fetches, "not at once"
    for _ in range(10):
        group.tick()
        leader.hear(HEARTBEAT_REPLY, 3)
    assert not leader.take().fetches, "nor for a peer that is away"
    leader.hear(HEARTBEAT_REPLY, 2)
    assert len(leader.take().fetches) == 1


def test_a_broken_link_forgets_the_fetch() -> None:
    leader = leader_without_memory()
    group = leader.group
    assert len(leader.take().fetches) == 1
    group.unreachable(2)
    group.fetched(2, 4, 1, blob(1))
    group.fetch_failed(2)
    assert not appends(leader.take().messages)
    leader.hear(HEARTBEAT_REPLY, 2)
    assert len(leader.take().fetches) == 1
    group.fetched(2, 4, 1, blob(*[1] * 7))
    assert len(appends(leader.take().messages)) == 1


def test_a_lost_append_is_sent_again() -> None:
    solo = Solo(election_ticks=10, heartbeat_ticks=2).lead()
    group = solo.group
    group.propose(b"x")
    assert len(appends(solo.take().messages)) == 1
    again = []
    for tick in range(1, 14):
        group.tick()
        solo.hear(HEARTBEAT_REPLY, 2)
        again += [(tick, m.index) for m in appends(solo.take().messages)]
    assert again == [(10, 1)], "after a while, and not at every heartbeat"
    solo.acknowledge(2, 2)
    assert group.commit == 1


def test_a_broken_link_stops_appends_until_the_peer_answers() -> None:
    solo = Solo().lead()
    group = solo.group
    group.propose(b"x")
    solo.take()
    group.unreachable(2)
    group.propose(b"y")
    assert not appends(solo.take().messages)
    solo.hear(HEARTBEAT_REPLY, 2)
    [again] = appends(solo.take().messages)
    assert again.index == 1
    assert len(again.entries) == 2 * len(blob(1))


def test_what_comes_too_late_for_a_leadership_is_ignored() -> None:
    leader = leader_without_memory()
    leader.take()
    leader.group.step_down("test")
    leader.group.unreachable(2)
    leader.group.fetch_failed(2)
    leader.group.fetched(2, 4, 1, blob(1))
    assert not leader.take().messages


def test_a_peer_cannot_acknowledge_what_does_not_exist() -> None:
    solo = Solo().lead()
    with pytest.raises(ProtocolError, match="replica 2 acknowledges entry 9"):
        solo.acknowledge(2, 9)
    assert solo.group.commit == 1


@pytest.mark.parametrize("hint", [0, 5, 2**63])
@pytest.mark.parametrize("log_term", [0, 1, 2**63])
@pytest.mark.parametrize("index", [0, 1, 2, 2**63])
@pytest.mark.parametrize("commit", [0, 2**63])
def test_nonsense_rejections_do_no_harm(hint: int, log_term: int, index: int, commit: int) -> None:
    for solo in (Solo().lead(), follower_of([1] * 3, 2)):
        solo.settle()
        solo.acknowledge(2, index, reject=True, hint=hint, log_term=log_term, commit=commit)
        solo.settle()
        peer = solo.group.status().peers[0]
        assert 1 <= peer.next_index <= solo.group.last_index + 1


def test_acknowledgements_of_former_leaderships_are_ignored() -> None:
    solo = Solo().lead()
    index = solo.group.propose(b"x")
    solo.settle()
    solo.group.step_down("test")
    solo.acknowledge(2, index)
    assert solo.group.commit == index - 1
    solo.group.campaign()
    solo.hear(MessageKind.PRE_VOTE_REPLY, 2, term=2)
    solo.settle()
    solo.hear(MessageKind.VOTE_REPLY, 2)
    solo.settle()
    assert solo.group.role is Role.LEADER
    solo.acknowledge(2, index + 1, term=1)
    solo.acknowledge(3, index + 1, term=1)
    assert solo.group.commit == index - 1


def test_heartbeats_are_sent_in_time_and_name_only_what_matches() -> None:
    solo = Solo(heartbeat_ticks=3).lead()
    solo.group.propose(b"x")
    solo.settle()
    solo.acknowledge(2, 2)
    solo.settle()
    assert solo.group.commit == 2
    sent = []
    for tick in range(1, 7):
        solo.group.tick()
        sent += [(tick, m.to, m.commit) for m in solo.take().messages]
    assert sent == [(3, 2, 2), (3, 3, 1), (6, 2, 2), (6, 3, 1)]


def test_a_leader_without_a_quorum_steps_down() -> None:
    solo = Solo(size=5, election_ticks=10).lead()
    for tick in range(1, 21):
        solo.group.tick()
        if tick == 12:
            solo.hear(HEARTBEAT_REPLY, 2)
            solo.acknowledge(4, 1)
    assert solo.group.role is Role.LEADER
    solo.hear(HEARTBEAT_REPLY, 2)
    for _ in range(10):
        solo.group.tick()
    assert solo.group.role is Role.FOLLOWER
    assert solo.group.term == 1
    assert solo.settle()[-1].role_changes[-1].why == "no quorum was heard of"


def test_proposals_are_handed_out_once_and_shared() -> None:
    solo = Solo().lead()
    assert [solo.group.propose(b"a"), solo.group.propose(b"b")] == [2, 3]
    ready = solo.take()
    assert (ready.first_index, len(ready.entries)) == (2, 2 * len(blob(1)))
    assert all(m.entries is ready.entries for m in ready.messages)
    assert not solo.group.has_ready()
    empty = solo.take()
    assert (empty.token, empty.entries, kinds(empty.messages)) == (0, b"", [])


# Progress alone


def test_progress_moves_forward_by_acceptances_only() -> None:
    peer = Progress(2, 11, 2)
    peer.sent(12, 7, 0)
    assert (peer.next, peer.in_flight, peer.probing) == (11, [12], True)
    peer.rejected(10, 8)
    assert (peer.next, peer.in_flight) == (8, [])
    peer.sent(12, 7, 1)
    peer.rejected(10, 3)
    assert peer.next == 8, "an answer to the question before"
    peer.rejected(7, 99)
    assert peer.next == 7, "at least one step back"
    peer.sent(12, 7, 2)
    peer.accepted(12, 3)
    assert (peer.match, peer.next, peer.probing, peer.window) == (12, 13, False, 2)
    peer.sent(13, 7, 4)
    peer.sent(15, 7, 5)
    assert (peer.next, peer.in_flight, peer.waiting_since) == (16, [13, 15], 4)
    peer.accepted(13, 6)
    assert (peer.next, peer.in_flight, peer.waiting_since) == (16, [15], 6)
    peer.accepted(12, 7)
    assert (peer.match, peer.in_flight) == (13, [15])
    peer.rejected(13, 1)
    assert (peer.next, peer.probing) == (16, False), "what was accepted is not refused later"
    peer.rejected(15, 1)
    assert (peer.next, peer.probing, peer.in_flight) == (14, True, [])


def test_bytes_in_flight_are_bounded_too() -> None:
    solo = Solo(appends_in_flight=5, bytes_in_flight=2_000).lead()
    group = solo.group
    sent: list[int] = []
    for _ in range(6):
        group.propose(b"x" * 987)
        sent += [m.index for r in solo.settle() for m in r.messages if m.to == 3]
    assert len(sent) == 2
    assert [p.bytes_in_flight for p in group.status().peers] == [2_000, 2_000]
    solo.acknowledge(3, sent[0] + 1)
    more = [m for r in solo.settle() for m in r.messages if m.to == 3]
    # What waited goes out together: a message carries what is there, whatever is in flight.
    assert [(m.index, len(m.entries)) for m in more] == [(sent[1] + 1, 4_000)]
    solo.acknowledge(3, group.last_index)
    assert group.status().peers[1].bytes_in_flight == 0


def test_what_is_not_committed_is_bounded() -> None:
    solo = Solo(uncommitted_bytes=1_000).lead()
    group = solo.group
    first = group.last_index
    with pytest.raises(Overloaded, match="more than 1000 bytes of the log are not committed"):
        for _ in range(100):
            group.propose(b"x" * 87)
            solo.settle()
    last = group.last_index
    assert last - first == 11
    solo.acknowledge(2, last - 5)
    group.propose(b"x")
    assert group.last_index == last + 1


def test_a_stopped_follower_costs_bounded_memory() -> None:
    """Pitfall: a slow follower that makes the leader hold unbounded memory."""
    tail, message = 10_000, 1_000
    solo = Solo(tail_bytes=tail, append_limit_bytes=message, bytes_in_flight=3_000)
    solo.lead()
    group = solo.group
    held = 0
    for n in range(3_000):
        index = group.propose(b"x" * 100)
        solo.settle()
        if n < 10:
            solo.acknowledge(3, index)
        solo.acknowledge(2, index)
        solo.settle()
        held = max(held, group.log.size_bytes)
    assert held <= tail + message
    peer = group.status().peers[1]
    assert peer.bytes_in_flight <= 3_000 + message
    assert peer.appends_in_flight <= solo.config.appends_in_flight
    assert sum(map(sys.getsizeof, (group._messages, group._after))) < 1_000
    assert peer.match_index < group.log.base_index
