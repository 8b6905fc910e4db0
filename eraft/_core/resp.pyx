# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of `eraft._pure.resp`, which has the documentation.

A command is first measured, which finds what is malformed and needs no
memory, and then admitted or taken apart.
"""

import re

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy, memmove

from eraft import limits
from eraft._core import inline
from eraft._core.checksum_h cimport ERAFT_TRACED, eraft_bucket, eraft_checksum_init
from eraft._core.lane cimport Lane as CLane, command_bytes
from eraft._core.measure cimport ARRAY, INCOMPLETE, LINE, PLACES, Measure
from eraft._core.rows_h cimport ERAFT_KEY_HEADER_BYTES, eraft_write_key
from eraft._core.lane import Lane
from eraft._core.reply import OK, Reply, ReplyError, Simple, Verbatim, encode
from eraft.types import BUCKETS

__all__ = [
    "BROKEN", "COMMAND", "ERROR", "IMPL", "LANE_FULL", "NEED_DATA", "OK", "READS",
    "READS_FIRST", "TRACED", "WRITES", "CommandTable", "Lane", "Parser", "Reply",
    "ReplyError", "Simple", "Verbatim", "encode",
]

cdef enum:
    _NEED_DATA = 0
    _COMMAND = 1
    _READS_FIRST = 2
    _LANE_FULL = 3
    _BROKEN = 4
    _WRITES = 5
    _READS = 6
    _ERROR = 7

cdef enum:
    PLAIN_NAMES = 64
    NAME_BYTES = 32
    LINE_LIMIT_MIN_BYTES = 64
    # An emptier buffer than this is not worth making smaller.
    SPARE_BYTES = 16384

cdef enum Outcome:
    # Plain, and done.
    ADMITTED
    # Plain, but not now.
    HELD
    # To be handed out as a command.
    GENERAL

eraft_checksum_init()

IMPL = "cython"
TRACED = ERAFT_TRACED != 0
NEED_DATA = _NEED_DATA
COMMAND = _COMMAND
READS_FIRST = _READS_FIRST
LANE_FULL = _LANE_FULL
BROKEN = _BROKEN
WRITES = _WRITES
READS = _READS
ERROR = _ERROR

cdef Py_ssize_t _buckets = BUCKETS
cdef Py_ssize_t _key_limit_bytes = limits.KEY_SIZE_BYTES
cdef object _match_name = re.compile(rb"[A-Z][A-Z0-9_.]{0,31}").fullmatch


cdef struct Plain:
    unsigned char[NAME_BYTES] name
    Py_ssize_t length
    Py_ssize_t args
    bint is_write


cdef class CommandTable:
    cdef Plain[PLAIN_NAMES] _plain
    cdef int _count

    def __init__(self, plain_writes, plain_reads):
        cdef set names = set()
        self._count = 0
        for is_write, group in ((True, plain_writes), (False, plain_reads)):
            for name, args in group.items():
                if not _match_name(name):
                    raise ValueError(f"plain command {name!r}: not an upper-case name")
                if not 2 <= args <= PLACES:
                    raise ValueError(f"plain command {name!r}: {args} arguments, not 2 to 8")
                if name in names:
                    raise ValueError(f"plain command {name!r}: a write and a read")
                names.add(name)
                if len(names) > PLAIN_NAMES:
                    raise ValueError(f"more than {PLAIN_NAMES} plain commands")
                self._add(name, args, is_write)

    cdef int _add(self, bytes name, Py_ssize_t args, bint is_write) except -1:
        cdef Plain *plain = &self._plain[self._count]
        plain.length = len(name)
        memcpy(plain.name, PyBytes_AS_STRING(name), <size_t>plain.length)
        plain.args = args
        plain.is_write = is_write
        self._count += 1
        return 0

    cdef const Plain *find(
        self, const unsigned char *name, Py_ssize_t length, Py_ssize_t args
    ) noexcept:
        """Return the plain command of that name and number of arguments, or NULL."""
        cdef const Plain *plain
        cdef int i
        for i in range(self._count):
            plain = &self._plain[i]
            if plain.length == length and plain.args == args:
                if _is_name(name, plain.name, length):
                    return plain
        return NULL


cdef inline bint _is_name(
    const unsigned char *name, const unsigned char *upper, Py_ssize_t length
) noexcept:
    cdef Py_ssize_t i
    cdef unsigned char byte
    for i in range(length):
        byte = name[i]
        if 97 <= byte <= 122:
            byte -= 32
        if byte != upper[i]:
            return False
    return True


cdef class Parser:
    cdef public bint fast
    cdef readonly int stopped
    cdef CommandTable _table
    cdef list _lanes
    cdef Py_buffer _admit_view
    cdef const unsigned char *_admit
    # What is not yet parsed.
    cdef unsigned char *_buffer
    cdef Py_ssize_t _start
    cdef Py_ssize_t _end
    cdef Py_ssize_t _capacity
    # The first command in it.
    cdef Measure _measure
    # The items of this call, and the run that the next one may belong to.
    cdef list _items
    cdef list _row_keys
    cdef Py_ssize_t _run_k
    cdef Py_ssize_t _run_count
    cdef bint _reads_first

    def __cinit__(
        self, CommandTable table not None, bytearray admit not None, list lanes not None,
        Py_ssize_t value_limit_bytes, Py_ssize_t command_limit_bytes, Py_ssize_t args_limit,
        Py_ssize_t inline_limit_bytes,
    ):
        if len(admit) != _buckets:
            raise ValueError(f"admit has {len(admit)} bytes, not one for each of {BUCKETS} buckets")
        if inline_limit_bytes < LINE_LIMIT_MIN_BYTES:
            raise ValueError(f"a line of {inline_limit_bytes} bytes holds no command")
        self.fast = True
        self.stopped = _NEED_DATA
        self._table = table
        self._lanes = lanes
        self._measure = Measure(
            value_limit_bytes, command_limit_bytes, args_limit, inline_limit_bytes
        )
        # The table cannot change its size (and place) as long as this view is held.
        PyObject_GetBuffer(admit, &self._admit_view, PyBUF_SIMPLE)
        self._admit = <const unsigned char *>self._admit_view.buf

    def __dealloc__(self):
        PyMem_Free(self._buffer)
        if self._admit != NULL:
            PyBuffer_Release(&self._admit_view)

    # Input

    @property
    def buffered_bytes(self):
        return self._end - self._start

    def feed(self, data):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self._keep(<const unsigned char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def feed_and_parse(self, data, bint reads_pending):
        cdef Py_buffer view
        cdef list items
        cdef const unsigned char *start
        cdef Py_ssize_t place
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            start = <const unsigned char *>view.buf
            if self._end > self._start or self.stopped == _BROKEN:
                self._keep(start, view.len)
                return self.parse(reads_pending)
            items = []
            place = self._parse(start, view.len, reads_pending, items)
            self._keep(start + place, view.len - place)
            return items
        finally:
            PyBuffer_Release(&view)

    def parse(self, bint reads_pending):
        cdef list items = []
        if self.stopped == _BROKEN or self._end - self._start < self._measure.needed:
            return items
        self._start += self._parse(
            self._buffer + self._start, self._end - self._start, reads_pending, items
        )
        self._trim()
        return items

    cdef int _keep(self, const unsigned char *data, Py_ssize_t size) except -1:
        """Append to the buffer, which grows with what has arrived, not with what is announced."""
        cdef Py_ssize_t held = self._end - self._start
        if self.stopped == _BROKEN or size == 0:
            return 0
        if size > self._capacity - self._end:
            if held + size <= self._capacity and held <= self._start:
                memmove(self._buffer, self._buffer + self._start, <size_t>held)
            else:
                self._resize(held + size + ((held + size) >> 1 if held else 0))
            self._start = 0
            self._end = held
        memcpy(self._buffer + self._end, data, <size_t>size)
        self._end += size
        return 0

    cdef int _resize(self, Py_ssize_t capacity) except -1:
        """Move what is held to the front of a buffer of that size."""
        cdef Py_ssize_t held = self._end - self._start
        cdef unsigned char *buffer
        if self._start:
            memmove(self._buffer, self._buffer + self._start, <size_t>held)
            self._start = 0
            self._end = held
        buffer = <unsigned char *>PyMem_Realloc(self._buffer, <size_t>capacity)
        if buffer == NULL:
            raise MemoryError
        self._buffer = buffer
        self._capacity = capacity
        return 0

    cdef int _trim(self) except -1:
        """Give memory back: all if nothing is held, some if much less is."""
        cdef Py_ssize_t held = self._end - self._start
        if held == 0 or self.stopped == _BROKEN:
            PyMem_Free(self._buffer)
            self._buffer = NULL
            self._start = self._end = self._capacity = 0
        elif self._capacity > 2 * held + SPARE_BYTES:
            self._resize(held)
        return 0

    # Commands

    cdef Py_ssize_t _parse(
        self, const unsigned char *data, Py_ssize_t size, bint reads_pending, list items
    ) except -1:
        """Append the items; return how much of `data` is done with."""
        cdef Measure measure = self._measure
        cdef Py_ssize_t place = 0
        cdef int measured, outcome
        self._items = items
        self._reads_first = reads_pending
        self.stopped = _NEED_DATA
        while place < size:
            measured = measure.measure(data + place, size - place)
            if measured == INCOMPLETE:
                if measure.error is not None:
                    self._fail(measure.error)
                break
            outcome = ADMITTED
            if measured == ARRAY:
                outcome = self._array(measure, data + place)
            elif measured == LINE:
                outcome = self._line(measure, data + place)
            if outcome == HELD:
                break
            place += measure.size
            measure.clear()
            if outcome == GENERAL:
                self.stopped = _COMMAND
                break
        self._end_run()
        self._items = None
        return place

    cdef int _array(self, Measure measure, const unsigned char *data) except -1:
        cdef const Plain *plain = NULL
        cdef int outcome = GENERAL
        if self.fast and measure.args <= PLACES:
            plain = self._table.find(data + measure.offsets[0], measure.sizes[0], measure.args)
        if plain != NULL and plain.is_write:
            outcome = self._write(plain, measure, data)
        elif plain != NULL:
            outcome = self._read(data + measure.offsets[1], measure.sizes[1])
        if outcome == GENERAL:
            self._hand_out(measure.arguments(data))
        return outcome

    cdef int _hand_out(self, list args) except -1:
        self._end_run()
        self._items.append((_COMMAND, args, 0))
        return 0

    cdef CLane _lane_of(self, int bucket, Py_ssize_t key_size):
        """Return the lane of a plain command, None if it has to be handed out."""
        cdef Py_ssize_t k = self._admit[bucket]
        if k == 0 or k >= len(self._lanes) or key_size > _key_limit_bytes:
            return None
        return self._lanes[k]

    cdef int _may_write(self, CLane lane, Py_ssize_t size) noexcept:
        if lane is None:
            return GENERAL
        if self._reads_first:
            self.stopped = _READS_FIRST
            return HELD
        if lane.is_full():
            self.stopped = _LANE_FULL
            return HELD
        return ADMITTED if lane.has_room(size) else GENERAL

    cdef int _write(
        self, const Plain *plain, Measure measure, const unsigned char *data
    ) except -1:
        """Append a plain write to its lane, if it has one and it may be done now."""
        cdef int bucket = eraft_bucket(data + measure.offsets[1], <size_t>measure.sizes[1])
        cdef CLane lane = self._lane_of(bucket, measure.sizes[1])
        cdef int outcome = self._may_write(lane, measure.size)
        cdef unsigned char *place
        cdef unsigned char *arg
        cdef Py_ssize_t i
        if outcome != ADMITTED:
            return outcome
        place = lane.room(measure.size)
        memcpy(place, data, <size_t>measure.size)
        # Only the case of the name and what stands for CR LF can differ from the canonical form.
        memcpy(place + measure.offsets[0], plain.name, <size_t>plain.length)
        memcpy(place + 2, b"\r\n", 2)
        for i in range(plain.args):
            arg = place + measure.offsets[i]
            memcpy(arg - 2, b"\r\n", 2)
            memcpy(arg + measure.sizes[i], b"\r\n", 2)
        self._count_write(self._admit[bucket])
        return ADMITTED

    cdef int _count_write(self, Py_ssize_t k) except -1:
        if k != self._run_k:
            self._end_run()
            self._run_k = k
        self._run_count += 1
        return 0

    cdef int _end_run(self) except -1:
        if self._run_count:
            self._items.append((_WRITES, self._run_k, self._run_count))
        self._run_k = self._run_count = 0
        self._row_keys = None
        return 0

    cdef int _read(self, const unsigned char *key, Py_ssize_t size) except -1:
        """Note the row key of a plain read, if its bucket has a lane."""
        cdef int bucket = eraft_bucket(key, <size_t>size)
        cdef CLane lane = self._lane_of(bucket, size)
        cdef Py_ssize_t prefix_size
        cdef bytes row_key
        if lane is None:
            return GENERAL
        if self._row_keys is None or self._run_k != self._admit[bucket]:
            self._end_run()
            self._run_k = self._admit[bucket]
            self._row_keys = []
            self._items.append((_READS, self._run_k, self._row_keys))
            self._reads_first = True
        prefix_size = PyBytes_GET_SIZE(lane.prefix)
        row_key = PyBytes_FromStringAndSize(NULL, prefix_size + ERAFT_KEY_HEADER_BYTES + size)
        eraft_write_key(
            <unsigned char *>PyBytes_AS_STRING(row_key), PyBytes_AS_STRING(lane.prefix),
            <size_t>prefix_size, bucket, key, <size_t>size,
        )
        self._row_keys.append(row_key)
        return ADMITTED

    cdef int _line(self, Measure measure, const unsigned char *data) except -1:
        """Split an inline command, then admit it or hand it out."""
        cdef Py_ssize_t size = measure.size - 1
        cdef const Plain *plain = NULL
        cdef int outcome = GENERAL
        cdef bytes name, key
        cdef list args
        if size > 0 and data[size - 1] == b"\r":
            size -= 1
        args = inline.split(PyBytes_FromStringAndSize(<const char *>data, size))
        if args is None:
            self._fail(b"unbalanced quotes in request")
            return HELD
        if not args:
            return ADMITTED
        name = args[0].upper()
        if self.fast:
            plain = self._table.find(
                <const unsigned char *>PyBytes_AS_STRING(name), len(name), len(args)
            )
        if plain != NULL and plain.is_write:
            outcome = self._write_line(args)
        elif plain != NULL:
            key = args[1]
            outcome = self._read(<const unsigned char *>PyBytes_AS_STRING(key), len(key))
        if outcome == GENERAL:
            self._hand_out(args)
        return outcome

    cdef int _write_line(self, list args) except -1:
        """Do as `_write` with a command that was not an array."""
        cdef bytes key = args[1]
        cdef int bucket = eraft_bucket(
            <const unsigned char *>PyBytes_AS_STRING(key), <size_t>len(key)
        )
        cdef CLane lane = self._lane_of(bucket, len(key))
        cdef int outcome = self._may_write(lane, command_bytes(args))
        if outcome == ADMITTED:
            lane.add(args)
            self._count_write(self._admit[bucket])
        return outcome

    cdef int _fail(self, bytes what) except -1:
        self._end_run()
        self._items.append((_ERROR, ReplyError(b"ERR Protocol error: " + what), 0))
        self.stopped = _BROKEN
        return 0
