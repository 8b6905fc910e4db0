"""Every limit of eraft, by name.

Sizes are in bytes, times in seconds unless the name says otherwise. A limit
that an operator may change is a default here and a field of the node's
configuration.
"""

KIB = 1024
MIB = 1024 * KIB

COUNT_LIMIT = 1 << 62  # of versions, ids, rows: counting on from below stays within their fields

# Clients
VALUE_SIZE_BYTES = 8 * MIB
KEY_SIZE_BYTES = 64 * KIB
COMMAND_SIZE_BYTES = 32 * MIB
COMMAND_ARGS = 128 * 1024
INLINE_SIZE_BYTES = 64 * KIB
CLIENT_CONNECTIONS = 12_000
RESERVED_FILES = 640  # for the database, the log, peers and operators
CLIENT_OUTPUT_BYTES = 64 * MIB
REPLY_PIECE_BYTES = 8 * MIB
CLIENT_SLOTS = 16 * 1024
RECEIVE_BUFFER_BYTES = 256 * KIB
SCAN_COUNT = 10_000
CONFIG_PATTERNS = 64
PATTERN_SIZE_BYTES = 1 * KIB

# Times that a client sees
HOLD_NO_LEADER_S = 1.5
ANSWER_DEADLINE_S = 2.5
LEAD_STALE_S = 3.0

# Proposals and the log
ENTRY_TARGET_BYTES = 1 * MIB
ENTRY_SIZE_BYTES = 40 * MIB
PROPOSALS_PENDING = 4 * 1024
LANES = 255
LOG_TAIL_BYTES = 64 * MIB
APPEND_SIZE_BYTES = 1 * MIB
APPENDS_IN_FLIGHT = 2
APPEND_BYTES_IN_FLIGHT = 4 * MIB
UNCOMMITTED_BYTES = 64 * MIB
CONF_MEMBERS = 64
CONF_CHANGES = 64
CONF_CONTEXT_BYTES = 64 * KIB
SEGMENT_SIZE_BYTES = 64 * MIB
LOG_RETENTION_BYTES = 1024 * MIB
FLUSH_LOG_BYTES = 64 * MIB  # logged since the last flush: what a restart reads again
FLUSH_INTERVAL_S = 600.0
FLUSH_IN_TIME_S = 10.0  # after the last one, to give back what deleted state takes on disk
COMPACTION_SLICE_GROUPS = 256  # looked at for one record, to free old segments
COMPACTION_SLICE_BYTES = 256 * KIB  # of entries read for that
COMPACTION_SLICE_ROWS = 8  # of the log's index, each of which can be spread over 1 MiB
COPIED_SHARE = 4  # that part of the retention may be copies of what stuck groups still need
FREE_DISK_BYTES = 256 * MIB

# Hosts with their own state machine
HOSTED_PAYLOAD_BYTES = 32 * MIB

# Snapshots
SNAPSHOT_CHUNK_BYTES = 256 * KIB
SNAPSHOT_CHUNK_LIMIT_BYTES = 40 * MIB  # a row is in one chunk, whatever its size
SNAPSHOT_WINDOW_BYTES = 1 * MIB  # on their way to the receiver
SNAPSHOT_SLICE_ROWS = 512  # read in one turn, less than 1 ms
SNAPSHOT_BYTES_PER_S = 32 * MIB
SNAPSHOT_BURST_S = 0.1
SNAPSHOT_OFFER_S = 1.0
SNAPSHOT_RETRY_S = 0.5
SNAPSHOT_SILENT_S = 10.0  # until the sender lets go of a snapshot that nobody asks for
SNAPSHOT_KEEP_S = 30.0  # until the receiver drops one that does not come forward
SNAPSHOT_REFUSALS = 16  # chunks in a row

# Peers
PEER_FRAME_BYTES = 48 * MIB
PEER_FRAME_TARGET_BYTES = 4 * MIB
MESSAGE_HEADER_BYTES = 128
PEER_OUTPUT_BYTES = 64 * MIB
PEER_BULK_BYTES = 256 * KIB
PEER_GREETING_BYTES = 16 * KIB
PEER_GREETING_S = 2.0
PEER_STRANGERS = 64

# Admin
ADMIN_CONNECTIONS = 64
ADMIN_COMMAND_BYTES = 1 * MIB

# The config table
TABLE_SIZE_BYTES = 8 * MIB
TABLE_NODES = 4 * 1024
TABLE_GROUPS = 4 * 1024
TABLE_REMOVED_NODES = 64 * 1024
GROUP_REPLICAS = 7
GROUP_LEAVING = 7
PROMOTE_WITHIN_ENTRIES = 128  # of the leader's log, before a learner becomes a voter
RECONCILE_TRANSFERS = 3  # tries to hand over before a leader removes itself
GROUP_WEIGHT = 1_000_000
NAME_CHARS = 64
HOST_CHARS = 255
TABLE_FULL_EVERY = 64
TABLE_UPDATE_DIFFS = 64
TABLE_UPDATE_BYTES = 1 * MIB
META_REQUEST_BYTES = 64 * KIB
META_REQUESTS_REMEMBERED = 4 * 1024

# Clocks
TICK_S = 0.05
ELECTION_TICKS = 10
HEARTBEAT_TICKS = 2
CLOCK_AHEAD_MS = 500
LEADS_INTERVAL_S = 1.0
BALANCE_INTERVAL_S = 10.0  # a node hands over one group in that time at most
HAND_OVER_S = 2.0  # what a stop waits for others to lead
SHUT_DOWN_S = 10.0  # what it waits for the disk after that

# Work per turn of the event loop
JOB_SLICES = 16
KEY_COUNT_PAUSE_S = 0.0001  # for each key: about a hundred times what it takes to count it
CLIENT_COMMANDS = 1024  # beside the plain ones, of one connection
ROW_CACHE_BYTES = 24 * MIB
CACHED_ROW_BYTES = 16 * KIB
WRITE_BEHIND_S = 0.5  # for so long few rows wait for more: each costs less in a larger batch
WRITE_MEANWHILE_ROWS = 1024
WRITE_BEHIND_ROWS = 2048
WRITE_BEHIND_BYTES = 4 * MIB
OVERLAY_ROWS = 64 * 1024  # in one batch they hold up the event loop for 0.15 s
OVERLAY_BYTES = 64 * MIB
EXPIRE_BATCH = 1024
APPLY_SLICE_BYTES = 1 * MIB

# Comparing the replicas of a group
CHECK_TICKS = 100
CHECK_QUIET_INTERVALS = 60  # while nothing happens in a group
DIGEST_DISPUTES = 3  # checks without a majority, while some replica may still decide

# Between a node and the metaserver
TABLE_REQUEST_INTERVAL_S = 0.5
REGISTER_AGAIN_S = 5.0  # after a refusal, which is an entry of the metaserver's log too
META_REQUESTS = 256
META_REQUEST_S = 10.0
META_RESEND_S = 0.3

# Dialling a peer
DIAL_FIRST_DELAY_S = 0.05
DIAL_LAST_DELAY_S = 1.0
DIAL_TIMEOUT_S = 2.0
PEER_UNACKED_S = 3.0
KEEPALIVE_S = 60
DISK_CHECK_INTERVAL_S = 1.0
