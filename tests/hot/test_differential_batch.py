"""Compiled and pure payloads and rows agree, on nonsense too."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eraft._core import batch as compiled
from eraft._pure import batch as pure
from tests.hot.differential import outcome, thorough
from tests.hot.parsing import BUCKETS, command

PREFIX = b"\0\0\0\1\3"

keys = st.one_of(st.sampled_from([b"a", b"b", b"{a}", b"{}", b""]), st.binary(max_size=40))
sets = st.builds(lambda key, value: command(b"SET", key, value), keys, st.binary(max_size=30))
others = st.lists(keys, min_size=1, max_size=4).map(lambda args: command(*args))
numbers = st.one_of(
    st.integers(0, 5), st.integers(0, 2**64 - 1), st.sampled_from([-1, 2**64, 2**70])
)
digests = st.integers(0, 2**32 - 1)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Commands, most of them SETs, and now and then damage."""
    data = bytearray(8)
    data += b"".join(draw(st.lists(st.one_of(sets, sets, sets, others), max_size=10)))
    if len(data) > 8 and draw(st.integers(0, 2)) == 0:
        place = draw(st.integers(8, len(data) - 1))
        data[place : place + draw(st.integers(0, 3))] = draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"0", b"9" * 18, b"9" * 19, b"-1"]))
        )
    return bytes(data)


def apply(batch: Any, payload: bytes, offset: int, owned: bytes, version: int, digest: int) -> Any:
    rows: dict[bytes, bytes | None] = {}
    replies: list[Any] = []
    result = outcome(
        batch.apply_sets, payload, offset, PREFIX, owned, version, rows, replies, digest
    )
    if result[0] is OverflowError:
        result = OverflowError, "in words of its own"
    return result, list(rows.items()), replies


@thorough
@given(payloads(), st.integers(-1, 40), st.binary(min_size=3, max_size=3), numbers, digests)
def test_apply_sets(payload: bytes, offset: int, states: bytes, version: int, digest: int) -> None:
    owned = (b"\1" * 16 + states) * 1000
    for start in (8, offset):
        ours = apply(compiled, payload, start, owned[:BUCKETS], version, digest)
        assert ours == apply(pure, payload, start, owned[:BUCKETS], version, digest)
    assert apply(compiled, payload, 8, states, 1, 0) == apply(pure, payload, 8, states, 1, 0)


@thorough
@given(digests, st.binary(max_size=60), st.none() | st.binary(max_size=60))
def test_digest_change(digest: int, key: bytes, row: bytes | None) -> None:
    ours = outcome(compiled.digest_change, digest, key, row)
    assert ours == outcome(pure.digest_change, digest, key, row)


@thorough
@given(st.one_of(payloads(), st.binary(max_size=40)), st.integers(-3, 60))
def test_read_command(payload: bytes, offset: int) -> None:
    for start in (offset, 8):
        place = start
        while True:
            found = outcome(compiled.read_command, payload, place)
            assert found == outcome(pure.read_command, payload, place)
            if found[0] != "returned":
                break
            place = found[1][1]
    assert outcome(compiled.timestamp, payload) == outcome(pure.timestamp, payload)


@thorough
@given(keys, st.binary(max_size=8))
def test_data_key(key: bytes, prefix: bytes) -> None:
    assert compiled.data_key(prefix, key) == pure.data_key(prefix, key)


@thorough
@given(numbers, numbers, st.binary(max_size=40), st.integers(0, 60))
def test_rows(version: int, deadline_ms: int, value: bytes, cut: int) -> None:
    ours = outcome(compiled.encode_row, version, deadline_ms, value)
    theirs = outcome(pure.encode_row, version, deadline_ms, value)
    assert ours[0] == theirs[0]
    if ours[0] == "returned":
        assert ours == theirs
        for row in (ours[1], ours[1][:cut], value):
            assert outcome(compiled.decode_row, row) == outcome(pure.decode_row, row)


clocks = st.one_of(st.integers(0, 6), st.just(2**64 - 1))
rows = st.one_of(
    st.none(),
    st.builds(pure.encode_row, st.integers(0, 9), clocks, st.binary(max_size=30)),
    st.builds(pure.encode_row, st.integers(0, 9), st.just(0), st.binary(max_size=3000)),
)


@thorough
@given(
    st.lists(st.one_of(rows, rows, rows, st.binary(max_size=20)), max_size=8),
    st.integers(-1, 8),
    st.integers(-1, 8),
    clocks,
    clocks,
    st.integers(2, 3),
)
def test_encode_values(
    found: list[bytes | None], start: int, stop: int, clock: int, wall: int, protocol: int
) -> None:
    for span in ((start, stop), (0, len(found))):
        ours = outcome(compiled.encode_values, found, *span, clock, wall, protocol)
        assert ours == outcome(pure.encode_values, found, *span, clock, wall, protocol)
