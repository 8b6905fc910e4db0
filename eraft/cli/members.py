"""Other members for the groups of a running cluster, step by step, with progress.

All of it is `META REPLICAS`, `META FORGET` and looking at the status; the
groups' leaders do the work. Each function can be called again after a failure
and goes on from what there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from eraft.cli import admin, processes, status
from eraft.cli.arguments import CommandFailed
from eraft.errors import EraftError

Say = Callable[[str], None]
"""Shows a line of progress."""

Table = dict[str, Any]

LEADER_S = 10.0
"""How long a group may be without a leader before it counts as having none."""

NEW_NODE = 0
"""Stands for a node that is still to be made."""


class Members:
    """A cluster as an operator's command sees it: several admin addresses, any of which will do."""

    def __init__(self, addresses: dict[int, str], say: Say, timeout_s: float) -> None:
        """`addresses` by node id; nodes that do not answer are passed over."""
        self._addresses = addresses
        self._say = say
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s
        self._problem = "nothing was tried"

    def ask(self, *words: str | int) -> Any:
        """A META command, answered by the first node that can. Refused if the cluster refuses."""
        problem: EraftError = CommandFailed("there is no node to ask")
        for where in self._addresses.values():
            try:
                return admin.ask(where, "META", *words)
            except admin.Unreachable as error:
                problem = error
        raise problem

    def know(self, node_id: int, where: str) -> None:
        """One more node that can be asked."""
        self._addresses[node_id] = where

    def table(self) -> Table:
        """The newest config table."""
        try:
            found: Table = self.ask("QUERY")
        except EraftError as error:
            raise CommandFailed(
                f"the config table cannot be read: {error}; a majority of the metaserver's nodes"
                " is needed to change anything"
            ) from error
        return found

    def wait(self, condition: Callable[[], str]) -> None:
        """Wait until `condition` has nothing to say, and show what it says meanwhile."""

        def done() -> bool:
            try:
                problem = condition()
            except EraftError as error:
                problem = str(error)
            if problem and problem != self._problem:
                self._say(problem)
            self._problem = problem
            return not problem

        if not processes.wait_until(done, max(0.0, self._deadline_s - time.monotonic())):
            raise CommandFailed(
                f"gave up waiting after {self._timeout_s:g} s: {self._problem}; what was begun goes"
                " on by itself, `eraft status` shows it"
            )

    def wait_registered(self, node_id: int) -> None:
        """Wait until the metaserver knows a node."""

        def missing() -> str:
            known = self.table()["nodes"].get(str(node_id), {})
            return "" if known.get("store_id") else f"node {node_id} has not registered yet"

        self.wait(missing)

    def serving(self) -> set[int]:
        """The nodes that answer and are not quarantined."""
        answers = status.ask_all(self._addresses)
        return {
            node_id
            for node_id, answer in answers.items()
            if "error" not in answer and not answer["quarantined"]
        }

    # What would break it

    def check_quorum(
        self, gid: str, group: Table, add: int | None, remove: int | None = None
    ) -> None:
        """Refuse a change that the group could not make, or that would lose its quorum."""
        found: list[status.Status] = []

        def led() -> bool:
            found[:] = self._row(int(gid))
            return bool(found) and found[0]["leader"] is not None

        if not processes.wait_until(led, min(LEADER_S, self._timeout_s)):
            raise CommandFailed(
                f"group {gid} has no leader, so its members cannot change: a majority of its"
                " replicas is needed; start their nodes"
            )
        sound = {it["node_id"] for it in found[0]["replicas"] if not it.get("quarantined")}
        after = {it["node_id"] for it in group["replicas"]} - {remove}
        if add is not None:
            after.add(add)
            sound.add(add)
        alive = after & sound
        if not after:
            raise CommandFailed(f"node {remove} has the only replica of group {gid}")
        if 2 * len(alive) <= len(after):
            raise CommandFailed(
                f"group {gid} would lose its quorum: it would be on the nodes {_list(after)}, of"
                f" which only {_list(alive) or 'none'} would serve"
            )

    # What changes

    def move(self, remove: int, target: Callable[[str, Table], int | None]) -> None:
        """No group has a replica on node `remove` in the end.

        `target` names for each group the node that gets a replica instead, if
        any. Everything is checked before anything is changed.
        """
        table = self.table()
        plan: list[tuple[str, int | None]] = []
        for gid, group in sorted(table["groups"].items(), key=lambda item: int(item[0])):
            nodes = {it["node_id"] for it in group["replicas"]}
            if remove in nodes:
                add = target(gid, group)
                if add in nodes:
                    raise CommandFailed(f"node {add} has a replica of group {gid} already")
                self.check_quorum(gid, group, add, remove)
                plan.append((gid, add))
        for gid, add in plan:
            words: list[str | int] = ["ADD", add] if add is not None else []
            self.ask("REPLICAS", gid, *words, "REMOVE", remove)
            to = "no other one" if add is None else f"node {add}"
            self._say(f"group {gid}: its replica moves from node {remove} to {to}")
        self.wait_settled()

    def add(self, gid: int, node_id: int) -> None:
        """One more replica of a group, on a node that has none; one that has is left alone."""
        group = self.table()["groups"][str(gid)]
        if all(it["node_id"] != node_id for it in group["replicas"]):
            self.check_quorum(str(gid), group, node_id)
            self.ask("REPLICAS", gid, "ADD", node_id)
        self.wait_settled()

    def wait_settled(self) -> None:
        """Wait until every group has the members that it is to have."""

        def under_way() -> str:
            for gid, group in self.table()["groups"].items():
                if group["joining"] or group["leaving"]:
                    return self._progress(int(gid), group)
            return ""

        self.wait(under_way)

    def _progress(self, gid: int, group: Table) -> str:
        for row in self._row(gid):
            lines = status.changes_of(row) if row["leader"] is not None else []
            if lines:
                return lines[-1]
        joining = _list(set(group["joining"]))
        leaving = _list({it["replica_id"] for it in group["leaving"]})
        parts = [f"replica {joining} is joining"] if joining else []
        parts += [f"replica {leaving} is leaving"] if leaving else []
        return f"group {gid}: {', '.join(parts)}"

    def _row(self, gid: int) -> list[status.Status]:
        """What the nodes that answer say of a group, nothing if none has a replica."""
        answers = status.ask_all(self._addresses).values()
        rows = status.group_rows([it for it in answers if "error" not in it])
        return [row for row in rows if row["gid"] == gid]

    def forget(self, node_id: int) -> None:
        """The node leaves the table."""
        if str(node_id) in self.table()["nodes"]:
            self.ask("FORGET", node_id)
            self._say(f"node {node_id} is out of the config table; its id is never used again")


def _list(ids: set[int]) -> str:
    return " ".join(map(str, sorted(ids)))
