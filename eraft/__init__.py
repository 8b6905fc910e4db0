"""A sharded, replicated, linearizable key-value store, and the Raft library under it."""

from eraft._impl import IMPL

__all__ = ["IMPL", "__version__"]

__version__ = "0.1.0"
