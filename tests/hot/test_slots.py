"""Replies in the order of the requests: both implementations, alone and against each other."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eraft import limits
from eraft._core import slots as compiled
from eraft._pure import slots as pure
from tests.hot.conftest import Twin
from tests.hot.differential import outcome, thorough


class Connection:
    """A queue, and how often it spoke up."""

    def __init__(self, slots: Any) -> None:
        self.outputs = 0
        self.overflows = 0
        self.queue = slots.SlotQueue(self.on_output, self.on_overflow)

    def on_output(self) -> None:
        self.outputs += 1

    def on_overflow(self) -> None:
        self.overflows += 1

    def sent(self) -> bytes:
        data: bytes = self.queue.take()
        return data


def test_replies_leave_in_the_order_of_the_requests(twin: Twin) -> None:
    it = Connection(twin.slots)
    first, second, third = (it.queue.open(1, 2, 1.0) for _ in range(3))
    second.settle([b"b"], 0)
    assert (it.outputs, it.queue.output) == (0, [])
    first.settle([0, b"a"], 1)
    assert it.outputs == 1
    assert it.sent() == b"$1\r\na\r\n$1\r\nb\r\n"
    assert (len(it.queue), it.queue.size_bytes, it.sent()) == (1, 0, b"")
    third.settle([None], 0)
    assert (it.outputs, it.sent()) == (2, b"$-1\r\n")


def test_a_slot_is_answered_once(twin: Twin) -> None:
    it = Connection(twin.slots)
    slot = it.queue.open(2, 3, 1.0)
    slot.refuse(twin.resp.ReplyError(b"ERR no"))
    slot.settle([1, 2], 0)
    slot.fill(b"+late\r\n")
    assert it.sent() == b"-ERR no\r\n" * 2


def test_a_muted_slot_is_answered_with_nothing(twin: Twin) -> None:
    it = Connection(twin.slots)
    it.queue.open(1, 2, 1.0, True).settle([b"a"], 0)
    it.queue.open(1, 2, 1.0).settle([b"b"], 0)
    assert it.sent() == b"$1\r\nb\r\n"


def test_slots_of_ones_own_kind_find_their_place(twin: Twin) -> None:
    class Own(twin.slots.Slot):  # type: ignore[misc,name-defined]
        __slots__ = ("keys",)

    it = Connection(twin.slots)
    own = Own(it.queue, 1, 2, 1.0)
    it.queue.add(own)
    last = it.queue.open(1, 2, 1.0)
    between = Own(it.queue, 1, 2, 1.0)
    it.queue.add_behind(own, between)
    assert [it.queue.headed_by(slot) for slot in (own, between, last)] == [True, False, False]
    for number, slot in enumerate((last, between, own)):
        slot.settle([number], 0)
    assert it.sent() == b":2\r\n:1\r\n:0\r\n"


def test_too_much_output_is_forgotten(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    it = Connection(twin.slots)
    piece = bytes(limits.CLIENT_OUTPUT_BYTES // 2)
    waiting = it.queue.open(1, 2, 1.0)
    for _ in range(2):
        it.queue.open(1, 2, 1.0).fill(piece)
    assert it.overflows == 0
    it.queue.open(1, 2, 1.0).fill(b"x")
    assert (it.overflows, len(it.queue), it.queue.output) == (1, 0, [])
    waiting.fill(b"late")
    assert (it.outputs, it.queue.output) == (0, [])


@pytest.mark.parametrize(
    "call",
    [
        lambda slot: slot.settle([1], 1),
        lambda slot: slot.settle([object()], 0),
        lambda slot: slot.queue.add_behind(slot, slot),
    ],
)
def test_a_bad_answer_changes_nothing(twin: Twin, call: Any) -> None:
    it = Connection(twin.slots)
    slot = twin.slots.Slot(it.queue, 1, 2, 1.0)
    kind, _ = outcome(call, slot)
    assert kind in (ValueError, TypeError, AttributeError, IndexError)
    assert (slot.data, len(it.queue), it.queue.output) == (None, 0, [])


steps = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(0, 3), st.sampled_from([2, 3]), st.booleans()),
        st.tuples(st.just("behind"), st.integers(0, 9)),
        st.tuples(
            st.just("settle"),
            st.integers(0, 9),
            st.lists(st.sampled_from([None, 7, b"x", b"", True, object]), max_size=4),
            st.integers(-1, 2),
        ),
        st.tuples(st.just("refuse"), st.integers(0, 9)),
        st.tuples(st.just("fill"), st.integers(0, 9), st.binary(max_size=3)),
        st.tuples(st.just("take")),
    ),
    max_size=40,
)


@thorough
@given(steps)
def test_both_implementations_answer_alike(script: list[tuple[Any, ...]]) -> None:
    assert played(pure, script) == played(compiled, script)


def played(module: Any, script: list[tuple[Any, ...]]) -> list[Any]:
    it = Connection(module)
    opened: list[Any] = []
    seen: list[Any] = []
    for name, *args in script:
        if name == "open":
            count, protocol, muted = args
            opened.append(it.queue.open(count, protocol, 1.0, muted))
        elif name == "take":
            seen.append(it.queue.take())
        elif opened:
            slot = opened[args[0] % len(opened)]
            if name == "behind":
                other = module.Slot(it.queue, 1, 2, 1.0)
                kind, _ = outcome(it.queue.add_behind, slot, other)
                seen.append(kind)
                if kind == "returned":
                    opened.append(other)
            elif name == "refuse":
                slot.refuse(b"no")
            else:
                kind, _ = outcome(getattr(slot, name), *args[1:])
                seen.append(kind)
        heads = [it.queue.headed_by(slot) for slot in opened]
        seen.append((len(it.queue), it.queue.size_bytes, list(it.queue.output), it.outputs, heads))
    return seen
