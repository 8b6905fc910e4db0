"""Peer frames, with a batch of messages of as many groups, and with a large one."""

import random

import pytest

from bench.conftest import BATCH, Hot, Measure
from eraft.types import Message, MessageKind

LIMIT_BYTES = 4 << 20


def numbers(seed: int) -> list[int]:
    return [random.Random(seed).randrange(10**6) for _ in range(BATCH)]


@pytest.fixture(params=["acknowledgements", "appends"])
def batch(request: pytest.FixtureRequest) -> tuple[str, list[Message]]:
    appends = request.param == "appends"
    kind = MessageKind.APPEND if appends else MessageKind.APPEND_REPLY
    entries = bytes(150) if appends else b""
    return request.param, [
        Message(
            int(kind),
            gid,
            gid + 2000,
            gid + 3000,
            300 + gid,
            index,
            299,
            index,
            5,
            0,
            False,
            entries,
        )
        for gid, index in enumerate(numbers(1))
    ]


def test_encode(hot: Hot, measure: Measure, batch: tuple[str, list[Message]]) -> None:
    name, messages = batch
    frame = measure(f"frames: encode {name}", hot.frames.encode_messages, 7, messages)
    assert len(frame) > BATCH * hot.frames.MESSAGE_HEADER_BYTES


def test_decode(hot: Hot, measure: Measure, batch: tuple[str, list[Message]]) -> None:
    name, messages = batch
    body = hot.frames.encode_messages(7, messages)[9:]
    decoded = measure(f"frames: decode {name}", hot.frames.decode_messages, body)
    assert decoded == (7, messages)


def test_read(hot: Hot, measure: Measure) -> None:
    frame = hot.frames.encode_frame(hot.frames.RAFT, bytes(100))
    reader = hot.frames.FrameReader(LIMIT_BYTES)
    frames = measure("frames: read small frames", reader.feed, frame * BATCH)
    assert frames == [(hot.frames.RAFT, bytes(100))] * BATCH


def test_read_large(hot: Hot, measure: Measure) -> None:
    body = random.Random(1).randbytes(1 << 20)
    frame = hot.frames.encode_frame(hot.frames.RAFT, body)
    reader = hot.frames.FrameReader(LIMIT_BYTES)
    frames = measure("frames: read 1 MiB", reader.feed, frame)
    assert frames == [(hot.frames.RAFT, body)]
