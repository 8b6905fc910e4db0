"""What checksum.h has."""

from libc.stdint cimport uint32_t


cdef extern from "checksum.h" nogil:
    bint ERAFT_TRACED
    void eraft_checksum_init() noexcept
    uint32_t eraft_crc32(uint32_t crc, const unsigned char *data, size_t size) noexcept
    int eraft_bucket(const unsigned char *key, size_t size) noexcept
