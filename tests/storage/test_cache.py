"""The cache of rows above RocksDB: what it takes in, what it forgets."""

from eraft import limits
from eraft.storage.cache import RowCache


def test_only_rows_that_were_read_are_kept() -> None:
    cache = RowCache()
    cache.remember(b"read", b"old")
    cache.remember(b"missing", None)
    cache.written([(b"missing", b"new"), (b"read", None), (b"written", b"x")])
    assert cache.rows == {b"missing": b"new", b"read": None}


def test_a_row_that_became_too_large_is_forgotten() -> None:
    cache = RowCache()
    cache.remember(b"key", b"small")
    cache.written([(b"key", bytes(limits.CACHED_ROW_BYTES))])
    assert not cache.rows


def test_what_is_overwritten_takes_room_once() -> None:
    cache = RowCache(limit_bytes=1000)
    cache.remember(b"quiet", b"")
    cache.remember(b"busy", b"")
    for _ in range(100):
        cache.written([(b"busy", b"x" * 100)])
    assert cache.rows == {b"quiet": b"", b"busy": b"x" * 100}
    for number in range(100):
        cache.remember(b"%d" % number, b"")
        assert len(cache.rows) * 160 <= 1000
