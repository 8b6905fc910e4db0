# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of `eraft._pure.reply`, which has the documentation."""

from typing import Any

from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from eraft._core.checksum_h cimport ERAFT_TRACED
from eraft._core.resp_h cimport ERAFT_LINE_BYTES, eraft_write_number

__all__ = [
    "IMPL", "OK", "TRACED", "Reply", "ReplyError", "Simple", "Verbatim", "encode", "encode_null",
]

cdef extern from "Python.h":
    int Py_EnterRecursiveCall(const char *where) except *
    void Py_LeaveRecursiveCall()

cdef enum:
    STACK_BYTES = 2048
    OK_BYTES = 5

IMPL = "cython"
TRACED = ERAFT_TRACED != 0

Reply = Any


class Simple(bytes):
    __slots__ = ()


class ReplyError(bytes):
    __slots__ = ()


class Verbatim(bytes):
    __slots__ = ()


OK = Simple(b"OK")

cdef object _ok = OK
cdef object _simple = Simple
cdef object _error = ReplyError
cdef object _verbatim = Verbatim
cdef bytes _one_line = bytes.maketrans(b"\r\n", b"  ")


cdef struct Output:
    unsigned char *data
    Py_ssize_t size
    Py_ssize_t capacity
    # NULL while `data` is on the stack.
    unsigned char *heap
    bint resp3


cdef unsigned char *_room(Output *out, Py_ssize_t size) except NULL:
    """Return where `size` more bytes may be written."""
    cdef Py_ssize_t needed = out.size + size
    cdef unsigned char *grown
    if needed > out.capacity:
        needed += needed >> 1
        grown = <unsigned char *>PyMem_Realloc(out.heap, <size_t>needed)
        if grown == NULL:
            raise MemoryError
        if out.heap == NULL:
            memcpy(grown, out.data, <size_t>out.size)
        out.data = out.heap = grown
        out.capacity = needed
    return out.data + out.size


cdef int _number(Output *out, unsigned char mark, long long number) except -1:
    cdef unsigned char *start = _room(out, ERAFT_LINE_BYTES)
    cdef uint64_t size = <uint64_t>number
    if number < 0:
        size = 0 - size
    out.size += eraft_write_number(start, mark, size, number < 0) - start
    return 0


cdef int _line(Output *out, unsigned char mark, bytes text) except -1:
    """Write mark, text and the end of the line."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    cdef unsigned char *place = _room(out, size + 3)
    place[0] = mark
    memcpy(place + 1, PyBytes_AS_STRING(text), <size_t>size)
    memcpy(place + 1 + size, b"\r\n", 2)
    out.size += size + 3
    return 0


cdef int _bulk(Output *out, bytes value, unsigned char mark=b"$") except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    cdef unsigned char *start = _room(out, size + ERAFT_LINE_BYTES + 2)
    cdef unsigned char *place = eraft_write_number(start, mark, <uint64_t>size, False)
    memcpy(place, PyBytes_AS_STRING(value), <size_t>size)
    memcpy(place + size, b"\r\n", 2)
    out.size += place + size + 2 - start
    return 0


cdef int _integer(Output *out, object value) except -1:
    cdef int overflow = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        return _line(out, b":", b"%d" % value)
    return _number(out, b":", number)


cdef int _null(Output *out) except -1:
    return _line(out, b"_", b"") if out.resp3 else _line(out, b"$", b"-1")


cdef int _container(Output *out, object reply) except -1:
    Py_EnterRecursiveCall(b" while encoding a reply")
    try:
        if isinstance(reply, dict):
            if out.resp3:
                _number(out, b"%", len(reply))
            else:
                _number(out, b"*", 2 * len(reply))
            for name, value in (<dict>reply).items():
                _encode(out, name)
                _encode(out, value)
        else:
            _number(out, b"*", len(reply))
            for item in reply:
                _encode(out, item)
    finally:
        Py_LeaveRecursiveCall()
    return 0


cdef int _bool(Output *out, bint value) except -1:
    if out.resp3:
        return _line(out, b"#", b"t" if value else b"f")
    return _number(out, b":", value)


cdef int _float(Output *out, double value) except -1:
    cdef bytes text = b"nan" if value != value else b"%.17g" % value
    return _line(out, b",", text) if out.resp3 else _bulk(out, text)


cdef int _encode(Output *out, object reply) except -1:
    if PyBytes_CheckExact(reply):
        return _bulk(out, <bytes>reply)
    if PyLong_CheckExact(reply):
        return _integer(out, reply)
    if reply is None:
        return _null(out)
    if isinstance(reply, bytes):
        if isinstance(reply, _simple):
            return _line(out, b"+", <bytes>reply)
        if isinstance(reply, _error):
            return _line(out, b"-", (<bytes>reply).translate(_one_line))
        if out.resp3 and isinstance(reply, _verbatim):
            return _bulk(out, b"txt:" + <bytes>reply, b"=")
        return _bulk(out, <bytes>reply)
    if isinstance(reply, (list, tuple, dict)):
        return _container(out, reply)
    if isinstance(reply, bool):
        return _bool(out, reply)
    if isinstance(reply, int):
        return _integer(out, reply)
    if isinstance(reply, float):
        return _float(out, reply)
    raise TypeError(f"not a reply: {type(reply).__name__}")


cdef bytes _oks(Py_ssize_t count):
    cdef bytes data = PyBytes_FromStringAndSize(NULL, OK_BYTES * count)
    cdef char *place = PyBytes_AS_STRING(data)
    cdef Py_ssize_t i
    for i in range(count):
        memcpy(place + OK_BYTES * i, b"+OK\r\n", OK_BYTES)
    return data


def encode(list replies not None, Py_ssize_t start, Py_ssize_t stop, int protocol):
    cdef unsigned char[STACK_BYTES] stack
    cdef Output out
    cdef Py_ssize_t i = start
    if not 0 <= start <= stop <= len(replies):
        raise ValueError(f"replies {start} to {stop} of {len(replies)}")
    _check(protocol)
    while i < stop and replies[i] is _ok:
        i += 1
    if i == stop:
        return _oks(stop - start)
    out.data = stack
    out.heap = NULL
    out.size = 0
    out.capacity = STACK_BYTES
    out.resp3 = protocol == 3
    try:
        for i in range(start, stop):
            if replies[i] is _ok:
                _line(&out, b"+", <bytes>_ok)
            else:
                _encode(&out, replies[i])
        return PyBytes_FromStringAndSize(<char *>out.data, out.size)
    finally:
        PyMem_Free(out.heap)


cdef int _check(int protocol) except -1:
    if protocol != 2 and protocol != 3:
        raise ValueError(f"protocol {protocol}: must be 2 or 3")
    return 0


def encode_null(int protocol):
    _check(protocol)
    return b"_\r\n" if protocol == 3 else b"$-1\r\n"
