"""Replies in the order of the requests, whichever group answers first.

A connection keeps a queue of slots, one for each run of commands that gets
its answer at one moment. A slot is filled once; what is filled at the head
of the queue goes out.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from eraft import limits
from eraft._impl import resp


class Slot:
    """The place of the replies to `count` consecutive commands of a connection.

    They are to be answered by `deadline_s`, monotonic.
    """

    __slots__ = ("count", "data", "deadline_s", "muted", "protocol", "queue")

    def __init__(
        self,
        queue: "SlotQueue",
        count: int,
        protocol: int,
        deadline_s: float,
        muted: bool = False,
    ) -> None:
        self.queue = queue
        self.count = count
        self.protocol = protocol
        self.deadline_s = deadline_s
        self.muted = muted
        self.data: bytes | None = None

    def settle(self, replies: list[Any], start: int) -> None:
        """Answer with `count` reply values from `replies[start]` on; later answers are ignored."""
        if self.data is None:
            self.fill(resp.encode(replies, start, start + self.count, self.protocol))

    def refuse(self, error: resp.ReplyError) -> None:
        """Answer every command of the slot with the same error."""
        if self.data is None:
            self.fill(resp.encode([error] * self.count, 0, self.count, self.protocol))

    def fill(self, data: bytes) -> None:
        """Answer with encoded replies."""
        if self.data is None:
            queue = self.queue
            if self.muted or queue.size_bytes > limits.CLIENT_OUTPUT_BYTES:
                data = b""
            self.data = data
            queue.size_bytes += len(data)
            if queue.size_bytes > limits.CLIENT_OUTPUT_BYTES:
                queue.overflow()
            queue.advance(self)


class SlotQueue:
    """The slots of one connection and the bytes that may leave now.

    `on_output` is called when output appears where there was none,
    `on_overflow` when more than limits.CLIENT_OUTPUT_BYTES wait, filled but
    behind others or not taken: they and all that follow are forgotten.
    """

    __slots__ = ("_on_output", "_on_overflow", "_slots", "output", "size_bytes")

    def __init__(self, on_output: Callable[[], None], on_overflow: Callable[[], None]) -> None:
        self._slots: deque[Slot] = deque()
        self._on_output = on_output
        self._on_overflow = on_overflow
        self.output: list[bytes] = []
        self.size_bytes = 0
        """Of replies that wait."""

    def __len__(self) -> int:
        return len(self._slots)

    def open(self, count: int, protocol: int, deadline_s: float, muted: bool = False) -> Slot:
        """A new slot at the end of the queue."""
        slot = Slot(self, count, protocol, deadline_s, muted)
        self._slots.append(slot)
        return slot

    def add(self, slot: Slot) -> None:
        """Put a slot that was made for this queue at its end."""
        self._slots.append(slot)

    def add_behind(self, slot: Slot, other: Slot) -> None:
        """Put a slot that was made for this queue right behind one that is in it."""
        self._slots.insert(self._slots.index(slot) + 1, other)

    def headed_by(self, slot: Slot) -> bool:
        """Whether everything before the slot is answered and has left the queue."""
        return bool(self._slots) and self._slots[0] is slot

    def advance(self, filled: Slot) -> None:
        """Move what is filled at the head of the queue to the output."""
        slots = self._slots
        if not slots or slots[0] is not filled:
            return
        output = self.output
        if not output:
            self._on_output()
        while slots:
            data = slots[0].data
            if data is None:
                return
            slots.popleft()
            output.append(data)

    def take(self) -> bytes:
        """The bytes that may leave now; the output is empty afterwards."""
        output = self.output
        self.output = []
        data = output[0] if len(output) == 1 else b"".join(output)
        self.size_bytes -= len(data)
        return data

    def overflow(self) -> None:
        """Let go of everything: the connection cannot be answered any more."""
        self.output = []
        self._slots.clear()
        self._on_overflow()
