/* CRC-32 (as zlib's) and CRC16/XMODEM, several bytes per step by table
 * ("slicing", Kounavis and Berry, 2005): calling zlib through Python costs
 * more than the checksum of a small value. Where the processor multiplies
 * polynomials, CRC-32 of 64 bytes and more is "folded" (Gopal et al., Fast CRC
 * Computation for Generic Polynomials Using PCLMULQDQ Instruction, 2009),
 * several times as fast as zlib. Also whether line tracing is compiled in,
 * which no benchmark may run with. */
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
/* Whether this processor folds. */
static int eraft_crc32_folds;

#ifdef __x86_64__
#include <immintrin.h>

#define ERAFT_FOLDING __attribute__((target("pclmul,sse4.1")))

/* `sum` moved by as many bits as the powers in `by` stand for, plus what is there. */
ERAFT_FOLDING static inline __m128i eraft_crc32_fold(__m128i sum, __m128i by, __m128i there)
{
    __m128i low = _mm_clmulepi64_si128(sum, by, 0x00);
    __m128i high = _mm_clmulepi64_si128(sum, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), there);
}

/* As eraft_crc32, but inverted before and after; a multiple of 16 bytes, 64 at least.
 * The constants are those of the paper: powers of x modulo the polynomial, bits reversed. */
ERAFT_FOLDING static inline uint32_t eraft_crc32_folded(
    uint32_t crc, const unsigned char *data, size_t size)
{
    const __m128i by_512_bits = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);
    const __m128i by_128_bits = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    const __m128i by_64_bits = _mm_set_epi64x(0, 0x163cd6124);
    const __m128i polynomial = _mm_set_epi64x(0x1f7011641, 0x1db710641);
    const __m128i words = _mm_set_epi32(0, -1, 0, -1);
    const __m128i *place = (const __m128i *)data;
    __m128i sums[4], sum, low;
#pragma GCC unroll 4
    for (int lane = 0; lane < 4; lane++)
        sums[lane] = _mm_loadu_si128(place++);
    sums[0] = _mm_xor_si128(sums[0], _mm_cvtsi32_si128((int)crc));
    for (size -= 64; size >= 64; size -= 64)
#pragma GCC unroll 4
        for (int lane = 0; lane < 4; lane++)
            sums[lane] = eraft_crc32_fold(sums[lane], by_512_bits, _mm_loadu_si128(place++));
    sum = sums[0];
#pragma GCC unroll 4
    for (int lane = 1; lane < 4; lane++)
        sum = eraft_crc32_fold(sum, by_128_bits, sums[lane]);
    for (; size; size -= 16)
        sum = eraft_crc32_fold(sum, by_128_bits, _mm_loadu_si128(place++));
    /* From 128 bits to 64, ... */
    sum = _mm_xor_si128(_mm_srli_si128(sum, 8), _mm_clmulepi64_si128(sum, by_128_bits, 0x10));
    low = _mm_clmulepi64_si128(_mm_and_si128(sum, words), by_64_bits, 0x00);
    sum = _mm_xor_si128(_mm_srli_si128(sum, 4), low);
    /* ... and to 32, by Barrett's reduction. */
    low = _mm_clmulepi64_si128(_mm_and_si128(sum, words), polynomial, 0x10);
    low = _mm_clmulepi64_si128(_mm_and_si128(low, words), polynomial, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(sum, low), 1);
}
#endif

/* Every module that includes this has tables of its own and calls it once when it is imported. */
static inline void eraft_checksum_init(void)
{
#ifdef __x86_64__
    eraft_crc32_folds = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
#endif
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
#ifdef __x86_64__
    if (size >= 64 && eraft_crc32_folds) {
        size_t folded = size & ~(size_t)15;
        crc = eraft_crc32_folded(crc, data, folded);
        data += folded;
        size -= folded;
    }
#endif
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
    for (; size >= 4; data += 4, size -= 4) {
        uint32_t a;
        memcpy(&a, data, 4);
        a ^= crc;
        crc = t[3][a & 0xFF] ^ t[2][a >> 8 & 0xFF] ^ t[1][a >> 16 & 0xFF] ^ t[0][a >> 24];
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
