# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of `eraft._pure.wal`, which has the documentation.

The log writer's thread is a plain POSIX thread: it never holds the GIL, so
neither does a sync wait for Python nor Python for a sync.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from eraft._core.checksum_h cimport ERAFT_TRACED, eraft_checksum_init, eraft_crc32

from eraft.errors import InvariantViolation, StorageError

__all__ = [
    "BAD_BODY", "BAD_HEADER", "BAD_ITEMS", "CHECKPOINT", "COMPACT", "COPY", "EMPTY",
    "ENTRIES", "GROUP_STATE", "HARD_STATE", "IMPL", "ITEM_HEADER_BYTES", "NODE", "QUEUE_REQUESTS",
    "RECORD_ALIGN_BYTES", "RECORD_HEADER_BYTES", "SALT_OFFSET", "TOMBSTONE", "TRACED", "VALID",
    "LogWriter", "encode_record", "record_size", "scan",
]

IMPL = "cython"
TRACED = ERAFT_TRACED != 0
GROUP_STATE = 1
HARD_STATE = 2
ENTRIES = 3
NODE = 4
CHECKPOINT = 5
COMPACT = 6
TOMBSTONE = 7
COPY = 8

cdef enum:
    _VALID = 0
    _EMPTY = 1
    _BAD_HEADER = 2
    _BAD_BODY = 3
    _BAD_ITEMS = 4
    _HEADER_BYTES = 48
    _ITEM_BYTES = 17
    _ALIGN = 8
    _QUEUE = 16

eraft_checksum_init()

VALID = _VALID
EMPTY = _EMPTY
BAD_HEADER = _BAD_HEADER
BAD_BODY = _BAD_BODY
BAD_ITEMS = _BAD_ITEMS

RECORD_HEADER_BYTES = _HEADER_BYTES
ITEM_HEADER_BYTES = _ITEM_BYTES
RECORD_ALIGN_BYTES = _ALIGN
SALT_OFFSET = 40
QUEUE_REQUESTS = _QUEUE


cdef packed struct Header:
    uint32_t checksum
    uint32_t body_checksum
    uint32_t length
    uint32_t count
    uint64_t sequence
    uint64_t position
    uint64_t durable
    uint64_t salt


cdef packed struct ItemHeader:
    uint32_t gid
    uint8_t kind
    uint64_t first_index
    uint32_t length


cdef uint32_t _checksum(const char *data, size_t size, uint64_t salt) noexcept:
    cdef uint32_t seed = <uint32_t>(salt ^ (salt >> 32))
    return eraft_crc32(seed, <const unsigned char *>data, size)


cdef Py_ssize_t _padded(Py_ssize_t size) noexcept:
    return (size + _ALIGN - 1) & ~<Py_ssize_t>(_ALIGN - 1)


def record_size(items):
    cdef Py_ssize_t size = _HEADER_BYTES
    for item in items:
        size += _ITEM_BYTES + len(item[3])
    return _padded(size)


def encode_record(
    uint64_t salt, uint64_t segment_seq, uint64_t position, uint64_t durable_position, items
):
    cdef Py_ssize_t size = record_size(items)
    cdef bytes record = PyBytes_FromStringAndSize(NULL, size)
    cdef char *start = PyBytes_AS_STRING(record)
    cdef Py_ssize_t place = _HEADER_BYTES
    cdef Py_buffer view
    cdef Header header
    cdef ItemHeader item
    cdef object payload
    for gid, kind, first_index, payload in items:
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        try:
            item.gid = gid
            item.kind = kind
            item.first_index = first_index
            if view.len > 0xFFFFFFFF or place + _ITEM_BYTES + view.len > size:
                raise OverflowError("an item is larger than a record can hold")
            item.length = <uint32_t>view.len
            memcpy(start + place, &item, _ITEM_BYTES)
            memcpy(start + place + _ITEM_BYTES, view.buf, view.len)
            place += _ITEM_BYTES + view.len
        finally:
            PyBuffer_Release(&view)
    memset(start + place, 0, size - place)
    if place - _HEADER_BYTES > 0xFFFFFFFF:
        raise OverflowError("the items are larger than a record can hold")
    header.length = <uint32_t>(place - _HEADER_BYTES)
    header.body_checksum = _checksum(start + _HEADER_BYTES, header.length, salt)
    header.count = len(items)
    header.sequence = segment_seq
    header.position = position
    header.durable = durable_position
    header.salt = salt
    header.checksum = _checksum(<char *>&header + 4, _HEADER_BYTES - 4, salt)
    memcpy(start, &header, _HEADER_BYTES)
    return record


