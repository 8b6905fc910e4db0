"""What CONFIG GET shows: the settings that clients and their tools look for."""

from eraft import limits
from eraft.shardkv.router import split_address


def settings(address: str, connections: int, value_size_bytes: int) -> dict[bytes, bytes]:
    """The settings of a node that listens for clients at `address` (host:port), by name.

    What Redis has and eraft has not is shown as what it amounts to: every
    write is on disk before it is answered, no key is ever evicted, and no
    idle connection is closed.
    """
    host, port = split_address(address)
    return {
        b"appendfsync": b"always",
        b"appendonly": b"yes",
        b"bind": host.encode(),
        b"client-query-buffer-limit": b"%d" % limits.COMMAND_SIZE_BYTES,
        b"cluster-allow-reads-when-down": b"no",
        b"cluster-enabled": b"yes",
        b"cluster-require-full-coverage": b"no",
        b"databases": b"1",
        b"io-threads": b"1",
        b"maxclients": b"%d" % connections,
        b"maxmemory": b"0",
        b"maxmemory-policy": b"noeviction",
        b"notify-keyspace-events": b"",
        b"port": b"%d" % port,
        b"proto-max-bulk-len": b"%d" % value_size_bytes,
        b"requirepass": b"",
        b"save": b"",
        b"timeout": b"0",
        b"tls-port": b"0",
    }
