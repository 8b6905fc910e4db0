"""What a replica has proposed and what became of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eraft import limits
from eraft._impl import resp
from eraft.errors import NotApplied, OutcomeUnknown, RequestError

OUTCOME_UNKNOWN = resp.ReplyError(b"TIMEOUT outcome unknown")
NOT_APPLIED = resp.ReplyError(b"TRYAGAIN The write was not executed, the leader has changed")

NEVER = float("inf")

PROPOSED_S = limits.ANSWER_DEADLINE_S - limits.HOLD_NO_LEADER_S
"""What is left at least when a command is proposed: before, it is held or in a lane."""


class Waiter(Protocol):
    """Somebody who waits for the replies of `count` consecutive commands of an entry.

    `deadline_s` is the monotonic time by which they need an answer.
    """

    count: int
    deadline_s: float

    def settle(self, replies: list[Any], start: int) -> None:
        """The replies are `replies[start:start + count]`."""

    def refuse(self, error: resp.ReplyError) -> None:
        """There will be no reply but this error; a later answer is ignored."""


@dataclass(slots=True)
class Proposal:
    """An entry that this replica proposed, until an entry is committed at its index.

    No waiter has a deadline before `deadline_s`.
    """

    index: int
    term: int
    deadline_s: float
    waiters: Sequence[Waiter]

    def settle(self, replies: list[Any]) -> None:
        """Hand each waiter its replies."""
        start = 0
        for waiter in self.waiters:
            waiter.settle(replies, start)
            start += waiter.count

    def refuse(self, error: resp.ReplyError) -> None:
        """Tell all waiters that there is no other reply than this."""
        for waiter in self.waiters:
            waiter.refuse(error)

    def expire(self, now_s: float) -> None:
        """Tell those whose deadline has passed that the outcome is not known."""
        late = [waiter for waiter in self.waiters if waiter.deadline_s <= now_s]
        for waiter in late:
            waiter.refuse(OUTCOME_UNKNOWN)
        if len(late) == len(self.waiters):
            self.waiters = ()
        self.deadline_s = min(
            (waiter.deadline_s for waiter in self.waiters if waiter.deadline_s > now_s),
            default=NEVER,
        )


class Proposals:
    """The proposals of one replica that are not decided yet."""

    def __init__(self) -> None:
        self.pending: deque[Proposal] = deque()
        """Those since it leads, in the order of the indexes."""
        self._deposed: dict[int, list[Proposal]] = {}
        """By index: those of when it led before."""

    def add(self, index: int, term: int, waiters: Sequence[Waiter], now_s: float) -> None:
        """The replica has appended an entry."""
        self.pending.append(Proposal(index, term, now_s + PROPOSED_S, waiters))

    def at(self, index: int, term: int) -> Proposal | None:
        """Take out the proposal that became the entry; others of that index were not executed.

        An old proposal can be of the same index as a new one, or of a higher
        one: it was overwritten, but no entry is committed there yet.
        """
        found = None
        if self.pending and self.pending[0].index == index:
            found = self.pending.popleft()
        if self._deposed:
            for proposal in self._deposed.pop(index, ()):
                if proposal.term == term:
                    found = proposal
                else:
                    proposal.refuse(NOT_APPLIED)
        return found

    def depose(self) -> None:
        """The replica leads no more: what is pending may still be committed, or not."""
        for proposal in self.pending:
            if proposal.waiters:
                self._deposed.setdefault(proposal.index, []).append(proposal)
        self.pending.clear()

    def expire(self, now_s: float) -> None:
        """Answer those whose deadline has passed."""
        for proposal in self.pending:
            if proposal.deadline_s <= now_s:
                proposal.expire(now_s)
        if not self._deposed:
            return
        for index, proposals in list(self._deposed.items()):
            for proposal in proposals:
                if proposal.deadline_s <= now_s:
                    proposal.expire(now_s)
            proposals[:] = [it for it in proposals if it.waiters]
            if not proposals:
                del self._deposed[index]

    def give_up(self, index: float = NEVER) -> None:
        """Nobody will know what became of the proposals up to `index`, by default of any."""
        while self.pending and self.pending[0].index <= index:
            self.pending.popleft().refuse(OUTCOME_UNKNOWN)
        for skipped in [it for it in self._deposed if it <= index]:
            for proposal in self._deposed.pop(skipped):
                proposal.refuse(OUTCOME_UNKNOWN)


def request_error(error: resp.ReplyError) -> RequestError:
    """What a refusal of a proposal says about it."""
    if error is NOT_APPLIED:
        return NotApplied("another leader's entry took its place")
    return OutcomeUnknown("the entry may or may not take effect")


class Told:
    """Waits for one entry without a reply: tells whether it took effect."""

    __slots__ = ("_on_done", "count", "deadline_s")

    def __init__(self, on_done: Callable[[RequestError | None], None], now_s: float) -> None:
        self.count = 1
        self.deadline_s = now_s + limits.ANSWER_DEADLINE_S
        self._on_done = on_done

    def settle(self, replies: list[Any], start: int) -> None:
        self._on_done(None)

    def refuse(self, error: resp.ReplyError) -> None:
        self._on_done(request_error(error))
