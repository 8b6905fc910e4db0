"""A node's settings: TOML files, flags, and what is wrong with them."""

from dataclasses import fields

import pytest

from eraft.cli import config, serve
from eraft.errors import ConfigError
from eraft.node.options import NodeOptions


@pytest.fixture
def toml(tmp_path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "node.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_every_setting_has_help_and_a_known_kind():
    names = [field.name for field in fields(NodeOptions)]
    assert list(config.HELP) == names
    assert {config.KINDS[name] for name in names} <= set(config.EXPECTED)


def test_the_file_sets_and_the_rest_is_default(toml):
    path = toml('data_dir = "/d"\nclient = "127.0.0.1:7001"\nsegment_size_bytes = 4194304\n')
    options = config.load(path, {})
    assert options == NodeOptions("/d", client="127.0.0.1:7001", segment_size_bytes=4194304)


def test_flags_win_over_the_file(toml):
    path = toml('data_dir = "/d"\nclient = "127.0.0.1:7001"\npeer = "127.0.0.1:7002"\n')
    options = config.load(path, {"client": "127.0.0.1:9", "data_dir": "/e"})
    assert (options.data_dir, options.client, options.peer) == (
        "/e",
        "127.0.0.1:9",
        "127.0.0.1:7002",
    )


def test_a_whole_number_is_a_number(toml):
    options = config.load(toml('data_dir = "/d"\ntick_s = 1\n'), {})
    assert options.tick_s == 1.0
    assert type(options.tick_s) is float


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "cleint = 1",
            "unknown key 'cleint' (did you mean 'client'?); known keys: data_dir, client",
        ),
        ("[server]\nport = 1", "unknown key 'server'"),
        ("client = 6379", "client = 6379 is not a string"),
        ('election_ticks = "10"', "election_ticks = '10' is not a whole number"),
        ("election_ticks = 1.5", "election_ticks = 1.5 is not a whole number"),
        ("election_ticks = true", "election_ticks = True is not a whole number"),
        ('tick_s = "fast"', "tick_s = 'fast' is not a number"),
        ("client", "this is not TOML"),
        (b'client = "\xff"', "this is not TOML"),
        ("client = '127.0.0.1:1'", "data_dir is missing"),
        ("data_dir = ''", "data_dir is missing"),
        ("data_dir = 'd'\nclient = 'here'", "client: 'here' is not host:port"),
        ("data_dir = 'd'\npeer = '1.2.3.4:99999'", "peer: '1.2.3.4:99999': a port is"),
        ("data_dir = 'd'\nadvertise_peer = '1.2.3.4:0'", "advertise_peer: '1.2.3.4:0': a port is"),
        ("data_dir = 'd'\nclient = ''", "client: '' is not host:port"),
        ("data_dir = 'd'\nclient = '[::1]:1'\npeer = '::1:1'", "peer: '::1:1': write an IPv6"),
        ("data_dir = 'd'\nclient = 'h:1'\nadmin = 'h:1'", "admin: h:1 is the client address too"),
        ("data_dir = 'd'\ntick_s = -0.5", "tick_s: -0.5 is not a positive number"),
        ("data_dir = 'd'\ntick_s = nan", "tick_s: nan is not a positive number"),
        ("data_dir = 'd'\nconnections = 0", "connections: 0 is not a positive number"),
        ("data_dir = 'd'\nelection_ticks = 2", "election_ticks: 2 is not above heartbeat_ticks, 2"),
        ("data_dir = 'd'\nsegment_size_bytes = 512", "segment_size_bytes: 512 is below"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_key(toml, text, complaint):
    path = toml(text)
    with pytest.raises(ConfigError) as raised:
        config.load(path, {})
    assert str(raised.value).startswith(f"{path}: ")
    assert complaint in str(raised.value)


def test_a_wrong_flag_is_named_as_a_flag(toml):
    with pytest.raises(ConfigError, match="^--segment-size-bytes: 5 is below"):
        config.load(toml("data_dir = 'd'"), {"segment_size_bytes": 5})
    with pytest.raises(ConfigError, match="^--data-dir is missing"):
        config.load(None, {})


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        config.load(str(tmp_path / "absent.toml"), {})


def test_serve_refuses_a_wrong_file_with_status_2(cli, toml):
    path = toml("cleint = 1")
    result = cli("serve", "--config", path)
    assert result.status == 2
    assert result.err.startswith(f"eraft: {path}: unknown key 'cleint'")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_loopback_is_not_warned_of(caplog, host):
    serve.warn_exposed(NodeOptions("d", client=f"{host}:1", peer=f"{host}:2", admin=f"{host}:3"))
    assert not caplog.messages


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "[::]", "example.org"])
def test_every_exposed_address_is_warned_of(caplog, host):
    serve.warn_exposed(NodeOptions("d", client=f"{host}:1", admin=f"{host}:0"))
    assert [message.partition(" is not")[0] for message in caplog.messages] == [
        f"the client address {host}:1",
        f"the admin address {host}:0",
    ]
