"""Every command that eraft knows: arity, flags, key positions and the rest, as of Redis 7.0.15.

`COMMANDS` and the subcommands of its containers are what COMMAND answers,
what admission checks against and what decides who executes a command.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

__all__ = ["COMMANDS", "PLAIN_READS", "PLAIN_WRITES", "CommandSpec", "Kind"]


class Kind(Enum):
    """Who executes a command."""

    LOCAL = "local"
    """The node by itself, for one connection: no keys, no log."""
    READ = "read"
    """The group that owns the bucket of its keys, from applied state."""
    WRITE = "write"
    """The group that owns the bucket of its keys, at apply."""
    KEYSPACE = "keyspace"
    """All groups that this node leads; through their logs if it has the flag `write`."""


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """What is fixed about one command, or about one subcommand of a container."""

    name: bytes
    """In upper case; a subcommand's is `CONTAINER|SUBCOMMAND`."""
    arity: int
    """Exact number of arguments, names included; negative: at least that many."""
    flags: tuple[str, ...]
    first_key: int
    """Position of the first key, 0 if there are none."""
    last_key: int
    """Position of the last key; negative counts from the end."""
    key_step: int
    kind: Kind
    tips: tuple[str, ...]
    categories: tuple[str, ...]
    """ACL categories without their @."""
    since: str
    group: str
    summary: str
    subcommands: tuple["CommandSpec", ...] = ()

    def accepts(self, count: int) -> bool:
        """Tell whether `count` arguments, names included, are the right number."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity


# One command a line: name, arity, keys, since, flags, what it does.

_STRING = """
APPEND       3  one    2.0.0  write,denyoom,fast  Adds to the end of a value
DECR         2  one    1.0.0  write,denyoom,fast  Takes one from an integer
DECRBY       3  one    1.0.0  write,denyoom,fast  Takes a number from an integer
GET          2  one    1.0.0  readonly,fast       Returns a value
GETDEL       2  one    6.2.0  write,fast          Returns a value and deletes its key
GETEX       -2  one    6.2.0  write,fast          Returns a value and changes when it expires
GETRANGE     4  one    2.4.0  readonly            Returns a part of a value
GETSET       3  one    1.0.0  write,denyoom,fast  Sets a value and returns the old one
INCR         2  one    1.0.0  write,denyoom,fast  Adds one to an integer
INCRBY       3  one    1.0.0  write,denyoom,fast  Adds a number to an integer
INCRBYFLOAT  3  one    2.6.0  write,denyoom,fast  Adds a number to a number with a fraction
MGET        -2  all    1.0.0  readonly,fast       Returns several values
MSET        -3  pairs  1.0.1  write,denyoom       Sets several values at once
MSETNX      -3  pairs  1.0.1  write,denyoom       Sets several values if none of the keys exists
PSETEX       4  one    2.6.0  write,denyoom       Sets a value that expires, in milliseconds
SET         -3  one    1.0.0  write,denyoom       Sets a value, with conditions and expiry
SETEX        4  one    2.0.0  write,denyoom       Sets a value that expires, in seconds
SETNX        3  one    1.0.0  write,denyoom,fast  Sets a value if the key does not exist
SETRANGE     4  one    2.2.0  write,denyoom       Overwrites a part of a value
STRLEN       2  one    2.2.0  readonly,fast       Returns the length of a value
"""

_GENERIC = """
DEL         -2  all  1.0.0  write          Deletes keys
EXISTS      -2  all  1.0.0  readonly,fast  Counts which of the keys exist
EXPIRE      -3  one  1.0.0  write,fast     Lets a key expire after seconds
EXPIREAT    -3  one  1.2.0  write,fast     Lets a key expire at a Unix time in seconds
EXPIRETIME   2  one  7.0.0  readonly,fast  Returns the Unix time in seconds when a key expires
KEYS         2  no   1.0.0  readonly       Returns all keys that match a pattern
PERSIST      2  one  2.2.0  write,fast     Lets a key expire no more
PEXPIRE     -3  one  2.6.0  write,fast     Lets a key expire after milliseconds
PEXPIREAT   -3  one  2.6.0  write,fast     Lets a key expire at a Unix time in milliseconds
PEXPIRETIME  2  one  7.0.0  readonly,fast  Returns the Unix time in milliseconds when a key expires
PTTL         2  one  2.6.0  readonly,fast  Returns the milliseconds until a key expires
RANDOMKEY    1  no   1.0.0  readonly       Returns one of the keys
SCAN        -2  no   2.8.0  readonly       Walks over the keys, a few at each call
TOUCH       -2  all  3.2.1  readonly,fast  Counts which of the keys exist
TTL          2  one  1.0.0  readonly,fast  Returns the seconds until a key expires
TYPE         2  one  1.0.0  readonly,fast  Returns the type of a value
UNLINK      -2  all  4.0.0  write,fast     Deletes keys
"""

_SERVER = """
COMMAND  -1  no  2.8.13  loading,stale       Describes the commands of the server
CONFIG   -2  no  2.0.0   -                   Container for commands about settings
DBSIZE    1  no  1.0.0   readonly,fast       Counts the keys
FLUSHALL -1  no  1.0.0   write               Deletes all keys
FLUSHDB  -1  no  1.0.0   write               Deletes all keys
INFO     -1  no  1.0.0   loading,stale       Returns facts and figures about the server
TIME      1  no  2.6.0   loading,stale,fast  Returns the server's Unix time
"""

_CLUSTER = """
ASKING     1  no  3.0.0  fast                Accepted for clients that follow ASK; changes nothing
CLUSTER   -2  no  3.0.0  -                   Container for commands about the cluster
READONLY   1  no  3.0.0  loading,stale,fast  Lets replicas serve the reads of this connection
READWRITE  1  no  3.0.0  loading,stale,fast  Ends READONLY
"""

_CONNECTION = """
CLIENT -2  no  2.4.0  -                   Container for commands about connections
ECHO    2  no  1.0.0  loading,stale,fast  Returns its argument
HELLO  -1  no  6.0.0  noscript,loading,stale,fast,no_auth,allow_busy  Chooses the protocol version
PING   -1  no  1.0.0  fast                Tells that the server is there
QUIT   -1  no  1.0.0  noscript,loading,stale,fast,no_auth,allow_busy  Closes the connection
RESET   1  no  6.2.0  noscript,loading,stale,fast,no_auth,allow_busy  Clears the connection's state
SELECT  2  no  1.0.0  loading,stale,fast  Accepts database 0, the only one
"""

_SUBCOMMANDS = """
CLIENT|GETNAME  2  no  2.6.9   noscript,loading,stale        Returns the connection's name
CLIENT|HELP     2  no  5.0.0   loading,stale                 Describes the subcommands
CLIENT|ID       2  no  5.0.0   noscript,loading,stale        Returns the connection's number
CLIENT|INFO     2  no  6.2.0   noscript,loading,stale        Describes the connection
CLIENT|KILL    -3  no  2.4.0   admin,noscript,loading,stale  Closes connections
CLIENT|LIST    -2  no  2.4.0   admin,noscript,loading,stale  Describes all connections
CLIENT|REPLY    3  no  3.2.0   noscript,loading,stale        Turns replies off or on
CLIENT|SETINFO  4  no  7.2.0   noscript,loading,stale        Notes the client's library
CLIENT|SETNAME  3  no  2.6.9   noscript,loading,stale        Names the connection
CLUSTER|COUNTKEYSINSLOT  3  no  3.0.0  stale  Counts the keys of a slot
CLUSTER|GETKEYSINSLOT    4  no  3.0.0  stale  Returns some keys of a slot
CLUSTER|HELP     2  no  5.0.0  loading,stale  Describes the subcommands
CLUSTER|INFO     2  no  3.0.0  stale          Returns the state of the cluster
CLUSTER|KEYSLOT  3  no  3.0.0  stale          Returns the slot of a key
CLUSTER|LINKS    2  no  7.0.0  stale          Describes the connections to other nodes
CLUSTER|MYID     2  no  3.0.0  stale          Returns the node's id
CLUSTER|NODES    2  no  3.0.0  stale          Describes the nodes and their slots, as text
CLUSTER|REPLICAS 3  no  5.0.0  admin,stale    Describes the replicas of a node
CLUSTER|SHARDS   2  no  7.0.0  stale          Describes the shards, their slots and nodes
CLUSTER|SLAVES   3  no  3.0.0  admin,stale    Describes the replicas of a node
CLUSTER|SLOTS    2  no  3.0.0  stale          Describes which nodes serve which slots
COMMAND|COUNT    2  no  2.8.13 loading,stale  Counts the commands
COMMAND|DOCS    -2  no  7.0.0  loading,stale  Returns descriptions of commands
COMMAND|GETKEYS -4  no  2.8.13 loading,stale  Returns the keys of a command
COMMAND|GETKEYSANDFLAGS -4  no  7.0.0  loading,stale  Returns the keys of a command and their use
COMMAND|HELP     2  no  5.0.0  loading,stale  Describes the subcommands
COMMAND|INFO    -2  no  2.8.13 loading,stale  Returns arity, flags and key positions of commands
COMMAND|LIST    -2  no  7.0.0  loading,stale  Returns the names of the commands
CONFIG|GET       -3  no  2.0.0  admin,noscript,loading,stale  Returns settings
CONFIG|HELP       2  no  5.0.0  loading,stale                 Describes the subcommands
CONFIG|RESETSTAT  2  no  2.0.0  admin,noscript,loading,stale  Sets the counters of INFO to zero
CONFIG|SET       -4  no  2.0.0  admin,noscript,loading,stale  Changes settings
"""

_KEYS = {"no": (0, 0, 0), "one": (1, 1, 1), "all": (1, -1, 1), "pairs": (1, -1, 2)}

_KEYSPACE = frozenset(
    (
        *("DBSIZE", "FLUSHALL", "FLUSHDB", "KEYS", "RANDOMKEY", "SCAN"),
        *("CLUSTER|COUNTKEYSINSLOT", "CLUSTER|GETKEYSINSLOT"),
    )
)

_CATEGORIES: Final = (
    *("keyspace", "read", "write", "string", "admin"),
    *("fast", "slow", "dangerous", "connection"),
)
"""In the order in which Redis lists them."""

_GROUP_CATEGORIES = {"string": "string", "generic": "keyspace", "connection": "connection"}

# What does not follow from group and flags. The containers and the commands
# about the protocol's version are in no category but their speed's.
_EXTRA_CATEGORIES = {
    "ASKING": {"connection"},
    "COMMAND": {"connection"},
    "DBSIZE": {"keyspace"},
    "FLUSHALL": {"keyspace", "dangerous"},
    "FLUSHDB": {"keyspace", "dangerous"},
    "INFO": {"dangerous"},
    "KEYS": {"dangerous"},
    "READONLY": {"connection"},
    "READWRITE": {"connection"},
}
_NOT_CONNECTION = frozenset(("CLIENT",))

_MULTI_SHARD = "request_policy:multi_shard"
_ALL_SHARDS = "request_policy:all_shards"
_SUM = "response_policy:agg_sum"
_ALL_SUCCEEDED = "response_policy:all_succeeded"
_CHANGING = "nondeterministic_output"
_UNORDERED = "nondeterministic_output_order"

_TIPS = {
    "CLIENT|INFO": (_CHANGING,),
    "CLIENT|LIST": (_CHANGING,),
    "CLUSTER|GETKEYSINSLOT": (_CHANGING,),
    "CLUSTER|INFO": (_CHANGING,),
    "CLUSTER|LINKS": (_CHANGING,),
    "CLUSTER|NODES": (_CHANGING,),
    "CLUSTER|REPLICAS": (_CHANGING,),
    "CLUSTER|SHARDS": (_CHANGING,),
    "CLUSTER|SLAVES": (_CHANGING,),
    "CLUSTER|SLOTS": (_CHANGING,),
    "COMMAND": (_UNORDERED,),
    "COMMAND|DOCS": (_UNORDERED,),
    "COMMAND|INFO": (_UNORDERED,),
    "COMMAND|LIST": (_UNORDERED,),
    "CONFIG|SET": ("request_policy:all_nodes", _ALL_SUCCEEDED),
    "DBSIZE": (_ALL_SHARDS, _SUM),
    "DEL": (_MULTI_SHARD, _SUM),
    "EXISTS": (_MULTI_SHARD, _SUM),
    "FLUSHALL": (_ALL_SHARDS, _ALL_SUCCEEDED),
    "FLUSHDB": (_ALL_SHARDS, _ALL_SUCCEEDED),
    "INFO": (_CHANGING, _ALL_SHARDS, "response_policy:special"),
    "KEYS": (_ALL_SHARDS, _UNORDERED),
    "MGET": (_MULTI_SHARD,),
    "MSET": (_MULTI_SHARD, _ALL_SUCCEEDED),
    "MSETNX": (_MULTI_SHARD, "response_policy:agg_min"),
    "PING": (_ALL_SHARDS, _ALL_SUCCEEDED),
    "PTTL": (_CHANGING,),
    "RANDOMKEY": (_ALL_SHARDS, _CHANGING),
    "SCAN": (_CHANGING, "request_policy:special"),
    "TIME": (_CHANGING,),
    "TOUCH": (_MULTI_SHARD, _SUM),
    "TTL": (_CHANGING,),
    "UNLINK": (_MULTI_SHARD, _SUM),
}


def _kind(name: str, keys: str, flags: tuple[str, ...]) -> Kind:
    if name in _KEYSPACE:
        return Kind.KEYSPACE
    if keys == "no":
        return Kind.LOCAL
    return Kind.WRITE if "write" in flags else Kind.READ


def _categories(name: str, group: str, flags: tuple[str, ...]) -> tuple[str, ...]:
    chosen = set(_EXTRA_CATEGORIES.get(name.split("|")[0], ()))
    chosen.add("fast" if "fast" in flags else "slow")
    if group in _GROUP_CATEGORIES and name not in _NOT_CONNECTION:
        chosen.add(_GROUP_CATEGORIES[group])
    if "readonly" in flags:
        chosen.add("read")
    if "write" in flags:
        chosen.add("write")
    if "admin" in flags:
        chosen |= {"admin", "dangerous"}
    return tuple(category for category in _CATEGORIES if category in chosen)


def _read(table: str, group: str) -> Iterator[CommandSpec]:
    """Read a table of specifications, one a line."""
    for line in table.strip().splitlines():
        name, arity, keys, since, flag_list, summary = line.split(maxsplit=5)
        flags = () if flag_list == "-" else tuple(flag_list.split(","))
        first_key, last_key, key_step = _KEYS[keys]
        yield CommandSpec(
            name=name.encode(),
            arity=int(arity),
            flags=flags,
            first_key=first_key,
            last_key=last_key,
            key_step=key_step,
            kind=_kind(name, keys, flags),
            tips=_TIPS.get(name, ()),
            categories=_categories(name, group, flags),
            since=since,
            group=group,
            summary=summary,
        )


def _commands() -> dict[bytes, CommandSpec]:
    groups = {
        "string": _STRING,
        "generic": _GENERIC,
        "server": _SERVER,
        "cluster": _CLUSTER,
        "connection": _CONNECTION,
    }
    found = {spec.name: spec for group, table in groups.items() for spec in _read(table, group)}
    for line in _SUBCOMMANDS.strip().splitlines():
        container = found[line.split("|")[0].encode()]
        added = tuple(_read(line, container.group))
        found[container.name] = replace(container, subcommands=container.subcommands + added)
    return dict(sorted(found.items()))


COMMANDS: Final[dict[bytes, CommandSpec]] = _commands()
"""By upper-case name, in the order of the names."""

PLAIN_WRITES: Final[dict[bytes, int]] = {
    b"APPEND": 3,
    b"DECR": 2,
    b"DEL": 2,
    b"GETDEL": 2,
    b"GETSET": 3,
    b"INCR": 2,
    b"PERSIST": 2,
    b"SET": 3,
    b"SETNX": 3,
    b"UNLINK": 2,
}
"""Writes that go to the log as they are, by upper-case name with their exact number of arguments.

The one key is argument 1, and nothing else in them needs checking.
"""

PLAIN_READS: Final[dict[bytes, int]] = {b"GET": 2}
"""Reads of the value of the key at argument 1, as `PLAIN_WRITES`."""
