# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of `eraft._pure.slots`, which has the documentation."""

from collections import deque

from cpython.bytes cimport PyBytes_GET_SIZE

from eraft import limits
from eraft._core.checksum_h cimport ERAFT_TRACED
from eraft._core.reply cimport encode

__all__ = ["IMPL", "TRACED", "Slot", "SlotQueue"]

IMPL = "cython"
TRACED = ERAFT_TRACED != 0

cdef Py_ssize_t _most_bytes = limits.CLIENT_OUTPUT_BYTES


cdef class Slot:
    cdef readonly SlotQueue queue
    cdef public Py_ssize_t count
    cdef readonly int protocol
    cdef public double deadline_s
    cdef readonly bint muted
    cdef readonly bytes data

    def __init__(
        self,
        SlotQueue queue not None,
        Py_ssize_t count,
        int protocol,
        double deadline_s,
        bint muted=False,
    ):
        self.queue = queue
        self.count = count
        self.protocol = protocol
        self.deadline_s = deadline_s
        self.muted = muted

    cpdef settle(self, list replies, Py_ssize_t start):
        if self.data is None:
            self.fill(encode(replies, start, start + self.count, self.protocol))

    cpdef refuse(self, error):
        if self.data is None:
            self.fill(encode([error] * self.count, 0, self.count, self.protocol))

    cpdef fill(self, bytes data):
        cdef SlotQueue queue = self.queue
        if self.data is not None:
            return
        if self.muted or queue.size_bytes > _most_bytes:
            data = b""
        self.data = data
        queue.size_bytes += PyBytes_GET_SIZE(data)
        if queue.size_bytes > _most_bytes:
            queue.overflow()
        queue.advance(self)


cdef class SlotQueue:
    cdef object _slots
    cdef object _on_output
    cdef object _on_overflow
    cdef readonly list output
    cdef readonly Py_ssize_t size_bytes

    def __init__(self, on_output, on_overflow):
        self._slots = deque()
        self._on_output = on_output
        self._on_overflow = on_overflow
        self.output = []

    def __len__(self):
        return len(self._slots)

    def open(self, Py_ssize_t count, int protocol, double deadline_s, bint muted=False):
        cdef Slot slot = Slot.__new__(Slot)
        slot.queue = self
        slot.count = count
        slot.protocol = protocol
        slot.deadline_s = deadline_s
        slot.muted = muted
        self._slots.append(slot)
        return slot

    def add(self, Slot slot not None):
        self._slots.append(slot)

    def add_behind(self, Slot slot not None, Slot other not None):
        self._slots.insert(self._slots.index(slot) + 1, other)

    def headed_by(self, Slot slot not None):
        return len(self._slots) > 0 and self._slots[0] is slot

    cpdef advance(self, Slot filled):
        cdef object slots = self._slots
        cdef Slot first
        if len(slots) == 0 or slots[0] is not filled:
            return
        if not self.output:
            self._on_output()
        while len(slots) > 0:
            first = <Slot>slots[0]
            if first.data is None:
                return
            slots.popleft()
            self.output.append(first.data)

    def take(self):
        cdef list output = self.output
        cdef bytes data = <bytes>output[0] if len(output) == 1 else b"".join(output)
        self.output = []
        self.size_bytes -= PyBytes_GET_SIZE(data)
        return data

    cpdef overflow(self):
        self.output = []
        self._slots.clear()
        self._on_overflow()
