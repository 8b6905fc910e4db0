"""Files in memory that lose at a crash what was not synced: for simulations."""

import errno
import itertools
import random

SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""

_descriptors = itertools.count(1_000_000)


class _Content:
    """The bytes of a file, and what each write since the last sync overwrote."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.unsynced: list[tuple[int, bytes, bytes]] = []
        self.synced_size = 0

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.data):
            self.data.extend(bytes(end - len(self.data)))
        self.unsynced.append((offset, bytes(self.data[offset:end]), bytes(data)))
        self.data[offset:end] = data

    def sync(self) -> None:
        self.unsynced.clear()
        self.synced_size = len(self.data)

    def crash(self, rng: random.Random) -> None:
        """Keep of each unsynced write some sectors, all or none."""
        for offset, before, _ in reversed(self.unsynced):
            self.data[offset : offset + len(before)] = before
        kept_size = self.synced_size
        for offset, _, data in self.unsynced:
            chance = rng.choice((0.0, 0.5, 1.0))
            place = 0
            while place < len(data):
                step = SECTOR_BYTES - (offset + place) % SECTOR_BYTES
                piece = data[place : place + step]
                if rng.random() < chance:
                    self.data[offset + place : offset + place + len(piece)] = piece
                    kept_size = max(kept_size, offset + place + len(piece))
                place += len(piece)
        del self.data[kept_size:]
        self.sync()


class MemoryFile:
    """A `File` in memory."""

    def __init__(self, name: str, content: _Content) -> None:
        self.name = name
        self._content = content
        self._descriptor = next(_descriptors)

    def fileno(self) -> int:
        """Return a number that stands for the file; the operating system does not know it."""
        return self._descriptor

    def size(self) -> int:
        """Return the length in bytes."""
        return len(self._content.data)

    def pread(self, size_bytes: int, offset: int) -> bytes:
        """Return up to that many bytes from `offset` on, fewer only at the end of the file."""
        return bytes(self._content.data[offset : offset + size_bytes])

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the whole buffer from `offset` on; OSError if the file ends before that."""
        data = self.pread(len(buffer), offset)
        if len(data) < len(buffer):
            raise OSError(errno.EIO, "the file ends too early", self.name)
        buffer[:] = data

    def read_ahead(self) -> None:
        """Do nothing."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`; `crash` may undo it until `sync`."""
        self._content.write(data, offset)

    def sync(self) -> None:
        """Make everything written to the file survive a crash."""
        self._content.sync()

    def close(self) -> None:
        """Do nothing."""


class MemoryFiles:
    """The `Files` of a directory in memory, with `crash`."""

    def __init__(self) -> None:
        self._contents: dict[str, _Content] = {}
        self._unsynced_names: list[str] = []

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self._contents)

    def open(self, name: str) -> MemoryFile:
        """Open an existing file."""
        if name not in self._contents:
            raise FileNotFoundError(f"{name} is not there")
        return MemoryFile(name, self._contents[name])

    def create(self, name: str) -> MemoryFile:
        """Make an empty file, in place of one that has the name, and open it."""
        self._contents[name] = _Content()
        self._unsynced_names.append(name)
        return MemoryFile(name, self._contents[name])

    def publish(self, temporary: str, name: str) -> bool:
        """Give a file its final name, durably; False if the name is taken."""
        content = self._contents.pop(temporary)
        self._unsynced_names.clear()
        if name in self._contents:
            return False
        self._contents[name] = content
        return True

    def rename(self, name: str, new_name: str) -> None:
        """Give a file another name, durably; a file that has that name is gone."""
        if name not in self._contents:
            raise FileNotFoundError(f"{name} is not there")
        self._contents[new_name] = self._contents.pop(name)
        self._unsynced_names.clear()

    def remove(self, name: str) -> None:
        """Remove a file, durably."""
        if name not in self._contents:
            raise FileNotFoundError(f"{name} is not there")
        del self._contents[name]
        self._unsynced_names.clear()

    def crash(self, rng: random.Random) -> None:
        """Lose what was not synced, in part, as a power cut does; opened files are dead."""
        for name in self._unsynced_names:
            if name in self._contents and rng.random() < 0.5:
                del self._contents[name]
        self._unsynced_names.clear()
        for name in sorted(self._contents):
            self._contents[name].crash(rng)
