"""The follower's side of log replication (Raft paper, section 5.3).

The log of a follower becomes the leader's by induction: if both have an entry
of the same term at an index, they agree on everything up to there (Log
Matching, paper figure 3). So a follower takes entries only behind an entry
that it shares with the leader, and only a conflict makes it drop anything.
"""

from eraft._impl import log as entries
from eraft.errors import ProtocolError
from eraft.raft.durability import Durability
from eraft.types import Message

NO_MATCH = -1


def append_entries(
    log: entries.EntryLog, durability: Durability, commit: int, message: Message
) -> int:
    """Takes the entries of an APPEND of this term's leader.

    Returns the last index up to which the log is now known to be the
    leader's, or `NO_MATCH` if the entry before the first one is missing or
    of another term. Entries that are there already stay, so a delayed
    message never shortens the log (paper, figure 2: "delete only what
    conflicts").

    Raises `ProtocolError` for malformed entries, and for what no leader can
    have sent: committed entries that would change, entries of a later term than
    its own. Then nothing has changed.
    """
    prev = message.index
    last = log.last_index
    if prev == last and message.log_term == log.last_term:
        if not message.entries:
            return prev
        last = log.extend(prev + 1, message.entries)
        if log.last_term > message.term:
            later = log.last_term
            log.truncate(prev + 1)
            raise _later_term(message, later)
        return last
    if prev > last:
        return NO_MATCH
    if prev >= log.base_index and log.term(prev) != message.log_term:
        if prev <= commit:
            raise ProtocolError(
                f"leader completeness: entry {prev} is committed in term {log.term(prev)}, but the"
                f" leader {message.sender} of term {message.term} has term {message.log_term} there"
            )
        return NO_MATCH
    # What is at or below the log's base is committed, so it matches whatever the message says.
    first = log.conflict(prev + 1, message.entries)
    rest = log.skip(prev + 1, message.entries, first)
    if not rest:
        return max(first - 1, commit)
    if first <= commit:
        raise ProtocolError(
            f"state machine safety: leader {message.sender} of term {message.term} replaces entry"
            f" {first}, but everything up to {commit} is committed"
        )
    new = entries.EntryLog(first - 1)
    new.extend(first, rest)
    if new.last_term > message.term:
        raise _later_term(message, new.last_term)
    if first <= last:
        log.truncate(first)
        durability.truncate(first)
    return log.extend(first, rest)


def _later_term(message: Message, term: int) -> ProtocolError:
    return ProtocolError(
        f"terms only grow: the leader {message.sender} of term {message.term} sent an entry of"
        f" term {term}"
    )


def best_guess(log: entries.EntryLog, message: Message) -> tuple[int, int]:
    """Where the leader of a refused APPEND should look next: an index and its term.

    Nothing above the answer can match: up to the refused index the leader's
    terms are at most the one it sent, so entries of later terms are skipped
    at once. With the leader doing the same on its side, a difference of any
    length costs one question per term, not one per entry (paper, end of
    section 5.3, in the form that etcd-io/raft gave it).
    """
    return log.find_conflict_by_term(min(message.index, log.last_index), message.log_term)
