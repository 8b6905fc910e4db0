"""Which function executes which command on keys."""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from eraft.shardkv import counters, keys, strings
from eraft.shardkv.data import Data, Reply, View
from eraft.shardkv.syntax import EX, EXAT, PX, PXAT

Write: TypeAlias = Callable[[Data, list[bytes], bytes], Reply]
"""Takes the keys, the arguments and the row key of the command's first key."""
Read: TypeAlias = Callable[[View, list[bytes]], Reply]

WRITES: Final[dict[bytes, Write]] = {
    b"APPEND": strings.append,
    b"DECR": counters.decr,
    b"DECRBY": counters.decrby,
    b"DEL": keys.delete,
    b"EXPIRE": partial(keys.expire, unit=EX, command=b"expire"),
    b"EXPIREAT": partial(keys.expire, unit=EXAT, command=b"expireat"),
    b"GETDEL": strings.getdel,
    b"GETEX": strings.getex,
    b"GETSET": strings.getset,
    b"INCR": counters.incr,
    b"INCRBY": counters.incrby,
    b"INCRBYFLOAT": counters.incrbyfloat,
    b"MSET": strings.mset,
    b"MSETNX": strings.msetnx,
    b"PERSIST": keys.persist,
    b"PEXPIRE": partial(keys.expire, unit=PX, command=b"pexpire"),
    b"PEXPIREAT": partial(keys.expire, unit=PXAT, command=b"pexpireat"),
    b"PSETEX": partial(strings.setex, unit=PX, command=b"psetex"),
    b"SET": strings.set_,
    b"SETEX": partial(strings.setex, unit=EX, command=b"setex"),
    b"SETNX": strings.setnx,
    b"SETRANGE": strings.setrange,
    b"UNLINK": keys.delete,
}

READS: Final[dict[bytes, Read]] = {
    b"EXISTS": keys.exists,
    b"EXPIRETIME": keys.expiretime,
    b"GET": strings.get,
    b"GETRANGE": strings.getrange,
    b"MGET": strings.mget,
    b"PEXPIRETIME": keys.pexpiretime,
    b"PTTL": keys.pttl,
    b"STRLEN": strings.strlen,
    b"TOUCH": keys.exists,
    b"TTL": keys.ttl,
    b"TYPE": keys.type_,
}
