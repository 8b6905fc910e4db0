"""Version 0 of the config table: what every node knows before the metaserver has met."""

from collections.abc import Mapping

from eraft import limits
from eraft.errors import ConfigError, ProtocolError
from eraft.metaserver import schema
from eraft.metaserver.parts import Group
from eraft.metaserver.table import ConfigTable
from eraft.types import METASERVER_GID, NodeAddress, ReplicaAddress


def founding_table(members: Mapping[int, str]) -> ConfigTable:
    """The table with nothing but the metaserver's own group.

    `members` maps node ids to peer addresses, as `eraft init --metaserver`
    names them. Replica ids are 1..k in the order of the node ids, so every
    node makes the same table of the same list. The nodes have no store yet:
    each one's first registration binds its own.
    """
    if not 1 <= len(members) <= limits.GROUP_REPLICAS:
        raise ConfigError(f"metaserver: {len(members)} nodes, must be 1 to {limits.GROUP_REPLICAS}")
    nodes: dict[int, NodeAddress] = {}
    replicas: list[ReplicaAddress] = []
    for replica_id, (node_id, peer) in enumerate(sorted(members.items()), start=1):
        try:
            schema.integer(node_id, "metaserver: node id", 1, schema.U32)
            schema.address(peer, f"metaserver: peer address of node {node_id}")
        except ProtocolError as error:
            raise ConfigError(str(error)) from error
        nodes[node_id] = NodeAddress(node_id, store_id="", client="", peer=peer, admin="")
        replicas.append(ReplicaAddress(replica_id, node_id))
    return ConfigTable(
        next_replica_id=len(replicas) + 1,
        groups={METASERVER_GID: Group.founded(1, tuple(replicas))},
        nodes=nodes,
    )
