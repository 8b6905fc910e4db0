"""What is committed: the same for everybody, on a majority of disks, and as clients were told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eraft.node.replica import Replica
from eraft.raft.kinds import COMMANDS, CONF_CHANGE
from eraft.types import ConfState
from tests.sim.known import NOTHING, History, Violation, is_quorum

if TYPE_CHECKING:
    from tests.sim.checks import Checks

VALUE = re.compile(rb"<\d+\.\d+>")
"""What clients of the simulator write is found in the log by this."""


class CommitChecks:
    """State machine safety, and that majorities and promises to clients are what they should be."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._values: set[bytes] = set()
        """What committed entries write."""
        self._refused: set[bytes] = set()
        """What clients were told that it was not written."""

    def acknowledged(self, value: bytes, who: str) -> None:
        """A client was told that a write has taken effect."""
        if value not in self._values:
            raise Violation(
                f"acknowledged: {who} was told that {value!r} is written, it is not committed"
            )

    def refused(self, value: bytes, who: str) -> None:
        """A client was told that a write was not executed."""
        self._refused.add(value)
        if value in self._values:
            raise Violation(f"not executed: {who} was told so of {value!r}, it is committed")

    def advanced(
        self, node_id: int, replica: Replica, group: History, first: int, applied: int
    ) -> None:
        """A replica commits from `first` on; `applied` was applied before."""
        gid, log, last = replica.gid, replica.raft.log, replica.raft.commit
        disk = self._checks.disks[node_id].get(gid, NOTHING)
        switching = disk.generation != replica.rows.generation
        base_index = log.base_index if switching else disk.base_index
        for index in range(max(first, base_index + 1), last + 1):
            # What is applied may have left the memory already; it is on disk then.
            term = log.term(index) if index >= log.base_index else disk.term(index)
            known = group.committed.get(index)
            if known is None:
                self._first_committed(replica, group, index, term)
            elif known[0] != term:
                raise Violation(
                    f"state machine safety: node {node_id} commits entry {index} of group {gid} of"
                    f" term {term}, others of term {known[0]}"
                )
        if last > group.top:
            group.top = last
            if last > disk.base_index:
                confs = self._confs_of(node_id, replica, applied)
                self._on_quorum(replica, last, group.committed[last][0], confs)

    def _first_committed(self, replica: Replica, group: History, index: int, term: int) -> None:
        entry = group.entries.get((index, term))
        if entry is None:
            raise Violation(
                f"committed: entry {index} of term {term} of group {replica.gid} is not durable"
                " anywhere"
            )
        group.committed[index] = (term, replica.raft.term)
        if entry[1] == COMMANDS and replica.gid:
            written = VALUE.findall(entry[2])
            self._values.update(written)
            if not self._refused.isdisjoint(written):
                raise Violation(f"not executed: a client was told so of one of {written}")

    def _confs_of(self, node_id: int, replica: Replica, applied: int) -> Sequence[ConfState]:
        """By which something is committed in this turn: that before it, or one applied in it.

        But not by one that begins with just what is committed.
        """
        before, after = self._checks.confs(node_id, replica)
        raft, last = replica.raft, replica.applied
        begins = applied < last == raft.commit > raft.log.base_index
        return (before,) if begins and raft.log.kind(last) == CONF_CHANGE else (before, after)

    def _on_quorum(
        self, replica: Replica, index: int, term: int, confs: Sequence[ConfState]
    ) -> None:
        def has(replica_id: int) -> bool:
            node_id = replica.members.home(replica_id)
            group = self._checks.disks.get(node_id, {}).get(replica.gid)
            return node_id in self._checks.destroyed or (
                group is not None and group.has(index, term)
            )

        if not any(is_quorum(conf, has) for conf in confs):
            durable = [it for conf in confs for it in conf.members if has(it)]
            raise Violation(
                f"committed: entry {index} of term {term} of group {replica.gid} counts as"
                f" committed, durable on {sorted(set(durable))} of {' or '.join(map(str, confs))}"
            )
