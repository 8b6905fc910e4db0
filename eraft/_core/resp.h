/* The numbers in RESP: reading lengths, writing lengths and integers. */
#ifndef ERAFT_RESP_H
#define ERAFT_RESP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Room for a mark, a sign, 20 digits and CR LF. */
#define ERAFT_LINE_BYTES 24

/* Read up to 18 digits without leading zeros, then CR LF. Return where that
 * ends, NULL if it is not all there or not so. */
static inline const unsigned char *eraft_read_length(
    const unsigned char *place, const unsigned char *end, int64_t *length)
{
    const unsigned char *last;
    int64_t number;
    if (place >= end || *place < '0' || *place > '9')
        return NULL;
    number = *place - '0';
    last = place + (number ? 18 : 1);
    for (place++; place < end && place < last && *place >= '0' && *place <= '9'; place++)
        number = number * 10 + (*place - '0');
    if (end - place < 2 || place[0] != '\r' || place[1] != '\n')
        return NULL;
    *length = number;
    return place + 2;
}

/* Write mark, number and CR LF; return where that ends. */
static inline unsigned char *eraft_write_number(
    unsigned char *place, unsigned char mark, uint64_t number, int negative)
{
    unsigned char digits[20];
    int count = 0;
    do {
        digits[count++] = (unsigned char)('0' + number % 10);
        number /= 10;
    } while (number);
    *place++ = mark;
    if (negative)
        *place++ = '-';
    while (count)
        *place++ = digits[--count];
    *place++ = '\r';
    *place++ = '\n';
    return place;
}

static inline unsigned char *eraft_write_length(
    unsigned char *place, unsigned char mark, size_t length)
{
    return eraft_write_number(place, mark, length, 0);
}

/* How many bytes a bulk string takes. */
static inline size_t eraft_bulk_bytes(size_t length)
{
    size_t digits = 1, rest = length;
    while (rest >= 10) {
        rest /= 10;
        digits++;
    }
    return 1 + digits + 2 + length + 2;
}

static inline unsigned char *eraft_write_bulk(
    unsigned char *place, const void *data, size_t length)
{
    place = eraft_write_length(place, '$', length);
    memcpy(place, data, length);
    memcpy(place + length, "\r\n", 2);
    return place + length + 2;
}

#endif
