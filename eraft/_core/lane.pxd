"""What the parser writes plain commands to."""

cdef Py_ssize_t command_bytes(list args) except -1


cdef class Lane:
    cdef readonly bytes prefix
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t size_bytes
    cdef Py_ssize_t _limit_bytes
    cdef Py_ssize_t _capacity
    cdef unsigned char *_data

    cdef bint is_full(self) noexcept
    cdef bint has_room(self, Py_ssize_t size_bytes) noexcept
    cdef unsigned char *room(self, Py_ssize_t size_bytes) except NULL
