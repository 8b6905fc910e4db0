"""What the metaserver is asked to do, and its form in the log and between nodes.

A request is a JSON object: `request_id`, `op` and the fields of the
operation. The request id is chosen by the asker, once per request and not
per attempt: it makes attempts after the first harmless.
"""

from dataclasses import dataclass
from typing import TypeAlias

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
class Query:
    """The table at `version`, the newest if None. A read: it needs no entry."""

    version: int | None = None


Operation: TypeAlias = Register | Join | Open | Query


def encode(request_id: str, operation: Operation) -> bytes:
    """The JSON form of a request."""
    form: dict[str, object] = {"request_id": request_id}
    match operation:
        case Register():
            form["op"] = "register"
            form["node_id"] = operation.node_id
            form["store_id"] = operation.store_id
            form["client"] = operation.client
            form["peer"] = operation.peer
            form["admin"] = operation.admin
        case Join():
            form["op"] = "join"
            form["gid"] = operation.gid
            form["nodes"] = list(operation.nodes)
            form["weight"] = operation.weight
        case Open():
            form["op"] = "open"
        case Query():
            form["op"] = "query"
            form["version"] = operation.version
    return orjson.dumps(form)


def decode(body: bytes | bytearray | memoryview) -> tuple[str, Operation]:
    """The request id and the operation; ProtocolError says what is wrong and where."""
    if len(body) > limits.META_REQUEST_BYTES:
        raise ProtocolError(f"request: {len(body)} bytes, at most {limits.META_REQUEST_BYTES}")
    form = schema.mapping(schema.document(body, "request"), "request")
    request_id = schema.name(form.pop("request_id", None), "request: request_id", least=1)
    name = form.pop("op", None)
    match name:
        case "register":
            return request_id, _register(form)
        case "join":
            return request_id, _join(form)
        case "open":
            schema.record(form, "open", ())
            return request_id, Open()
        case "query":
            return request_id, _query(form)
    raise ProtocolError(f"request: unknown op {schema.short(name)}")


def _register(form: dict[str, object]) -> Register:
    found = schema.record(form, "register", ("node_id", "store_id", "client", "peer", "admin"))
    return Register(
        node_id=schema.integer(found["node_id"], "register: node_id", 1, schema.U32),
        store_id=schema.name(found["store_id"], "register: store_id", least=1),
        client=schema.address(found["client"], "register: client"),
        peer=schema.address(found["peer"], "register: peer"),
        admin=schema.address(found["admin"], "register: admin"),
    )


def _join(form: dict[str, object]) -> Join:
    found = schema.record(form, "join", ("gid", "nodes", "weight"))
    return join(
        gid=schema.integer(found["gid"], "join: gid", 1, schema.U32),
        nodes=tuple(
            schema.integer(node, "join: node id", 1, schema.U32)
            for node in schema.sequence(found["nodes"], "join: nodes", limits.GROUP_REPLICAS)
        ),
        weight=schema.integer(found["weight"], "join: weight", 1, limits.GROUP_WEIGHT),
    )


def join(gid: int, nodes: tuple[int, ...], weight: int) -> Join:
    """A Join whose nodes are 1 to limits.GROUP_REPLICAS, each once; else ProtocolError."""
    if not 1 <= len(nodes) <= limits.GROUP_REPLICAS:
        raise ProtocolError(f"join: {len(nodes)} nodes, must be 1 to {limits.GROUP_REPLICAS}")
    for place, node_id in enumerate(nodes):
        if node_id in nodes[:place]:
            raise ProtocolError(f"join: node {node_id} is named twice")
    return Join(gid, nodes, weight)


def _query(form: dict[str, object]) -> Query:
    version = schema.record(form, "query", ("version",))["version"]
    if version is None:
        return Query()
    return Query(schema.integer(version, "query: version", 0, schema.U63))
