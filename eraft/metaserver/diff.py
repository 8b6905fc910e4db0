"""The change between two versions of the config table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from eraft.errors import InvariantViolation, ProtocolError
from eraft.metaserver import schema
from eraft.metaserver.parts import UNOWNED, BucketRange, Form, Group, read_form, runs
from eraft.metaserver.table import ConfigTable, check
from eraft.types import NodeAddress

_V = TypeVar("_V")


@dataclass(slots=True, frozen=True)
class Diff(Form[Group | None, NodeAddress | None]):
    """What makes `version` of the table out of the version before.

    Of nodes and groups only the changed ones are named, None for one that is
    gone; of buckets only the changed ranges, UNOWNED for those that lost
    their owner; of the removed nodes only the new ones.
    """

    @staticmethod
    def between(old: ConfigTable, new: ConfigTable) -> "Diff":
        """The difference such that `between(old, new).apply(old) == new`."""
        if new.version != old.version + 1:
            raise InvariantViolation(
                f"config table: each version follows the one before: {old.version}, {new.version}"
            )
        return Diff(
            version=new.version,
            opened=new.opened,
            next_replica_id=new.next_replica_id,
            buckets=_changed_ranges(old, new),
            groups=_changed(old.groups, new.groups),
            nodes=_changed(old.nodes, new.nodes),
            removed_nodes=tuple(sorted({*new.removed_nodes} - {*old.removed_nodes})),
        )

    def apply(self, table: ConfigTable) -> ConfigTable:
        """The table after this change; ProtocolError if it does not fit `table`."""
        if table.version != self.version - 1:
            raise ProtocolError(
                f"difference to version {self.version}: does not apply to version {table.version}"
            )
        changed = ConfigTable(
            version=self.version,
            opened=self.opened,
            next_replica_id=self.next_replica_id,
            buckets=_overlaid(table.buckets, self.buckets),
            groups=_patched(table.groups, self.groups),
            nodes=_patched(table.nodes, self.nodes),
            removed_nodes=tuple(sorted({*table.removed_nodes, *self.removed_nodes})),
        )
        check(changed)
        return changed

    @staticmethod
    def from_dict(value: object) -> "Diff":
        """The difference of a parsed JSON form; ProtocolError says what is wrong and where."""
        return Diff(**read_form(value, "difference", least_version=1, gone=True))

    @staticmethod
    def from_json(body: bytes | bytearray | memoryview) -> "Diff":
        """`from_dict` of JSON text."""
        return Diff.from_dict(schema.document(body, "difference"))


def _overlaid(
    old: tuple[BucketRange, ...], change: tuple[BucketRange, ...]
) -> tuple[BucketRange, ...]:
    """The old ranges where nothing changed, and the changed ones."""
    if not change:
        return old
    pieces = [item for item in change if item.gid != UNOWNED]
    place = 0
    for start, end, gid in old:
        while place < len(change) and change[place].end < start:
            place += 1
        hole = place
        while hole < len(change) and change[hole].start <= end:
            if start < change[hole].start:
                pieces.append(BucketRange(start, change[hole].start - 1, gid))
            start = change[hole].end + 1
            hole += 1
        if start <= end:
            pieces.append(BucketRange(start, end, gid))
    pieces.sort()
    found: list[BucketRange] = []
    for item in pieces:
        if found and found[-1].gid == item.gid and found[-1].end + 1 == item.start:
            found[-1] = BucketRange(found[-1].start, item.end, item.gid)
        else:
            found.append(item)
    return tuple(found)


def _changed_ranges(old: ConfigTable, new: ConfigTable) -> tuple[BucketRange, ...]:
    if old.buckets == new.buckets:
        return ()
    same = -1
    owners = [
        same if before == after else after
        for before, after in zip(old.owners(), new.owners(), strict=True)
    ]
    return tuple(item for item in runs(owners) if item.gid != same)


def _changed(old: Mapping[int, _V], new: Mapping[int, _V]) -> dict[int, _V | None]:
    return {key: new.get(key) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}


def _patched(old: Mapping[int, _V], change: Mapping[int, _V | None]) -> Mapping[int, _V]:
    if not change:
        return old
    merged = {**old, **change}
    return {key: value for key, value in sorted(merged.items()) if value is not None}
