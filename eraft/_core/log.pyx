# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Compiled twin of `eraft._pure.log`, which has the documentation.

The entries' bytes lie one after the other in chunks of memory: appending never
moves what is there, compaction gives memory back, and a slice is a copy of a
few runs. One small C record per entry has its term and its end.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport INT64_MAX, INT64_MIN, UINT32_MAX, UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from eraft._core.checksum_h cimport ERAFT_TRACED
from eraft._core.chunks cimport Chunks

from eraft.errors import InvariantViolation, LogCompacted, ProtocolError
from eraft.types import EntryKind

__all__ = ["ENTRY_HEADER_BYTES", "IMPL", "TRACED", "EntryLog", "check_entries", "encode_entry"]

cdef enum:
    _HEADER = 13
    _KIND_OFFSET = 4
    _BOUNDS_MIN = 16

IMPL = "cython"
TRACED = ERAFT_TRACED != 0
ENTRY_HEADER_BYTES = _HEADER

cdef unsigned char[256] _known_kinds
memset(_known_kinds, 0, 256)
for _kind in EntryKind:
    _known_kinds[<unsigned char>_kind] = 1


cdef packed struct Header:
    uint32_t size
    unsigned char kind
    uint64_t term


cdef struct Bound:
    uint64_t term
    # Where the entry ends, counted from some earlier point of the log.
    uint64_t end


cdef int64_t _clamped(object number) except? -1:
    """As int64, the nearest one if out of its range: compares the same with any index."""
    cdef int overflow = 0
    cdef int64_t value = PyLong_AsLongLongAndOverflow(number, &overflow)
    if overflow:
        return INT64_MAX if overflow > 0 else INT64_MIN
    return value


cdef int _make_header(Header *header, object term, object kind, Py_ssize_t size) except -1:
    cdef uint64_t number
    cdef int64_t code = _clamped(kind)
    try:
        number = term
    except OverflowError:
        number = 0
    if number == 0 or not 0 <= code < 256 or not _known_kinds[code] or size > UINT32_MAX:
        raise ValueError(f"no entry can have term {term}, kind {kind} and {size} bytes")
    header.size = <uint32_t>size
    header.kind = <unsigned char>code
    header.term = number
    return 0


