# cython: language_level=3, boundscheck=False, wraparound=False
"""Compiled twin of `eraft._pure.hashing`, which has the documentation."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF

from eraft._core.checksum_h cimport ERAFT_TRACED, eraft_bucket, eraft_checksum_init

__all__ = ["IMPL", "TRACED", "bucket_of", "buckets_of"]

eraft_checksum_init()

IMPL = "cython"
TRACED = ERAFT_TRACED != 0


cdef int _bucket(object key) except -1:
    cdef Py_buffer view
    if PyBytes_CheckExact(key):
        return eraft_bucket(
            <const unsigned char *>PyBytes_AS_STRING(key), <size_t>PyBytes_GET_SIZE(key)
        )
    PyObject_GetBuffer(key, &view, PyBUF_SIMPLE)
    cdef int bucket = eraft_bucket(<const unsigned char *>view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return bucket


def bucket_of(key):
    return _bucket(key)


def buckets_of(keys):
    # A tuple: nothing can change it while it is read.
    cdef tuple batch = tuple(keys)
    cdef Py_ssize_t count = len(batch)
    cdef list buckets = PyList_New(count)
    cdef Py_ssize_t i
    for i in range(count):
        bucket = <object>_bucket(batch[i])
        Py_INCREF(bucket)
        PyList_SET_ITEM(buckets, i, bucket)
    return buckets
