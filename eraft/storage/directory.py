"""The data directory of a node: its layout, its identity and its lock.

identity.json   who the node is; written once, last, by `format_directory`
LOCK            locked by the process that serves the directory
pid             that process, for people and for tools
log/            the write-ahead log
state/          RocksDB
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

import orjson

from eraft import limits
from eraft.errors import ConfigError, DiskFull, StorageError
from eraft.storage.files import DiskFiles, sync_directory
from eraft.storage.founding import founding_state
from eraft.storage.wal import LogOptions, format_log

FORMAT_VERSION = 1
IDENTITY_BYTES = 1 * limits.MIB
STORE_ID_BYTES = 16

_IDENTITY = "identity.json"
_LOCK = "LOCK"
_PID = "pid"
_LOG = "log"
_STATE = "state"


@dataclass(slots=True, frozen=True)
class Identity:
    """Who the node of a data directory is.

    `store_id` is drawn once when the directory is formatted: a wiped node
    that comes back under its old node id has another one. `metaserver` is the
    founding list, node id -> host:peerport.
    """

    cluster_id: str
    node_id: int
    store_id: str
    metaserver: dict[int, str]
    format_version: int = FORMAT_VERSION


class DataDirectory:
    """An open data directory; its lock is held until `close` or the end of the process."""

    def __init__(self, path: str, identity: Identity, lock: int) -> None:
        self.path = path
        self.identity = identity
        self.log_path = os.path.join(path, _LOG)
        self.state_path = os.path.join(path, _STATE)
        self._lock = lock

    def __enter__(self) -> "DataDirectory":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def write_pid(self) -> None:
        """Write this process's id to the pid file."""
        with _explained(self.path, "cannot write the pid file"):
            _write_atomically(self.path, _PID, b"%d\n" % os.getpid())

    def free_bytes(self) -> int:
        """Return how many bytes an unprivileged writer may still use on this disk."""
        figures = os.statvfs(self.path)
        return figures.f_bavail * figures.f_frsize

    def close(self) -> None:
        """Remove the pid file and release the lock."""
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            if read_pid(self.path) == os.getpid():
                os.unlink(os.path.join(self.path, _PID))
        os.close(self._lock)
        self._lock = -1


def format_directory(
    path: str,
    cluster_id: str,
    node_id: int,
    metaserver: Mapping[int, str],
    *,
    segment_size_bytes: int = limits.SEGMENT_SIZE_BYTES,
) -> Identity:
    """Make `path`, absent or empty, the data directory of a new node.

    Args:
        path: The directory; its parents are made too.
        cluster_id: What all nodes of the cluster share, not empty.
        node_id: This node, 1 to 2**32 - 1.
        metaserver: The founding members, node id -> host:peerport, at least
            one. Where this node is one of them its log begins with the
            metaserver's founding state: replica ids 1..k in the order of the node ids.
        segment_size_bytes: Size of the first segment of the log.

    Raises:
        ConfigError: an argument is wrong, or the directory is not empty, not
            writable or its disk is full; what was begun is removed again.
    """
    identity = Identity(cluster_id, node_id, secrets.token_hex(STORE_ID_BYTES), dict(metaserver))
    problem = _problem(identity)
    if problem:
        raise ConfigError(f"cannot format {path}: {problem}")
    with _explained(path, "cannot format the data directory"):
        os.makedirs(path, exist_ok=True)
        if os.listdir(path):
            raise ConfigError(
                f"cannot format {path}: the directory is not empty; "
                "give another one, or remove what is in it yourself"
            )
        try:
            _fill(path, identity, segment_size_bytes)
        except BaseException:
            _empty(path)
            raise
        sync_directory(os.path.dirname(os.path.abspath(path)))
    return identity


def open_directory(path: str) -> DataDirectory:
    """Lock the data directory and return it with its identity.

    Raises:
        ConfigError: it is not formatted, in use by a process (named), of a
            newer format or not readable, or its identity is damaged.
    """
    with _explained(path, "cannot open the data directory"):
        if not os.path.isdir(path):
            raise ConfigError(f"{path} is not a directory; format it with `eraft init`")
        if not os.path.exists(os.path.join(path, _IDENTITY)):
            raise ConfigError(
                f"{path} is not formatted: it has no {_IDENTITY}; format it with `eraft init`"
            )
        lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(path, lock)
            return DataDirectory(path, _read_identity(path), lock)
        except BaseException:
            os.close(lock)
            raise


