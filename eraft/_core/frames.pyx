# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of `eraft._pure.frames`, which has the documentation.

The fields of a Message are read and written where its class keeps them (the
offsets of its slots), as the interpreter's own specialised instructions do.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_AsUnsignedLongLong
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT64_MAX, INT64_MIN, UINT32_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset

from eraft._core.checksum_h cimport ERAFT_TRACED, eraft_checksum_init, eraft_crc32

from dataclasses import replace
from types import MemberDescriptorType

from eraft._pure.frames import (
    DIGEST,
    HELLO,
    LEADS,
    META_REPLY,
    META_REQUEST,
    RAFT,
    SNAPSHOT_CHUNK,
    SNAPSHOT_END,
    SNAPSHOT_REQUEST,
    TABLE,
    TABLE_REQUEST,
)
from eraft.errors import ChecksumMismatch, FrameTooLarge, ProtocolError
from eraft.types import Message, MessageKind

__all__ = [
    "DIGEST",
    "FRAME_HEADER_BYTES",
    "HELLO",
    "IMPL",
    "LEADS",
    "MESSAGE_HEADER_BYTES",
    "META_REPLY",
    "META_REQUEST",
    "RAFT",
    "SNAPSHOT_CHUNK",
    "SNAPSHOT_END",
    "SNAPSHOT_REQUEST",
    "TABLE",
    "TABLE_REQUEST",
    "TRACED",
    "FrameReader",
    "decode_messages",
    "encode_frame",
    "encode_messages",
]

cdef extern from "Python.h":
    object PyType_GenericAlloc(PyTypeObject *type, Py_ssize_t items)

cdef extern from *:
    """
    #include <structmember.h>
    """
    ctypedef struct PyMemberDef:
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef *d_member

cdef enum:
    _FRAME_HEADER = 8
    _BATCH_HEADER = 12
    _MESSAGE_HEADER = 74
    _NUMBERS = 8
    _KIND_RAFT = 2

eraft_checksum_init()

IMPL = "cython"
TRACED = ERAFT_TRACED != 0
FRAME_HEADER_BYTES = _FRAME_HEADER
MESSAGE_HEADER_BYTES = _MESSAGE_HEADER

cdef int _first_kind = HELLO
cdef int _last_kind = SNAPSHOT_END
cdef unsigned char[256] _message_kinds
memset(_message_kinds, 0, 256)
for _kind in MessageKind:
    _message_kinds[<unsigned char>_kind] = 1


cdef packed struct FrameHeader:
    uint32_t length
    uint32_t checksum


cdef packed struct BatchHeader:
    uint64_t table_version
    uint32_t count


cdef packed struct MessageHeader:
    unsigned char kind
    unsigned char reject
    uint32_t gid
    uint64_t[_NUMBERS] numbers
    uint32_t size


cdef Py_ssize_t _slot(str name) except -1:
    descriptor = Message.__dict__[name]
    if type(descriptor) is not MemberDescriptorType:
        raise ImportError(f"Message.{name} is not a slot")
    return (<PyMemberDescrObject *>descriptor).d_member.offset


cdef Py_ssize_t _kind_slot = _slot("kind")
cdef Py_ssize_t _reject_slot = _slot("reject")
cdef Py_ssize_t _gid_slot = _slot("gid")
cdef Py_ssize_t _entries_slot = _slot("entries")
cdef Py_ssize_t[_NUMBERS] _number_slots
for _i, _name in enumerate(
    ("sender", "to", "term", "index", "log_term", "commit", "context", "hint")
):
    _number_slots[_i] = _slot(_name)


cdef inline object _field(PyObject *message, Py_ssize_t slot):
    cdef PyObject *value = (<PyObject **>(<char *>message + slot))[0]
    if value == NULL:
        raise AttributeError("a field of the message is not set")
    return <object>value


cdef inline void _set_field(PyObject *message, Py_ssize_t slot, object value) noexcept:
    """Of a new message, whose fields are all empty."""
    Py_INCREF(value)
    (<PyObject **>(<char *>message + slot))[0] = <PyObject *>value


def encode_frame(kind, body):
    if not _first_kind <= kind <= _last_kind:
        raise ValueError(f"unknown frame kind {kind}")
    cdef Py_buffer view
    PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
    try:
        frame = _new_frame(view.len + 1)
        data = <unsigned char *>PyBytes_AS_STRING(frame) + _FRAME_HEADER
        data[0] = kind
        memcpy(data + 1, view.buf, <size_t>view.len)
        _seal(frame)
        return frame
    finally:
        PyBuffer_Release(&view)


