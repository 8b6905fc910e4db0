"""What a replica is told about its group and about time."""

from dataclasses import dataclass
from enum import Enum
from random import Random

from eraft import limits
from eraft.errors import ConfChangeRefused, ConfigError
from eraft.raft.confchange import check
from eraft.types import ConfState


class Role(Enum):
    """What a replica is in its term (Raft paper, section 5.1).

    `PRE_CANDIDATE` asks whether it could win before it makes a new term
    (dissertation, section 9.6).
    """

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(slots=True, kw_only=True)
class Config:
    """The fixed settings of one replica. Times are in ticks of the host's clock.

    `conf` is the configuration that belongs to the applied index at the
    start: the founding one, that of a snapshot, or what the last applied change
    made. A new replica of a group that exists has none yet, `ConfState()`.

    A follower campaigns after `election_ticks` to `2 * election_ticks - 1`
    ticks without a leader, drawn from `random`, the only source of chance.
    An append message carries at most `append_limit_bytes` of entries (or one
    entry that is larger). No other is sent to a peer while `appends_in_flight`
    of them, or `bytes_in_flight` of entries, are on their way to it. Entries
    that are applied leave the memory when the log takes more than `tail_bytes`
    there. A leader takes no proposal while more than `uncommitted_bytes` of
    its log are not committed.

    Raises `ConfigError` for settings that no group can work with.
    """

    gid: int
    replica_id: int
    conf: ConfState
    random: Random
    election_ticks: int = limits.ELECTION_TICKS
    heartbeat_ticks: int = limits.HEARTBEAT_TICKS
    append_limit_bytes: int = limits.APPEND_SIZE_BYTES
    appends_in_flight: int = limits.APPENDS_IN_FLIGHT
    bytes_in_flight: int = limits.APPEND_BYTES_IN_FLIGHT
    uncommitted_bytes: int = limits.UNCOMMITTED_BYTES
    tail_bytes: int = limits.LOG_TAIL_BYTES

    def __post_init__(self) -> None:
        if self.replica_id < 1:
            raise ConfigError(f"group {self.gid}: {self.replica_id} is no replica id")
        try:
            check(self.conf)
        except ConfChangeRefused as error:
            raise ConfigError(f"group {self.gid}: {error}") from None
        if not 1 <= self.heartbeat_ticks < self.election_ticks:
            raise ConfigError(
                f"group {self.gid}: heartbeat_ticks {self.heartbeat_ticks} must be at least 1 and"
                f" below election_ticks {self.election_ticks}"
            )
        for name in (
            "append_limit_bytes",
            "appends_in_flight",
            "bytes_in_flight",
            "uncommitted_bytes",
            "tail_bytes",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"group {self.gid}: {name} must be at least 1")
