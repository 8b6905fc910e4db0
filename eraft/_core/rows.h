/* Keys and headers of DATA rows, integers big-endian, and the digest of changes.
 * Needs checksum.h's tables. */
#ifndef ERAFT_ROWS_H
#define ERAFT_ROWS_H

#include "checksum.h"

/* u16 bucket and u32 CRC-32 of the key, after the prefix. */
#define ERAFT_KEY_HEADER_BYTES 6
/* u8 flags, u64 version, u64 deadline. */
#define ERAFT_ROW_HEADER_BYTES 17
/* The generation, which a key begins with and a digest leaves out. */
#define ERAFT_GENERATION_BYTES 4

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

/* The digest after one more change; a deleted row is NULL. `key` has at least a generation. */
static inline uint32_t eraft_digest(
    uint32_t digest, const unsigned char *key, size_t key_size,
    const unsigned char *row, size_t row_size)
{
    uint32_t sizes[2] = {
        (uint32_t)(key_size - ERAFT_GENERATION_BYTES), row ? (uint32_t)row_size : UINT32_MAX
    };
    digest = eraft_crc32(digest, (const unsigned char *)sizes, sizeof sizes);
    digest = eraft_crc32(
        digest, key + ERAFT_GENERATION_BYTES, key_size - ERAFT_GENERATION_BYTES);
    return row ? eraft_crc32(digest, row, row_size) : digest;
}

#endif
