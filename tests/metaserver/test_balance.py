"""The first assignment: everything is owned, by weight, in one run per group."""

from fractions import Fraction
from itertools import groupby
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eraft.metaserver.balance import first_assignment, shares
from eraft.types import BUCKETS

weights = st.dictionaries(st.integers(1, 2**32 - 1), st.integers(1, 10**6), min_size=1, max_size=40)


@settings(deadline=None)
@given(weights)
def test_every_share_is_within_one_bucket_of_the_ideal(weights: dict[int, int]) -> None:
    found = shares(weights)
    total = sum(weights.values())
    assert set(found) == set(weights)
    assert sum(found.values()) == BUCKETS
    for gid, weight in weights.items():
        assert abs(found[gid] - Fraction(BUCKETS * weight, total)) < 1


@settings(deadline=None)
@given(weights, st.randoms(use_true_random=False))
def test_the_order_of_the_groups_does_not_matter(weights: dict[int, int], random: Random) -> None:
    items = list(weights.items())
    random.shuffle(items)
    assert first_assignment(dict(items)) == first_assignment(weights)


@settings(deadline=None)
@given(weights)
def test_each_group_gets_one_run_of_buckets(weights: dict[int, int]) -> None:
    owners = first_assignment(weights)
    runs = [(gid, sum(1 for _ in run)) for gid, run in groupby(owners)]
    assert len(owners) == BUCKETS
    assert runs == [(gid, count) for gid, count in sorted(shares(weights).items()) if count]


@settings(deadline=None)
@given(weights)
def test_a_heavier_group_never_gets_less(weights: dict[int, int]) -> None:
    found = shares(weights)
    counts = [found[gid] for gid in sorted(weights, key=lambda gid: (weights[gid], -gid))]
    assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({1: 1}, {1: 16384}),
        ({1: 1, 2: 1, 3: 1}, {1: 5462, 2: 5461, 3: 5461}),
        ({5: 1, 2: 3}, {2: 12288, 5: 4096}),
        ({1: 1, 2: 10**6}, {1: 0, 2: 16384}),
    ],
)
def test_known_shares(weights: dict[int, int], expected: dict[int, int]) -> None:
    assert shares(weights) == expected
