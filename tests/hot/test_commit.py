"""The commit index, against an oracle that counts."""

import random
from collections.abc import Sequence
from typing import Any

import pytest


def slow_quorum(indexes: Sequence[int]) -> int:
    """The largest index that more than half have, by trying each."""
    if not indexes:
        return 2**63 - 1
    return max(
        candidate
        for candidate in (0, *indexes)
        if 2 * sum(index >= candidate for index in indexes) > len(indexes)
    )


def slow_committed(match: dict[int, int], voters: Sequence[int], outgoing: Sequence[int]) -> int:
    return min(slow_quorum([match[replica] for replica in half]) for half in (voters, outgoing))


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([], 2**63 - 1),
        ([7], 7),
        ([7, 9], 7),
        ([1, 2, 3], 2),
        ([1, 1, 3], 1),
        ([5, 0, 5, 0], 0),
        ([5, 5, 5, 0, 0], 5),
        ([0, 2**63 - 1, 2**63 - 1], 2**63 - 1),
    ],
)
def test_quorum_index(twin: Any, indexes: list[int], expected: int) -> None:
    assert twin.commit.quorum_index(indexes) == expected
    assert twin.commit.quorum_index(tuple(indexes)) == expected


def test_quorum_index_against_the_oracle(twin: Any) -> None:
    rng = random.Random(1)
    for _ in range(10_000):
        top = rng.choice((2, 9, 2**63 - 1))
        indexes = [rng.randint(0, top) for _ in range(rng.choice((1, 2, 3, 4, 5, 7, 9, 20)))]
        before = list(indexes)
        assert twin.commit.quorum_index(indexes) == slow_quorum(indexes)
        assert indexes == before


def test_match_table_against_the_oracle(twin: Any) -> None:
    rng = random.Random(2)
    for _ in range(1_000):
        replicas = rng.sample((1, 2, 3, 4, 5, 6, 7, 8, 9, 2**64 - 1), rng.randint(0, 10))
        voters = rng.sample(replicas, rng.randint(0, len(replicas)))
        outgoing = rng.sample(replicas, rng.randint(0, len(replicas)))
        table = twin.commit.MatchTable(voters, outgoing)
        match = dict.fromkeys((*voters, *outgoing), 0)
        assert table.committed() == slow_committed(match, voters, outgoing)
        for _ in range(rng.randint(1, 30)):
            replica = rng.choice((*match, 77))
            index = rng.randint(0, 12)
            if replica in match:
                match[replica] = max(match[replica], index)
            expected = slow_committed(match, voters, outgoing)
            assert table.record(replica, index) == expected, (voters, outgoing, match)
            assert table.committed() == expected
            assert table.match(replica) == match.get(replica, 0)
        table.reset()
        empty = dict.fromkeys(match, 0)
        assert table.committed() == slow_committed(empty, voters, outgoing)
        assert all(table.match(replica) == 0 for replica in match)


def test_match_table_of_50000_random_configurations(twin: Any) -> None:
    rng = random.Random(3)
    ids = range(1, 10)
    joint = 0
    for _ in range(50_000):
        voters = rng.sample(ids, rng.randint(0, 7))
        outgoing = rng.sample(ids, rng.randint(0, 7)) if rng.random() < 0.6 else []
        joint += bool(voters and outgoing)
        table = twin.commit.MatchTable(voters, outgoing)
        match = {replica: rng.randint(0, 9) for replica in (*voters, *outgoing)}
        for replica, index in match.items():
            table.record(replica, index)
        assert table.committed() == slow_committed(match, voters, outgoing), (voters, outgoing)
    assert joint > 20_000


def test_a_joint_configuration_needs_both_halves(twin: Any) -> None:
    table = twin.commit.MatchTable([1, 2, 3], [3, 4, 5])
    assert [table.record(replica, 10) for replica in (1, 2, 3)] == [0, 0, 0]
    assert table.record(4, 8) == 8
    assert table.record(5, 12) == 10


def test_a_learner_does_not_count(twin: Any) -> None:
    table = twin.commit.MatchTable([1, 2, 3])
    assert table.record(1, 5) == 0
    for stranger in (9, 0, -1, 2**70):
        assert table.record(stranger, 2**80) == 0
        assert table.match(stranger) == 0


def test_indexes_never_fall(twin: Any) -> None:
    table = twin.commit.MatchTable([1])
    assert table.record(1, 5) == 5
    for older in (5, 4, 0, -1, -(2**70)):
        assert table.record(1, older) == 5
    assert table.match(1) == 5


def test_what_is_out_of_range(twin: Any) -> None:
    table = twin.commit.MatchTable([1, 2, 3])
    with pytest.raises(ValueError, match=f"replica 2: index {2**63} is out of range"):
        table.record(2, 2**63)
    assert table.match(2) == 0
    assert table.record(2, twin.commit.INDEX_MAX) == 0
    for voters, outgoing in (([1, 1], ()), ([1], [2, 2]), ([-1], ()), ([1], [2**64])):
        with pytest.raises(ValueError, match="no half of a configuration can be"):
            twin.commit.MatchTable(voters, outgoing)
