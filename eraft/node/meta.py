"""The metaserver's replica on this node, and how its operations are answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eraft import limits
from eraft._impl import resp
from eraft.errors import NotLeader, ProtocolError
from eraft.metaserver import chain, operations, requests
from eraft.metaserver.founding import founding_table
from eraft.metaserver.machine import MetaMachine
from eraft.metaserver.members import Reply
from eraft.metaserver.operations import Query
from eraft.metaserver.table import ConfigTable
from eraft.node.replica import Replica
from eraft.storage.state import ReplicaRows

if TYPE_CHECKING:
    from eraft.node.node import Node

OnAnswer = Callable[[dict[str, Any]], None]

RETRY = {"retry": True}


def answer(reply: Reply) -> dict[str, Any]:
    """How a reply of the metaserver's state machine travels to its asker."""
    return {"error": reply} if isinstance(reply, str) else {"ok": reply}


class MetaReplica(Replica):
    """Proposes each operation as an entry of its own; they are few."""

    machine: MetaMachine

    _table: ConfigTable | None = None

    def request(self, body: bytes, on_answer: OnAnswer) -> None:
        """An operation in its JSON form, from this node or another one."""
        try:
            request_id, operation = operations.decode(body)
        except ProtocolError as error:
            on_answer({"error": str(error)})
            return
        if not self.serving or not self.proposes or self.saturated:
            on_answer(RETRY)
        elif isinstance(operation, Query):
            self.read(TableRead(operation, on_answer, self.node.now_s))
        elif (seen := requests.RequestLog(self.rows).find(request_id, operation)) is not None:
            on_answer(answer(seen))  # sent again, and perhaps by one that no answer reaches
        else:
            try:
                self.propose(body, [Answered(on_answer, self.node.now_s)])
            except NotLeader:
                on_answer(RETRY)
        self.node.touch(self)

    def check_row(self, key: bytes, row: bytes) -> None:
        chain.check_row(key, row)
        requests.check_row(key, row)

    def check_rows(self, rows: ReplicaRows) -> None:
        chain.check_rows(rows)

    def reload(self) -> None:
        founding = founding_table(self.node.identity.metaserver)
        self.machine = MetaMachine(founding, self.node.table)
        self._adopt()

    def after_apply(self) -> None:
        super().after_apply()
        self._adopt()

    def _adopt(self) -> None:
        table = self.machine.table(self.rows)
        if table is not self._table:
            self._table = table
            self.node.catalog.adopt(table)


class Answered:
    """Hands the one reply of an operation to its asker."""

    __slots__ = ("_on_answer", "count", "deadline_s")

    def __init__(self, on_answer: OnAnswer, now_s: float) -> None:
        self.count = 1
        self.deadline_s = now_s + limits.ANSWER_DEADLINE_S
        self._on_answer = on_answer

    def settle(self, replies: list[Any], start: int) -> None:
        self._on_answer(answer(replies[start]))

    def refuse(self, error: resp.ReplyError) -> None:
        self._on_answer(RETRY)


class TableRead:
    """A linearizable read of one version of the config table."""

    __slots__ = ("_on_answer", "_query", "after_writes", "barrier", "deadline_s")

    def __init__(self, query: Query, on_answer: OnAnswer, now_s: float) -> None:
        self._query = query
        self._on_answer = on_answer
        self.after_writes = False
        self.barrier = 0
        self.deadline_s = now_s + limits.ANSWER_DEADLINE_S

    def serve(self, replica: MetaReplica) -> bool:
        self._on_answer(answer(replica.machine.query(replica.rows, self._query)))
        return True

    def reroute(self, node: Node) -> None:
        self._on_answer(RETRY)

    def expire(self) -> None:
        self._on_answer(RETRY)
