"""What a client connection has told about itself, and how it wants to be answered."""

from dataclasses import dataclass, field
from enum import Enum


class ReplyMode(Enum):
    """Which commands are answered, as CLIENT REPLY sets it."""

    ON = "on"
    OFF = "off"
    SKIP = "skip"
    """The next command is not, those after it are."""


@dataclass(slots=True)
class Session:
    """One client connection; `addr` and `laddr` are host:port of its two ends.

    Times are monotonic seconds of the node. `closing` asks for the end of
    the connection once the current reply has left.
    """

    id: int
    addr: str
    laddr: str
    created_s: float
    active_s: float = field(default=0.0)
    name: bytes = b""
    lib_name: bytes = b""
    lib_ver: bytes = b""
    protocol: int = 2
    readonly: bool = False
    last_command: bytes = b""
    reply_mode: ReplyMode = ReplyMode.ON
    closing: bool = False

    def __post_init__(self) -> None:
        self.active_s = self.created_s

    def reset(self) -> None:
        """Back to how it was when it connected, as RESET asks."""
        self.name = b""
        self.protocol = 2
        self.readonly = False
        self.reply_mode = ReplyMode.ON
