"""Local commands by their reply values."""

import pytest

from eraft import limits
from eraft._impl import resp
from eraft.node import local
from eraft.node.session import ReplyMode, Session
from eraft.shardkv.cluster import node_name
from eraft.shardkv.specs import COMMANDS, Kind

from .local_context import LAST, Context, Do, execute


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture
def session(context: Context) -> Session:
    return context.connect()


@pytest.fixture
def do(context: Context, session: Session) -> Do:
    """Executes a command, given as one string split at blanks, as the node would."""
    return lambda line: execute(context, session, line)


def error(text: str) -> resp.ReplyError:
    return resp.ReplyError(text.encode())


def lines(text: bytes, sep: str = "=", of: str = " ") -> dict[str, str]:
    pairs = text.decode().strip().split(of)
    return dict(pair.split(sep, 1) for pair in pairs)


def test_every_local_command_is_there_and_no_other() -> None:
    wanted = set()
    for spec in COMMANDS.values():
        for one in (spec, *spec.subcommands):
            if one.kind is Kind.LOCAL:
                wanted.add(one.name)
    bare = {name for name in wanted if COMMANDS.get(name) and COMMANDS[name].subcommands}
    assert set(local.HANDLERS) == wanted - bare | {b"COMMAND"}


# The connection


def test_ping_echo_quit(do: Do, session: Session) -> None:
    assert do("PING") == b"PONG"
    assert isinstance(do("ping"), resp.Simple)
    assert do("PING x") == b"x"
    assert type(do("PING x")) is bytes
    assert do("PING a b") == error("ERR wrong number of arguments for 'ping' command")
    assert do("ECHO x") == b"x"
    assert not session.closing
    assert do("QUIT") == resp.OK
    assert session.closing


@pytest.mark.parametrize(
    ("number", "reply"),
    [
        ("0", "OK"),
        ("1", "ERR SELECT is not allowed in cluster mode"),
        ("-1", "ERR SELECT is not allowed in cluster mode"),
        ("00", "ERR value is not an integer or out of range"),
        ("x", "ERR value is not an integer or out of range"),
    ],
)
def test_select(do: Do, number: str, reply: str) -> None:
    assert do(f"SELECT {number}") == reply.encode()


def test_hello(do: Do, session: Session) -> None:
    first = do("HELLO")
    assert first[b"proto"] == 2
    reply = do("HELLO 3 AUTH default anything SETNAME me")
    assert reply == {
        b"server": b"redis",
        b"version": b"7.0.15",
        b"proto": 3,
        b"id": session.id,
        b"mode": b"cluster",
        b"role": b"replica",
        b"modules": [],
    }
    assert list(reply) == list(first)
    assert (session.protocol, session.name) == (3, b"me")
    assert do("HELLO")[b"proto"] == 3
    assert do("HELLO 2")[b"proto"] == 2
    assert session.protocol == 2


def test_hello_names_the_role(context: Context, do: Do) -> None:
    context.router.note_lead(1, 2, 1, 1000.0)
    assert do("HELLO 3")[b"role"] == b"master"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        ("HELLO 1", "NOPROTO unsupported protocol version"),
        ("HELLO x", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 03", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 3 AUTH default", "ERR Syntax error in HELLO option 'AUTH'"),
        ("HELLO 3 auth x y", "WRONGPASS invalid username-password pair or user is disabled."),
        ("HELLO 3 SETNAME", "ERR Syntax error in HELLO option 'SETNAME'"),
        ("HELLO 3 SETNAME a BAR", "ERR Syntax error in HELLO option 'BAR'"),
    ],
)
def test_hello_refused(do: Do, session: Session, line: str, text: str) -> None:
    assert do(line) == error(text)
    assert session.protocol == 2


def test_reset(do: Do, session: Session) -> None:
    do("HELLO 3 SETNAME me")
    do("READONLY")
    do("CLIENT REPLY OFF")
    assert do("RESET") == resp.Simple(b"RESET")
    assert (session.protocol, session.name, session.readonly) == (2, b"", False)
    assert session.reply_mode is ReplyMode.ON


def test_readonly(do: Do, session: Session) -> None:
    assert do("READONLY") == resp.OK
    assert session.readonly
    assert do("ASKING") == resp.OK
    assert session.readonly
    assert do("READWRITE") == resp.OK
    assert not session.readonly


# CLIENT


