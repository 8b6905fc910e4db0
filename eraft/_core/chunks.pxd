"""A run of bytes in chunks of equal size; see chunks.pyx."""

from libc.stdint cimport uint64_t


cdef class Chunks:
    cdef unsigned char **_chunks
    cdef size_t _count
    cdef size_t _capacity
    # Position of the first byte of the first chunk.
    cdef uint64_t _origin

    cdef int reserve(self, uint64_t end) except -1
    cdef void write(self, uint64_t position, const unsigned char *data, size_t size) noexcept
    cdef bytes read(self, uint64_t position, uint64_t end)
    cdef unsigned char at(self, uint64_t position) noexcept
    cdef void keep(self, uint64_t start, uint64_t end) noexcept
    cdef size_t memory(self) noexcept
