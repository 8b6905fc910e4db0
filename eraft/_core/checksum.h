/* CRC-32 (as zlib's) and CRC16/XMODEM, several bytes per step by table
 * ("slicing", Kounavis and Berry, 2005): calling zlib through Python costs
 * more than the checksum of a small value. Also whether line tracing is
 * compiled in, which no benchmark may run with. */
#ifndef ERAFT_CHECKSUM_H
#define ERAFT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "eraft's compiled modules need a little-endian machine; use ERAFT_IMPL=python"
#endif

#if defined(CYTHON_TRACE_NOGIL) && CYTHON_TRACE_NOGIL
#define ERAFT_TRACED 1
#else
#define ERAFT_TRACED 0
#endif

static uint32_t eraft_crc32_tables[16][256];
static uint16_t eraft_crc16_tables[8][256];

/* Every module that includes this has tables of its own and calls it once when it is imported. */
static inline void eraft_checksum_init(void)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t crc32 = byte;
        uint16_t crc16 = (uint16_t)(byte << 8);
        for (int bit = 0; bit < 8; bit++) {
            crc32 = crc32 & 1 ? crc32 >> 1 ^ 0xEDB88320u : crc32 >> 1;
            crc16 = (uint16_t)(crc16 & 0x8000 ? crc16 << 1 ^ 0x1021 : crc16 << 1);
        }
        eraft_crc32_tables[0][byte] = crc32;
        eraft_crc16_tables[0][byte] = crc16;
    }
    for (int table = 1; table < 16; table++)
        for (unsigned byte = 0; byte < 256; byte++) {
            uint32_t crc = eraft_crc32_tables[table - 1][byte];
            eraft_crc32_tables[table][byte] = crc >> 8 ^ eraft_crc32_tables[0][crc & 0xFF];
        }
    for (int table = 1; table < 8; table++)
        for (unsigned byte = 0; byte < 256; byte++) {
            uint16_t crc = eraft_crc16_tables[table - 1][byte];
            eraft_crc16_tables[table][byte] =
                (uint16_t)(crc << 8) ^ eraft_crc16_tables[0][crc >> 8];
        }
}

/* `crc` is the checksum of what came before, 0 at the start. */
static inline uint32_t eraft_crc32(uint32_t crc, const unsigned char *data, size_t size)
{
    const uint32_t (*t)[256] = (const uint32_t (*)[256])eraft_crc32_tables;
    crc = ~crc;
    for (; size >= 16; data += 16, size -= 16) {
        uint32_t a, b, c, d;
        memcpy(&a, data, 4);
        memcpy(&b, data + 4, 4);
        memcpy(&c, data + 8, 4);
        memcpy(&d, data + 12, 4);
        a ^= crc;
        crc = t[15][a & 0xFF] ^ t[14][a >> 8 & 0xFF] ^ t[13][a >> 16 & 0xFF] ^ t[12][a >> 24]
            ^ t[11][b & 0xFF] ^ t[10][b >> 8 & 0xFF] ^ t[9][b >> 16 & 0xFF] ^ t[8][b >> 24]
            ^ t[7][c & 0xFF] ^ t[6][c >> 8 & 0xFF] ^ t[5][c >> 16 & 0xFF] ^ t[4][c >> 24]
            ^ t[3][d & 0xFF] ^ t[2][d >> 8 & 0xFF] ^ t[1][d >> 16 & 0xFF] ^ t[0][d >> 24];
    }
    for (; size; data++, size--)
        crc = crc >> 8 ^ t[0][(crc ^ *data) & 0xFF];
    return ~crc;
}

static inline uint16_t eraft_crc16(const unsigned char *data, size_t size)
{
    const uint16_t (*t)[256] = (const uint16_t (*)[256])eraft_crc16_tables;
    uint16_t crc = 0;
    for (; size >= 8; data += 8, size -= 8)
        crc = t[7][data[0] ^ crc >> 8] ^ t[6][data[1] ^ (crc & 0xFF)]
            ^ t[5][data[2]] ^ t[4][data[3]] ^ t[3][data[4]] ^ t[2][data[5]]
            ^ t[1][data[6]] ^ t[0][data[7]];
    for (; size; data++, size--)
        crc = (uint16_t)(crc << 8) ^ t[0][crc >> 8 ^ *data];
    return crc;
}

/* CRC16 of the key, or of its hash tag, modulo 16384: a Redis Cluster hash slot. */
static inline int eraft_bucket(const unsigned char *key, size_t size)
{
    const unsigned char *open = memchr(key, '{', size);
    if (open) {
        const unsigned char *tag = open + 1;
        const unsigned char *close = memchr(tag, '}', size - (size_t)(tag - key));
        if (close && close > tag) {
            key = tag;
            size = (size_t)(close - tag);
        }
    }
    return eraft_crc16(key, size) & 16383;
}

#endif
