"""The admin port: RESP commands for people and tools, JSON in the replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from eraft import limits
from eraft._impl import resp
from eraft.errors import NotApplied, ProtocolError
from eraft.metaserver import command
from eraft.node import status
from eraft.node.proposals import NEVER
from eraft.node.slots import Slot, SlotQueue
from eraft.types import BUCKETS

if TYPE_CHECKING:
    from eraft.node.node import Node

_NO_LANES = bytes(BUCKETS)


class AdminClient:
    """An operator's connection: STATUS, META and PING, answered in order."""

    def __init__(
        self,
        node: Node,
        on_output: Callable[[], None],
        on_close: Callable[[str, bool], None],
    ) -> None:
        self._node = node
        self._on_close = on_close
        self.slots = SlotQueue(on_output, lambda: on_close("too much output", True))
        self.output_full = False
        self._executing = False
        self._parser = resp.Parser(
            resp.CommandTable({}, {}),
            bytearray(_NO_LANES),
            [None],
            limits.ADMIN_COMMAND_BYTES,
            limits.ADMIN_COMMAND_BYTES,
            limits.COMMAND_ARGS,
            limits.INLINE_SIZE_BYTES,
        )

    @property
    def stopped(self) -> bool:
        """Whether input has to wait: an operator's commands are executed one at a time."""
        return len(self.slots) > 0

    def resume(self) -> None:
        """What was answered has left, or something was answered: go on."""
        if not self._executing:
            self._go_on(self._parser.parse(False))

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes from the operator."""
        if self.stopped or self.output_full:
            self._parser.feed(data)
        else:
            self._go_on(self._parser.feed_and_parse(data, False))

    def _go_on(self, items: list[Any]) -> None:
        self._executing = True
        while items:
            for kind, subject, _ in items:
                slot = self.slots.open(1, 2, NEVER)
                if kind == resp.ERROR:
                    slot.refuse(subject)
                    self._on_close("protocol error", False)
                else:
                    self._execute(subject, slot)
            waits = self.stopped or self.output_full
            items = [] if waits else self._parser.parse(False)
        self._executing = False

    def _execute(self, args: list[bytes], slot: Slot) -> None:
        name = args[0].upper()
        if name == b"PING" and len(args) == 1:
            slot.settle([resp.Simple(b"PONG")], 0)
        elif name == b"STATUS" and len(args) == 1:
            self._answer(slot, {"ok": status.status(self._node, {})})
        elif name == b"STATUS" and args[1].upper() == b"KEYS" and len(args) == 2:
            status.with_keys(self._node, lambda found: self._answer(slot, {"ok": found}))
        elif name == b"META":
            try:
                operation = command.parse(args[1:])
            except (ProtocolError, NotApplied) as error:
                self._answer(slot, {"error": str(error)})
                return
            self._node.meta.request(operation, lambda found: self._answer(slot, found))
        else:
            shown = args[0][:64].decode("ascii", "backslashreplace")
            self._answer(slot, {"error": f"unknown command '{shown}': try STATUS, META or PING"})

    def _answer(self, slot: Slot, found: dict[str, Any]) -> None:
        if "error" in found:
            text = str(found["error"]).replace("\r", " ").replace("\n", " ")
            slot.refuse(resp.ReplyError(b"ERR " + text.encode()))
        else:
            slot.settle([orjson.dumps(found["ok"])], 0)
        if not self.output_full:
            self.resume()