cdef bytes _new_frame(Py_ssize_t length):
    if length > UINT32_MAX:
        raise FrameTooLarge(f"frame of {length} bytes, the limit is {UINT32_MAX}")
    return PyBytes_FromStringAndSize(NULL, _FRAME_HEADER + length)


cdef int _seal(bytes frame) except -1:
    """Writes the header of a frame that is complete otherwise."""
    cdef FrameHeader header
    data = <unsigned char *>PyBytes_AS_STRING(frame)
    header.length = <uint32_t>(PyBytes_GET_SIZE(frame) - _FRAME_HEADER)
    header.checksum = eraft_crc32(0, data + _FRAME_HEADER, header.length)
    memcpy(data, &header, _FRAME_HEADER)
    return 0


def encode_messages(table_version, messages):
    cdef BatchHeader batch
    # A tuple: nothing can change it while it is read.
    cdef tuple sent = tuple(messages)
    cdef Py_ssize_t count = len(sent)
    cdef Py_ssize_t length = 1 + _BATCH_HEADER + count * _MESSAGE_HEADER
    cdef Py_ssize_t i
    try:
        batch.table_version = PyLong_AsUnsignedLongLong(table_version)
    except (OverflowError, TypeError):
        raise ValueError(f"table version {table_version} does not fit its field") from None
    batch.count = <uint32_t>count
    for i in range(count):
        message = sent[i]
        if not isinstance(message, Message):
            raise TypeError(f"a Message is needed, not {type(message).__name__}")
        entries = _field(<PyObject *>message, _entries_slot)
        if not PyBytes_CheckExact(entries):
            # What can change must not be measured first and copied later.
            return encode_messages(
                table_version, [replace(other, entries=bytes(other.entries)) for other in sent]
            )
        length += PyBytes_GET_SIZE(entries)
    frame = _new_frame(length)
    data = <unsigned char *>PyBytes_AS_STRING(frame) + _FRAME_HEADER
    data[0] = _KIND_RAFT
    memcpy(data + 1, &batch, _BATCH_HEADER)
    data += 1 + _BATCH_HEADER
    for i in range(count):
        data = _put_message(data, sent[i])
    _seal(frame)
    return frame


cdef unsigned char *_put_message(unsigned char *data, object message) except NULL:
    cdef PyObject *fields = <PyObject *>message
    cdef MessageHeader header
    cdef uint64_t kind
    cdef uint64_t reject
    cdef uint64_t gid
    cdef Py_ssize_t i
    entries = _field(fields, _entries_slot)
    try:
        kind = PyLong_AsUnsignedLongLong(_field(fields, _kind_slot))
        reject = PyLong_AsUnsignedLongLong(_field(fields, _reject_slot))
        gid = PyLong_AsUnsignedLongLong(_field(fields, _gid_slot))
        for i in range(_NUMBERS):
            header.numbers[i] = PyLong_AsUnsignedLongLong(_field(fields, _number_slots[i]))
        if kind > 0xFF or reject > 0xFF or gid > UINT32_MAX:
            raise OverflowError
    except (OverflowError, TypeError):
        raise ValueError(
            f"a number of a message of group {message.gid} from {message.sender} "
            f"to {message.to} does not fit its field"
        ) from None
    header.kind = <unsigned char>kind
    header.reject = <unsigned char>reject
    header.gid = <uint32_t>gid
    header.size = <uint32_t>PyBytes_GET_SIZE(entries)
    memcpy(data, &header, _MESSAGE_HEADER)
    data += _MESSAGE_HEADER
    memcpy(data, PyBytes_AS_STRING(entries), header.size)
    return data + header.size