def scan(buffer, Py_ssize_t offset, uint64_t salt, uint64_t segment_seq):
    cdef Py_buffer view
    if offset < 0:
        raise ValueError("the offset is negative")
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        return _scan(<const char *>view.buf, view.len, offset, salt, segment_seq)
    finally:
        PyBuffer_Release(&view)


cdef tuple _bad(int status, Py_ssize_t offset):
    return status, 0, 0, [], offset


cdef tuple _scan(
    const char *data, Py_ssize_t size, Py_ssize_t offset, uint64_t salt, uint64_t segment_seq
):
    cdef Header header
    cdef const char *body
    cdef Py_ssize_t place
    cdef bint empty = True
    cdef list items
    if size - offset < _HEADER_BYTES:
        return _bad(_EMPTY, offset)
    memcpy(&header, data + offset, _HEADER_BYTES)
    for place in range(_HEADER_BYTES):
        if data[offset + place] != 0:
            empty = False
            break
    if empty:
        return _bad(_EMPTY, offset)
    if (
        header.salt != salt
        or header.sequence != segment_seq
        or header.checksum != _checksum(<char *>&header + 4, _HEADER_BYTES - 4, salt)
        or <Py_ssize_t>header.length > size - offset - _HEADER_BYTES
    ):
        return _bad(_BAD_HEADER, offset)
    body = data + offset + _HEADER_BYTES
    if _checksum(body, header.length, salt) != header.body_checksum:
        return _BAD_BODY, header.position, header.durable, [], offset
    items = _items(body, header.length, header.count)
    if items is None:
        return _bad(_BAD_ITEMS, offset)
    return (
        _VALID, header.position, header.durable, items,
        offset + _HEADER_BYTES + _padded(header.length),
    )


cdef list _items(const char *body, Py_ssize_t size, uint32_t count):
    cdef list items = []
    cdef Py_ssize_t offset = 0
    cdef ItemHeader item
    cdef uint32_t _
    for _ in range(count):
        if offset + _ITEM_BYTES > size:
            return None
        memcpy(&item, body + offset, _ITEM_BYTES)
        offset += _ITEM_BYTES
        if <Py_ssize_t>item.length > size - offset:
            return None
        items.append((
            item.gid, item.kind, item.first_index,
            PyBytes_FromStringAndSize(body + offset, item.length),
        ))
        offset += item.length
    return items if offset == size else None


cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int fd, const void *data, size_t size, int64_t offset)
    ssize_t write(int fd, const void *data, size_t size)
    int fdatasync(int fd)


cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_SETMASK
    int sigfillset(sigset_t *signals)


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    int pthread_create(
        pthread_t *thread, const void *attributes, void *(*start)(void *) noexcept nogil, void *data
    )
    int pthread_join(pthread_t thread, void **result)
    int pthread_sigmask(int how, const sigset_t *new, sigset_t *old)


cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    int sem_init(sem_t *semaphore, int shared, unsigned int value)
    int sem_post(sem_t *semaphore)
    int sem_wait(sem_t *semaphore)
    int sem_destroy(sem_t *semaphore)


cdef extern from * nogil:
    """
    #define eraft_load(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    #define eraft_store(place, value) __atomic_store_n(place, value, __ATOMIC_RELEASE)
    """
    uint64_t eraft_load(uint64_t *place)
    void eraft_store(uint64_t *place, uint64_t value)


cdef struct Request:
    int fd
    int64_t offset
    const char *data
    size_t size
    uint64_t position


cdef struct Shared:
    # A semaphore and atomic counters, no mutex: a thread that is woken never
    # has to wait for the one that woke it. `work` is posted once for each
    # request and once to stop. The loop's thread writes `stopping` and
    # `submitted`, the writer's thread the others.
    sem_t work
    int eventfd
    uint64_t stopping
    uint64_t submitted
    uint64_t error
    uint64_t durable
    uint64_t done
    Request[_QUEUE] queue


