"""Finding the size of a command before it is taken apart."""

from libc.stdint cimport int64_t

cdef enum Measured:
    # Malformed, when there is an `error`.
    INCOMPLETE
    ARRAY
    LINE
    NOTHING

cdef enum:
    # Of an array, the places of so many arguments are kept.
    PLACES = 8


cdef class Measure:
    # What is known so far of the command at hand. `needed` is the size from
    # which on there is more to know.
    cdef Py_ssize_t size
    cdef Py_ssize_t needed
    cdef Py_ssize_t args
    cdef Py_ssize_t[PLACES] offsets
    cdef Py_ssize_t[PLACES] sizes
    cdef bytes error
    cdef Py_ssize_t _complete_args
    cdef Py_ssize_t _value_limit_bytes
    cdef Py_ssize_t _command_limit_bytes
    cdef Py_ssize_t _args_limit
    cdef Py_ssize_t _inline_limit_bytes

    cdef void clear(self) noexcept
    cdef int measure(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef list arguments(self, const unsigned char *data)
    cdef int _array(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int _arguments(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef Py_ssize_t _odd_length(
        self, const unsigned char *data, Py_ssize_t size, int64_t *length
    ) except -2
    cdef Py_ssize_t _line_end(
        self, const unsigned char *data, Py_ssize_t size, unsigned char mark, bytes too_big
    ) except -2
    cdef int _fail(self, bytes what) except -1
