# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A run of bytes in chunks of equal size, for `log`.

Appending never moves what is there, and dropping at either end gives memory
back. Positions only grow; the user knows which of them are in use.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from eraft._core.checksum_h cimport ERAFT_TRACED

__all__ = ["IMPL", "TRACED"]

cdef enum:
    _CHUNK = 65536

IMPL = "cython"
TRACED = ERAFT_TRACED != 0


cdef class Chunks:
    def __dealloc__(self):
        cdef size_t i
        for i in range(self._count):
            free(self._chunks[i])
        free(self._chunks)

    cdef int reserve(self, uint64_t end) except -1:
        """Makes room for the bytes before `end`; changes nothing that can be seen."""
        cdef size_t wanted = (end - self._origin + _CHUNK - 1) // _CHUNK
        cdef size_t capacity
        cdef void *grown
        if wanted > self._capacity:
            capacity = max(wanted, 2 * self._capacity)
            grown = realloc(self._chunks, capacity * sizeof(unsigned char *))
            if grown == NULL:
                raise MemoryError
            self._chunks = <unsigned char **>grown
            self._capacity = capacity
        while self._count < wanted:
            grown = malloc(_CHUNK)
            if grown == NULL:
                raise MemoryError
            self._chunks[self._count] = <unsigned char *>grown
            self._count += 1
        return 0

    cdef void write(self, uint64_t position, const unsigned char *data, size_t size) noexcept:
        """To where `reserve` has made room."""
        cdef size_t place = position - self._origin
        cdef size_t part
        while size:
            part = min(size, _CHUNK - place % _CHUNK)
            memcpy(self._chunks[place // _CHUNK] + place % _CHUNK, data, part)
            place += part
            data += part
            size -= part

    cdef bytes read(self, uint64_t position, uint64_t end):
        cdef size_t place = position - self._origin
        cdef size_t size = end - position
        cdef size_t part
        result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        cdef char *target = PyBytes_AS_STRING(result)
        while size:
            part = min(size, _CHUNK - place % _CHUNK)
            memcpy(target, self._chunks[place // _CHUNK] + place % _CHUNK, part)
            place += part
            target += part
            size -= part
        return result

    cdef unsigned char at(self, uint64_t position) noexcept:
        cdef size_t place = position - self._origin
        return self._chunks[place // _CHUNK][place % _CHUNK]

    cdef void keep(self, uint64_t start, uint64_t end) noexcept:
        """Frees what is not between `start` and `end`."""
        cdef size_t before = (start - self._origin) // _CHUNK
        cdef size_t kept = (end - self._origin + _CHUNK - 1) // _CHUNK
        cdef size_t i
        if start == end:
            before = kept = 0
        for i in range(kept, self._count):
            free(self._chunks[i])
        self._count = kept
        if kept == 0:
            free(self._chunks)
            self._chunks = NULL
            self._capacity = 0
            self._origin = start
        elif before:
            for i in range(before):
                free(self._chunks[i])
            self._count = kept - before
            memmove(self._chunks, self._chunks + before, self._count * sizeof(unsigned char *))
            self._origin += before * _CHUNK

    cdef size_t memory(self) noexcept:
        return self._capacity * sizeof(unsigned char *) + self._count * _CHUNK
