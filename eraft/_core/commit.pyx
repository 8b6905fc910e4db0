# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of `eraft._pure.commit`, which has the documentation."""

from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from eraft._core.checksum_h cimport ERAFT_TRACED

__all__ = ["INDEX_MAX", "IMPL", "TRACED", "MatchTable", "quorum_index"]

cdef enum:
    # Groups have 3 to 7 voters; a larger sequence takes its memory from the heap.
    _FEW = 16

IMPL = "cython"
TRACED = ERAFT_TRACED != 0
INDEX_MAX = INT64_MAX


cdef int64_t _majority(int64_t *indexes, Py_ssize_t count) noexcept nogil:
    """Sorts `indexes`, by insertion: there are few."""
    cdef Py_ssize_t i
    cdef Py_ssize_t place
    cdef int64_t index
    for i in range(1, count):
        index = indexes[i]
        place = i
        while place > 0 and indexes[place - 1] > index:
            indexes[place] = indexes[place - 1]
            place -= 1
        indexes[place] = index
    return indexes[(count - 1) // 2]


def quorum_index(indexes):
    # A tuple: nothing can change it while it is read.
    cdef tuple numbers = tuple(indexes)
    cdef Py_ssize_t count = len(numbers)
    cdef int64_t[_FEW] few
    cdef int64_t *sorted_indexes = few
    cdef int overflow = 0
    cdef Py_ssize_t i
    if count == 0:
        return INT64_MAX
    if count > _FEW:
        sorted_indexes = <int64_t *>malloc(count * sizeof(int64_t))
        if sorted_indexes == NULL:
            raise MemoryError
    try:
        for i in range(count):
            sorted_indexes[i] = PyLong_AsLongLongAndOverflow(numbers[i], &overflow)
            if overflow:
                return sorted(numbers)[(count - 1) // 2]
        return _majority(sorted_indexes, count)
    finally:
        if count > _FEW:
            free(sorted_indexes)


cdef struct Voter:
    uint64_t replica_id
    int64_t match
    bint incoming
    bint outgoing


cdef class MatchTable:
    cdef Voter *_voters
    cdef Py_ssize_t _count
    # Room for the match indexes of one half.
    cdef int64_t *_sorted
    cdef bint _joint
    cdef int64_t _committed

    def __cinit__(self, voters, outgoing=()):
        cdef Voter *voter
        for half in (voters, outgoing):
            if len(set(half)) != len(half) or not all([0 <= r < 1 << 64 for r in half]):
                raise ValueError(f"no half of a configuration can be {list(half)}")
        cdef Py_ssize_t most = len(voters) + len(outgoing)
        self._voters = <Voter *>calloc(most + 1, sizeof(Voter))
        self._sorted = <int64_t *>calloc(most + 1, sizeof(int64_t))
        if self._voters == NULL or self._sorted == NULL:
            raise MemoryError
        for replica_id in voters:
            voter = self._voters + self._count
            voter.replica_id = replica_id
            voter.incoming = True
            self._count += 1
        for replica_id in outgoing:
            voter = self._find(replica_id)
            if voter == NULL:
                voter = self._voters + self._count
                voter.replica_id = replica_id
                self._count += 1
            voter.outgoing = True
            self._joint = True
        self._update()

    def __dealloc__(self):
        free(self._voters)
        free(self._sorted)

    cdef Voter *_find(self, uint64_t replica_id) noexcept:
        cdef Py_ssize_t i
        for i in range(self._count):
            if self._voters[i].replica_id == replica_id:
                return self._voters + i
        return NULL

    cdef Voter *_voter(self, object replica_id) except? NULL:
        try:
            return self._find(replica_id)
        except OverflowError:
            return NULL

    cdef void _update(self) noexcept:
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t i
        self._committed = INT64_MAX
        for i in range(self._count):
            if self._voters[i].incoming:
                self._sorted[count] = self._voters[i].match
                count += 1
        if count:
            self._committed = _majority(self._sorted, count)
        if self._joint:
            count = 0
            for i in range(self._count):
                if self._voters[i].outgoing:
                    self._sorted[count] = self._voters[i].match
                    count += 1
            self._committed = min(self._committed, _majority(self._sorted, count))

    def record(self, replica_id, index):
        cdef int overflow = 0
        cdef int64_t new
        cdef int64_t old
        cdef Voter *voter = self._voter(replica_id)
        if voter != NULL:
            new = PyLong_AsLongLongAndOverflow(index, &overflow)
            if overflow > 0:
                raise ValueError(f"replica {replica_id}: index {index} is out of range")
            old = voter.match
            if new > old:
                voter.match = new
                if old <= self._committed < new:
                    self._update()
        return self._committed

    def match(self, replica_id):
        cdef Voter *voter = self._voter(replica_id)
        return voter.match if voter != NULL else 0

    def committed(self):
        return self._committed

    def reset(self):
        cdef Py_ssize_t i
        for i in range(self._count):
            self._voters[i].match = 0
        self._update()
