# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of `eraft._pure.lane`, which has the documentation."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from eraft._core.checksum_h cimport ERAFT_TRACED
from eraft._core.resp_h cimport eraft_bulk_bytes, eraft_write_bulk, eraft_write_length

from eraft import limits
from eraft.errors import Overloaded

__all__ = ["IMPL", "TRACED", "Lane"]

cdef enum:
    TIMESTAMP_BYTES = 8
    # A buffer up to this size is kept for the next entry.
    KEPT_BYTES = 65536

IMPL = "cython"
TRACED = ERAFT_TRACED != 0

cdef Py_ssize_t _most_bytes = limits.ENTRY_SIZE_BYTES - TIMESTAMP_BYTES


cdef Py_ssize_t command_bytes(list args) except -1:
    """Return the size of a command in canonical form; TypeError if an argument is not bytes."""
    # An array's head is as long as that of a bulk string, which has a body and CR LF more.
    cdef size_t size = eraft_bulk_bytes(<size_t>len(args)) - <size_t>len(args) - 2
    for arg in args:
        size += eraft_bulk_bytes(<size_t>len(<bytes?>arg))
    return <Py_ssize_t>size


cdef class Lane:
    def __cinit__(self, bytes prefix not None, Py_ssize_t limit_bytes):
        self.prefix = prefix
        self._limit_bytes = limit_bytes

    def __dealloc__(self):
        PyMem_Free(self._data)

    @property
    def full(self):
        return self.is_full()

    cdef bint is_full(self) noexcept:
        return self.size_bytes >= self._limit_bytes

    cdef bint has_room(self, Py_ssize_t size_bytes) noexcept:
        return size_bytes <= _most_bytes - self.size_bytes

    cdef unsigned char *room(self, Py_ssize_t size_bytes) except NULL:
        """Return where a command of that size has to be written; it counts already."""
        cdef Py_ssize_t start = self.size_bytes
        cdef Py_ssize_t needed = start + size_bytes
        cdef unsigned char *grown
        if not self.has_room(size_bytes):
            raise Overloaded(
                f"a command of {size_bytes} bytes does not fit an entry of"
                f" at most {_most_bytes + TIMESTAMP_BYTES} that has {start}"
            )
        if needed > self._capacity:
            grown = <unsigned char *>PyMem_Realloc(self._data, <size_t>(needed + (needed >> 1)))
            if grown == NULL:
                raise MemoryError
            self._data = grown
            self._capacity = needed + (needed >> 1)
        self.size_bytes = needed
        self.count += 1
        return self._data + start

    def append(self, bytes command not None):
        memcpy(
            self.room(PyBytes_GET_SIZE(command)), PyBytes_AS_STRING(command),
            <size_t>PyBytes_GET_SIZE(command),
        )

    def add(self, args):
        cdef list parts = list(args)
        cdef unsigned char *place
        if not parts:
            raise ValueError("a command has at least a name")
        parts[0] = (<bytes?>parts[0]).upper()
        place = self.room(command_bytes(parts))
        place = eraft_write_length(place, b"*", <size_t>len(parts))
        for part in parts:
            place = eraft_write_bulk(
                place, PyBytes_AS_STRING(part), <size_t>PyBytes_GET_SIZE(part)
            )

    def take(self, uint64_t ts_ms):
        cdef bytes payload = PyBytes_FromStringAndSize(NULL, TIMESTAMP_BYTES + self.size_bytes)
        cdef char *place = PyBytes_AS_STRING(payload)
        memcpy(place, &ts_ms, TIMESTAMP_BYTES)
        if self.size_bytes:
            memcpy(place + TIMESTAMP_BYTES, self._data, <size_t>self.size_bytes)
        self.clear()
        return payload

    def clear(self):
        self.size_bytes = 0
        self.count = 0
        if self._capacity > KEPT_BYTES:
            PyMem_Free(self._data)
            self._data = NULL
            self._capacity = 0
