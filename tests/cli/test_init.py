"""`eraft init`: a directory is formatted once, for one node."""

import json

import pytest

from eraft.storage.directory import open_directory

SMALL = ("--segment-size-bytes", 1 << 20)


def init(cli, path, *extra, metaserver="1=127.0.0.1:7001,2=127.0.0.1:7002", node=1):
    identity = ("--cluster-id", "c", "--node-id", node, "--metaserver", metaserver)
    return cli("init", "--data-dir", path, *identity, *SMALL, *extra)


def test_it_formats_a_directory_that_can_be_opened(cli, tmp_path):
    result = init(cli, tmp_path / "n1")
    assert (result.status, result.err) == (0, "")
    with open_directory(str(tmp_path / "n1")) as directory:
        assert (directory.identity.cluster_id, directory.identity.node_id) == ("c", 1)
        assert directory.identity.metaserver == {1: "127.0.0.1:7001", 2: "127.0.0.1:7002"}
        assert directory.identity.store_id in result.out


def test_its_json_is_the_identity(cli, tmp_path):
    identity = json.loads(init(cli, tmp_path / "n1", "--json").out)
    assert identity["cluster_id"] == "c"
    assert identity["metaserver"] == {"1": "127.0.0.1:7001", "2": "127.0.0.1:7002"}


def test_the_founding_list_may_be_written_in_any_order(cli, tmp_path):
    init(cli, tmp_path / "n1", metaserver="2=127.0.0.1:7002, 1=127.0.0.1:7001")
    with open_directory(str(tmp_path / "n1")) as directory:
        assert list(directory.identity.metaserver) == [1, 2]


def test_two_directories_are_two_stores(cli, tmp_path):
    ids = {json.loads(init(cli, tmp_path / n, "--json").out)["store_id"] for n in "ab"}
    assert len(ids) == 2


def test_a_directory_is_not_formatted_twice(cli, tmp_path):
    init(cli, tmp_path / "n1")
    before = (tmp_path / "n1" / "identity.json").read_bytes()
    result = init(cli, tmp_path / "n1")
    assert result.status == 2
    assert f"{tmp_path / 'n1'}: the directory is not empty" in result.err
    assert (tmp_path / "n1" / "identity.json").read_bytes() == before


@pytest.mark.parametrize(
    ("metaserver", "complaint"),
    [
        ("", "--metaserver: '' is not ID=HOST:PEERPORT"),
        ("127.0.0.1:7001", "'127.0.0.1:7001' is not ID=HOST:PEERPORT"),
        ("one=127.0.0.1:7001", "'one=127.0.0.1:7001' is not ID=HOST:PEERPORT"),
        ("1=127.0.0.1", "node 1: '127.0.0.1' is not host:port"),
        ("1=127.0.0.1:0", "node 1: '127.0.0.1:0': a port is"),
        ("1=127.0.0.1:7001,1=127.0.0.1:7002", "node 1 is there twice"),
        ("1=127.0.0.1:7001,2=127.0.0.1:7001", "127.0.0.1:7001 is there twice"),
    ],
)
def test_a_wrong_founding_list_is_named_and_nothing_is_made(cli, tmp_path, metaserver, complaint):
    result = init(cli, tmp_path / "n1", metaserver=metaserver)
    assert result.status == 2
    assert complaint in result.err
    assert not (tmp_path / "n1").exists()
