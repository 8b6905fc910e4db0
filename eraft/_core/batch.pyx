# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of `eraft._pure.batch`, which has the documentation."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.dict cimport PyDict_SetItem
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from eraft._core.checksum_h cimport ERAFT_TRACED, eraft_bucket, eraft_checksum_init
from eraft._core.resp_h cimport eraft_bulk_bytes, eraft_read_length, eraft_write_bulk
from eraft._core.rows_h cimport (
    ERAFT_GENERATION_BYTES,
    ERAFT_KEY_HEADER_BYTES,
    ERAFT_ROW_HEADER_BYTES,
    eraft_digest,
    eraft_row_deadline,
    eraft_row_version,
    eraft_write_key,
    eraft_write_row_header,
)

from eraft._core.reply import OK, encode_null
from eraft.errors import InvariantViolation
from eraft.types import BUCKETS

__all__ = [
    "COMMANDS_OFFSET", "IMPL", "ROW_HEADER_BYTES", "TRACED", "apply_sets", "data_key",
    "decode_row", "digest_change", "encode_row", "encode_values", "read_command", "timestamp",
]

cdef enum:
    TIMESTAMP_BYTES = 8
    SET_HEAD_BYTES = 14
    OWNED = 1

eraft_checksum_init()

IMPL = "cython"
TRACED = ERAFT_TRACED != 0
COMMANDS_OFFSET = TIMESTAMP_BYTES
ROW_HEADER_BYTES = ERAFT_ROW_HEADER_BYTES

cdef object _ok = OK
cdef Py_ssize_t _buckets = BUCKETS


cdef struct Bulk:
    const unsigned char *data
    Py_ssize_t size


cdef bytes _key(bytes prefix, int bucket, const unsigned char *key, Py_ssize_t size):
    cdef Py_ssize_t prefix_size = PyBytes_GET_SIZE(prefix)
    cdef bytes row_key = PyBytes_FromStringAndSize(
        NULL, prefix_size + ERAFT_KEY_HEADER_BYTES + size
    )
    eraft_write_key(
        <unsigned char *>PyBytes_AS_STRING(row_key), PyBytes_AS_STRING(prefix),
        <size_t>prefix_size, bucket, key, <size_t>size,
    )
    return row_key


cdef bytes _row(uint64_t version, uint64_t deadline_ms, const void *value, Py_ssize_t size):
    cdef bytes row = PyBytes_FromStringAndSize(NULL, ERAFT_ROW_HEADER_BYTES + size)
    cdef unsigned char *place = <unsigned char *>PyBytes_AS_STRING(row)
    eraft_write_row_header(place, version, deadline_ms)
    memcpy(place + ERAFT_ROW_HEADER_BYTES, value, <size_t>size)
    return row


def data_key(bytes prefix not None, key):
    cdef Py_buffer view
    PyObject_GetBuffer(key, &view, PyBUF_SIMPLE)
    try:
        return _key(
            prefix, eraft_bucket(<const unsigned char *>view.buf, <size_t>view.len),
            <const unsigned char *>view.buf, view.len,
        )
    finally:
        PyBuffer_Release(&view)


