"""Disks whose power can be cut, and that can be full: an ext4 each, in a file."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from eraft.storage.files import sync_directory
from tests.chaos.namespaces import run

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


class Disk:
    """An ext4 in a sparse file at `image`, mounted at `path` between `mount` and `unmount`.

    The loop device lives as long as the mount.
    """

    def __init__(self, image: Path, size_bytes: int) -> None:
        self.path = image.with_suffix(".mnt")
        self._image = image
        self._filler = self.path / "filler"
        with image.open("wb") as file:
            file.truncate(size_bytes)
        self.path.mkdir()
        # No blocks that only root may take: what is full, is full for everybody.
        run("mkfs.ext4", "-q", "-m", 0, "-E", "lazy_itable_init=0,nodiscard", image)

    @property
    def mounted(self) -> bool:
        return os.path.ismount(self.path)

    def mount(self) -> None:
        run("mount", "-o", "loop", self._image, self.path)

    def unmount(self) -> None:
        if self.mounted:
            run("umount", self.path)

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, and every write fails.

        What was not synced is gone after `unmount` and `mount`, for which no
        process may have a file open.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    @property
    def used_bytes(self) -> int:
        """What files take, those included that have no name any more but are open."""
        figures = os.statvfs(self.path)
        return (figures.f_blocks - figures.f_bfree) * figures.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Take the room on the disk with another file."""
        figures = os.statvfs(self.path)
        size = figures.f_bavail * figures.f_frsize - leave_bytes
        # Others write meanwhile: what is not there any more need not be taken.
        with self._filler.open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, size)

    def empty(self) -> None:
        """Give back what `fill` has taken, for good: a power cut must not bring it back."""
        self._filler.unlink(missing_ok=True)
        sync_directory(str(self.path))
