"""Buckets of the keys of a batch."""

from typing import Any

from bench.conftest import Hot, Measure


def test_buckets_of(hot: Hot, measure: Measure, keys: list[bytes]) -> None:
    buckets: Any = measure("hashing: buckets of keys", hot.hashing.buckets_of, keys)
    assert len(buckets) == len(keys)