def encode_row(uint64_t version, uint64_t deadline_ms, value):
    cdef Py_buffer view
    PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    try:
        return _row(version, deadline_ms, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef int _check_row(const unsigned char *row, Py_ssize_t size) except -1:
    if size < ERAFT_ROW_HEADER_BYTES:
        raise InvariantViolation(f"a row has at least {ROW_HEADER_BYTES} bytes, not {size}")
    if row[0] != 0:
        raise InvariantViolation(f"a row has unknown flags {row[0]:#04x}")
    return 0


def decode_row(row):
    cdef Py_buffer view
    cdef const unsigned char *place
    PyObject_GetBuffer(row, &view, PyBUF_SIMPLE)
    try:
        place = <const unsigned char *>view.buf
        _check_row(place, view.len)
        return eraft_row_version(place), eraft_row_deadline(place), PyBytes_FromStringAndSize(
            <const char *>place + ERAFT_ROW_HEADER_BYTES, view.len - ERAFT_ROW_HEADER_BYTES
        )
    finally:
        PyBuffer_Release(&view)


cdef inline uint32_t _digest(uint32_t digest, bytes key, bytes row):
    return eraft_digest(
        digest, <const unsigned char *>PyBytes_AS_STRING(key), <size_t>PyBytes_GET_SIZE(key),
        <const unsigned char *>PyBytes_AS_STRING(row) if row is not None else NULL,
        <size_t>PyBytes_GET_SIZE(row) if row is not None else 0,
    )


def digest_change(uint32_t digest, bytes key not None, bytes row):
    if PyBytes_GET_SIZE(key) < ERAFT_GENERATION_BYTES:
        raise ValueError(f"a key begins with a generation, but it has only {len(key)} bytes")
    return _digest(digest, key, row)


cdef inline const unsigned char *_read_bulk(
    const unsigned char *place, const unsigned char *end, Bulk *bulk
) noexcept:
    """Read a bulk string; return where it ends, NULL if there is none that is canonical."""
    cdef int64_t size = 0
    if place >= end or place[0] != b"$":
        return NULL
    place = eraft_read_length(place + 1, end, &size)
    if place == NULL or end - place - 2 < size:
        return NULL
    if place[size] != b"\r" or place[size + 1] != b"\n":
        return NULL
    bulk.data = place
    bulk.size = size
    return place + size + 2


cdef const unsigned char *_apply_sets(
    const unsigned char *place, const unsigned char *end, bytes prefix,
    const unsigned char *owned, uint64_t version, dict rows, list replies, uint32_t *digest,
) except NULL:
    cdef const unsigned char *next_place
    cdef Bulk key, value
    cdef bytes row_key, row
    cdef int bucket
    while end - place > SET_HEAD_BYTES:
        if memcmp(place, b"*3\r\n$3\r\nSET\r\n$", SET_HEAD_BYTES) != 0:
            break
        next_place = _read_bulk(place + SET_HEAD_BYTES - 1, end, &key)
        if next_place == NULL:
            break
        next_place = _read_bulk(next_place, end, &value)
        if next_place == NULL:
            break
        bucket = eraft_bucket(key.data, <size_t>key.size)
        if owned[bucket] != OWNED:
            break
        row_key = _key(prefix, bucket, key.data, key.size)
        row = _row(version, 0, value.data, value.size)
        PyDict_SetItem(rows, row_key, row)
        digest[0] = _digest(digest[0], row_key, row)
        if replies is not None:
            replies.append(_ok)
        place = next_place
    return place


def apply_sets(
    payload, Py_ssize_t offset, bytes prefix not None, owned, uint64_t version,
    dict rows not None, list replies, uint32_t digest,
):
    cdef Py_buffer view, owned_view
    cdef const unsigned char *start
    cdef const unsigned char *stop
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(owned, &owned_view, PyBUF_SIMPLE)
        try:
            if owned_view.len != _buckets:
                raise ValueError(
                    f"owned has {owned_view.len} bytes, not one for each of {BUCKETS} buckets"
                )
            if not 0 <= offset <= view.len:
                raise ValueError(
                    f"offset {offset} is outside the payload of {view.len} bytes"
                )
            start = <const unsigned char *>view.buf
            stop = _apply_sets(
                start + offset, start + view.len, prefix,
                <const unsigned char *>owned_view.buf, version, rows, replies, &digest,
            )
            return stop - start, digest
        finally:
            PyBuffer_Release(&owned_view)
    finally:
        PyBuffer_Release(&view)


cdef object _malformed(Py_ssize_t offset):
    return InvariantViolation(
        f"an entry's commands are canonical RESP, but not at byte {offset} of its payload"
    )


cdef tuple _read_command(const unsigned char *start, Py_ssize_t size, Py_ssize_t offset):
    cdef const unsigned char *end = start + size
    cdef const unsigned char *place
    cdef const unsigned char *body
    cdef int64_t count = 0, length = 0
    cdef list args = []
    if not 0 <= offset < size or start[offset] != b"*":
        raise _malformed(offset)
    place = eraft_read_length(start + offset + 1, end, &count)
    if place == NULL or count == 0:
        raise _malformed(offset)
    while count:
        body = NULL
        if place < end and place[0] == b"$":
            body = eraft_read_length(place + 1, end, &length)
        if body == NULL:
            raise _malformed(place - start)
        if end - body - 2 < length or memcmp(body + length, b"\r\n", 2) != 0:
            raise _malformed(body - start)
        args.append(PyBytes_FromStringAndSize(<const char *>body, length))
        place = body + length + 2
        count -= 1
    return args, place - start


def read_command(payload, Py_ssize_t offset):
    cdef Py_buffer view
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        return _read_command(<const unsigned char *>view.buf, view.len, offset)
    finally:
        PyBuffer_Release(&view)


def timestamp(payload):
    cdef Py_buffer view
    cdef uint64_t ts_ms = 0
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        if view.len < TIMESTAMP_BYTES:
            raise InvariantViolation(
                f"a payload begins with a timestamp, but it has only {view.len} bytes"
            )
        memcpy(&ts_ms, view.buf, TIMESTAMP_BYTES)
        return ts_ms
    finally:
        PyBuffer_Release(&view)


cdef Py_ssize_t _live_value(object row, uint64_t clock_ms, uint64_t wall_ms) except -3:
    """Return the size of the row's value; -1 if there is none, -2 if the clock is behind."""
    cdef const unsigned char *place
    cdef uint64_t deadline_ms
    if row is None:
        return -1
    if not PyBytes_Check(row):
        raise TypeError(f"a row is bytes, not {type(row).__name__}")
    place = <const unsigned char *>PyBytes_AS_STRING(row)
    _check_row(place, PyBytes_GET_SIZE(row))
    deadline_ms = eraft_row_deadline(place)
    if deadline_ms != 0:
        if deadline_ms <= clock_ms:
            return -1
        if deadline_ms <= wall_ms:
            return -2
    return PyBytes_GET_SIZE(row) - ERAFT_ROW_HEADER_BYTES


def encode_values(
    list rows not None, Py_ssize_t start, Py_ssize_t stop,
    uint64_t clock_ms, uint64_t wall_ms, int protocol,
):
    cdef bytes null = encode_null(protocol)
    cdef bytes data
    cdef unsigned char *place
    cdef Py_ssize_t i, size, total = 0
    if not 0 <= start <= stop <= len(rows):
        raise ValueError(f"rows {start} to {stop} of {len(rows)}")
    for i in range(start, stop):
        size = _live_value(rows[i], clock_ms, wall_ms)
        if size == -2:
            return None
        total += PyBytes_GET_SIZE(null) if size < 0 else <Py_ssize_t>eraft_bulk_bytes(<size_t>size)
    data = PyBytes_FromStringAndSize(NULL, total)
    place = <unsigned char *>PyBytes_AS_STRING(data)
    for i in range(start, stop):
        size = _live_value(rows[i], clock_ms, wall_ms)
        if size < 0:
            memcpy(place, PyBytes_AS_STRING(null), <size_t>PyBytes_GET_SIZE(null))
            place += PyBytes_GET_SIZE(null)
        else:
            place = eraft_write_bulk(
                place, PyBytes_AS_STRING(rows[i]) + ERAFT_ROW_HEADER_BYTES, <size_t>size
            )
    return data