def decode_messages(body):
    cdef Py_buffer view
    PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
    try:
        return _decode(<const unsigned char *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef tuple _decode(const unsigned char *body, Py_ssize_t total):
    cdef BatchHeader batch
    cdef MessageHeader header
    cdef Py_ssize_t offset = _BATCH_HEADER
    cdef Py_ssize_t left
    cdef list messages = []
    if total < _BATCH_HEADER:
        raise ProtocolError(f"RAFT body of {total} bytes, it takes at least {_BATCH_HEADER}")
    memcpy(&batch, body, _BATCH_HEADER)
    if batch.count > <uint64_t>((total - offset) // _MESSAGE_HEADER):
        raise ProtocolError(f"RAFT body of {total} bytes announces {batch.count} messages")
    for _ in range(batch.count):
        left = total - offset - _MESSAGE_HEADER
        if left < 0:
            raise ProtocolError(
                f"message at offset {offset}: {total - offset} bytes of its header"
            )
        memcpy(&header, body + offset, _MESSAGE_HEADER)
        if not _message_kinds[header.kind]:
            raise ProtocolError(f"message at offset {offset}: unknown kind {header.kind}")
        if header.reject > 1:
            raise ProtocolError(f"message at offset {offset}: reject is {header.reject}")
        if header.size > left:
            raise ProtocolError(
                f"message at offset {offset}: {header.size} bytes of entries, {left} are left"
            )
        offset += _MESSAGE_HEADER
        messages.append(_new_message(&header, body + offset))
        offset += header.size
    if offset != total:
        raise ProtocolError(f"RAFT body: {total - offset} bytes after the last message")
    return batch.table_version, messages


cdef object _new_message(const MessageHeader *header, const unsigned char *entries):
    message = PyType_GenericAlloc(<PyTypeObject *>Message, 0)
    cdef PyObject *fields = <PyObject *>message
    cdef Py_ssize_t i
    _set_field(fields, _kind_slot, header.kind)
    _set_field(fields, _reject_slot, header.reject == 1)
    _set_field(fields, _gid_slot, header.gid)
    for i in range(_NUMBERS):
        _set_field(fields, _number_slots[i], header.numbers[i])
    _set_field(
        fields, _entries_slot, PyBytes_FromStringAndSize(<const char *>entries, header.size)
    )
    return message


cdef class FrameReader:
    cdef int64_t _limit
    cdef object _broken
    # What has arrived of a frame that is not complete.
    cdef unsigned char *_rest
    cdef Py_ssize_t _size
    cdef Py_ssize_t _capacity

    def __cinit__(self, limit_bytes):
        cdef int overflow = 0
        self._limit = PyLong_AsLongLongAndOverflow(limit_bytes, &overflow)
        if overflow:
            self._limit = INT64_MAX if overflow > 0 else INT64_MIN

    def __dealloc__(self):
        free(self._rest)

    def __sizeof__(self):
        return object.__sizeof__(self) + self._capacity

    def feed(self, data):
        if self._broken is not None:
            raise self._broken
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self._feed(<const unsigned char *>view.buf, view.len)
        except ProtocolError as error:
            self._broken = error
            self._keep(NULL, 0)
            raise
        finally:
            PyBuffer_Release(&view)

    cdef list _feed(self, const unsigned char *data, Py_ssize_t size):
        cdef list frames = []
        if self._size:
            self._append(data, size)
            data = self._rest
            size = self._size
        cdef Py_ssize_t done = self._cut(data, size, frames)
        self._keep(data + done, size - done)
        return frames

    cdef int _append(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t wanted = self._size + size
        cdef void *grown
        if wanted > self._capacity:
            wanted = max(wanted, min(2 * self._capacity, 2 * wanted))
            grown = realloc(self._rest, <size_t>wanted)
            if grown == NULL:
                raise MemoryError
            self._rest = <unsigned char *>grown
            self._capacity = wanted
        memcpy(self._rest + self._size, data, <size_t>size)
        self._size += size
        return 0

    cdef int _keep(self, const unsigned char *data, Py_ssize_t size) except -1:
        """Nothing but `data` is left, which may be a part of what is held."""
        if size == 0:
            free(self._rest)
            self._rest = NULL
            self._size = self._capacity = 0
        elif self._size:
            if data != self._rest:
                memmove(self._rest, data, <size_t>size)
                self._size = size
        else:
            self._append(data, size)
        return 0

    cdef Py_ssize_t _cut(
        self, const unsigned char *data, Py_ssize_t total, list frames
    ) except -1:
        """Appends the complete frames; where the first incomplete one begins."""
        cdef FrameHeader header
        cdef Py_ssize_t offset = 0
        cdef uint32_t actual
        cdef const unsigned char *payload
        while total - offset >= _FRAME_HEADER:
            memcpy(&header, data + offset, _FRAME_HEADER)
            if header.length > self._limit:
                raise FrameTooLarge(
                    f"frame of {header.length} bytes, the limit is {self._limit}"
                )
            if header.length == 0:
                raise ProtocolError("frame of 0 bytes")
            if header.length > total - offset - _FRAME_HEADER:
                break
            payload = data + offset + _FRAME_HEADER
            actual = eraft_crc32(0, payload, header.length)
            if actual != header.checksum:
                raise ChecksumMismatch(
                    f"frame of {header.length} bytes: checksum {actual:#010x} "
                    f"instead of {header.checksum:#010x}"
                )
            if not _first_kind <= payload[0] <= _last_kind:
                raise ProtocolError(
                    f"unknown frame kind {payload[0]} (frame of {header.length} bytes)"
                )
            frames.append((
                payload[0],
                PyBytes_FromStringAndSize(<const char *>payload + 1, header.length - 1),
            ))
            offset += _FRAME_HEADER + <Py_ssize_t>header.length
        return offset
