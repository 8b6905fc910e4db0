"""Commit index and vote result of any configuration, against an oracle that only counts."""

from collections.abc import Mapping, Sequence
from itertools import product
from random import Random

import pytest

from eraft.raft.quorum import VoteResult, commit_index, vote_result

NO_LIMIT = 2**63 - 1


def majority(half: Sequence[int], yes: set[int]) -> bool:
    return not half or 2 * len(yes.intersection(half)) > len(half)


def slow_commit(voters: Sequence[int], acked: Mapping[int, int], outgoing: Sequence[int]) -> int:
    best = 0
    for index in (*acked.values(), NO_LIMIT):
        have = {replica_id for replica_id, its in acked.items() if its >= index}
        if majority(voters, have) and majority(outgoing, have):
            best = max(best, index)
    return best


def slow_votes(
    voters: Sequence[int], votes: Mapping[int, bool], outgoing: Sequence[int]
) -> VoteResult:
    """What every way in which the rest may still vote has in common."""
    rest = sorted({*voters, *outgoing} - set(votes))
    known = {replica_id for replica_id, granted in votes.items() if granted}
    ends = set()
    # More yes never turns a won election: nobody and everybody are the extremes.
    for more in (set(), set(rest)):
        ends.add(majority(voters, known | more) and majority(outgoing, known | more))
    if len(ends) == 2:
        return VoteResult.PENDING
    return VoteResult.WON if ends == {True} else VoteResult.LOST


def test_50000_random_configurations() -> None:
    rng = Random(1)
    ids = range(1, 10)
    seen = dict.fromkeys(VoteResult, 0)
    for _ in range(50_000):
        voters = rng.sample(ids, rng.randint(0, 7))
        outgoing = rng.sample(ids, rng.randint(0, 7)) if rng.random() < 0.5 else []
        acked = {i: rng.randint(0, 6) for i in ids if rng.random() < 0.8}
        case = (voters, outgoing, acked)
        assert commit_index(voters, acked, outgoing) == slow_commit(voters, acked, outgoing), case
        votes = {i: rng.random() < 0.6 for i in ids if rng.random() < 0.6}
        result = vote_result(voters, votes, outgoing)
        assert result is slow_votes(voters, votes, outgoing), (voters, outgoing, votes)
        seen[result] += 1
    assert min(seen.values()) > 3_000


@pytest.mark.parametrize("outgoing", [(), (1,), (3, 4), (3, 4, 5)])
def test_every_way_to_vote(outgoing: Sequence[int]) -> None:
    voters = (1, 2, 3)
    everybody = sorted({*voters, *outgoing})
    for votes in product((True, False, None), repeat=len(everybody)):
        known = {v: vote for v, vote in zip(everybody, votes, strict=True) if vote is not None}
        missing = [v for v in everybody if v not in known]
        ends = set()
        for rest in product((True, False), repeat=len(missing)):
            yes = {
                v for v, vote in {**known, **dict(zip(missing, rest, strict=True))}.items() if vote
            }
            ends.add(majority(voters, yes) and majority(outgoing, yes))
        expected = VoteResult.PENDING
        if len(ends) == 1:
            expected = VoteResult.WON if ends == {True} else VoteResult.LOST
        assert vote_result(voters, {**known, 99: True}, outgoing) is expected


def test_a_half_without_voters_is_not_in_the_way() -> None:
    assert commit_index((), {}) == NO_LIMIT
    assert vote_result((), {}) is VoteResult.WON
    assert commit_index((1,), {1: 4}, ()) == 4
    assert vote_result((1,), {1: False}, ()) is VoteResult.LOST
