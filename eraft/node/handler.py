"""What a handler of a local command gets: its node as far as that concerns it, session, arguments.

The handlers are in `local`, `clients` and `introspect`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from eraft.node.session import Session
from eraft.shardkv.router import Router

Args: TypeAlias = list[bytes]
Handler: TypeAlias = "Callable[[LocalContext, Session, Args], Any]"
"""Returns the reply, or `words.SILENT`."""


class LocalContext(Protocol):
    """What local commands may know of their node, and do to it."""

    @property
    def cluster_id(self) -> str:
        """The cluster's name, as it was formatted."""

    @property
    def router(self) -> Router:
        """Config table, leaders and local groups."""

    @property
    def now_s(self) -> float:
        """Monotonic time in seconds."""

    @property
    def wall_ms(self) -> int:
        """Unix time in milliseconds."""

    @property
    def started_s(self) -> float:
        """Monotonic time when the node started, in seconds."""

    @property
    def run_id(self) -> str:
        """40 hexadecimal digits, others at each start."""

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def port(self) -> int:
        """The port for clients."""

    @property
    def settings(self) -> Mapping[bytes, bytes]:
        """What CONFIG GET shows, by lower-case name."""

    @property
    def counters(self) -> Mapping[str, int]:
        """What the Stats section of INFO shows, beside its own."""

    @property
    def command_calls(self) -> Mapping[bytes, int]:
        """How often each command was called, by upper-case name."""

    @property
    def keyspace(self) -> tuple[int, int]:
        """About how many keys the groups have that this node leads, and how many of them expire."""

    @property
    def sessions(self) -> Mapping[int, Session]:
        """The client connections by id, in the order in which they came."""

    def kill(self, session: Session) -> None:
        """Close a connection other than the one whose command is executed."""

    def reset_stats(self) -> None:
        """Set the counters to zero."""
