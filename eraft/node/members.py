"""What an entry that changes the members of a group says of where they live.

The core knows replica ids only; the context of a `ConfChange` is the host's:
JSON, `[[replica id, node id, store id], ...]`, of the replicas that it adds.
"""

from collections.abc import Sequence

import orjson

from eraft import limits
from eraft.errors import ProtocolError
from eraft.metaserver import schema
from eraft.raft import confchange
from eraft.types import ReplicaAddress

_WHERE = "context of a configuration change"


def encode(addresses: Sequence[ReplicaAddress]) -> bytes:
    """The context of a change."""
    return orjson.dumps([(it.replica_id, it.node_id, it.store_id) for it in addresses])


def decode(context: bytes) -> tuple[ReplicaAddress, ...]:
    """What `encode` made, nothing of an empty context; ProtocolError if it is something else."""
    if not context:
        return ()
    found = []
    for item in schema.sequence(schema.document(context, _WHERE), _WHERE, limits.CONF_CHANGES):
        parts = schema.sequence(item, _WHERE, 3)
        if len(parts) != 3:
            raise ProtocolError(f"{_WHERE}: an address must be [replica id, node id, store id]")
        found.append(
            ReplicaAddress(
                schema.integer(parts[0], f"{_WHERE}: replica id", 1, schema.U63),
                schema.integer(parts[1], f"{_WHERE}: node id", 1, schema.U32),
                schema.name(parts[2], f"{_WHERE}: store id"),
            )
        )
    return tuple(found)


def added(payload: bytes) -> dict[int, ReplicaAddress]:
    """The addresses in a CONF_CHANGE entry by replica id; none if it is malformed.

    As to the core, a malformed change is one that changes nothing.
    """
    try:
        addresses = decode(confchange.decode(payload).context)
    except ProtocolError:
        return {}
    return {it.replica_id: it for it in addresses}
