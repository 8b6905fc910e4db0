"""What the items of a record hold: group states, hard states, entries."""

import struct
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import orjson

from eraft._impl import wal as codec
from eraft.errors import ProtocolError
from eraft.types import ConfState, GroupState, HardState, ReplicaAddress

Item = tuple[int, int, int, bytes]
"""gid, kind, first index, payload: see `eraft._pure.wal`."""

_HARD_STATE = struct.Struct("<QQQ")
_TERM = struct.Struct("<Q")


def group_state_item(state: GroupState) -> Item:
    """Return the item that founds a replica, or replaces all that was logged of its group."""
    return state.gid, codec.GROUP_STATE, 0, _encode_state(state)


def hard_state_item(gid: int, state: HardState) -> Item:
    """Return the item that sets term, vote and commit index of a group."""
    return gid, codec.HARD_STATE, 0, _HARD_STATE.pack(state.term, state.vote, state.commit)


def entries_item(gid: int, first_index: int, entries: bytes) -> Item:
    """Return the item whose encoded entries replace the group's log from `first_index` on."""
    return gid, codec.ENTRIES, first_index, entries


def copy_item(gid: int, first_index: int, entries: bytes) -> Item:
    """Return the item that has entries of the group's log, in place of where they were before."""
    return gid, codec.COPY, first_index, entries


def node_item(payload: bytes) -> Item:
    """Return the item that replaces what the node keeps for itself."""
    return 0, codec.NODE, 0, payload


def checkpoint_item(state: GroupState, last_index: int) -> Item:
    """Return the item that tells a later segment the group's state and where its log ends.

    The entries between the state's base and `last_index` are in earlier segments.
    """
    return state.gid, codec.CHECKPOINT, last_index, _encode_state(state)


def compact_item(gid: int, index: int, term: int) -> Item:
    """Return the item that makes entry `index`, of that term, the base of the group's log."""
    return gid, codec.COMPACT, index, _TERM.pack(term)


def tombstone_item(gid: int, replica_id: int) -> Item:
    """Return the item that removes a group's replica from this node for ever.

    Neither it nor one with a smaller id can be founded here again: replica
    ids are issued in rising order.
    """
    return gid, codec.TOMBSTONE, replica_id, b""


def decode_term(payload: bytes) -> int:
    """Return the term in a COMPACT item; ProtocolError if it is none."""
    if len(payload) != _TERM.size:
        raise ProtocolError(f"term of {len(payload)} bytes instead of {_TERM.size}")
    term: int = _TERM.unpack(payload)[0]
    return term


def decode_hard_state(payload: bytes) -> HardState:
    """Return the state in a HARD_STATE item; ProtocolError if it is none."""
    if len(payload) != _HARD_STATE.size:
        raise ProtocolError(f"hard state of {len(payload)} bytes instead of {_HARD_STATE.size}")
    return HardState(*_HARD_STATE.unpack(payload))


def _encode_state(state: GroupState) -> bytes:
    """The state as JSON; that a replica is not quarantined goes without saying."""
    value = {field.name: getattr(state, field.name) for field in fields(state)}
    if not state.quarantined:
        del value["quarantined"]
    return orjson.dumps(value)


def decode_group_state(payload: bytes) -> GroupState:
    """Return the state in a GROUP_STATE item; ProtocolError if it is none."""
    try:
        value = orjson.loads(payload)
        hard_state = value["hard_state"]
        quarantined = value.get("quarantined", "")
        if not isinstance(quarantined, str):
            raise TypeError("quarantined is no text")
        return GroupState(
            gid=value["gid"],
            replica_id=value["replica_id"],
            generation=value["generation"],
            conf=_conf_state(value["conf"]),
            members=_members(value["members"]),
            hard_state=HardState(hard_state["term"], hard_state["vote"], hard_state["commit"]),
            base_index=value["base_index"],
            base_term=value["base_term"],
            quarantined=quarantined,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ProtocolError(f"group state: {type(error).__name__}: {error}") from None


def encode_conf(conf: ConfState, members: Sequence[ReplicaAddress]) -> bytes:
    """Return a configuration and where its members live, for the row that keeps it."""
    return orjson.dumps({"conf": conf, "members": members})


def decode_conf(data: bytes) -> tuple[ConfState, tuple[ReplicaAddress, ...]]:
    """Return what `encode_conf` made; ProtocolError if it is something else."""
    try:
        value = orjson.loads(data)
        return _conf_state(value["conf"]), _members(value["members"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ProtocolError(f"configuration: {type(error).__name__}: {error}") from None


def _members(value: list[dict[str, Any]]) -> tuple[ReplicaAddress, ...]:
    if not all(isinstance(member["store_id"], str) for member in value):
        raise TypeError("a store id is no text")
    return tuple(
        ReplicaAddress(member["replica_id"], member["node_id"], member["store_id"])
        for member in value
    )


def _conf_state(value: dict[str, Any]) -> ConfState:
    return ConfState(
        voters=tuple(value["voters"]),
        learners=tuple(value["learners"]),
        outgoing=tuple(value["outgoing"]),
        learners_next=tuple(value["learners_next"]),
        auto_leave=value["auto_leave"],
    )
