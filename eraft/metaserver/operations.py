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
        case Replicas():
            form["op"] = "replicas"
            form["gid"] = operation.gid
            form["add"] = list(operation.add)
            form["remove"] = list(operation.remove)
        case Settle():
            form["op"] = "settle"
            form["gid"] = operation.gid
            form["joined"] = list(operation.joined)
            form["left"] = list(operation.left)
        case Forget():
            form["op"] = "forget"
            form["node_id"] = operation.node_id
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
        case "replicas":
            return request_id, _replicas(form)
        case "settle":
            return request_id, _settle(form)
        case "forget":
            node_id = schema.record(form, "forget", ("node_id",))["node_id"]
            return request_id, Forget(schema.integer(node_id, "forget: node_id", 1, schema.U32))
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
        nodes=_ids(found["nodes"], "join: nodes", limits.GROUP_REPLICAS, schema.U32),
        weight=schema.integer(found["weight"], "join: weight", 1, limits.GROUP_WEIGHT),
    )


def join(gid: int, nodes: tuple[int, ...], weight: int) -> Join:
    """A Join whose nodes are 1 to limits.GROUP_REPLICAS, each once; else ProtocolError."""
    if not 1 <= len(nodes) <= limits.GROUP_REPLICAS:
        raise ProtocolError(f"join: {len(nodes)} nodes, must be 1 to {limits.GROUP_REPLICAS}")
    _once(nodes, "join")
    return Join(gid, nodes, weight)


def _replicas(form: dict[str, object]) -> Replicas:
    found = schema.record(form, "replicas", ("gid", "add", "remove"))
    return replicas(
        gid=schema.integer(found["gid"], "replicas: gid", 0, schema.U32),
        add=_ids(found["add"], "replicas: add", limits.GROUP_REPLICAS, schema.U32),
        remove=_ids(found["remove"], "replicas: remove", limits.GROUP_REPLICAS, schema.U32),
    )


def replicas(gid: int, add: tuple[int, ...], remove: tuple[int, ...]) -> Replicas:
    """A Replicas with something to do, each node once in each list; else ProtocolError."""
    if not add and not remove:
        raise ProtocolError("replicas: no node to add or to remove")
    for nodes in (add, remove):
        if len(nodes) > limits.GROUP_REPLICAS:
            raise ProtocolError(f"replicas: {len(nodes)} nodes, at most {limits.GROUP_REPLICAS}")
        _once(nodes, "replicas")
    return Replicas(gid, add, remove)


def _settle(form: dict[str, object]) -> Settle:
    found = schema.record(form, "settle", ("gid", "joined", "left"))
    return Settle(
        gid=schema.integer(found["gid"], "settle: gid", 0, schema.U32),
        joined=_ids(found["joined"], "settle: joined", limits.GROUP_REPLICAS, schema.U63),
        left=_ids(found["left"], "settle: left", limits.GROUP_LEAVING, schema.U63),
    )


def _ids(value: object, where: str, most_ids: int, most: int) -> tuple[int, ...]:
    ids = schema.sequence(value, where, most_ids)
    return tuple(schema.integer(item, where, 1, most) for item in ids)


def _once(nodes: tuple[int, ...], where: str) -> None:
    for place, node_id in enumerate(nodes):
        if node_id in nodes[:place]:
            raise ProtocolError(f"{where}: node {node_id} is named twice")


def _query(form: dict[str, object]) -> Query:
    version = schema.record(form, "query", ("version",))["version"]
    if version is None:
        return Query()
    return Query(schema.integer(version, "query: version", 0, schema.U63))
