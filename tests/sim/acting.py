"""How a simulated node is told something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eraft.errors import StorageError
from eraft.node.node import Node

if TYPE_CHECKING:
    from tests.sim.world import World


class Acting:
    """A block in which a node is told something; what its disk refuses stops the node."""

    __slots__ = ("_node", "_node_id", "_world")

    def __init__(self, world: World, node_id: int) -> None:
        self._world = world
        self._node_id = node_id

    def __enter__(self) -> Node:
        self._node = self._world.on_stage(self._node_id)
        return self._node

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            self._world.told(self._node_id, self._node)
        elif isinstance(error, StorageError):
            self._world.failed(self._node_id, error)
            return True
        return False
