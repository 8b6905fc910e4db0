/* Keys and headers of DATA rows; integers are big-endian. Needs checksum.h's tables. */
#ifndef ERAFT_ROWS_H
#define ERAFT_ROWS_H

#include "checksum.h"

/* u16 bucket and u32 CRC-32 of the key, after the prefix. */
#define ERAFT_KEY_HEADER_BYTES 6
/* u8 flags, u64 version, u64 deadline. */
#define ERAFT_ROW_HEADER_BYTES 17

static inline void eraft_write_key(
    unsigned char *place, const void *prefix, size_t prefix_size,
    int bucket, const unsigned char *key, size_t size)
{
    uint16_t bucket_bytes = __builtin_bswap16((uint16_t)bucket);
    uint32_t crc_bytes = __builtin_bswap32(eraft_crc32(0, key, size));
    memcpy(place, prefix, prefix_size);
    place += prefix_size;
    memcpy(place, &bucket_bytes, 2);
    memcpy(place + 2, &crc_bytes, 4);
    memcpy(place + ERAFT_KEY_HEADER_BYTES, key, size);
}

static inline void eraft_write_row_header(
    unsigned char *place, uint64_t version, uint64_t deadline_ms)
{
    version = __builtin_bswap64(version);
    deadline_ms = __builtin_bswap64(deadline_ms);
    place[0] = 0;
    memcpy(place + 1, &version, 8);
    memcpy(place + 9, &deadline_ms, 8);
}

static inline uint64_t eraft_row_version(const unsigned char *row)
{
    uint64_t version;
    memcpy(&version, row + 1, 8);
    return __builtin_bswap64(version);
}

static inline uint64_t eraft_row_deadline(const unsigned char *row)
{
    uint64_t deadline_ms;
    memcpy(&deadline_ms, row + 9, 8);
    return __builtin_bswap64(deadline_ms);
}

#endif
