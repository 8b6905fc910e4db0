"""Which appends take the connection for large ones, so that none overtakes another."""

from collections.abc import Collection

from eraft import limits
from eraft.raft.kinds import APPEND
from eraft.types import Message


class BulkAppends:
    """One leader's appends on the bulk connections to its peers.

    A small append must not overtake a big one on the other connection: it
    would be refused and everything sent again. So what follows a big one takes
    the same way until the peer has answered it.
    """

    def __init__(self) -> None:
        self._until: dict[int, int] = {}
        """By peer: the index from which on an answer is one to the last append on that way."""

    def takes(self, message: Message) -> bool:
        """Whether a message that is sent now goes on the bulk connection."""
        if message.kind != APPEND:
            return False
        size_bytes = len(message.entries)
        takes = size_bytes > limits.PEER_BULK_BYTES or message.to in self._until
        if takes and size_bytes:
            self._until[message.to] = message.index + 1
        return takes

    def answered(self, reply: Message) -> None:
        """A peer has answered an append."""
        until = self._until.get(reply.sender, 0)
        if until and reply.index >= until:
            del self._until[reply.sender]

    def keep(self, replica_ids: Collection[int]) -> None:
        """Only these are members now."""
        for replica_id in [it for it in self._until if it not in replica_ids]:
            del self._until[replica_id]

    def forget(self, replica_id: int) -> None:
        """The connections to that peer are gone, and with them what was on its way."""
        self._until.pop(replica_id, None)

    def clear(self) -> None:
        """The log has begun anew."""
        self._until.clear()
