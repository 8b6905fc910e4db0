"""The greeting of a connection between two nodes.

The node that dials says who it is and whom it means to reach; the other one
answers in kind or with the reason why not, and hangs up. Either of them hangs
up later, once the config table says that the other one is not who it should be.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import orjson

from eraft._impl import frames
from eraft.errors import ProtocolError
from eraft.metaserver import schema
from eraft.metaserver.table import ConfigTable
from eraft.storage.directory import Identity

PEER_PROTOCOL = 1
"""Version of the frames between nodes."""

_REASON_CHARS = 200

MAIN = 0
BULK = 1
"""The two connections to a peer: large entries do not hold up heartbeats."""


HangUp = Callable[[str], None]
"""Ends a connection, and is told why."""
Forget = Callable[[], object]
"""To be called when a connection has ended, whoever ended it."""


@dataclass(slots=True, frozen=True, eq=False)
class Hello:
    """Who is on the other side of a connection, and which of the two connections it is."""

    node_id: int
    store_id: str
    channel: int


class Handshakes:
    """The connections with other nodes, either way, for as long as their greeting is right."""

    def __init__(self) -> None:
        self._kept: dict[Hello, HangUp] = {}

    def keep(self, found: Hello, hang_up: HangUp) -> Forget:
        """The connection of this greeting is used from now on."""
        self._kept[found] = hang_up
        return partial(self._kept.pop, found, None)

    def judge(self, table: ConfigTable) -> None:
        """The config table has changed: hang up on everybody whom it would not let in."""
        for found in list(self._kept):
            why = objection(found, table)
            if why:
                self._kept.pop(found)(why)


def encode(identity: Identity, to: int, channel: int) -> bytes:
    """The frame that a node sends first."""
    body = {
        "protocol": PEER_PROTOCOL,
        "cluster_id": identity.cluster_id,
        "node_id": identity.node_id,
        "store_id": identity.store_id,
        "to": to,
        "channel": channel,
    }
    return frames.encode_frame(frames.HELLO, orjson.dumps(body))


def refusal(why: str) -> bytes:
    """The frame that tells a dialler why it is not let in."""
    return frames.encode_frame(frames.HELLO, orjson.dumps({"error": why}))


def check(body: bytes, identity: Identity, table: ConfigTable) -> Hello:
    """The greeting of a node that dialled this one; ProtocolError says why it is refused."""
    form = schema.mapping(schema.document(body, "greeting"), "greeting")
    if "error" in form:
        raise ProtocolError(f"refuses this one: {str(form['error'])[:_REASON_CHARS]!r}")
    protocol = form.get("protocol")
    if protocol != PEER_PROTOCOL:
        raise ProtocolError(
            f"peer protocol {schema.short(protocol)}, this node speaks {PEER_PROTOCOL}"
        )
    found = schema.record(
        form, "greeting", ("protocol", "cluster_id", "node_id", "store_id", "to", "channel")
    )
    if found["cluster_id"] != identity.cluster_id:
        raise ProtocolError(
            f"a node of cluster {schema.short(found['cluster_id'])}, "
            f"this one is of {identity.cluster_id!r}"
        )
    if found["to"] != identity.node_id:
        raise ProtocolError(
            f"looks for node {schema.short(found['to'])}, this is node {identity.node_id}"
        )
    node_id = schema.integer(found["node_id"], "greeting: node_id", 1, schema.U32)
    if node_id == identity.node_id:
        raise ProtocolError(f"calls itself node {node_id}, as this one does")
    store_id = schema.name(found["store_id"], "greeting: store_id", least=1)
    channel = schema.integer(found["channel"], "greeting: channel", MAIN, BULK)
    hello = Hello(node_id, store_id, channel)
    why = objection(hello, table)
    if why:
        raise ProtocolError(why)
    return hello


def objection(hello: Hello, table: ConfigTable) -> str:
    """Why the config table does not let that node in, "" if it does."""
    node_id = hello.node_id
    if node_id in table.removed_nodes:
        return f"node {node_id} was removed from the cluster"
    known = table.nodes.get(node_id)
    if known is not None and known.store_id and known.store_id != hello.store_id:
        return (
            f"node {node_id} comes with another store than the one it registered: "
            "its directory was formatted again"
        )
    return ""