def encode_entry(term, kind, payload):
    cdef Header header
    cdef Py_buffer view
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        _make_header(&header, term, kind, view.len)
        entry = PyBytes_FromStringAndSize(NULL, _HEADER + view.len)
        memcpy(PyBytes_AS_STRING(entry), &header, _HEADER)
        memcpy(PyBytes_AS_STRING(entry) + _HEADER, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return entry


def check_entries(blob):
    cdef Py_buffer view
    PyObject_GetBuffer(blob, &view, PyBUF_SIMPLE)
    try:
        return _count(<const unsigned char *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef Py_ssize_t _walk(
    const unsigned char *blob, Py_ssize_t total, Py_ssize_t *bad, uint64_t *bad_previous
) noexcept nogil:
    """How many entries there are; -1 with the place of the first malformed one."""
    cdef Py_ssize_t offset = 0
    cdef Py_ssize_t count = 0
    cdef uint64_t previous = 1
    cdef Header header
    while offset < total:
        if total - offset < _HEADER:
            break
        memcpy(&header, blob + offset, _HEADER)
        if (
            not _known_kinds[header.kind]
            or header.term < previous
            or header.size > total - offset - _HEADER
        ):
            break
        offset += _HEADER + <Py_ssize_t>header.size
        previous = header.term
        count += 1
    if offset == total:
        return count
    bad[0] = offset
    bad_previous[0] = previous
    return -1


cdef Py_ssize_t _count(const unsigned char *blob, Py_ssize_t total) except -1:
    cdef Py_ssize_t offset = 0
    cdef uint64_t previous = 0
    cdef Py_ssize_t count = _walk(blob, total, &offset, &previous)
    if count < 0:
        raise _malformed(blob, total, offset, previous)
    return count


cdef object _malformed(
    const unsigned char *blob, Py_ssize_t total, Py_ssize_t offset, uint64_t previous
):
    cdef Header header
    if total - offset < _HEADER:
        return ProtocolError(f"entry at offset {offset}: {total - offset} bytes of its header")
    memcpy(&header, blob + offset, _HEADER)
    if not _known_kinds[header.kind]:
        return ProtocolError(f"entry at offset {offset}: unknown kind {header.kind}")
    if header.term == 0:
        return ProtocolError(f"entry at offset {offset}: term 0")
    if header.term < previous:
        return ProtocolError(
            f"entry at offset {offset}: term {header.term} follows term {previous}"
        )
    return ProtocolError(
        f"entry at offset {offset}: payload of {header.size} bytes, "
        f"{total - offset - _HEADER} are left"
    )


cdef int _check_order(object index, uint64_t term, uint64_t previous) except -1:
    if term < previous:
        raise ProtocolError(f"entry {index}: term {term} follows term {previous}")
    return 0


cdef class EntryLog:
    cdef int64_t _base
    # Item i belongs to entry base + i, so the base itself is item 0. _bounds
    # points into _storage: what is before it was compacted away.
    cdef Bound *_storage
    cdef Bound *_bounds
    cdef size_t _capacity
    cdef int64_t _last
    cdef Chunks _bytes

    def __cinit__(self, base_index=0, base_term=0):
        if not 0 <= base_index < 1 << 62 or not 0 <= base_term < 1 << 64:
            raise ValueError(f"no log can have base ({base_index}, {base_term})")
        self._storage = <Bound *>malloc(_BOUNDS_MIN * sizeof(Bound))
        if self._storage == NULL:
            raise MemoryError
        self._capacity = _BOUNDS_MIN
        self._bounds = self._storage
        self._base = base_index
        self._bounds[0].term = base_term
        self._bounds[0].end = 0
        self._bytes = Chunks()

    def __dealloc__(self):
        free(self._storage)

    @property
    def base_index(self):
        return self._base

    @property
    def base_term(self):
        return self._bounds[0].term

    @property
    def first_index(self):
        return self._base + 1

    @property
    def last_index(self):
        return self._base + self._last

    @property
    def last_term(self):
        return self._bounds[self._last].term

    @property
    def size_bytes(self):
        return self._bounds[self._last].end - self._bounds[0].end

    def __sizeof__(self):
        return (
            object.__sizeof__(self)
            + self._capacity * sizeof(Bound)
            + self._bytes.memory()
        )

    cdef int _reserve(self, Py_ssize_t count, Py_ssize_t size) except -1:
        """Makes room for entries behind the last one; changes nothing that can be seen."""
        cdef size_t head = self._bounds - self._storage
        cdef size_t used = <size_t>self._last + 1
        cdef size_t wanted
        cdef void *grown
        if head + used + <size_t>count > self._capacity:
            if head > used:
                memmove(self._storage, self._bounds, used * sizeof(Bound))
                self._bounds = self._storage
                head = 0
            wanted = head + used + <size_t>count
            if wanted > self._capacity:
                wanted = max(wanted, self._capacity + self._capacity // 2)
                grown = realloc(self._storage, wanted * sizeof(Bound))
                if grown == NULL:
                    raise MemoryError
                self._storage = <Bound *>grown
                self._bounds = self._storage + head
                self._capacity = wanted
        return self._bytes.reserve(self._bounds[self._last].end + <uint64_t>size)

    cdef void _release(self) noexcept:
        """Gives back what entries that are gone have needed."""
        self._bytes.keep(self._bounds[0].end, self._bounds[self._last].end)
        cdef size_t used = <size_t>self._last + 1
        cdef void *shrunk
        if self._capacity > _BOUNDS_MIN and used < self._capacity // 4:
            memmove(self._storage, self._bounds, used * sizeof(Bound))
            self._bounds = self._storage
            used = max(2 * used, <size_t>_BOUNDS_MIN)
            shrunk = realloc(self._storage, used * sizeof(Bound))
            if shrunk != NULL:
                self._storage = <Bound *>shrunk
                self._bounds = self._storage
                self._capacity = used

    def append(self, term, kind, payload):
        cdef Header header
        cdef Py_buffer view
        cdef Bound *last
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        try:
            _make_header(&header, term, kind, view.len)
            if header.term < self._bounds[self._last].term:
                raise InvariantViolation(
                    f"terms never fall along the log: term {term} after {self.last_term}"
                )
            self._reserve(1, _HEADER + view.len)
            last = self._bounds + self._last
            self._bytes.write(last.end, <const unsigned char *>&header, _HEADER)
            self._bytes.write(last.end + _HEADER, <const unsigned char *>view.buf, <size_t>view.len)
            last[1].term = header.term
            last[1].end = last.end + _HEADER + <uint64_t>view.len
            self._last += 1
        finally:
            PyBuffer_Release(&view)
        return self._base + self._last

    def extend(self, first_index, blob):
        if _clamped(first_index) != self._base + self._last + 1:
            raise InvariantViolation(
                f"entries of a log are consecutive: {first_index} after {self.last_index}"
            )
        cdef Py_buffer view
        PyObject_GetBuffer(blob, &view, PyBUF_SIMPLE)
        try:
            if view.len:
                self._extend(first_index, <const unsigned char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        return self._base + self._last

    cdef int _extend(
        self, object first_index, const unsigned char *blob, Py_ssize_t size
    ) except -1:
        cdef Header header
        cdef Bound *bound
        cdef uint64_t end
        cdef Py_ssize_t count = _count(blob, size)
        memcpy(&header, blob, _HEADER)
        _check_order(first_index, header.term, self._bounds[self._last].term)
        self._reserve(count, size)
        bound = self._bounds + self._last
        end = bound.end
        self._bytes.write(end, blob, <size_t>size)
        for _ in range(count):
            memcpy(&header, blob, _HEADER)
            blob += _HEADER + header.size
            end += _HEADER + header.size
            bound += 1
            bound.term = header.term
            bound.end = end
        self._last += count
        return 0

    def term(self, index):
        cdef int64_t place = _clamped(index)
        if place < self._base:
            raise LogCompacted(f"entry {index} is gone from memory, the base is {self._base}")
        if place - self._base > self._last:
            raise self._beyond(index)
        return self._bounds[place - self._base].term

    cdef object _beyond(self, object index):
        return IndexError(f"entry {index} is beyond the last one, {self.last_index}")

    cdef int64_t _item(self, object index) except -1:
        """The item of an entry that is there."""
        cdef int64_t place = _clamped(index)
        if place <= self._base:
            raise LogCompacted(f"entry {index} is gone from memory, the base is {self._base}")
        if place - self._base > self._last:
            raise self._beyond(index)
        return place - self._base

    def conflict(self, first_index, blob):
        cdef Py_buffer view
        cdef int64_t same
        PyObject_GetBuffer(blob, &view, PyBUF_SIMPLE)
        try:
            same = self._same(first_index, <const unsigned char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        return first_index + same

    cdef int64_t _same(
        self, object first_index, const unsigned char *blob, Py_ssize_t size
    ) except -1:
        """How many entries of the blob the log has, from the blob's first on."""
        cdef int64_t first = _clamped(first_index)
        cdef int64_t count = _count(blob, size)
        cdef int64_t known = 0
        cdef int64_t item
        cdef int64_t i
        cdef Header header
        if first <= self._base:
            if first + count <= self._base:
                return count
            known = self._base + 1 - first
        if known == count:
            return count
        for _ in range(known):
            memcpy(&header, blob, _HEADER)
            blob += _HEADER + header.size
        item = first + known - self._base
        memcpy(&header, blob, _HEADER)
        if item <= self._last + 1:
            _check_order(first_index + known, header.term, self._bounds[item - 1].term)
        for i in range(known, count):
            memcpy(&header, blob, _HEADER)
            if item > self._last or self._bounds[item].term != header.term:
                return i
            blob += _HEADER + header.size
            item += 1
        return count

    @staticmethod
    def skip(first_index, blob, index):
        if index <= first_index:
            return bytes(blob)
        cdef Py_buffer view
        cdef int64_t skipped = _clamped(index - first_index)
        cdef const unsigned char *data
        cdef Header header
        cdef Py_ssize_t count
        PyObject_GetBuffer(blob, &view, PyBUF_SIMPLE)
        try:
            data = <const unsigned char *>view.buf
            count = _count(data, view.len)
            if skipped > count:
                raise IndexError(
                    f"entry {index} is beyond the last one, {first_index + count - 1}"
                )
            for _ in range(skipped):
                memcpy(&header, data, _HEADER)
                data += _HEADER + header.size
            return PyBytes_FromStringAndSize(
                <const char *>data, view.len - (data - <const unsigned char *>view.buf)
            )
        finally:
            PyBuffer_Release(&view)

    def truncate(self, index):
        cdef int64_t place = _clamped(index)
        if place <= self._base:
            raise InvariantViolation(
                f"what is compacted is committed: truncation at {index}, the base is {self._base}"
            )
        if place - self._base <= self._last:
            self._last = place - self._base - 1
            self._release()

    def compact(self, index):
        cdef int64_t place = _clamped(index)
        if place > self._base + self._last:
            raise InvariantViolation(
                f"only what is in the log is compacted: {index}, the last entry is "
                f"{self.last_index}"
            )
        if place <= self._base:
            return
        self._bounds += place - self._base
        self._last -= place - self._base
        self._base = place
        self._release()

    def slice(self, first, last, limit_bytes):
        cdef int64_t start = _clamped(first)
        cdef int64_t end = _clamped(last)
        cdef int64_t limit = _clamped(limit_bytes)
        cdef int64_t low
        cdef int64_t high
        cdef int64_t middle
        cdef uint64_t origin
        if start <= self._base:
            raise LogCompacted(f"entry {first} is gone from memory, the base is {self._base}")
        if end > self._base + self._last:
            raise self._beyond(last)
        if end < start:
            return b"", first - 1
        low = start - self._base
        high = end - self._base
        origin = self._bounds[low - 1].end
        if <int64_t>(self._bounds[high].end - origin) > limit:
            # The first one is given in any case; high is too much, low is not.
            while high - low > 1:
                middle = (low + high) // 2
                if <int64_t>(self._bounds[middle].end - origin) > limit:
                    high = middle
                else:
                    low = middle
            high = low
        return self._bytes.read(origin, self._bounds[high].end), self._base + high

    def size_from(self, index):
        cdef int64_t start = _clamped(index)
        if start <= self._base:
            raise LogCompacted(f"entry {index} is gone from memory, the base is {self._base}")
        if start > self._base + self._last:
            return 0
        return self._bounds[self._last].end - self._bounds[start - self._base - 1].end

    def payload(self, index):
        cdef int64_t item = self._item(index)
        return self._bytes.read(self._bounds[item - 1].end + _HEADER, self._bounds[item].end)

    def kind(self, index):
        cdef int64_t item = self._item(index)
        return self._bytes.at(self._bounds[item - 1].end + _KIND_OFFSET)

    def find_conflict_by_term(self, index, term):
        cdef int64_t high = _clamped(index)
        cdef int64_t low = -1
        cdef int64_t middle
        cdef uint64_t limit
        if high < self._base:
            return index, 0
        high = min(high - self._base, self._last) + 1
        try:
            limit = term
        except OverflowError:
            if term < 0:
                return self._base - 1, 0
            limit = UINT64_MAX
        # Items up to low have at most that term, items from high on have more.
        while high - low > 1:
            middle = (low + high) // 2
            if self._bounds[middle].term > limit:
                high = middle
            else:
                low = middle
        if low < 0:
            return self._base - 1, 0
        return self._base + low, self._bounds[low].term
