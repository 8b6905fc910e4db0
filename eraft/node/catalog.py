"""The node's copy of the config table: how it grows, and the node's own place in it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from eraft import limits
from eraft.metaserver.chain import VersionChain
from eraft.metaserver.founding import founding_table
from eraft.metaserver.operations import Register
from eraft.metaserver.table import ConfigTable
from eraft.storage.rows import NODE_GENERATION
from eraft.storage.state import ReplicaRows

if TYPE_CHECKING:
    from eraft.node.node import Node

logger = logging.getLogger("eraft.table")


class Catalog:
    """The newest version that this node knows, kept in rows of its own.

    Any copy of a version is as good as any other: they are committed.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.rows = ReplicaRows(node.store, NODE_GENERATION)
        self.chain = VersionChain(self.rows)
        self.table = self.chain.latest() or founding_table(node.identity.metaserver)
        self._registering = False
        self._register_s = node.now_s
        self.refusal = ""
        """Why the metaserver did not take this node's last registration, "" if it did."""

    def adopt(self, table: ConfigTable) -> None:
        """A version that the metaserver's replica on this node has applied."""
        if table.version > self.table.version:
            before = self.table if table.version == self.table.version + 1 else None
            self._store(table, before)
            self._node.table_changed()

    def received(self, versions: list[tuple[ConfigTable, ConfigTable | None]]) -> None:
        """Versions that another node sent, each with the one before it."""
        for table, before in versions:
            self._store(table, before)
        if versions:
            self._node.table_changed()

    def _store(self, table: ConfigTable, before: ConfigTable | None) -> None:
        if before is not None and self.chain.newest != before.version:
            before = None
        self.chain.append(table, before)
        self.table = table
        logger.info("config table: version %d", table.version)

    def register(self) -> None:
        """Tell the metaserver this node's store and addresses until the table has them."""
        address = self._node.address
        if self._registering or self.table.nodes.get(address.node_id) == address:
            return
        if self._node.now_s < self._register_s:
            return
        self._registering = True
        self._node.meta.request(
            Register(
                address.node_id, address.store_id, address.client, address.peer, address.admin
            ),
            self._answered,
        )

    def _answered(self, answer: dict[str, Any]) -> None:
        self._registering = False
        refusal = str(answer.get("error", ""))
        if refusal:
            self._register_s = self._node.now_s + limits.REGISTER_AGAIN_S
        if refusal and refusal != self.refusal:
            logger.error("this node is not registered yet: %s", refusal)
        self.refusal = refusal
