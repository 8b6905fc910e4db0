"""What resp.h has."""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "resp.h" nogil:
    enum:
        ERAFT_LINE_BYTES
    const unsigned char *eraft_read_length(
        const unsigned char *place, const unsigned char *end, int64_t *length
    ) noexcept
    unsigned char *eraft_write_number(
        unsigned char *place, unsigned char mark, uint64_t number, bint negative
    ) noexcept
    unsigned char *eraft_write_length(
        unsigned char *place, unsigned char mark, size_t length
    ) noexcept
    size_t eraft_bulk_bytes(size_t length) noexcept
    unsigned char *eraft_write_bulk(
        unsigned char *place, const void *data, size_t length
    ) noexcept
