"""The state that the metaserver is founded with."""

from collections.abc import Collection

from eraft.types import METASERVER_GID, ConfState, GroupState, ReplicaAddress

FOUNDING_GENERATION = 1
"""Generation of the metaserver's founding replica; 0 is the node's own."""


def founding_state(node_id: int, metaserver: Collection[int]) -> GroupState | None:
    """Return the metaserver's founding state on a node, None if it is no member.

    Args:
        node_id: This node.
        metaserver: The founding nodes. Replica ids are 1..k in the order of the node
            ids, whatever the order of the list: every node must come to the same.
            The stores are not known yet ("").
    """
    if node_id not in metaserver:
        return None
    founders = sorted(metaserver)
    members = tuple(
        ReplicaAddress(replica_id, founder) for replica_id, founder in enumerate(founders, 1)
    )
    return GroupState(
        gid=METASERVER_GID,
        replica_id=founders.index(node_id) + 1,
        generation=FOUNDING_GENERATION,
        conf=ConfState(tuple(member.replica_id for member in members)),
        members=members,
    )
