"""Which bucket a key belongs to.

CRC16/XMODEM of the key, or of its hash tag, modulo 16384: exactly a Redis
Cluster hash slot (Redis Cluster specification, "Key distribution model").
"""

from binascii import crc_hqx
from collections.abc import Sequence
from typing import Final

__all__ = ["IMPL", "bucket_of", "buckets_of"]

IMPL: Final = "python"
_MASK = 16383


def bucket_of(key: bytes | bytearray | memoryview) -> int:
    """Return the bucket of `key`.

    If the key has a `{` and a `}` after it with something between the first
    such pair, only that (the hash tag) is hashed.
    """
    if not isinstance(key, bytes):
        key = bytes(key)
    start = key.find(b"{") + 1
    if start:
        end = key.find(b"}", start)
        if end > start:
            key = key[start:end]
    return crc_hqx(key, 0) & _MASK


def buckets_of(keys: Sequence[bytes | bytearray | memoryview]) -> list[int]:
    """Return the bucket of each key."""
    if b"{" in b"".join(keys):
        return [bucket_of(key) for key in keys]
    return [crc_hqx(key, 0) & _MASK for key in keys]
