"""Which appends take the connection for large ones."""

from eraft import limits
from eraft.node.bulk import BulkAppends
from eraft.types import Message, MessageKind

LARGE = bytes(limits.PEER_BULK_BYTES + 1)


def append(to: int, index: int, entries: bytes = b"small") -> Message:
    return Message(MessageKind.APPEND, 1, 1, to, 1, index, entries=entries)


def answer(sender: int, index: int) -> Message:
    return Message(MessageKind.APPEND_REPLY, 1, sender, 1, 1, index)


def test_what_follows_a_large_append_takes_its_way_until_that_is_answered() -> None:
    bulk = BulkAppends()
    assert not bulk.takes(append(2, 0))
    assert bulk.takes(append(2, 1, LARGE))
    assert bulk.takes(append(2, 2))
    assert not bulk.takes(append(3, 2)), "another peer has its own connections"
    assert not bulk.takes(Message(MessageKind.HEARTBEAT, 1, 1, 2, 1, 0))
    bulk.answered(answer(2, 2))
    assert bulk.takes(append(2, 3)), "the small one is still on its way"
    bulk.answered(answer(2, 4))
    assert not bulk.takes(append(2, 4))


def test_an_append_of_nothing_is_not_waited_for() -> None:
    bulk = BulkAppends()
    assert bulk.takes(append(2, 1, LARGE))
    assert bulk.takes(append(2, 9, b""))
    bulk.answered(answer(2, 2))
    assert not bulk.takes(append(2, 2))


def test_what_was_on_its_way_is_forgotten_with_the_connection_or_the_member() -> None:
    bulk = BulkAppends()
    for peer in (2, 3, 4):
        assert bulk.takes(append(peer, 1, LARGE))
    bulk.forget(2)
    assert not bulk.takes(append(2, 2))
    bulk.keep({3})
    assert bulk.takes(append(3, 2))
    assert not bulk.takes(append(4, 2))
    bulk.clear()
    assert not bulk.takes(append(3, 3))
