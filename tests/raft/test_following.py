"""The follower's side of replication, message by message."""

import pytest

from eraft.errors import LogCorrupt, ProtocolError
from eraft.types import HardState, MessageKind
from tests.raft.solo import Solo, blob, terms

APPEND = MessageKind.APPEND
APPEND_REPLY = MessageKind.APPEND_REPLY
HEARTBEAT = MessageKind.HEARTBEAT


def test_entries_need_a_shared_entry_before_them() -> None:
    solo = Solo(terms=[1, 1])
    solo.hear(APPEND, 2, term=2, index=3, log_term=1, entries=blob(2))
    solo.hear(APPEND, 2, term=2, index=2, log_term=2, entries=blob(2))
    replies = solo.take().messages
    assert [m.reject for m in replies] == [True, True]
    assert [m.index for m in replies] == [3, 2]
    assert terms(solo) == [1, 1]


@pytest.mark.parametrize(
    ("own", "index", "log_term", "guess"),
    [
        # Beyond the end: the end, or what is below the leader's term there.
        ([1, 1, 1], 9, 5, (3, 1)),
        ([1, 1, 4, 4], 9, 3, (2, 1)),
        # A whole term is stepped over at once.
        ([1, 4, 4, 4], 4, 3, (1, 1)),
        ([4, 4, 4], 3, 2, (0, 0)),
        # An older entry at the index: the leader has to step back.
        ([1, 1, 2, 2], 4, 5, (4, 2)),
    ],
)
def test_a_rejection_helps_the_leader(
    own: list[int], index: int, log_term: int, guess: tuple[int, int]
) -> None:
    solo = Solo(terms=own)
    solo.hear(APPEND, 2, term=6, index=index, log_term=log_term, entries=blob(6))
    [reply] = solo.take().messages
    assert reply.reject
    assert (reply.index, reply.hint, reply.log_term) == (index, *guess)


def test_a_conflict_drops_what_follows_and_nothing_else_does() -> None:
    solo = Solo(terms=[1, 1, 1, 1])
    solo.hear(APPEND, 2, term=2, index=1, log_term=1, entries=blob(1))
    assert terms(solo) == [1, 1, 1, 1], "a delayed message does not shorten the log"
    assert [m.index for m in solo.take().after] == [2], "only this much is known to match"
    solo.hear(APPEND, 2, term=2, index=1, log_term=1, entries=blob(1, 2))
    assert terms(solo) == [1, 1, 2]
    assert [m.index for m in solo.take().after] == [3]
    solo.hear(APPEND, 2, term=2, index=1, log_term=1)
    assert terms(solo) == [1, 1, 2]
    assert [m.index for m in solo.take().after] == [1]


def test_the_commit_index_is_bounded_by_what_matches() -> None:
    """Entries behind what this message checked may be another leader's."""
    solo = Solo(terms=[1, 1, 1])
    solo.hear(APPEND, 2, term=2, index=1, log_term=1, commit=3)
    assert solo.group.commit == 1
    solo.hear(APPEND, 2, term=2, index=1, log_term=1, entries=blob(2), commit=9)
    assert solo.group.commit == 2
    solo.hear(APPEND, 2, term=2, index=1, log_term=1, commit=1)
    assert solo.group.commit == 2


def test_committed_entries_are_not_replaced() -> None:
    solo = Solo(terms=[1, 1], hard_state=HardState(1, 0, 2))
    with pytest.raises(ProtocolError, match="state machine safety"):
        solo.hear(APPEND, 2, term=2, index=1, log_term=1, entries=blob(2))
    with pytest.raises(ProtocolError, match="leader completeness"):
        solo.hear(APPEND, 2, term=3, index=2, log_term=2, entries=blob(3))
    assert terms(solo) == [1, 1]


def test_a_heartbeat_beyond_the_log_stops_the_replica() -> None:
    """It had acknowledged what is gone: a wiped disk under an old identity."""
    solo = Solo(terms=[1])
    with pytest.raises(LogCorrupt, match="acknowledged entry stays"):
        solo.hear(HEARTBEAT, 2, commit=2)


def test_entries_below_the_memory_are_known_to_match() -> None:
    solo = Solo(terms=[2, 2], base=(5, 1), applied=5)
    solo.hear(APPEND, 2, term=3, index=2, log_term=1, entries=blob(1, 1, 1, 2, 2, 3))
    assert terms(solo) == [2, 2, 3]
    assert [m.index for m in solo.take().after] == [8]
    solo.hear(APPEND, 2, term=3, index=1, log_term=1, entries=blob(1))
    assert [m.index for m in solo.take().after] == [5], "all that is committed matches"


@pytest.mark.parametrize("entries", [blob(1)[:-1], b"x", blob(1) + b"\0" * 5, blob(2, 1)])
def test_malformed_entries_are_refused_and_change_nothing(entries: bytes) -> None:
    for own in ([], [1]):
        solo = Solo(terms=own)
        with pytest.raises(ProtocolError):
            solo.hear(APPEND, 2, term=2, entries=entries)
        assert terms(solo) == own


@pytest.mark.parametrize("own", [[], [1], [1, 1]])
def test_entries_of_a_later_term_than_their_leader_s_are_refused(own: list[int]) -> None:
    solo = Solo(terms=own)
    with pytest.raises(ProtocolError, match="terms only grow: the leader 2 of term 1 .* term 2"):
        solo.hear(APPEND, 2, term=1, entries=blob(1, 2))
    assert terms(solo) == own


@pytest.mark.parametrize("term", [1 << 62, 2**64 - 1, -1])
def test_terms_that_never_were_are_refused(term: int) -> None:
    for kind in (APPEND, HEARTBEAT, MessageKind.VOTE, APPEND_REPLY):
        solo = Solo()
        with pytest.raises(ProtocolError, match=f"replica 2 speaks of term {term}, which never"):
            solo.hear(kind, 2, term=term)
        assert (solo.group.term, solo.group.leader_id) == (0, 0)