def test_client_names(do: Do, session: Session) -> None:
    bad = error("ERR Client names cannot contain spaces, newlines or special characters.")
    assert do("CLIENT GETNAME") is None
    assert do("CLIENT SETNAME a@b") == resp.OK
    assert do([b"CLIENT", b"SETNAME", b"a b"]) == bad
    assert do([b"HELLO", b"3", b"SETNAME", b"a\nb"]) == bad
    assert do("CLIENT GETNAME") == b"a@b"
    assert do([b"CLIENT", b"SETNAME", b""]) == resp.OK
    assert do("CLIENT GETNAME") is None
    assert do("CLIENT ID") == session.id


def test_client_setinfo(do: Do, session: Session) -> None:
    assert do("CLIENT SETINFO lib-name redis-py") == resp.OK
    assert do("CLIENT SETINFO LIB-VER 8.1") == resp.OK
    assert (session.lib_name, session.lib_ver) == (b"redis-py", b"8.1")
    assert do("CLIENT SETINFO foo x") == error("ERR Unrecognized option 'foo'")
    assert do([b"CLIENT", b"SETINFO", b"LIB-NAME", b"a b"]) == error(
        "ERR lib-name cannot contain spaces, newlines or special characters."
    )


def test_client_info(do: Do, session: Session) -> None:
    do("CLIENT SETNAME me")
    do("CLIENT SETINFO LIB-VER 8.1")
    text = do("CLIENT INFO")
    assert isinstance(text, resp.Verbatim)
    assert text.endswith(b"\n")
    found = lines(text)
    assert found["id"] == "1"
    assert (found["addr"], found["laddr"], found["name"]) == ("10.0.0.9:5000", "l:1", "me")
    assert (found["age"], found["idle"], found["flags"]) == ("10", "0", "N")
    assert (found["cmd"], found["user"], found["resp"]) == ("client|info", "default", "2")
    assert (found["lib-name"], found["lib-ver"]) == ("", "8.1")
    session.readonly = True
    assert lines(do("CLIENT INFO"))["flags"] == "r"


def test_client_list(do: Do, context: Context) -> None:
    context.connect("[::1]:3")
    text = do("CLIENT LIST")
    assert [lines(line)["addr"] for line in text.splitlines()] == ["10.0.0.9:5000", "[::1]:3"]
    assert do("CLIENT LIST TYPE normal") == text
    assert do("CLIENT LIST TYPE replica") == b""
    assert lines(do("CLIENT LIST ID 9 2 -1"))["cmd"] == "NULL"
    assert do("CLIENT LIST ID a") == error("ERR Invalid client ID")
    assert do("CLIENT LIST TYPE x") == error("ERR Unknown client type 'x'")
    assert do("CLIENT LIST ID") == error("ERR syntax error")


def test_client_reply(do: Do, session: Session) -> None:
    for line, mode, reply in [
        ("CLIENT REPLY SKIP", ReplyMode.SKIP, local.SILENT),
        ("CLIENT REPLY ON", ReplyMode.ON, resp.OK),
        ("CLIENT REPLY off", ReplyMode.OFF, local.SILENT),
        ("CLIENT REPLY SKIP", ReplyMode.OFF, local.SILENT),
        ("CLIENT REPLY x", ReplyMode.OFF, error("ERR syntax error")),
        ("CLIENT REPLY ON", ReplyMode.ON, resp.OK),
    ]:
        assert do(line) == reply
        assert session.reply_mode is mode


@pytest.fixture
def crowd(context: Context, session: Session) -> list[Session]:
    """Connections 1 (the one that acts) to 4; 3 and 4 have the same address."""
    return [session, *(context.connect(addr) for addr in ("a:1", "b:1", "b:1"))]


@pytest.mark.parametrize(
    ("line", "killed", "closing"),
    [
        ("TYPE normal", [2, 3, 4], False),
        ("TYPE NORMAL SKIPME yes", [2, 3, 4], False),
        ("TYPE normal SKIPME no", [2, 3, 4], True),
        ("SKIPME yes", [2, 3, 4], False),
        ("TYPE replica", [], False),
        ("ID 2", [2], False),
        ("ID 1", [], False),
        ("ID 1 SKIPME no", [], True),
        ("ID 99", [], False),
        ("ADDR b:1", [3, 4], False),
        ("ADDR b:1 ID 3", [3], False),
        ("LADDR l:1 USER default", [2, 3, 4], False),
        ("LADDR x:1", [], False),
    ],
)
def test_client_kill(
    do: Do, context: Context, crowd: list[Session], line: str, killed: list[int], closing: bool
) -> None:
    assert do(f"CLIENT KILL {line}") == len(killed) + closing
    assert context.killed == killed
    assert crowd[0].closing == closing


