"""What exists only while a replica leads (Raft paper, figure 2: volatile state on leaders)."""

from collections.abc import Iterable, Sequence

from eraft._impl import commit as quorum
from eraft._impl import log as entries
from eraft.errors import ProtocolError, TransferRefused
from eraft.raft.confchange import describe
from eraft.raft.config import Config
from eraft.raft.kinds import APPEND, HEARTBEAT, NOOP, READ_INDEX_REPLY, SNAPSHOT, TIMEOUT_NOW
from eraft.raft.progress import LONG_AGO, Progress
from eraft.raft.quorum import VoteResult, vote_result
from eraft.raft.reads import ReadRounds
from eraft.raft.ready import Fetch, PeerStatus
from eraft.types import ConfState, Message

Run = tuple[int, bytes, int]
"""A first index, the encoded entries from there on, and the last index."""
READS_OPEN = 2
"""Questions of one follower at a time: the last one, and one before it that it gave up."""
NO_RUN: Run = (0, b"", 0)


class Leadership:
    """One replica's time as the leader of one term.

    It starts with an empty entry of its own term: until a leader has
    committed one, it does not know which of the entries it inherited are
    committed, and it may not count replicas for them (paper, sections 5.4.2
    and 8). `first_index` is that entry.

    `transferee` is the replica that leadership is being handed to, 0 for none.
    """

    __slots__ = (
        "_conf",
        "_config",
        "_log",
        "_match",
        "_peers",
        "_tick",
        "_transfer_ends",
        "_transfer_told",
        "first_index",
        "reads",
        "remote_reads",
        "snapshots",
        "term",
        "transferee",
    )

    def __init__(
        self,
        config: Config,
        conf: ConfState,
        term: int,
        log: entries.EntryLog,
        durable_index: int,
    ) -> None:
        self.term = term
        self.first_index = log.append(term, NOOP, b"")
        self.reads = ReadRounds(conf)
        self.remote_reads: dict[int, Message] = {}
        """By ticket: reads that followers ask for."""
        self.snapshots: list[int] = []
        """Peers that need a snapshot and that the host was not told of yet."""
        self.transferee = 0
        self._transfer_ends = 0
        self._transfer_told = False
        self._conf = conf
        self._config = config
        self._log = log
        self._tick = 0
        self._match = quorum.MatchTable(conf.voters, conf.outgoing)
        self._match.record(config.replica_id, durable_index)
        self._peers = {
            replica_id: Progress(replica_id, self.first_index, config.appends_in_flight)
            for replica_id in conf.members
            if replica_id != config.replica_id
        }

    def reconfigure(self, conf: ConfState) -> int:
        """Replicates to the members of `conf` and counts its voters; returns as `durable`.

        Who was a member already goes on where it is. Who is new counts as
        heard of until the next check for a quorum.
        """
        config, peers = self._config, self._peers
        own_match = self._match.match(config.replica_id)
        self._conf = conf
        self._match = quorum.MatchTable(conf.voters, conf.outgoing)
        self._match.record(config.replica_id, own_match)
        self._peers = {}
        for replica_id in conf.members:
            if replica_id == config.replica_id:
                continue
            peer = peers.get(replica_id)
            if peer is None:
                # At least one entry to send, so that it is asked at once.
                peer = Progress(replica_id, self._log.last_index, config.appends_in_flight)
                peer.active = True
            self._peers[replica_id] = peer
            self._match.record(replica_id, peer.match)
        if self.transferee and self.transferee not in conf.voters:
            self.transferee = 0
        self.reads.reconfigure(conf)
        return self._own_term(self._match.committed())

    # Commitment

    def durable(self, index: int) -> int:
        """The leader's own disk has everything up to `index`; returns as `accepted`.

        Only now does the leader count itself: what it sent out early, in
        parallel with its own disk, is not yet safe here (dissertation,
        section 10.2.1).
        """
        return self._own_term(self._match.record(self._config.replica_id, index))

    def append_reply(self, message: Message) -> int:
        """Takes the answer of a peer; returns the commit index that it allows, 0 if none.

        Raises `ProtocolError` if the peer acknowledges what was never sent.
        """
        if not message.reject and message.index > self._log.last_index:
            raise ProtocolError(
                f"replica {message.sender} acknowledges entry {message.index}, but the log of its"
                f" leader ends at {self._log.last_index}"
            )
        peer = self._peers[message.sender]
        peer.active = True
        self.reads.answered(message.sender, message.context)
        if message.reject:
            if not message.index:
                # Of an older leadership, if not of a replica that has no configuration.
                if message.hint and not peer.match and not peer.snapshotting:
                    self._need_snapshot(peer)
                return 0
            peer.rejected(message.index, self._next_guess(message))
            return 0
        peer.accepted(message.index, self._tick)
        return self._own_term(self._match.record(message.sender, message.index))

    def owes(self, replica_id: int) -> bool:
        """Whether the answer of a peer lets it be sent more, or the host be told something."""
        return bool(
            self._peers[replica_id].next <= self._log.last_index
            or self.reads.confirmed
            or self.snapshots
            or self.transferee
        )

    def _own_term(self, index: int) -> int:
        """Counting replicas commits entries of the leader's own term only (paper, 5.4.2).

        Older ones are committed with them; alone they could still be
        replaced although a majority has them (figure 8).
        """
        return index if index >= self.first_index else 0

    def _next_guess(self, message: Message) -> int:
        """Where to go on after a rejection, from the follower's guess.

        What the follower knows to be committed is certain to match. It also
        bounds the search where this log has left the memory.
        """
        log = self._log
        index, _ = log.find_conflict_by_term(min(message.hint, log.last_index), message.log_term)
        if index >= log.base_index:
            return max(index, message.commit) + 1
        return message.commit + 1

    # Replication

    def send_appends(
        self, commit: int, run: Run, messages: list[Message], fetches: list[Fetch]
    ) -> None:
        """Sends to every peer what it lacks and what its window allows.

        `run` is what goes to the leader's own disk now; usually the peers
        need exactly that, and then the bytes are shared.
        """
        log, config, term = self._log, self._config, self.term
        last = log.last_index
        if self.transferee:
            self._hand_over(last, messages)
        limit, most_bytes = config.append_limit_bytes, config.bytes_in_flight
        context = self.reads.context
        if len(run[1]) > limit:
            run = NO_RUN
        for peer in self._peers.values():
            while (
                peer.next <= last
                and len(peer.in_flight) < peer.window
                and peer.bytes_in_flight < most_bytes
                and not peer.fetching
            ):
                first = peer.next
                if first <= log.base_index:
                    peer.fetching = first
                    fetches.append(Fetch(peer.replica_id, first, limit))
                    break
                if first != run[0]:
                    run = (first, *log.slice(first, last, limit))
                messages.append(
                    Message(
                        APPEND,
                        config.gid,
                        config.replica_id,
                        peer.replica_id,
                        term,
                        first - 1,
                        log.term(first - 1),
                        commit,
                        context,
                        0,
                        False,
                        run[1],
                    )
                )
                peer.sent(run[2], len(run[1]), self._tick)

    def fetched(
        self, replica_id: int, first_index: int, prev_term: int, blob: bytes, commit: int
    ) -> Message | None:
        """Entries from disk for a peer; None if it no longer waits for them.

        What is not in memory is applied, thus committed: it is still the
        leader's log, whatever happened since it was asked for.
        """
        peer = self._peers.get(replica_id)
        if peer is None or peer.fetching != first_index:
            return None
        peer.fetching = 0
        if peer.next != first_index:
            return None
        count = entries.check_entries(blob)
        if not count:
            peer.pause(self._tick)
            return None
        peer.sent(first_index + count - 1, len(blob), self._tick)
        return Message(
            kind=APPEND,
            gid=self._config.gid,
            sender=self._config.replica_id,
            to=replica_id,
            term=self.term,
            index=first_index - 1,
            log_term=prev_term,
            commit=commit,
            context=self.reads.context,
            entries=blob,
        )

    def fetch_failed(self, replica_id: int, compacted: bool) -> None:
        """The disk did not have the entries, for now or, if `compacted`, for ever."""
        peer = self._peers.get(replica_id)
        if peer is None or not peer.fetching:
            return
        if compacted:
            self._need_snapshot(peer)
        else:
            peer.pause(self._tick)

    def unreachable(self, replica_id: int) -> None:
        """What was sent to the peer may be lost: wait until it answers a heartbeat.

        If leadership is handed to it, it may never have heard of that: better to hand it to
        another one than to refuse proposals for an election timeout.
        """
        peer = self._peers.get(replica_id)
        if peer is not None:
            peer.pause(LONG_AGO)
        if replica_id == self.transferee:
            self.transferee = 0

    # Reads of followers

    def read_for(self, message: Message, ticket: int) -> None:
        """A follower asks for a read position; more than it can have open is ignored."""
        open_reads = [m for m in self.remote_reads.values() if m.sender == message.sender]
        if len(open_reads) < READS_OPEN:
            self.remote_reads[ticket] = message
            self.reads.ask(ticket)

    def answer_reads(
        self, confirmed: Sequence[tuple[int, int]], messages: list[Message]
    ) -> list[tuple[int, int]]:
        """Tells followers the positions that they asked for; returns those of this replica."""
        own = []
        for ticket, index in confirmed:
            asked = self.remote_reads.pop(ticket, None)
            if asked is None:
                own.append((ticket, index))
                continue
            messages.append(
                Message(
                    kind=READ_INDEX_REPLY,
                    gid=self._config.gid,
                    sender=self._config.replica_id,
                    to=asked.sender,
                    term=self.term,
                    index=index,
                    context=asked.context,
                )
            )
        return own

    def lost_reads(self) -> list[int]:
        """The leadership is over: the tickets of this replica that were not told of."""
        return [ticket for ticket in self.reads.drop() if ticket not in self.remote_reads]

    # Snapshots

    def _need_snapshot(self, peer: Progress) -> None:
        peer.begin_snapshot()
        self.snapshots.append(peer.replica_id)

    def offer_snapshot(
        self, replica_id: int, index: int, log_term: int, metadata: bytes
    ) -> Message | None:
        """The offer of a snapshot up to `index`; None if the peer does not need one any more."""
        peer = self._peers.get(replica_id)
        if peer is None or not peer.snapshotting:
            return None
        peer.snapshot_index = index
        return Message(
            kind=SNAPSHOT,
            gid=self._config.gid,
            sender=self._config.replica_id,
            to=replica_id,
            term=self.term,
            index=index,
            log_term=log_term,
            entries=metadata,
        )

    def snapshot_done(self, replica_id: int, index: int) -> None:
        """The peer should have a snapshot up to `index`: ask it behind that."""
        peer = self._peers.get(replica_id)
        if peer is not None and peer.snapshotting:
            peer.end_snapshot(min(index + 1, self._log.last_index))

    def snapshot_failed(self, replica_id: int) -> None:
        """Try again after a while, if the peer is alive."""
        peer = self._peers.get(replica_id)
        if peer is not None and peer.snapshotting:
            peer.end_snapshot(0)
            peer.pause(self._tick)

    # Handing leadership over

    def transfer(self, replica_id: int) -> None:
        """Hands leadership to a voter, within an election timeout or not at all.

        It is brought up to date first and then told to campaign; a campaign
        that the leader asked for disturbs nobody, so it needs no pre-vote and
        is not refused by those who hear the leader (dissertation, section 3.10).
        Raises `TransferRefused`.
        """
        if replica_id not in self._conf.voters:
            raise TransferRefused(f"replica {replica_id} is no voter: {describe(self._conf)}")
        peer = self._peers[replica_id]
        if peer.probing or peer.match < self._log.base_index:
            raise TransferRefused(
                f"replica {replica_id} is too far behind: it has {peer.match} of"
                f" {self._log.last_index}"
            )
        if replica_id != self.transferee:
            self.transferee = replica_id
            self._transfer_ends = self._tick + self._config.election_ticks
            self._transfer_told = False

    def _hand_over(self, last: int, messages: list[Message]) -> None:
        """Once the target has everything up to `last`, tells it to campaign, once."""
        if self._transfer_told or self._peers[self.transferee].match < last:
            return
        self._transfer_told = True
        config = self._config
        messages.append(
            Message(TIMEOUT_NOW, config.gid, config.replica_id, self.transferee, self.term)
        )

    # Heartbeats

    def tick(self, commit: int, messages: list[Message]) -> None:
        """One tick passes; a heartbeat is due every `heartbeat_ticks`."""
        self._tick += 1
        if self.transferee and self._tick >= self._transfer_ends:
            self.transferee = 0
        if self._tick % self._config.heartbeat_ticks == 0:
            self.send_heartbeats(commit, messages)

    def send_heartbeats(self, commit: int, messages: list[Message]) -> None:
        """Tells every peer who leads and, as far as it is known to match, what is committed.

        A heartbeat does not check where the logs agree, so it must not name
        a commit index beyond `match`: above, the peer may have other entries.
        """
        config = self._config
        messages += [
            Message(
                kind=HEARTBEAT,
                gid=config.gid,
                sender=config.replica_id,
                to=peer.replica_id,
                term=self.term,
                commit=min(commit, peer.match),
                context=self.reads.context,
            )
            for peer in self._peers.values()
        ]

    def heartbeat_reply(self, message: Message) -> None:
        """The peer is alive; an append that it has not answered for long was lost."""
        peer = self._peers[message.sender]
        peer.active = True
        self.reads.answered(message.sender, message.context)
        if peer.in_flight and self._tick - peer.waiting_since >= self._config.election_ticks:
            peer.restart()

    def quorum_active(self) -> bool:
        """Whether a majority was heard of since the last call (check-quorum).

        A leader that is cut off must stop to lead, or its clients would wait
        for it forever (dissertation, section 6.2).
        """
        votes = {replica_id: peer.active for replica_id, peer in self._peers.items()}
        votes[self._config.replica_id] = True
        for peer in self._peers.values():
            peer.active = False
        conf = self._conf
        return vote_result(conf.voters, votes, conf.outgoing) is VoteResult.WON

    def peers(self) -> Iterable[PeerStatus]:
        """What is known of each peer."""
        for peer in self._peers.values():
            yield PeerStatus(
                replica_id=peer.replica_id,
                match_index=peer.match,
                next_index=peer.next,
                state=peer.state,
                appends_in_flight=len(peer.in_flight),
                bytes_in_flight=peer.bytes_in_flight,
                active=peer.active,
            )
