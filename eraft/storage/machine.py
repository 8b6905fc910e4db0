"""The interface between a Raft group and what it replicates."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from eraft.storage.state import ReplicaRows


class StateMachine(Protocol):
    """What a group replicates: plug your own in by implementing `apply` (see `eraft.host`).

    eraft hands every replica the same committed entries in the same order,
    and the machine turns them into the same rows. For that to hold:

    - All state is in the `ReplicaRows` it is given. What a machine keeps
      beside them is a cache that can be rebuilt from them at any time: after a
      restart it sees only the rows, and the entries after the applied index
      that the host noted in the same atomic batch. An entry is applied
      exactly once to the rows.
    - A machine is made from its rows when the node starts, and another one
      whenever a snapshot has taken their place. So a cache is filled by the
      constructor or on demand, and never outlives the rows that it is of.
    - Keys lie in the replica's own generation, which is another one after a
      snapshot: `rows.data_prefix` and what the machine calls the row,
      `rows.meta`/`set_meta` for single named values other than `applied` and
      `conf`, which are eraft's. Everything in it is in the group's snapshots.
    - Nothing depends on a clock, on chance, on the process or on the order of
      a set: time and random numbers travel inside the payload.
    - Whatever a payload holds, `apply` does not fail: an error is a reply. An
      exception stops the node, on every replica alike.

    Reads are the machine's own methods: the host calls them once a read index
    is confirmed and applied, with the same `ReplicaRows`.
    """

    def apply(
        self,
        rows: ReplicaRows,
        index: int,
        term: int,
        payload: bytes,
        replies: list[Any] | None,
    ) -> None:
        """Apply one committed COMMANDS entry.

        Args:
            rows: The replica's rows; the only place to write to.
            index: Log index of the entry, greater than that of every entry before.
            term: Term of the entry.
            payload: What was proposed, byte for byte.
            replies: On the replica that answers clients, one reply value for
                each command of the payload is appended, in order. None elsewhere.
                For `eraft.host` a payload is one command.
        """


MachineFactory: TypeAlias = Callable[[int, ReplicaRows], StateMachine]
"""Makes the machine of a group, given its gid, from the rows of a replica."""
