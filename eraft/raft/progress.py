"""What a leader knows of one follower, and how much it sends it.

A peer is in one of three states, as in etcd-io/raft:

* **probe**: the leader does not know where the logs agree. One append
  message at a time; a rejection moves `next` back, an acceptance ends the
  state.
* **snapshot**: the peer needs entries that the leader has no more. Nothing is
  sent until it has installed a snapshot, or that has failed.
* **replicate**: the logs agree up to `match`. Appends follow each other
  without waiting, `next` runs ahead, but at most `window` of them are
  unanswered. What is proposed meanwhile goes into the next one, so batches
  grow with the round trip by themselves and a slow peer costs no memory.
"""

from typing import Final

LONG_AGO: Final = -(1 << 62)


class Progress:
    """Replication to one peer."""

    __slots__ = (
        "_full_window",
        "_sizes",
        "active",
        "bytes_in_flight",
        "fetching",
        "in_flight",
        "match",
        "next",
        "probing",
        "replica_id",
        "snapshot_index",
        "snapshotting",
        "waiting_since",
        "window",
    )

    def __init__(self, replica_id: int, next_index: int, window: int) -> None:
        self.replica_id = replica_id
        self.match = 0
        """The peer has durably what the leader has up to here (paper, figure 2: matchIndex)."""
        self.next = next_index
        """The first entry of the next append message (paper, figure 2: nextIndex)."""
        self.probing = True
        self.window = 1
        self._full_window = window
        self.in_flight: list[int] = []
        """Last indexes of the append messages that are not answered, oldest first."""
        self.bytes_in_flight = 0
        """What these carry."""
        self._sizes: list[int] = []
        self.waiting_since = 0
        """Tick of the last sign that appends get through, while some are in flight."""
        self.fetching = 0
        """First index that is being read from disk for the peer, 0 if none."""
        self.snapshotting = False
        self.snapshot_index = 0
        """Up to where the snapshot that was offered goes, 0 before there was an offer."""
        self.active = False
        """Heard of since the last check for a quorum."""

    def sent(self, last_index: int, size_bytes: int, tick: int) -> None:
        """An append message of that size, up to `last_index`, is on its way."""
        if not self.in_flight:
            self.waiting_since = tick
        self.in_flight.append(last_index)
        self._sizes.append(size_bytes)
        self.bytes_in_flight += size_bytes
        if not self.probing:
            self.next = last_index + 1

    def accepted(self, index: int, tick: int) -> None:
        """The peer has everything up to `index`, durably."""
        in_flight = self.in_flight
        while in_flight and in_flight[0] <= index:
            del in_flight[0]
            self.bytes_in_flight -= self._sizes.pop(0)
        self.waiting_since = tick
        if index < self.match:
            return
        self.match = index
        if self.snapshotting:
            if not 0 < self.snapshot_index <= index:
                return
            self.snapshotting = False
        if self.probing:
            self.probing = False
            self.window = self._full_window
            self.next = index + 1
            self._forget()
        elif self.next <= index:
            self.next = index + 1

    def rejected(self, prev_index: int, next_index: int) -> None:
        """The peer does not have the leader's entry at `prev_index`; go on at `next_index`.

        An answer to an older question than the last one is ignored.
        """
        if prev_index <= self.match:
            return
        if not self.probing:
            self.restart()
        elif prev_index == self.next - 1:
            self.next = max(self.match + 1, min(next_index, prev_index))
            self._forget()

    def _forget(self) -> None:
        """Nothing counts as being in flight."""
        self.in_flight.clear()
        self._sizes.clear()
        self.bytes_in_flight = 0

    def restart(self) -> None:
        """Appends may have been lost: ask again from what is certain."""
        if not self.probing:
            self.probing = True
            self.window = 1
            self.next = self.match + 1
        self.fetching = 0
        self._forget()

    def begin_snapshot(self) -> None:
        """Only a snapshot helps; one has to be offered."""
        self.restart()
        self.snapshotting = True
        self.snapshot_index = 0
        self.window = 0

    def end_snapshot(self, next_index: int) -> None:
        """Whether the peer has installed it shows when it is asked behind it."""
        self.snapshotting = False
        self.window = 1
        self.next = max(self.match + 1, next_index)

    @property
    def state(self) -> str:
        """For people."""
        if self.snapshotting:
            return "snapshot"
        return "probe" if self.probing else "replicate"

    def pause(self, since: int) -> None:
        """Send nothing until the peer answers a heartbeat some time after tick `since`.

        It looks like an append message that got lost.
        """
        self.restart()
        self.in_flight.append(self.next)
        self._sizes.append(0)
        self.waiting_since = since
