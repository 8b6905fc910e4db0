"""Reads that were admitted to a group which then could not serve them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eraft import limits
from eraft._impl import resp
from eraft.node.reads import CommandRead
from eraft.shardkv import admission, router
from eraft.shardkv.specs import COMMANDS

if TYPE_CHECKING:
    from eraft.node.client import Client
    from eraft.node.node import Node
    from eraft.node.slots import Slot


class Rerouted:
    """The commands of one slot, judged again until each can be served, redirected or refused.

    With `readonly` followers may serve them.
    """

    def __init__(
        self, client: Client, slot: Slot | _Part, commands: list[list[bytes]], readonly: bool
    ) -> None:
        self._client = client
        self._readonly = readonly
        self._slot = slot
        self._commands = commands
        hold_s = client.node.now_s + limits.HOLD_NO_LEADER_S
        self._deadline_s = min(hold_s, slot.deadline_s)

    def retry(self, node: Node) -> bool:
        """Judge again; False while some bucket still has nobody to serve it."""
        late = node.now_s >= self._deadline_s
        decisions = []
        for args in self._commands:
            bucket = admission.bucket_of_command(COMMANDS[args[0]], args)
            decision = node.router.route(bucket, node.now_s, write=False, readonly=self._readonly)
            if isinstance(decision, router.Hold) and not late:
                return False
            decisions.append((bucket, decision))
        for args, part, (bucket, decision) in zip(
            self._commands, self._places(), decisions, strict=True
        ):
            if isinstance(decision, router.Serve):
                read: Any = part
                node.shard(decision.gid).read(_PartRead(self._client, read, args, bucket, True))
                continue
            part.refuse(decision.reply)
        return True

    @property
    def again(self) -> bool:
        """Whether the command, which is then only one, was rerouted before."""
        return isinstance(self._slot, _Part)

    def _places(self) -> list[_Part]:
        """Where the answers go."""
        if isinstance(self._slot, _Part):
            return [self._slot]
        parts = _Parts(self._client, self._slot, len(self._commands))
        return [_Part(parts, place) for place in range(len(self._commands))]


class _PartRead(CommandRead):
    """One of the commands; the client hears of the last one's answer only."""

    slot: Any  # a `_Part`

    def answer(self, data: bytes) -> None:
        self.slot.fill(data)

    def postponed(self) -> bool:
        """Whether something before it is not answered yet: its detour may have been longer."""
        return self.client.postpones(self.slot.whole)


class _Parts:
    """Joins the replies of several commands in the slot that was theirs together."""

    def __init__(self, client: Client, slot: Slot, count: int) -> None:
        self.slot = slot
        self._client = client
        self._parts: list[bytes] = [b""] * count
        self._missing = count

    def fill(self, place: int, data: bytes) -> None:
        self._parts[place] = data
        self._missing -= 1
        if not self._missing:
            self.slot.fill(b"".join(self._parts))
            self._client.read_done()


class _Part:
    """One command's place in a slot, answered like a slot of its own."""

    count = 1

    def __init__(self, parts: _Parts, place: int) -> None:
        self.whole = parts.slot
        self._parts = parts
        self._place = place
        self.protocol = parts.slot.protocol
        self.deadline_s = parts.slot.deadline_s
        self.data: bytes | None = None

    def settle(self, replies: list[Any], start: int) -> None:
        self.fill(resp.encode(replies, start, start + 1, self.protocol))

    def refuse(self, error: resp.ReplyError) -> None:
        self.settle([error], 0)

    def fill(self, data: bytes) -> None:
        if self.data is None:
            self.data = data
            self._parts.fill(self._place, data)
