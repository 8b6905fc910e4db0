"""What the metaserver is asked to do, and its form in the log and between nodes.

A request is a JSON object: `request_id`, `op` and the fields of the
operation. The request id is chosen by the asker, once per request and not
per attempt: it makes attempts after the first harmless.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import orjson

from eraft import limits
from eraft.errors import ProtocolError
from eraft.metaserver import schema


@dataclass(slots=True, frozen=True)
class Register:
    """A node tells its store and its addresses (each host:port)."""

    node_id: int
    store_id: str
    client: str
    peer: str
    admin: str


@dataclass(slots=True, frozen=True)
class Join:
    """A new group with one replica on each of these nodes."""

    gid: int
    nodes: tuple[int, ...]
    weight: int = 1


@dataclass(slots=True, frozen=True)
class Open:
    """Split all buckets between the groups that have joined; once in a cluster's life."""


@dataclass(slots=True, frozen=True)
class Replicas:
    """A group, the metaserver's too, is to have new replicas on `add` and none on `remove`.

    A node in both gets a new replica in place of its old one.
    """

    gid: int
    add: tuple[int, ...]
    remove: tuple[int, ...]


@dataclass(slots=True, frozen=True)
class Settle:
    """A group's leader reports: these replicas have become voters, those are members no longer.

    Both are facts that stay, so a report that comes late or twice does no harm.
    """

    gid: int
    joined: tuple[int, ...]
    left: tuple[int, ...]


@dataclass(slots=True, frozen=True)
class Forget:
    """A node without replicas leaves the table; its node id is never used again."""

    node_id: int


@dataclass(slots=True, frozen=True)
class Query:
    """The table at `version`, the newest if None. A read: it needs no entry."""

    version: int | None = None


Change: TypeAlias = Register | Join | Open | Replicas | Settle | Forget
"""What makes a version of the table."""

Operation: TypeAlias = Change | Query


_Reader: TypeAlias = Callable[[object, str], object]
"""Checks the JSON form of a field, given where it stands."""


def _integer(least: int, most: int) -> _Reader:
    return lambda value, where: schema.integer(value, where, least, most)


def _ids(most_ids: int, most: int) -> _Reader:
    def read(value: object, where: str) -> tuple[int, ...]:
        ids = schema.sequence(value, where, most_ids)
        return tuple(schema.integer(item, where, 1, most) for item in ids)

    return read


def _version(value: object, where: str) -> int | None:
    return None if value is None else schema.integer(value, where, 0, schema.U63)


_NODES = _ids(limits.GROUP_REPLICAS, schema.U32)

_FORMS: dict[type[Operation], dict[str, _Reader]] = {
    Register: {
        "node_id": _integer(1, schema.U32),
        "store_id": lambda value, where: schema.name(value, where, least=1),
        "client": schema.address,
        "peer": schema.address,
        "admin": schema.address,
    },
    Join: {
        "gid": _integer(1, schema.U32),
        "nodes": _NODES,
        "weight": _integer(1, limits.GROUP_WEIGHT),
    },
    Open: {},
    Replicas: {"gid": _integer(0, schema.U32), "add": _NODES, "remove": _NODES},
    Settle: {
        "gid": _integer(0, schema.U32),
        "joined": _ids(limits.GROUP_REPLICAS, schema.U63),
        "left": _ids(limits.GROUP_LEAVING, schema.U63),
    },
    Forget: {"node_id": _integer(1, schema.U32)},
    Query: {"version": _version},
}
_NAMES = {kind.__name__.lower(): kind for kind in _FORMS}


def encode(request_id: str, operation: Operation) -> bytes:
    """The JSON form of a request."""
    name = type(operation).__name__.lower()
    return orjson.dumps({"request_id": request_id, "op": name, **asdict(operation)})


def decode(body: bytes | bytearray | memoryview) -> tuple[str, Operation]:
    """The request id and the operation; ProtocolError says what is wrong and where."""
    if len(body) > limits.META_REQUEST_BYTES:
        raise ProtocolError(f"request: {len(body)} bytes, at most {limits.META_REQUEST_BYTES}")
    form = schema.mapping(schema.document(body, "request"), "request")
    request_id = schema.name(form.pop("request_id", None), "request: request_id", least=1)
    name = form.pop("op", None)
    kind = _NAMES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError(f"request: unknown op {schema.short(name)}")
    fields = _FORMS[kind]
    found = schema.record(form, str(name), tuple(fields))
    values: dict[str, Any] = {
        field: read(found[field], f"{name}: {field}") for field, read in fields.items()
    }
    return request_id, checked(kind(**values))


def checked(operation: Operation) -> Operation:
    """The operation; ProtocolError if it names no nodes, too many, or one twice."""
    match operation:
        case Join():
            _check_nodes(operation.nodes, "join", least=1)
        case Replicas():
            if not operation.add and not operation.remove:
                raise ProtocolError("replicas: no node to add or to remove")
            _check_nodes(operation.add, "replicas", least=0)
            _check_nodes(operation.remove, "replicas", least=0)
    return operation


def _check_nodes(nodes: tuple[int, ...], where: str, least: int) -> None:
    most = limits.GROUP_REPLICAS
    if not least <= len(nodes) <= most:
        raise ProtocolError(f"{where}: {len(nodes)} nodes, must be {least} to {most}")
    for place, node_id in enumerate(nodes):
        if node_id in nodes[:place]:
            raise ProtocolError(f"{where}: node {node_id} is named twice")
