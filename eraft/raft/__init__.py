"""Consensus without I/O: no clock, no sockets, no threads, no unseeded randomness."""

from eraft._impl import log as _log
from eraft.raft.config import Config, Role
from eraft.raft.group import RaftGroup
from eraft.raft.ready import (
    Fetch,
    PeerStatus,
    Ready,
    Restored,
    RoleChange,
    SnapshotOffer,
    Status,
)

__all__ = [
    "Config",
    "EntryLog",
    "Fetch",
    "PeerStatus",
    "RaftGroup",
    "Ready",
    "Restored",
    "Role",
    "RoleChange",
    "SnapshotOffer",
    "Status",
]

EntryLog = _log.EntryLog
"""The entries of one replica in memory: a base, and the encoded entries behind it."""
