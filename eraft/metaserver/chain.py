"""The version chain: every version of the config table, each as its difference to the last.

A full copy stands at every version that limits.TABLE_FULL_EVERY divides and
wherever the chain begins, so any version is at most that many differences
away from one. The metaserver's replicas keep the chain in their rows; a node
keeps the part that it has seen in rows of its own.
"""

import struct
from itertools import pairwise

import orjson

from eraft import limits
from eraft.errors import InvariantViolation, ProtocolError
from eraft.metaserver import schema
from eraft.metaserver.diff import Diff
from eraft.metaserver.table import ConfigTable
from eraft.storage import rows as layout
from eraft.storage.state import ReplicaRows
from eraft.types import METASERVER_GID

_NEWEST = b"version"
_U64 = struct.Struct(">Q")
_VERSION = b"v"
_FULL = b"F"
_DIFF = b"D"


class VersionChain:
    """The chain in the rows of one generation; the rows are all its state.

    META row `version` is the newest version (u64); the DATA row of v and a
    version (u64) is F and the table or D and the difference, as JSON.
    """

    def __init__(self, rows: ReplicaRows) -> None:
        self._rows = rows

    @property
    def newest(self) -> int | None:
        """The newest version, None while the chain is empty."""
        row = self._rows.meta(_NEWEST)
        return None if row is None else int(_U64.unpack(row)[0])

    def append(self, table: ConfigTable, before: ConfigTable | None) -> None:
        """Make `table` the newest version.

        `before` is the version it follows, the newest so far; without it the
        chain begins anew with a full copy of `table`, and what it had before
        stays readable.
        """
        newest = self.newest
        if before is not None and (before.version != newest or table.version != newest + 1):
            raise InvariantViolation(
                "version chain: each version follows the one before: "
                f"{table.version} after {before.version}, newest {newest}"
            )
        if newest is not None and table.version <= newest:
            raise InvariantViolation(
                f"version chain: versions only grow: {table.version}, newest {newest}"
            )
        if before is None or table.version % limits.TABLE_FULL_EVERY == 0:
            row = _FULL + table.to_json()
        else:
            row = _DIFF + Diff.between(before, table).to_json()
        self._rows.put(self._key(table.version), row)
        self._rows.set_meta(_NEWEST, _U64.pack(table.version))

    def at(self, version: int) -> ConfigTable | None:
        """The table at `version`, None if the chain does not have it."""
        bodies: list[bytes] = []
        for earlier in range(version, max(version - limits.TABLE_FULL_EVERY, -1), -1):
            row = self._rows.get(self._key(earlier))
            if row is None:
                return None
            if row[:1] == _FULL:
                table = ConfigTable.from_json(row[1:])
                for body in reversed(bodies):
                    table = Diff.from_json(body).apply(table)
                return table
            bodies.append(row[1:])
        return None

    def latest(self) -> ConfigTable | None:
        """The newest table, None while the chain is empty."""
        newest = self.newest
        return None if newest is None else self.at(newest)

    def update(self, since: int) -> bytes | None:
        """What a node at version `since` needs to follow, for `follow`; None if nothing.

        Differences if they are few and all here, else a full copy of the
        newest version. Version 0 is what each node makes up of its own list of
        the metaserver's members: it gets a full copy, no difference to ours.
        """
        newest = self.newest
        if newest is None or newest <= since:
            return None
        bodies = self._differences(since, newest)
        if bodies is not None:
            return orjson.dumps({"table": None, "diffs": [orjson.Fragment(it) for it in bodies]})
        table = self.at(newest)
        return orjson.dumps({"table": table and table.to_dict(), "diffs": []})

    def _differences(self, since: int, newest: int) -> list[bytes] | None:
        if since == 0 or newest - since > limits.TABLE_UPDATE_DIFFS:
            return None
        bodies: list[bytes] = []
        room_bytes = limits.TABLE_UPDATE_BYTES
        for version in range(since + 1, newest + 1):
            body = self._difference(version)
            if body is None or len(body) > room_bytes:
                return None
            room_bytes -= len(body)
            bodies.append(body)
        return bodies

    def _difference(self, version: int) -> bytes | None:
        """The JSON of the difference that made `version`, None if it cannot be told."""
        row = self._rows.get(self._key(version))
        if row is None:
            return None
        if row[:1] == _DIFF:
            return row[1:]
        before = self.at(version - 1)
        if before is None:
            return None
        return Diff.between(before, ConfigTable.from_json(row[1:])).to_json()

    def _key(self, version: int) -> bytes:
        return self._rows.data_prefix + _VERSION + _U64.pack(version)


def follow(table: ConfigTable, update: bytes) -> list[tuple[ConfigTable, ConfigTable | None]]:
    """The versions after `table` that an update from a peer holds, oldest first.

    Each comes with the version before it, None for a full copy, as
    `VersionChain.append` takes them. Updates can cross on their way: one that
    holds nothing newer gives an empty list. ProtocolError if the update is
    malformed or starts beyond the version after `table`.
    """
    form = schema.record(schema.document(update, "table update"), "table update", _UPDATE_FIELDS)
    if form["table"] is not None:
        newer = ConfigTable.from_dict(form["table"])
        _check_newest(newer)
        return [(newer, None)] if newer.version > table.version else []
    found = [table]
    for item in schema.sequence(form["diffs"], "table update: diffs", limits.TABLE_UPDATE_DIFFS):
        diff = Diff.from_dict(item)
        if diff.version > found[-1].version:
            found.append(diff.apply(found[-1]))
            _check_newest(found[-1])
    return [(after, before) for before, after in pairwise(found)]


def _check_newest(table: ConfigTable) -> None:
    """Raise ProtocolError if no cluster can go on from this version."""
    if METASERVER_GID not in table.groups:
        raise ProtocolError(f"config table: version {table.version} has no metaserver")
    if max(table.version, table.next_replica_id) >= limits.COUNT_LIMIT:
        raise ProtocolError(
            f"config table: version {table.version}, next replica id {table.next_replica_id}"
        )


def check_row(key: bytes, row: bytes) -> None:
    """Raise ProtocolError if a row of the chain, its key from the kind on, cannot be read."""
    if key == bytes((layout.META,)) + _NEWEST and len(row) != _U64.size:
        raise ProtocolError(f"version chain: a newest version of {len(row)} bytes")
    if key[:2] == bytes((layout.DATA,)) + _VERSION:
        body = row[1:]
        if row[:1] == _FULL:
            ConfigTable.from_json(body)
        else:
            Diff.from_json(body)


def check_rows(rows: ReplicaRows) -> None:
    """Raise ProtocolError if the newest version is not there, or nobody can go on from it."""
    chain = VersionChain(rows)
    if chain.newest is None:
        return
    table = chain.latest()
    if table is None or table.version != chain.newest:
        raise ProtocolError(f"version chain: the newest version, {chain.newest}, is not there")
    _check_newest(table)


_UPDATE_FIELDS = ("table", "diffs")
