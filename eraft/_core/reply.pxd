"""Replies as they are sent, for those who keep them."""

cpdef bytes encode(list replies, Py_ssize_t start, Py_ssize_t stop, int protocol)
