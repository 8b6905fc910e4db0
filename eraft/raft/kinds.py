"""Kinds of messages and entries, and what belongs together among them."""

from eraft.types import EntryKind, MessageKind

# As plain integers: a member access on an IntEnum costs as much as the rest of a comparison.
PRE_VOTE = int(MessageKind.PRE_VOTE)
PRE_VOTE_REPLY = int(MessageKind.PRE_VOTE_REPLY)
VOTE = int(MessageKind.VOTE)
VOTE_REPLY = int(MessageKind.VOTE_REPLY)
APPEND = int(MessageKind.APPEND)
APPEND_REPLY = int(MessageKind.APPEND_REPLY)
HEARTBEAT = int(MessageKind.HEARTBEAT)
HEARTBEAT_REPLY = int(MessageKind.HEARTBEAT_REPLY)
TIMEOUT_NOW = int(MessageKind.TIMEOUT_NOW)
SNAPSHOT = int(MessageKind.SNAPSHOT)
READ_INDEX = int(MessageKind.READ_INDEX)
READ_INDEX_REPLY = int(MessageKind.READ_INDEX_REPLY)

KINDS = frozenset(int(kind) for kind in MessageKind)
REPLY_TO = {
    PRE_VOTE: PRE_VOTE_REPLY,
    VOTE: VOTE_REPLY,
    APPEND: APPEND_REPLY,
    HEARTBEAT: HEARTBEAT_REPLY,
    SNAPSHOT: APPEND_REPLY,
    READ_INDEX: READ_INDEX_REPLY,
}
OF_LEADER = frozenset((APPEND, HEARTBEAT, TIMEOUT_NOW, SNAPSHOT))
OF_STRANGER = OF_LEADER | {PRE_VOTE, VOTE, READ_INDEX_REPLY}
"""What a replica listens to from one that is not in its configuration yet."""
TERM_LIMIT = 1 << 62
"""No group lives to see it; one election in a microsecond would take 100,000 years."""
INDEX_LIMIT = 1 << 62
"""No log can begin there or beyond (see `EntryLog`)."""

COMMANDS = int(EntryKind.COMMANDS)
NOOP = int(EntryKind.NOOP)
CONF_CHANGE = int(EntryKind.CONF_CHANGE)
CHECK = int(EntryKind.CHECK)
