"""Commands on all keys of this node: read positions of its groups first, then a walk in slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eraft._impl import resp
from eraft.node.proposals import OUTCOME_UNKNOWN
from eraft.node.reads import Job, Scan
from eraft.shardkv import keyspace
from eraft.shardkv.router import CLUSTER_DOWN

if TYPE_CHECKING:
    from eraft.node.client import Client
    from eraft.node.node import Node
    from eraft.node.shard import ShardReplica
    from eraft.node.slots import Slot

READ_ONLY = resp.ReplyError(b"READONLY You can't write against a read only replica.")


def read(client: Client, slot: Slot, args: list[bytes]) -> None:
    """SCAN, KEYS, DBSIZE and the like, over the groups that this node leads."""
    led = led_shards(client.node)
    walk = _Walk(client, slot, args, led)
    for shard in led:
        shard.read(Scan(client, slot, walk.confirmed, walk.lost))
    if not led:
        walk.start()


def flush(client: Client, slot: Slot, args: list[bytes]) -> None:
    """FLUSHALL: one command in the log of each group that this node leads."""
    led = led_shards(client.node)
    if not led:
        slot.refuse(READ_ONLY)
        return
    refusal = next((shard.refusal for shard in led if shard.refusal is not None), None)
    if refusal is not None:
        slot.refuse(refusal)
        return
    flushes = _Flushes(slot, len(led))
    for shard in led:
        shard.add(args, flushes)


def led_shards(node: Node) -> list[ShardReplica]:
    """The replicas of data groups that this node leads."""
    return [shard for shard in node.shards[1:] if shard is not None and shard.serving]


class _Walk:
    """One walk, from its read positions to its reply."""

    def __init__(
        self, client: Client, slot: Slot, args: list[bytes], led: list[ShardReplica]
    ) -> None:
        self._client = client
        self._slot = slot
        self._args = args
        self._led = led
        self._waiting = len(led)
        self._ended = False

    def confirmed(self, replica: ShardReplica) -> None:
        """One group's position is confirmed and applied."""
        self._waiting -= 1
        if not self._waiting and not self._ended:
            self.start()

    def lost(self) -> None:
        """A group is not led here any more: the client asks the new leader."""
        self._answer(CLUSTER_DOWN)

    def start(self) -> None:
        """Walk, a slice a turn."""
        node = self._client.node
        machines = [shard.machine for shard in self._led]
        steps = keyspace.walk(self._args, machines, node.random.getrandbits(64))
        node.start_job(Job(steps, self._answer))

    def _answer(self, reply: Any) -> None:
        if not self._ended:
            self._ended = True
            self._slot.settle([reply], 0)
            self._client.read_done()


class _Flushes:
    """Waits for FLUSHALL in several groups and answers once.

    Where one of them did not execute it, another one may have.
    """

    count = 1

    def __init__(self, slot: Slot, groups: int) -> None:
        self.deadline_s = slot.deadline_s
        self._slot = slot
        self._alone = groups == 1
        self._missing = groups

    def settle(self, replies: list[Any], start: int) -> None:
        self._missing -= 1
        if not self._missing:
            self._slot.settle(replies, start)

    def refuse(self, error: resp.ReplyError) -> None:
        self._slot.refuse(error if self._alone else OUTCOME_UNKNOWN)
