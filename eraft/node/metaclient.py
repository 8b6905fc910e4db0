"""This node as a client of the metaserver: requests with an id, resent until they are answered.

A request id makes an operation take effect once, however often it is sent,
so that every silence is simply a reason to send it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from eraft import limits
from eraft._impl import frames
from eraft.metaserver import operations, schema
from eraft.metaserver.operations import Operation
from eraft.types import METASERVER_GID

if TYPE_CHECKING:
    from eraft.node.node import Node

Answer = dict[str, Any]
OnAnswer = Callable[[Answer], None]
"""Gets {"ok": ...} or {"error": text}."""

NO_METASERVER = "the metaserver did not answer in time; whether it took the request is unknown"


@dataclass(slots=True)
class _Request:
    body: bytes
    on_answer: OnAnswer
    deadline_s: float
    send_s: float


class MetaClient:
    """The requests of this node that the metaserver has not answered yet."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._requests: dict[str, _Request] = {}
        self._prefix = f"{node.identity.node_id}-{node.random.getrandbits(48):012x}"
        self._count = 0

    def __len__(self) -> int:
        return len(self._requests)

    def request(self, operation: Operation, on_answer: OnAnswer) -> None:
        """Send an operation until it is answered or limits.META_REQUEST_S have passed."""
        if len(self._requests) >= limits.META_REQUESTS:
            on_answer({"error": "too many requests to the metaserver are waiting on this node"})
            return
        self._count += 1
        request_id = f"{self._prefix}-{self._count}"
        now_s = self._node.now_s
        self._requests[request_id] = _Request(
            operations.encode(request_id, operation),
            on_answer,
            now_s + limits.META_REQUEST_S,
            now_s,
        )
        self.tick()

    def tick(self) -> None:
        """Send what is due and give up what is too late."""
        now_s = self._node.now_s
        for request_id, request in list(self._requests.items()):
            if request.deadline_s <= now_s:
                del self._requests[request_id]
                request.on_answer({"error": NO_METASERVER})
            elif request.send_s <= now_s:
                request.send_s = now_s + limits.META_RESEND_S
                self._send(request_id, request)

    def leader_changed(self) -> None:
        """The metaserver has another leader: ask it at once."""
        for request in self._requests.values():
            request.send_s = self._node.now_s
        self.tick()

    def answered(self, node_id: int, body: bytes) -> None:
        """A META_REPLY frame."""
        where = f"metaserver reply of node {node_id}"
        found = schema.record(schema.document(body, where), where, ("request_id", "answer"))
        request_id = schema.name(found["request_id"], f"{where}: request_id", least=1)
        self.settle(request_id, schema.mapping(found["answer"], f"{where}: answer"))

    def settle(self, request_id: str, answer: Answer) -> None:
        """The answer to a request; one that says `retry` leaves it waiting."""
        if answer.get("retry"):
            return
        request = self._requests.pop(request_id, None)
        if request is not None:
            request.on_answer(answer)

    def _send(self, request_id: str, request: _Request) -> None:
        node = self._node
        leader = node.leader_of(METASERVER_GID)
        if leader == node.identity.node_id:
            node.meta_requested(request.body, lambda answer: self.settle(request_id, answer))
            return
        # Nobody tells a node that is not registered yet who leads: it asks all members.
        members = (leader,) if leader else node.table.groups[METASERVER_GID].node_ids
        frame = frames.encode_frame(frames.META_REQUEST, request.body)
        for node_id in members:
            if node_id != node.identity.node_id:
                node.send_frame(node_id, frame)


def encode_answer(request_id: str, answer: Answer) -> bytes:
    """The META_REPLY frame that carries an answer to another node."""
    body = orjson.dumps({"request_id": request_id, "answer": answer})
    return frames.encode_frame(frames.META_REPLY, body)
