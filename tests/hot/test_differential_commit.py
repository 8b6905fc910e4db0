"""Compiled and pure commit index agree."""

from hypothesis import given
from hypothesis import strategies as st

from eraft._core import commit as compiled
from eraft._pure import commit as pure
from tests.hot.differential import outcome, thorough

ids = st.one_of(st.integers(1, 8), st.sampled_from([-1, 0, 2**63, 2**64 - 1, 2**64]))
indexes = st.one_of(st.integers(0, 9), st.sampled_from([-(2**70), -1, 2**63 - 1, 2**63, 2**70]))
calls = st.one_of(
    st.tuples(st.just("record"), ids, indexes),
    st.tuples(st.just("match"), ids),
    st.tuples(st.just("committed")),
    st.tuples(st.just("reset")),
)


@thorough
@given(st.lists(indexes, max_size=40))
def test_quorum_index(batch: list[int]) -> None:
    assert outcome(compiled.quorum_index, batch) == outcome(pure.quorum_index, batch)


@thorough
@given(st.lists(ids, max_size=7), st.lists(ids, max_size=4), st.lists(calls, max_size=30))
def test_match_table(
    voters: list[int], outgoing: list[int], script: list[tuple[str, int, int]]
) -> None:
    made = outcome(compiled.MatchTable, voters, outgoing)
    expected = outcome(pure.MatchTable, voters, outgoing)
    if expected[0] != "returned":
        assert made == expected
        return
    for name, *args in script:
        assert outcome(getattr(made[1], name), *args) == outcome(
            getattr(expected[1], name), *args
        ), (name, args)
