"""What rows.h has."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "rows.h" nogil:
    enum:
        ERAFT_KEY_HEADER_BYTES
        ERAFT_ROW_HEADER_BYTES
        ERAFT_GENERATION_BYTES
    void eraft_write_key(
        unsigned char *place, const void *prefix, size_t prefix_size,
        int bucket, const unsigned char *key, size_t size
    ) noexcept
    void eraft_write_row_header(
        unsigned char *place, uint64_t version, uint64_t deadline_ms
    ) noexcept
    uint64_t eraft_row_version(const unsigned char *row) noexcept
    uint64_t eraft_row_deadline(const unsigned char *row) noexcept
    uint32_t eraft_digest(
        uint32_t digest, const unsigned char *key, size_t key_size,
        const unsigned char *row, size_t row_size
    ) noexcept
