"""How fast and how reliable the parts of a simulated cluster are. Times are in microseconds."""

from dataclasses import dataclass

from eraft import limits

Span = tuple[int, int]
"""From the least to the most, each as likely as the other."""


@dataclass(slots=True, kw_only=True)
class Conditions:
    """By default nothing takes any time and nothing is lost: for tests that tell a story."""

    network_us: Span = (0, 0)
    spike_chance: float = 0.0
    """That something on the network takes `spike_us` instead."""
    spike_us: Span = (0, 0)
    client_us: Span = (0, 0)
    dial_us: Span = (0, 0)
    notice_us: Span = (0, 0)
    """Until a node notices that the other end of a connection is gone."""
    disk_us: Span = (0, 0)
    flush_us: Span = (0, 0)
    turn_us: Span = (0, 0)
    """Until a node has its turn after something has happened to it."""

    drift: float = 0.0
    """How much too fast or slow the clocks of nodes may run."""

    drop: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    """What happens to frames of Raft messages beyond what connections do to them."""
    late_us: Span = (0, 0)

    segment_bytes: int = 256 * 1024
    retention_bytes: int = limits.LOG_RETENTION_BYTES
    append_bytes: int = limits.APPEND_SIZE_BYTES
    """Of entries in a message between replicas."""
    flight_bytes: int = limits.APPEND_BYTES_IN_FLIGHT
    """Of entries on their way to a replica, beyond which no more is sent."""
    chunk_bytes: int = limits.SNAPSHOT_CHUNK_BYTES
    """Of rows in a chunk of a snapshot; four are on their way at a time."""
    tail_bytes: int = limits.LOG_TAIL_BYTES
    check_ticks: int = limits.CHECK_TICKS
    heartbeat_ticks: int = limits.HEARTBEAT_TICKS
