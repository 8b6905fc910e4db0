# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of `eraft._pure.inline`, which has the documentation."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc

from eraft._core.checksum_h cimport ERAFT_TRACED

__all__ = ["IMPL", "TRACED", "split"]

cdef enum:
    BARE
    DOUBLE
    SINGLE

IMPL = "cython"
TRACED = ERAFT_TRACED != 0


cdef struct Line:
    const unsigned char *place
    const unsigned char *end


cdef inline bint _is_blank(unsigned char byte) noexcept:
    return byte == 32 or 9 <= byte <= 13


cdef inline int _hex(unsigned char byte) noexcept:
    """Return the value of a hex digit, -1 if it is none."""
    if 48 <= byte <= 57:
        return byte - 48
    byte |= 32
    return byte - 87 if 97 <= byte <= 102 else -1


cdef inline unsigned char _named(unsigned char byte) noexcept:
    if byte == b"n":
        return 10
    if byte == b"r":
        return 13
    if byte == b"t":
        return 9
    if byte == b"b":
        return 8
    if byte == b"a":
        return 7
    return byte


cdef unsigned char _unescape(Line *line) noexcept:
    """Read what follows a backslash between double quotes; there is at least one byte."""
    cdef const unsigned char *place = line.place
    if (
        line.end - place >= 3 and place[0] == b"x"
        and _hex(place[1]) >= 0 and _hex(place[2]) >= 0
    ):
        line.place += 3
        return <unsigned char>(_hex(place[1]) * 16 + _hex(place[2]))
    line.place += 1
    return _named(place[0])


cdef Py_ssize_t _argument(Line *line, unsigned char *out) noexcept:
    """Read one argument into `out`; return its size, -1 if a quote is not balanced."""
    cdef Py_ssize_t size = 0
    cdef int quote = BARE
    cdef unsigned char byte
    while line.place < line.end:
        byte = line.place[0]
        line.place += 1
        if quote == BARE:
            if byte == b" " or byte == b"\t" or byte == b"\n" or byte == b"\r":
                return size
            if byte == b'"':
                quote = DOUBLE
                continue
            if byte == b"'":
                quote = SINGLE
                continue
        elif (quote == DOUBLE and byte == b'"') or (quote == SINGLE and byte == b"'"):
            return size if line.place == line.end or _is_blank(line.place[0]) else -1
        elif byte == b"\\" and line.place < line.end:
            if quote == DOUBLE:
                byte = _unescape(line)
            elif line.place[0] == b"'":
                byte = b"'"
                line.place += 1
        out[size] = byte
        size += 1
    return size if quote == BARE else -1


def split(bytes line not None):
    cdef Line rest
    cdef list args = []
    cdef Py_ssize_t size
    cdef unsigned char *out = <unsigned char *>malloc(<size_t>len(line) + 1)
    if out == NULL:
        raise MemoryError
    rest.place = <const unsigned char *>PyBytes_AS_STRING(line)
    rest.end = rest.place + len(line)
    try:
        while True:
            while rest.place < rest.end and _is_blank(rest.place[0]):
                rest.place += 1
            if rest.place == rest.end:
                return args
            size = _argument(&rest, out)
            if size < 0:
                return None
            args.append(PyBytes_FromStringAndSize(<char *>out, size))
    finally:
        free(out)
