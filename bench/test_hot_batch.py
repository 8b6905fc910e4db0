"""Apply: an entry of SETs into rows, other commands, and the replies to GETs."""

from typing import Any

import pytest

from bench.conftest import BATCH, Hot, Measure

PREFIX = b"\0\0\0\1\3"
OWNED = bytearray(b"\1" * 16384)
VALUE = b"v" * 64


@pytest.fixture
def payload(hot: Hot, keys: list[bytes]) -> bytes:
    lane = hot.resp.Lane(PREFIX, 1 << 20)
    for key in keys:
        lane.add([b"SET", key, VALUE])
    taken: bytes = lane.take(1)
    return taken


def test_apply_sets(hot: Hot, measure: Measure, payload: bytes) -> None:
    apply_sets = hot.batch.apply_sets

    def run() -> Any:
        rows: dict[bytes, bytes | None] = {}
        replies: list[Any] = []
        stop, _ = apply_sets(payload, 8, PREFIX, OWNED, 7, rows, replies, 1)
        return stop, rows, replies

    stop, rows, replies = measure("batch: SETs into rows", run)
    assert stop == len(payload)
    assert len(rows) == len(replies) == BATCH


def test_read_commands(hot: Hot, measure: Measure, payload: bytes) -> None:
    read_command = hot.batch.read_command

    def run() -> int:
        offset, count = 8, 0
        while offset < len(payload):
            _, offset = read_command(payload, offset)
            count += 1
        return count

    assert measure("batch: commands read", run) == BATCH


def test_encode_values(hot: Hot, measure: Measure) -> None:
    row = hot.batch.encode_row(7, 0, VALUE)
    rows = [row, row, row, None] * (BATCH // 4)
    data = measure("batch: replies to GETs", hot.batch.encode_values, rows, 0, BATCH, 1, 2, 2)
    assert data.count(VALUE) == BATCH * 3 // 4


def test_data_keys(hot: Hot, measure: Measure, keys: list[bytes]) -> None:
    data_key = hot.batch.data_key
    found = measure("batch: row keys", lambda: [data_key(PREFIX, key) for key in keys])
    assert len(set(found)) == BATCH


def test_rows(hot: Hot, measure: Measure) -> None:
    encode_row, decode_row = hot.batch.encode_row, hot.batch.decode_row

    def run() -> list[Any]:
        return [decode_row(encode_row(version, 0, VALUE)) for version in range(BATCH)]

    assert len(measure("batch: rows made and read", run)) == BATCH
