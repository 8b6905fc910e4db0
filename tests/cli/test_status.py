"""The report that `eraft status` puts together."""

import json

import pytest

from eraft.cli import status


def group(gid, role, term=3, commit=10, applied=9, **more):
    shard = {"buckets": 100 if role == "leader" else 0, "keys": 7} if gid else {}
    return {
        "gid": gid,
        "replica_id": 1,
        "role": role,
        "term": term,
        "leader": None,
        "commit": commit,
        "applied": applied,
        "last_index": commit,
        "log_size_bytes": 2048,
        **shard,
        **more,
    }


def node(node_id, *groups, quarantined=None):
    return {
        "node_id": node_id,
        "role": "master",
        "client": f"127.0.0.1:700{node_id}",
        "admin": f"127.0.0.1:900{node_id}",
        "table_version": 6,
        "uptime_s": 3725.2,
        "impl": "cython",
        "pid": 100 + node_id,
        "quarantined": quarantined,
        "groups": list(groups),
    }


DOWN = {"node_id": 3, "admin": "127.0.0.1:9003", "error": "127.0.0.1:9003: Connection refused"}


def report(*nodes, version=6):
    return {
        "table_version": version,
        "opened": None if version is None else True,
        "nodes": list(nodes),
        "groups": status.group_rows(list(nodes)),
    }


def test_the_leader_speaks_for_its_group():
    rows = status.group_rows(
        [node(1, group(1, "follower", commit=99)), node(2, group(1, "leader"))]
    )
    assert [(row["gid"], row["leader"], row["commit"], row["buckets"]) for row in rows] == [
        (1, 2, 10, 100)
    ]
    assert [replica["node_id"] for replica in rows[0]["replicas"]] == [1, 2]


def test_of_two_leaders_the_one_of_the_higher_term_speaks():
    rows = status.group_rows([node(1, group(1, "leader", term=9)), node(2, group(1, "leader"))])
    assert (rows[0]["leader"], rows[0]["term"]) == (1, 9)


def test_without_a_leader_the_furthest_replica_speaks():
    rows = status.group_rows(
        [node(1, group(1, "follower", commit=5)), node(2, group(1, "candidate", commit=8)), DOWN]
    )
    assert (rows[0]["leader"], rows[0]["commit"]) == (None, 8)


def test_it_reads_well():
    lines = status.describe(report(node(1, group(0, "leader"), group(1, "leader")), DOWN))
    text = "\n".join(lines)
    assert lines[:2] == [
        "!! node 3 DOES NOT ANSWER: 127.0.0.1:9003: Connection refused",
        "config table version 6, open",
    ]
    assert (
        "1     up     master  127.0.0.1:7001  127.0.0.1:9001  6      1h02m   cython  101" in lines
    )
    assert (
        "0 (metaserver)  node 1  3     10      9        2 KiB  -        -     1:leader@9" in lines
    )
    assert "3     DOWN" in text
    assert (
        "1               node 1  3     10      9        2 KiB  100      7     1:leader@9" in lines
    )
    assert lines[-1] == "100 of 16384 buckets owned"


def test_hosts_of_other_state_machines_have_no_buckets():
    hosted = group(1, "leader", buckets=None, keys=None)
    text = "\n".join(status.describe(report(node(1, group(0, "leader"), hosted))))
    assert "owned" not in text


def test_a_group_without_a_leader_is_seen():
    lines = status.describe(report(node(1, group(1, "follower"))))
    assert lines[0] == "!! group 1 HAS NO LEADER: its buckets are not served"
    assert any(line.startswith("1      NONE") for line in lines)
    assert lines[-1] == "0 of 16384 buckets owned"


def test_quarantine_comes_first_and_loud():
    lines = status.describe(report(node(1, quarantined="segment 3, offset 512: bad checksum")))
    assert lines[0] == "!! node 1 IS QUARANTINED: segment 3, offset 512: bad checksum"
    assert any("QUARANTINED" in line and "127.0.0.1:7001" in line for line in lines[3:])


def test_a_silent_metaserver_is_said():
    assert status.describe(report(node(1), version=None))[0].startswith(
        "!! the metaserver does not"
    )


def test_without_any_answer_it_fails(cli, tmp_path):
    result = cli("status", "--node", "127.0.0.1:1", "--json")
    assert (result.status, result.out) == (1, "")
    assert "no node answers: 127.0.0.1:1: Connection refused" in result.err


def test_it_asks_over_the_wire(cli, answering):
    body = json.dumps(node(1, group(1, "leader"))).encode()
    # The same bytes answer META QUERY; they are no config table, and the report does without.
    where = answering(b"$%d\r\n%b\r\n" % (len(body), body))
    found = json.loads(cli("status", "--node", where, "--json").out)
    assert found["metaserver"] == "does not answer"
    assert [(it["gid"], it["leader"]) for it in found["groups"]] == [(1, 1)]


def test_another_kind_of_server_is_named(cli, answering):
    where = answering(b"$2\r\n[]\r\n")
    result = cli("status", "--node", where)
    assert result.status == 1
    assert f"{where}: this is not the status of an eraft node" in result.err


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.9, "0s"), (61, "1m01s"), (3600, "1h00m"), (90000, "25h00m")]
)
def test_durations(seconds, shown):
    assert status.duration(seconds) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"), [(0, "0 B"), (2048, "2 KiB"), (5 * 1024 * 1024, "5.0 MiB")]
)
def test_sizes(size_bytes, shown):
    assert status.size(size_bytes) == shown


def test_what_is_under_way_in_a_group_is_shown():
    leader = group(
        1,
        "leader",
        voters=[1, 2, 4],
        outgoing=[1, 2, 3],
        learners=[5, 6],
        change="waits until the joint configuration is left",
        progress=[
            {"replica_id": 2, "node_id": 2, "match_index": 10, "state": "replicate"},
            {"replica_id": 5, "node_id": 5, "match_index": 7, "state": "replicate"},
            {"replica_id": 6, "node_id": 6, "match_index": 0, "state": "snapshot"},
        ],
    )
    lines = status.describe(report(node(1, leader)))
    assert lines[-6:-2] == [
        "group 1: joint configuration, from replicas 1 2 3 to 1 2 4",
        "group 1: replica 5 on node 5 is a learner: 7 of 10 entries",
        "group 1: replica 6 on node 6 is a learner: receives a snapshot",
        "group 1: the leader waits until the joint configuration is left",
    ]
