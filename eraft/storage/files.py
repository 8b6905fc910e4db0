"""Files as the write-ahead log sees them, and their form on a real disk.

The log never touches the operating system itself: it is given a `Files`.
A simulator gives it `MemoryFiles`, which lose at a crash what was not synced.
"""

import errno
import os
from typing import Protocol

from eraft import limits

_ZEROS = bytes(1 * limits.MIB)


class File(Protocol):
    """One open file. Errors of the operating system are OSError."""

    name: str

    def fileno(self) -> int:
        """Return the file descriptor (a stand-in number where there is none)."""

    def size(self) -> int:
        """Return the length in bytes."""

    def pread(self, size_bytes: int, offset: int) -> bytes:
        """Return up to that many bytes from `offset` on, fewer only at the end of the file."""

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the whole buffer from `offset` on; OSError if the file ends before that."""

    def read_ahead(self) -> None:
        """Have the disk begin to read the whole file, which is read next."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`; durable only after `sync`."""

    def sync(self) -> None:
        """Make everything written to the file durable (fdatasync). Never retried after an error."""

    def close(self) -> None:
        """Close the file."""


class Files(Protocol):
    """The files of one directory."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def open(self, name: str) -> File:
        """Open an existing file for reading and writing."""

    def create(self, name: str) -> File:
        """Make an empty file, in place of one that has the name, and open it."""

    def publish(self, temporary: str, name: str) -> bool:
        """Give a file its final name and make that durable.

        Returns False, and removes the temporary name, if the final name is
        taken: of two that prepare the same file, the first one wins.
        """

    def rename(self, name: str, new_name: str) -> None:
        """Give a file another name, durably; a file that has that name is gone."""

    def remove(self, name: str) -> None:
        """Remove a file, durably."""


class DiskFile:
    """A `File` on disk."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def size(self) -> int:
        """Return the length in bytes."""
        return os.fstat(self._descriptor).st_size

    def pread(self, size_bytes: int, offset: int) -> bytes:
        """Return up to that many bytes from `offset` on, fewer only at the end of the file."""
        data = os.pread(self._descriptor, size_bytes, offset)
        if len(data) == size_bytes or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size_bytes and data:
            data = os.pread(self._descriptor, size_bytes - got, offset + got)
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the whole buffer from `offset` on; OSError if the file ends before that."""
        filled = 0
        while filled < len(buffer):
            with buffer[filled:] as rest:
                got = os.preadv(self._descriptor, [rest], offset + filled)
            if not got:
                raise OSError(errno.EIO, "the file ends too early", self.name)
            filled += got

    def read_ahead(self) -> None:
        """Have the disk begin to read the whole file, which is read next."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_WILLNEED)

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`; durable only after `sync`."""
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):
            with memoryview(data) as rest:
                written += os.pwrite(self._descriptor, rest[written:], offset + written)

    def sync(self) -> None:
        """Make everything written to the file durable (fdatasync)."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class DiskFiles:
    """The `Files` of a directory on disk."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(os.listdir(self._directory))

    def open(self, name: str) -> DiskFile:
        """Open an existing file for reading and writing."""
        return self._open(name, os.O_RDWR)

    def create(self, name: str) -> DiskFile:
        """Make an empty file, in place of one that has the name, and open it."""
        return self._open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def publish(self, temporary: str, name: str) -> bool:
        """Give a file its final name and make that durable; False if the name is taken."""
        try:
            os.link(temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            won = True
        except FileExistsError:
            won = False
        os.unlink(temporary, dir_fd=self._directory)
        os.fsync(self._directory)
        return won

    def rename(self, name: str, new_name: str) -> None:
        """Give a file another name, durably; a file that has that name is gone."""
        os.rename(name, new_name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        os.fsync(self._directory)

    def remove(self, name: str) -> None:
        """Remove a file, durably."""
        os.unlink(name, dir_fd=self._directory)
        os.fsync(self._directory)

    def close(self) -> None:
        """Close the directory; the files stay open."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _open(self, name: str, flags: int) -> DiskFile:
        descriptor = os.open(name, flags | os.O_CLOEXEC, 0o644, dir_fd=self._directory)
        return DiskFile(name, descriptor)


def fill_with_zeros(file: File, size_bytes: int, offset: int = 0) -> None:
    """Write zeros from `offset` up to `size_bytes` in pieces of 1 MiB."""
    while offset < size_bytes:
        piece = _ZEROS[: size_bytes - offset]
        file.pwrite(piece, offset)
        offset += len(piece)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
