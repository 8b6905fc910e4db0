"""Every exception that eraft raises on purpose.

The split that matters to a caller is under `RequestError`: `NotApplied` is
certain (the request had no effect and never will have, so it is safe to
retry), `OutcomeUnknown` is not.
"""


class EraftError(Exception):
    """Base of all errors of eraft."""


class ConfigError(EraftError):
    """A setting, flag, file or directory that the node cannot start with."""


class InvariantViolation(EraftError):
    """A rule that can never be broken is broken; the node must stop.

    The message names the invariant. Nothing catches this but the outermost
    shell, which logs it and ends the process.
    """


class ProtocolError(EraftError):
    """Bytes from outside that are not what the protocol allows."""


class FrameTooLarge(ProtocolError):
    """A frame or command announces more bytes than its limit."""


class ChecksumMismatch(ProtocolError):
    """A peer frame's checksum does not match its bytes."""


class StorageError(EraftError):
    """The disk or what is on it."""


class LogCompacted(StorageError):
    """The wanted entries are no longer in the log (or not in its memory)."""


class LogCorrupt(StorageError):
    """A record that had been durable can no longer be read, or what is there contradicts itself.

    The node's replicas, or the one that it concerns, are quarantined: they
    neither vote nor serve until they are replaced from their peers.
    """


class Diverged(StorageError):
    """A replica's state is not that of its group, or nobody can tell; it must not take part."""


class StoreStalled(StorageError):
    """RocksDB asks writers to wait; the batch was not written, write it again later."""


class DiskFull(StorageError):
    """Free space is below the mark under which writes are refused."""


class RequestError(EraftError):
    """A request that did not get its answer."""


class NotApplied(RequestError):
    """The request certainly had no effect and never will; safe to retry."""


class NotLeader(NotApplied):
    """This replica does not lead its group.

    `leader` is where clients reach the node that does, as host:port, as far as
    this one knows, else "".
    """

    def __init__(self, text: str, leader: str = "") -> None:
        super().__init__(text)
        self.leader = leader


class ConfChangeRefused(NotApplied):
    """A change of a group's members that is impossible, or not possible now; the text says why."""


class TransferRefused(NotApplied):
    """Leadership cannot be handed to that replica now; the text says why."""


class TransferUnderWay(NotApplied):
    """The leader hands its leadership over and takes no proposals meanwhile."""


class Overloaded(NotApplied):
    """A limit is reached; try again later."""


class OutcomeUnknown(RequestError):
    """The request may or may not take effect; not safe to retry blindly."""
