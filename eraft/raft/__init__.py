"""Consensus without I/O: no clock, no sockets, no threads, no unseeded randomness."""

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