def test_client_kill_by_address_alone(do: Do, context: Context, crowd: list[Session]) -> None:
    assert do("CLIENT KILL b:1") == resp.OK
    assert context.killed == [3, 4]
    assert do("CLIENT KILL x:1") == error("ERR No such client")
    assert do("CLIENT KILL 10.0.0.9:5000") == resp.OK
    assert crowd[0].closing


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("ID 0", "client-id should be greater than 0"),
        ("ID x", "client-id should be greater than 0"),
        ("TYPE x", "Unknown client type 'x'"),
        ("USER x", "No such user 'x'"),
        ("SKIPME maybe", "syntax error"),
        ("ID 3 FOO", "syntax error"),
        ("FOO bar", "syntax error"),
    ],
)
def test_client_kill_refused(
    do: Do, context: Context, crowd: list[Session], line: str, text: str
) -> None:
    assert do(f"CLIENT KILL {line}") == error(f"ERR {text}")
    assert context.killed == []
    assert not crowd[0].closing


# COMMAND


def test_command_lists_every_command(do: Do) -> None:
    entries = do("COMMAND")
    assert [entry[0] for entry in entries] == [name.lower() for name in COMMANDS]
    assert all(len(entry) == 10 for entry in entries)
    assert do("COMMAND INFO") == entries
    assert do("COMMAND COUNT") == len(entries)
    assert do("COMMAND LIST") == [entry[0] for entry in entries]
    assert list(do("COMMAND DOCS")) == do("COMMAND LIST")


def test_command_info(do: Do) -> None:
    (mget, nothing, kill) = do("COMMAND INFO mget nosuch CLIENT|KILL")
    assert nothing is None
    assert mget[:6] == [b"mget", -2, [b"readonly", b"fast"], 1, -1, 1]
    assert mget[6:8] == [[b"@read", b"@string", b"@fast"], [b"request_policy:multi_shard"]]
    assert mget[8] == [
        {
            b"flags": [b"RO", b"access"],
            b"begin_search": {b"type": b"index", b"spec": {b"index": 1}},
            b"find_keys": {
                b"type": b"range",
                b"spec": {b"lastkey": -1, b"keystep": 1, b"limit": 0},
            },
        }
    ]
    assert kill[0] == b"client|kill"


def test_command_docs_and_list(do: Do) -> None:
    docs = do("COMMAND DOCS get client nosuch")
    assert list(docs) == [b"get", b"client"]
    assert set(docs[b"get"]) == {b"summary", b"since", b"group"}
    assert b"client|kill" in docs[b"client"][b"subcommands"]
    assert do("COMMAND LIST FILTERBY PATTERN client|l*") == [b"client|list"]
    assert do("COMMAND LIST FILTERBY MODULE x") == []
    assert do("COMMAND LIST FILTERBY ACLCAT nosuch") == []
    assert b"get" in do("COMMAND LIST FILTERBY ACLCAT STRING")
    long = b"x" * (limits.PATTERN_SIZE_BYTES + 1)
    assert do([b"COMMAND", b"LIST", b"FILTERBY", b"PATTERN", long]) == error("ERR syntax error")


# CONFIG, INFO, TIME


def test_config_get(do: Do) -> None:
    assert do("CONFIG GET save") == {b"save": b""}
    assert do("CONFIG GET SAVE sa?e a*") == {b"SAVE": b"", b"appendonly": b"yes"}
    assert do("CONFIG GET nosuch") == {}
    too_many = error("ERR too many patterns, or too long ones")
    assert do(b"CONFIG GET ".split() + [b"a"] * (limits.CONFIG_PATTERNS + 1)) == too_many
    assert do([b"CONFIG", b"GET", b"*" * (limits.PATTERN_SIZE_BYTES + 1)]) == too_many


def test_config_set_changes_nothing(do: Do) -> None:
    failed = "ERR CONFIG SET failed (possibly related to argument '%s') - "
    assert do("CONFIG SET maxmemory 0") == resp.OK
    assert do("CONFIG SET maxmemory 1") == error(
        failed % "maxmemory" + "can't set immutable config"
    )
    assert do("CONFIG SET maxmemory 0 maxmemory 0") == error(
        failed % "maxmemory" + "duplicate parameter"
    )
    assert do("CONFIG SET nosuch 1") == error(
        "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'"
    )


