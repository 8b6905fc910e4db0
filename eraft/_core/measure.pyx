# cython: language_level=3, boundscheck=False, wraparound=False
"""Where a command ends, and whether it is well-formed: the parser's first step.

Arguments that are complete are not looked at again, however slowly the rest
arrives, and nothing is allocated for what is only announced.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.string cimport memchr

from eraft._core.checksum_h cimport ERAFT_TRACED
from eraft._core.resp_h cimport eraft_read_length

from eraft.errors import InvariantViolation

__all__ = ["TRACED", "Measure"]

TRACED = ERAFT_TRACED != 0


cdef bint _read_number(const unsigned char *text, Py_ssize_t size, int64_t *value) noexcept:
    """Read a signed number without leading zeros or plus; tell whether `text` is one."""
    cdef bint negative = size > 0 and text[0] == b"-"
    cdef uint64_t number = 0
    cdef Py_ssize_t i = negative
    if not 0 < size - i <= 19 or (text[i] == b"0" and size > 1):
        return False
    while i < size:
        if not 48 <= text[i] <= 57:
            return False
        number = number * 10 + (text[i] - 48)
        i += 1
    if number > <uint64_t>INT64_MAX + negative:
        return False
    value[0] = <int64_t>(0 - number) if negative else <int64_t>number
    return True


cdef class Measure:
    """The first command of what is not yet parsed."""

    def __cinit__(
        self, Py_ssize_t value_limit_bytes, Py_ssize_t command_limit_bytes,
        Py_ssize_t args_limit, Py_ssize_t inline_limit_bytes,
    ):
        self._value_limit_bytes = value_limit_bytes
        self._command_limit_bytes = command_limit_bytes
        self._args_limit = args_limit
        self._inline_limit_bytes = inline_limit_bytes

    cdef void clear(self) noexcept:
        """Forget the command: the next one follows."""
        self.size = self.args = self._complete_args = 0

    cdef list arguments(self, const unsigned char *data):
        """Take a measured command apart."""
        cdef list args = []
        cdef Py_ssize_t place = 0
        cdef int64_t length
        while place < self.size and data[place] != b"\r":
            place += 1
        place += 2
        while place < self.size:
            # A '$', digits, and two bytes for CR LF.
            length = 0
            place += 1
            while place < self.size and data[place] != b"\r":
                length = length * 10 + (data[place] - 48)
                place += 1
            place += 2
            if not 0 <= length <= self.size - place - 2:
                raise InvariantViolation("a command that has been measured does not change")
            args.append(PyBytes_FromStringAndSize(<const char *>data + place, length))
            place += length + 2
        return args

    cdef int measure(self, const unsigned char *data, Py_ssize_t size) except -1:
        """Find the size of the command at `data`, going on where the last call ended."""
        cdef Py_ssize_t end
        self.needed = 0
        if self.args:
            return self._arguments(data, size)
        if data[0] == b"*":
            return self._array(data, size)
        end = self._line_end(data, size, b"\n", b"too big inline request")
        if end < 0:
            return INCOMPLETE
        self.size = end + 1
        return LINE

    cdef int _array(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef int64_t count = 0
        cdef const unsigned char *place = eraft_read_length(data + 1, data + size, &count)
        cdef Py_ssize_t end
        if place == NULL:
            end = self._line_end(data, size, b"\r", b"too big mbulk count string")
            if end < 0 or end + 1 == size:
                return INCOMPLETE
            if not _read_number(data + 1, end - 1, &count):
                return self._fail(b"invalid multibulk length")
            place = data + end + 2
        if count > self._args_limit:
            return self._fail(b"invalid multibulk length")
        self.size = place - data
        if count <= 0:
            return NOTHING
        self.args = count
        self._complete_args = 0
        return self._arguments(data, size)

    cdef int _arguments(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef const unsigned char *limit = data + size
        cdef const unsigned char *place
        cdef int64_t length = 0
        cdef Py_ssize_t end
        while self._complete_args < self.args:
            place = data + self.size
            if place < limit and place[0] == b"$":
                place = eraft_read_length(place + 1, limit, &length)
            else:
                place = NULL
            if place == NULL:
                end = self._odd_length(data + self.size, size - self.size, &length)
                if end < 0:
                    return INCOMPLETE
                place = data + self.size + end
            if length > self._value_limit_bytes:
                return self._fail(b"invalid bulk length")
            end = place - data + length + 2
            if end > self._command_limit_bytes:
                return self._fail(
                    b"command too large (limit %d bytes)" % self._command_limit_bytes
                )
            if end > size:
                self.needed = end
                return INCOMPLETE
            if self._complete_args < PLACES:
                self.offsets[self._complete_args] = place - data
                self.sizes[self._complete_args] = length
            self._complete_args += 1
            self.size = end
        return ARRAY

    cdef Py_ssize_t _odd_length(
        self, const unsigned char *data, Py_ssize_t size, int64_t *length
    ) except -2:
        """Read the line before an argument that is incomplete, malformed or odd.

        Return where it ends, or -1.
        """
        cdef Py_ssize_t end = self._line_end(data, size, b"\r", b"too big bulk count string")
        if end < 0 or end + 1 == size:
            return -1
        if data[0] != b"$":
            self._fail(b"expected '$', got '%c'" % data[0])
            return -1
        if not _read_number(data + 1, end - 1, length) or length[0] < 0:
            self._fail(b"invalid bulk length")
            return -1
        return end + 2

    cdef Py_ssize_t _line_end(
        self, const unsigned char *data, Py_ssize_t size, unsigned char mark, bytes too_big
    ) except -2:
        """Return where the line's end mark is, -1 if it is not there (yet)."""
        cdef Py_ssize_t limit = min(size, self._inline_limit_bytes + 1)
        cdef const unsigned char *end = <const unsigned char *>memchr(data, mark, <size_t>limit)
        # Redis looks for the mark in a C string: behind a NUL it is never found.
        if end != NULL and memchr(data, 0, <size_t>(end - data)) == NULL:
            return end - data
        if size > self._inline_limit_bytes:
            self._fail(too_big)
        return -1

    cdef int _fail(self, bytes what) except -1:
        self.error = what
        return INCOMPLETE