def read_pid(path: str) -> int | None:
    """Return the process id in the directory's pid file, None if there is none."""
    try:
        with open(os.path.join(path, _PID), "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None


def _fill(path: str, identity: Identity, segment_size_bytes: int) -> None:
    """Write a new directory's contents, the identity last."""
    log_path = os.path.join(path, _LOG)
    os.mkdir(log_path)
    os.mkdir(os.path.join(path, _STATE))
    options = LogOptions(identity.store_id, segment_size_bytes=segment_size_bytes)
    state = founding_state(identity.node_id, identity.metaserver)
    files = DiskFiles(log_path)
    try:
        format_log(files, options, [] if state is None else [state])
    finally:
        files.close()
    text = orjson.dumps(
        {
            "format_version": identity.format_version,
            "cluster_id": identity.cluster_id,
            "node_id": identity.node_id,
            "store_id": identity.store_id,
            "metaserver": {str(node): address for node, address in identity.metaserver.items()},
        },
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    )
    sync_directory(path)
    _write_atomically(path, _IDENTITY, text)


def _empty(path: str) -> None:
    """Remove what an interrupted format left, so that it can be tried again."""
    for name in (_IDENTITY, _IDENTITY + ".tmp"):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(path, name))
    for name in (_LOG, _STATE):
        shutil.rmtree(os.path.join(path, name), ignore_errors=True)


def _lock(path: str, lock: int) -> None:
    """Take the lock, or say which process has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise ConfigError(f"{path} is in use by another process, pid {holder}") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)


def _read_identity(path: str) -> Identity:
    """Read and check the identity file."""
    name = os.path.join(path, _IDENTITY)
    with open(name, "rb") as file:
        text = file.read(IDENTITY_BYTES)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{name} is damaged: {error}") from None
    version = value.get("format_version") if isinstance(value, dict) else None
    if type(version) is int and version > FORMAT_VERSION:
        raise ConfigError(
            f"{name} has format version {version}, this program knows {FORMAT_VERSION}: "
            "start the newer program that wrote it"
        )
    try:
        identity = Identity(
            value["cluster_id"],
            value["node_id"],
            value["store_id"],
            {int(node): address for node, address in value["metaserver"].items()},
            value["format_version"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{name} is damaged: {type(error).__name__}: {error}") from None
    problem = _problem(identity)
    if problem:
        raise ConfigError(f"{name} is damaged: {problem}")
    return identity


def _problem(identity: Identity) -> str:
    """Return what is wrong with an identity, "" if nothing is."""
    if identity.format_version != FORMAT_VERSION:
        return f"format version {identity.format_version!r} is not {FORMAT_VERSION}"
    if not isinstance(identity.cluster_id, str) or not identity.cluster_id:
        return "the cluster id is empty"
    if not _is_node_id(identity.node_id):
        return f"node id {identity.node_id!r} is not in 1..{2**32 - 1}"
    if not isinstance(identity.store_id, str) or not _is_hex(identity.store_id):
        return f"store id {identity.store_id!r} is not {2 * STORE_ID_BYTES} hexadecimal digits"
    if not identity.metaserver:
        return "the metaserver's founding list is empty"
    for node, address in identity.metaserver.items():
        if not _is_node_id(node):
            return f"metaserver node id {node!r} is not in 1..{2**32 - 1}"
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            return f"metaserver address {address!r} of node {node} is not host:port"
    return ""


def _is_node_id(value: object) -> bool:
    return type(value) is int and 0 < value < 2**32


def _is_hex(text: str) -> bool:
    return len(text) == 2 * STORE_ID_BYTES and set(text) <= set("0123456789abcdef")


def _write_atomically(path: str, name: str, data: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    target = os.path.join(path, name)
    descriptor = os.open(
        target + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644
    )
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.replace(target + ".tmp", target)
    sync_directory(path)


@contextlib.contextmanager
def _explained(path: str, what: str) -> Iterator[None]:
    """Turn what the operating system refuses into a ConfigError with the path in it."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConfigError(f"{what}: the disk of {path} is full") from error
        raise ConfigError(f"{what}: {where}: {error.strerror}") from error
    except DiskFull as error:
        raise ConfigError(f"{what}: the disk of {path} is full") from error
    except StorageError as error:
        raise ConfigError(f"{what}: {path}: {error}") from error
