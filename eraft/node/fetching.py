"""Entries that the memory has no more, read back from the log on disk."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from eraft._impl import log as entry_log
from eraft.errors import LogCompacted
from eraft.raft import Fetch
from eraft.storage.wal import WriteAheadLog

if TYPE_CHECKING:
    from eraft.node.replica import Replica

logger = logging.getLogger("eraft.fetching")


def read_entry(log: WriteAheadLog, gid: int, index: int) -> tuple[int, int, bytes]:
    """Term, kind and payload of one entry."""
    blob, _ = log.read(gid, index, index, 0)
    found = entry_log.EntryLog(index - 1)
    found.extend(index, blob)
    return found.term(index), found.kind(index), found.payload(index)


def fetch(replica: Replica, wanted: Fetch) -> None:
    """Give the core what it wants for a follower that is behind."""
    log, gid, first_index = replica.node.log, replica.gid, wanted.first_index
    try:
        prev_term = _term(log, gid, first_index - 1)
        blob, _ = log.read(gid, first_index, replica.entries.base_index, wanted.limit_bytes)
    except LogCompacted as error:
        logger.info("replica %d needs a snapshot: %s", wanted.replica_id, error)
        replica.raft.fetch_failed(wanted.replica_id, compacted=True)
        return
    replica.raft.fetched(wanted.replica_id, first_index, prev_term, blob)


def _term(log: WriteAheadLog, gid: int, index: int) -> int:
    group = log.groups[gid]
    return group.base_term if index == group.base_index else read_entry(log, gid, index)[0]