def test_config_resetstat(do: Do, context: Context) -> None:
    assert do("CONFIG RESETSTAT") == resp.OK
    assert not context.command_calls


def test_time(do: Do) -> None:
    assert do("TIME") == [b"1700000000", b"123000"]


def sections(text: bytes) -> dict[str, dict[str, str]]:
    found = {}
    for section in text.decode().split("\r\n\r\n") if text else []:
        head, *body = section.removesuffix("\r\n").split("\r\n")
        assert head.startswith("# ")
        found[head[2:]] = dict(line.split(":", 1) for line in body)
    return found


def test_info(do: Do) -> None:
    text = do("INFO")
    assert isinstance(text, resp.Verbatim)
    assert b"\n" not in text.replace(b"\r\n", b"")
    found = sections(text)
    assert list(found) == [
        *("Server", "Clients", "Persistence", "Stats"),
        *("Replication", "Cluster", "Keyspace", "Eraft"),
    ]
    server = found["Server"]
    assert server["redis_version"] == "7.0.15"
    assert server["redis_mode"] == "cluster"
    assert (server["run_id"], server["process_id"]) == ("c" * 40, "4242")
    assert (server["tcp_port"], server["uptime_in_seconds"]) == ("7001", "100")
    assert found["Clients"]["connected_clients"] == "1"
    assert found["Persistence"]["loading"] == "0"
    assert found["Stats"] == {
        "total_commands_processed": "7",
        "total_connections_received": "7",
    }
    assert found["Replication"]["role"] == "slave"
    assert found["Cluster"] == {"cluster_enabled": "1"}
    assert found["Keyspace"] == {"db0": "keys=10,expires=3,avg_ttl=0"}
    assert (found["Eraft"]["node_id"], found["Eraft"]["table_version"]) == ("1", "3")
    assert found["Eraft"]["groups_led"] == "0"


def test_info_of_chosen_sections(do: Do, context: Context) -> None:
    assert do("INFO nosuch") == b""
    assert do("INFO CLUSTER") == b"# Cluster\r\ncluster_enabled:1\r\n"
    context.keyspace = (0, 0)
    assert do("INFO keyspace cluster") == b"# Cluster\r\ncluster_enabled:1\r\n\r\n# Keyspace\r\n"
    stats = {"cmdstat_client|id": "calls=2", "cmdstat_get": "calls=5"}
    assert sections(do("INFO commandstats"))["Commandstats"] == stats
    everything = set(sections(do("INFO everything")))
    assert everything == set(sections(do("INFO"))) | {"Commandstats"}
    assert set(sections(do("INFO default commandstats"))) == everything


# CLUSTER


def test_cluster(do: Do) -> None:
    assert do("CLUSTER KEYSLOT foo") == 12182
    assert do("CLUSTER KEYSLOT {foo}x") == 12182
    assert do("CLUSTER MYID") == node_name("demo", 1).encode()
    ((start, end, head, other),) = do("CLUSTER SLOTS")
    assert (start, end, head[1], other[1]) == (0, LAST, 7002, 7001)
    assert len(do("CLUSTER SHARDS")) == 1
    assert isinstance(do("CLUSTER NODES"), resp.Verbatim)
    assert do("CLUSTER NODES").count(b"\n") == 2
    assert do("CLUSTER INFO").startswith(b"cluster_state:ok\r\n")
    assert do("CLUSTER REPLICAS x") == error("ERR Unknown node x")
    (line,) = do("CLUSTER SLAVES " + node_name("demo", 2))
    assert b"myself,slave" in line
    assert do("CLUSTER LINKS")[0][b"node"] == node_name("demo", 2).encode()


@pytest.mark.parametrize("container", ["CLIENT", "CLUSTER", "COMMAND", "CONFIG"])
def test_help(do: Do, container: str) -> None:
    reply = do(f"{container} HELP")
    assert all(isinstance(line, resp.Simple) for line in reply)
    assert reply[0].startswith(container.encode() + b" <subcommand> ")
    named = {line for line in reply[1:] if not line.startswith(b" ")}
    names = {spec.name.partition(b"|")[2] for spec in COMMANDS[container.encode()].subcommands}
    assert named == names
    assert reply[-2:] == [b"HELP", b"    Describes the subcommands."]
