"""When the state store is flushed, and what the log may let go of afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from eraft import limits

if TYPE_CHECKING:
    from eraft.node.node import Node


class Flushing:
    """Has the store flushed whenever so much was logged that a restart would take long.

    What is applied and flushed the log need not keep for this node itself.
    The order is what makes that safe: the applied indexes are noted when
    their rows have been handed to the store, the flush comes after that, and
    the log hears of them only once it has finished.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._limit_bytes = min(limits.FLUSH_LOG_BYTES, node.options.log_retention_bytes // 4)
        self._wanted = False
        self._wanted_in_time = False
        self._running = False
        self._calls: list[Callable[[], None]] = []
        self._calls_running: list[Callable[[], None]] = []
        self._released: list[tuple[int, int, int]] = []
        self._flushed_bytes = 0
        self._flushed_s = node.now_s

    def want(self) -> None:
        """Flush soon, whatever was logged."""
        self._wanted = True

    def want_in_time(self) -> None:
        """Flush some time from now, unless there is another reason before.

        Who waits for a flush must not have to wait for this one first.
        """
        self._wanted_in_time = True

    def call_flushed(self, call: Callable[[], None]) -> None:
        """Flush soon, and call back when what the store has by now is durable."""
        self._calls.append(call)
        self._wanted = True

    def begin(self) -> bool:
        """Tell whether a flush has to begin now; `finished` has to follow it."""
        if not self.due:
            return False
        node = self._node
        self._running = True
        self._wanted = self._wanted_in_time = False
        self._calls_running, self._calls = self._calls, []
        self._flushed_bytes = node.logged_bytes
        self._flushed_s = node.now_s
        for replica in node.replicas.values():
            node.writing.write(replica.rows)
        self._released = [
            (replica.gid, replica.rows.generation, replica.applied)
            for replica in node.replicas.values()
            if not replica.rows.pending
        ]
        # Who takes part in nothing needs all that it has, but not where that is in the log.
        self._released += [(gid, state.generation, 0) for gid, state in node.quarantines.items()]
        return True

    def finished(self) -> None:
        """Note that the flush has finished: what was applied when it began is durable."""
        self._running = False
        if self._released:
            self._node.log.release(self._released)
            self._released = []
        calls, self._calls_running = self._calls_running, []
        for call in calls:
            call()

    @property
    def due(self) -> bool:
        """Whether a flush has to begin in the next turn."""
        if self._running:
            return False
        if self._wanted:
            return True
        logged_bytes = self._node.logged_bytes - self._flushed_bytes
        age_s = self._node.now_s - self._flushed_s
        return (
            logged_bytes >= self._limit_bytes
            or (self._wanted_in_time and age_s >= limits.FLUSH_IN_TIME_S)
            or (logged_bytes > 0 and age_s >= limits.FLUSH_INTERVAL_S)
        )
