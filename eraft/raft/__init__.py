"""Consensus without I/O: no clock, no sockets, no threads, no unseeded randomness."""
