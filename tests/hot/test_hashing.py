"""Buckets of keys: the values of Redis Cluster."""

from typing import Any

import pytest

# From redis-server 7.0.15, CLUSTER KEYSLOT.
REDIS_SLOTS = {
    b"": 0,
    b"foo": 12182,
    b"bar": 5061,
    b"123456789": 12739,
    b"{user1000}.following": 3443,
    b"{user1000}.followers": 3443,
    b"user1000": 3443,
}


def crc16(data: bytes) -> int:
    """Bit by bit, as the definition of CRC16/XMODEM goes."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
            crc &= 0xFFFF
    return crc


@pytest.mark.parametrize(("key", "slot"), REDIS_SLOTS.items())
def test_buckets_are_redis_slots(twin: Any, key: bytes, slot: int) -> None:
    assert twin.hashing.bucket_of(key) == slot


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"foo{}{bar}", b"foo{}{bar}"),  # the first pair counts, and it is empty
        (b"foo{{bar}}zap", b"{bar"),
        (b"foo{bar}{zap}", b"bar"),
        (b"foo{bar", b"foo{bar"),
        (b"foo}bar{", b"foo}bar{"),
        (b"}{a}", b"a"),
        (b"{\x00}", b"\x00"),
        (b"{", b"{"),
        (b"{}", b"{}"),
    ],
)
def test_hash_tags(twin: Any, key: bytes, hashed: bytes) -> None:
    assert twin.hashing.bucket_of(key) == crc16(hashed) % 16384


def test_every_length(twin: Any) -> None:
    data = bytes((7 * i + 3) % 256 for i in range(100)).replace(b"{", b"x")
    keys = [data[:size] for size in range(101)]
    assert twin.hashing.buckets_of(keys) == [crc16(key) % 16384 for key in keys]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(twin: Any, kind: Any) -> None:
    assert twin.hashing.bucket_of(kind(b"a{foo}b")) == 12182
    assert twin.hashing.buckets_of([kind(b"a{foo}b"), kind(b"bar")]) == [12182, 5061]


def test_batches(twin: Any) -> None:
    assert twin.hashing.buckets_of([]) == []
    assert twin.hashing.buckets_of((b"foo", b"bar")) == [12182, 5061]
    for wrong in (["foo"], [None], [b"foo", 1]):
        with pytest.raises(TypeError):
            twin.hashing.buckets_of(wrong)
