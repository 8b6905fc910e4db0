"""Compiled and pure log agree, on nonsense too."""

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eraft._core import log as compiled
from eraft._pure import log as pure
from tests.hot.differential import outcome, thorough

header = struct.Struct("<IBQ")
terms = st.one_of(st.integers(1, 4), st.sampled_from([-1, 0, 2**63, 2**64 - 1, 2**64]))
numbers = st.one_of(st.integers(-2, 12), st.sampled_from([-(2**70), 2**63 - 1, 2**63, 2**70]))
kinds = st.one_of(st.integers(0, 1), st.sampled_from([-1, 2, 255, 256]))


@st.composite
def blobs(draw: st.DrawFn) -> bytes:
    """Entries, most of them well-formed, and now and then damage."""
    blob = bytearray()
    term = 1
    for step, payload in draw(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=9)))):
        term += step
        blob += header.pack(len(payload), step % 2, term) + payload
    if blob and draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(blob) - 1))
        blob[place] = draw(st.integers(0, 255))
        del blob[draw(st.integers(place, len(blob))) :]
    return bytes(blob)


calls = st.one_of(
    st.tuples(st.just("append"), terms, kinds, st.binary(max_size=9)),
    st.tuples(st.just("extend"), numbers, blobs()),
    st.tuples(st.just("extend_last"), blobs()),
    st.tuples(st.just("conflict"), numbers, blobs()),
    st.tuples(st.just("skip"), numbers, blobs(), numbers),
    st.tuples(st.just("slice"), numbers, numbers, numbers),
    st.tuples(st.just("find_conflict_by_term"), numbers, terms),
    st.tuples(
        st.sampled_from(["term", "payload", "kind", "size_from", "truncate", "compact"]), numbers
    ),
)


def run(log: Any, call: tuple[Any, ...]) -> Any:
    name, *args = call
    if name == "extend_last":
        name, args = "extend", [log.last_index + 1, *args]
    result = outcome(getattr(log, name), *args)
    return result, log.base_index, log.base_term, log.last_index, log.last_term, log.size_bytes


@thorough
@given(st.sampled_from([(0, 0), (3, 2)]), st.lists(calls, max_size=40))
def test_any_sequence_of_calls(base: tuple[int, int], script: list[tuple[Any, ...]]) -> None:
    ours, theirs = compiled.EntryLog(*base), pure.EntryLog(*base)
    for call in script:
        assert run(ours, call) == run(theirs, call), call


@thorough
@given(blobs(), st.binary(max_size=30))
def test_check_entries(blob: bytes, noise: bytes) -> None:
    for data in (blob, noise, blob + noise):
        assert outcome(compiled.check_entries, data) == outcome(pure.check_entries, data)


@thorough
@given(terms, kinds, st.binary(max_size=9))
def test_encode_entry(term: int, kind: int, payload: bytes) -> None:
    assert outcome(compiled.encode_entry, term, kind, payload) == outcome(
        pure.encode_entry, term, kind, payload
    )


@thorough
@given(numbers, terms)
def test_base(base: int, term: int) -> None:
    made, expected = outcome(compiled.EntryLog, base, term), outcome(pure.EntryLog, base, term)
    if expected[0] != "returned":
        assert made == expected
    else:
        assert (made[1].base_index, made[1].base_term) == (base, term)
