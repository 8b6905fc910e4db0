"""Which part of a replica's state is safe on its own disk.

Persistence is asynchronous: a Ready hands out entries and a hard state under
a token, and the token comes back when the disk has them, while the log in
memory has moved on. Two things can go wrong, and both have in other
implementations:

* An acknowledgement for entries 5..6 of an old leader arrives after a new
  leader has replaced them in memory. It says nothing about the new 5..6,
  although the indexes are the same (the ABA problem). So every hand-out that
  is under way forgets what a truncation takes away.
* A vote counts although it is not on disk yet. So the durable term is kept
  beside the durable index.
"""

from collections import deque

from eraft.errors import InvariantViolation


class Durability:
    """Tokens handed out and what their acknowledgements made durable."""

    __slots__ = (
        "_under_way",
        "durable_commit",
        "durable_index",
        "durable_term",
        "handed_index",
        "token",
    )

    def __init__(self, last_index: int, term: int, commit: int) -> None:
        """After a start: the whole log, the term and what is committed came from the disk."""
        self.durable_index = last_index
        """The last entry of the log, as it is now, that is on disk."""
        self.durable_term = term
        """The last term that is on disk together with its vote."""
        self.durable_commit = commit
        """The last commit index that is on disk."""
        self.handed_index = last_index
        """The last entry of the log, as it is now, that was handed out."""
        self.token = 0
        """The last token handed out."""
        self._under_way: deque[list[int]] = deque()

    def hand_out(self, last_index: int, term: int, commit: int) -> int:
        """Everything up to `last_index` and the hard state go to the disk: the token."""
        self.token += 1
        self.handed_index = last_index
        self._under_way.append([self.token, last_index, term, commit])
        return self.token

    def truncate(self, index: int) -> None:
        """Entries from `index` on are no longer in the log, whatever the disk still has."""
        before = index - 1
        self.handed_index = min(self.handed_index, before)
        self.durable_index = min(self.durable_index, before)
        for hand_out in self._under_way:
            hand_out[1] = min(hand_out[1], before)

    def reset(self, index: int) -> None:
        """The log begins anew behind a snapshot up to `index`, which is still to be handed out."""
        self.handed_index = index
        self.durable_index = 0
        for hand_out in self._under_way:
            hand_out[1] = 0

    def acknowledge(self, token: int) -> None:
        """All tokens up to this one are durable; one that is known already changes nothing."""
        if token > self.token:
            raise InvariantViolation(f"token {token} is durable, but only {self.token} were issued")
        while self._under_way and self._under_way[0][0] <= token:
            _, self.durable_index, self.durable_term, self.durable_commit = (
                self._under_way.popleft()
            )
