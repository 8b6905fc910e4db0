"""What a turn of the node asks the shell to do."""

from dataclasses import dataclass, field

from eraft.storage.wal import WriteRequest


@dataclass(slots=True)
class Outputs:
    """Everything that one turn produced.

    `frames` and `bulk` hold encoded frames per node id, in order, for the two
    connections to that node. `record` is to be written and made durable by
    the log writer, which answers with `Node.log_durable`. With `flush` the
    store is to be flushed beside the loop, and `Node.store_flushed` called then.
    """

    frames: dict[int, list[bytes]] = field(default_factory=dict)
    bulk: dict[int, list[bytes]] = field(default_factory=dict)
    record: WriteRequest | None = None
    peers_changed: bool = False
    flush: bool = False
