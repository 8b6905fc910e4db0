"""The settings of one node, from its TOML file or flags."""

from dataclasses import dataclass

from eraft import limits


@dataclass(slots=True, frozen=True)
class NodeOptions:
    """How one node runs; what is not here is fixed in `eraft.limits`.

    Addresses are host:port; a port of 0 takes a free one. `advertise_*` is
    what other nodes and clients are told, by default the bound address.
    """

    data_dir: str
    client: str = "127.0.0.1:6379"
    peer: str = "127.0.0.1:16379"
    admin: str = "127.0.0.1:26379"
    advertise_client: str = ""
    advertise_peer: str = ""
    advertise_admin: str = ""
    tick_s: float = limits.TICK_S
    election_ticks: int = limits.ELECTION_TICKS
    heartbeat_ticks: int = limits.HEARTBEAT_TICKS
    check_ticks: int = limits.CHECK_TICKS
    balance_interval_s: float = limits.BALANCE_INTERVAL_S
    segment_size_bytes: int = limits.SEGMENT_SIZE_BYTES
    log_tail_bytes: int = limits.LOG_TAIL_BYTES
    log_retention_bytes: int = limits.LOG_RETENTION_BYTES
    free_disk_bytes: int = limits.FREE_DISK_BYTES
    connections: int = limits.CLIENT_CONNECTIONS
    value_size_bytes: int = limits.VALUE_SIZE_BYTES
