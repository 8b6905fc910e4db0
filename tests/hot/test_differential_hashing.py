"""Compiled and pure hashing agree."""

from hypothesis import given
from hypothesis import strategies as st

from eraft._core import hashing as compiled
from eraft._pure import hashing as pure
from tests.hot.differential import thorough

keys = st.one_of(st.binary(max_size=80), st.text("{}ab", max_size=12).map(str.encode))


@thorough
@given(st.lists(keys, max_size=20))
def test_buckets(batch: list[bytes]) -> None:
    assert compiled.buckets_of(batch) == pure.buckets_of(batch)
    for key in batch:
        assert compiled.bucket_of(memoryview(key)) == pure.bucket_of(bytearray(key))
