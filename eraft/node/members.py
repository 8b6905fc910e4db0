"""The members of a group: on which nodes they live, and the entries that change who they are.

The core knows replica ids only. The context of a `ConfChange` is the host's:
JSON, `[[replica id, node id, store id], ...]`, of the replicas that it adds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import orjson

from eraft import limits
from eraft.errors import ConfChangeRefused, NotLeader, ProtocolError, RequestError
from eraft.metaserver import schema
from eraft.node.proposals import Told
from eraft.raft import confchange
from eraft.raft.confchange import Change, ChangeKind, ConfChange, Transition, describe
from eraft.types import ReplicaAddress

if TYPE_CHECKING:
    from eraft.node.replica import Replica

logger = logging.getLogger("eraft.members")

_WHERE = "context of a configuration change"


class Members:
    """What one replica knows of the replicas of its group, itself among them."""

    def __init__(self, replica: Replica, addresses: tuple[ReplicaAddress, ...]) -> None:
        self._replica = replica
        self.addresses = addresses
        """Of the members, as of the last applied change of the configuration."""
        self.homes = {it.replica_id: it.node_id for it in addresses}
        """On which nodes they live, by replica id."""
        self._issued: dict[int, int] = {}
        """Where the config table has the group's replicas, members or not."""
        self.removed = False
        """An applied entry has removed this replica. Who led then leaves once another one leads:
        the others may not know that the entry is committed, and need its vote to find out."""

    def home(self, replica_id: int) -> int:
        """The node on which a replica of the group lives, 0 if nobody has heard of it."""
        return self.homes.get(replica_id) or self._issued.get(replica_id, 0)

    def follow(self, issued: Sequence[ReplicaAddress]) -> None:
        """The config table has these replicas of the group; some may not be members yet."""
        self._issued = {it.replica_id: it.node_id for it in issued}
        self._replica.raft.listen_to(self._issued)

    def adopt(self, addresses: tuple[ReplicaAddress, ...]) -> None:
        """The members are these from now on."""
        self.addresses = addresses
        self.homes = {it.replica_id: it.node_id for it in addresses}
        self._replica.members_changed()

    def propose(
        self,
        changes: Sequence[Change],
        addresses: Sequence[ReplicaAddress],
        on_done: Callable[[RequestError | None], None],
        transition: Transition = Transition.AUTO,
    ) -> None:
        """Propose a change of the members, as the group's leader.

        Args:
            changes: What is to become of which replicas; none leaves a joint configuration.
            addresses: Of every replica that is added and is no member yet.
            on_done: Hears once the change is applied here (None), or why that
                is not known or certainly did not happen.
            transition: See `eraft.raft.confchange`.

        Raises:
            NotLeader: this replica does not serve as leader.
            TransferUnderWay: it hands its leadership over.
            ConfChangeRefused: the change is impossible, or not possible now;
                nothing was proposed.
        """
        replica = self._replica
        where = f"group {replica.gid}: replica {replica.replica_id}"
        if replica.retired or not replica.serving:
            raise NotLeader(f"{where} does not lead")
        known = {it.replica_id for it in addresses} | self.homes.keys()
        added = {it.replica_id for it in changes if it.kind is not ChangeKind.REMOVE}
        if added - known:
            raise ConfChangeRefused(f"{where}: no address of replicas {sorted(added - known)}")
        change = ConfChange(tuple(changes), transition, encode(addresses))
        index = replica.raft.propose_conf_change(change)
        replica.proposed(index, [Told(on_done, replica.node.now_s)])
        replica.node.touch(replica)

    def apply(self, index: int, payload: bytes) -> None:
        """Apply a change of the configuration."""
        replica = self._replica
        raft, own_id = replica.raft, replica.replica_id
        if replica.leading:
            raft.tell_commit()  # who is removed by it hears nothing any more afterwards
        before = raft.conf
        conf = raft.apply_conf_change(index, payload)
        if conf == before:
            return
        known = added(payload) | {it.replica_id: it for it in self.addresses}
        self.adopt(tuple(known[it] for it in conf.members if it in known))
        replica.rows.set_conf(conf, self.addresses)
        self.removed = own_id in before.members and own_id not in conf.members
        logger.info("group %d: entry %d makes it %s", replica.gid, index, describe(conf))


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
