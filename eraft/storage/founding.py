"""GroupState as bytes, and the state that the metaserver is founded with."""

from collections.abc import Sequence

import orjson

from eraft.errors import ProtocolError
from eraft.types import METASERVER_GID, ConfState, GroupState, HardState, ReplicaAddress

FOUNDING_GENERATION = 1
"""Generation of the first replica that is created on a node; 0 is the node's own."""


def founding_state(node_id: int, metaserver: Sequence[int], store_id: str) -> GroupState | None:
    """Return the metaserver's founding state on a node, None if it is no member.

    Args:
        node_id: This node.
        metaserver: The founding nodes in the order of the list.
        store_id: This node's store; the others' are not known yet ("").
    """
    if node_id not in metaserver:
        return None
    members = tuple(
        ReplicaAddress(replica_id, node, store_id if node == node_id else "")
        for replica_id, node in enumerate(metaserver, 1)
    )
    return GroupState(
        gid=METASERVER_GID,
        replica_id=metaserver.index(node_id) + 1,
        generation=FOUNDING_GENERATION,
        conf=ConfState(tuple(member.replica_id for member in members)),
        members=members,
    )


def encode_group_state(state: GroupState) -> bytes:
    """Return the payload of a GROUP_STATE item."""
    return orjson.dumps(state)


def decode_group_state(payload: bytes) -> GroupState:
    """Return the state in the payload of a GROUP_STATE item.

    Raises:
        ProtocolError: the payload is not one.
    """
    try:
        value = orjson.loads(payload)
        return GroupState(
            gid=value["gid"],
            replica_id=value["replica_id"],
            generation=value["generation"],
            conf=ConfState(tuple(value["conf"]["voters"])),
            members=tuple(
                ReplicaAddress(member["replica_id"], member["node_id"], member["store_id"])
                for member in value["members"]
            ),
            hard_state=HardState(
                value["hard_state"]["term"],
                value["hard_state"]["vote"],
                value["hard_state"]["commit"],
            ),
            base_index=value["base_index"],
            base_term=value["base_term"],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ProtocolError(f"group state: {type(error).__name__}: {error}") from None