cdef int _write(const Request *request) noexcept nogil:
    """Write and sync; return 0 or the errno."""
    cdef size_t written = 0
    cdef ssize_t count
    while written < request.size:
        count = pwrite(
            request.fd, request.data + written, request.size - written,
            request.offset + <int64_t>written,
        )
        if count > 0:
            written += <size_t>count
        elif count == 0:
            return EIO
        elif errno != EINTR:
            return errno
    if fdatasync(request.fd) != 0:
        return errno
    return 0


cdef void *_run(void *data) noexcept nogil:
    cdef Shared *shared = <Shared *>data
    cdef Request *request
    cdef uint64_t done = 0
    cdef int error = 0
    cdef uint64_t one = 1
    while True:
        while sem_wait(&shared.work) != 0:
            pass  # a signal came in between
        if done == eraft_load(&shared.submitted):
            if eraft_load(&shared.stopping):
                return NULL
            continue
        request = &shared.queue[done % _QUEUE]
        error = _write(request)
        if error:
            eraft_store(&shared.error, <uint64_t>error)
        else:
            done += 1
            eraft_store(&shared.durable, request.position)
            eraft_store(&shared.done, done)
        write(shared.eventfd, &one, 8)
        if error:
            return NULL


cdef class LogWriter:
    cdef Shared *_shared
    cdef pthread_t _thread
    cdef bint _running
    cdef uint64_t _position
    cdef uint64_t _submitted
    cdef uint64_t _released
    # Keeps the data of each request alive and in place until it is written.
    cdef Py_buffer[_QUEUE] _views

    def __cinit__(self, int eventfd):
        cdef sigset_t everything, before
        cdef int error
        self._shared = <Shared *>calloc(1, sizeof(Shared))
        if self._shared == NULL:
            raise MemoryError
        self._shared.eventfd = eventfd
        sem_init(&self._shared.work, 0, 0)
        # The thread inherits the mask: signals stay with Python's threads.
        sigfillset(&everything)
        pthread_sigmask(SIG_SETMASK, &everything, &before)
        error = pthread_create(&self._thread, NULL, _run, self._shared)
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if error:
            raise OSError(error, f"log writer: cannot start its thread: {os.strerror(error)}")
        self._running = True

    def __dealloc__(self):
        if self._shared == NULL:
            return
        self._stop()
        sem_destroy(&self._shared.work)
        free(self._shared)

    @property
    def durable(self):
        self._release()
        return eraft_load(&self._shared.durable)

    @property
    def error(self):
        return eraft_load(&self._shared.error)

    @property
    def pending(self):
        self._release()
        return self._submitted - self._released

    def submit(self, int fd, int64_t offset, data, uint64_t position):
        cdef Request *request
        cdef Py_buffer *view
        error = self.error
        if error:
            raise StorageError(f"log writer: failed earlier: {os.strerror(error)}")
        if not self._running:
            raise StorageError("log writer: closed")
        self._release()
        if self._submitted - self._released >= _QUEUE:
            raise InvariantViolation(f"log writer: more than {_QUEUE} requests wait")
        if position <= self._position:
            raise InvariantViolation(
                f"log writer: position {position} does not rise above {self._position}"
            )
        view = &self._views[self._submitted % _QUEUE]
        PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
        request = &self._shared.queue[self._submitted % _QUEUE]
        self._position = position
        self._submitted += 1
        request.fd = fd
        request.offset = offset
        request.data = <const char *>view.buf
        request.size = <size_t>view.len
        request.position = position
        eraft_store(&self._shared.submitted, self._submitted)
        sem_post(&self._shared.work)

    def close(self):
        self._stop()

    cdef void _stop(self) noexcept:
        if self._running:
            self._running = False
            eraft_store(&self._shared.stopping, 1)
            sem_post(&self._shared.work)
            with nogil:
                pthread_join(self._thread, NULL)
        self._release()

    cdef void _release(self) noexcept:
        """Let go of the data that is written, or never will be."""
        cdef uint64_t done = eraft_load(&self._shared.done)
        if eraft_load(&self._shared.error):
            # The thread touches nothing any more, whatever came in at that moment.
            done = self._submitted
        while self._released < done:
            PyBuffer_Release(&self._views[self._released % _QUEUE])
            self._released += 1
