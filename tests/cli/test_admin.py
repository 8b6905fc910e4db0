"""The blocking RESP client: replies, refusals, and servers that are not what they should be."""

import socket

import pytest

from eraft.cli import admin
from eraft.cli.admin import Connection, Refused, Unreachable


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (b"+PONG\r\n", b"PONG"),
        (b":-42\r\n", -42),
        (b"$-1\r\n", None),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"*-1\r\n", None),
        (b"*3\r\n:1\r\n*1\r\n$1\r\nx\r\n+OK\r\n", [1, [b"x"], b"OK"]),
    ],
)
def test_replies(answering, answer, reply):
    with Connection(answering(answer)) as connection:
        assert connection.call("PING") == reply


def test_json(answering):
    assert admin.ask(answering(b'$8\r\n{"a": 1}\r\n'), "STATUS") == {"a": 1}


def test_an_error_reply_is_a_refusal_in_the_nodes_words(answering):
    with pytest.raises(Refused, match="^group 1 has already joined$"):
        admin.ask(answering(b"-ERR group 1 has already joined\r\n"), "META", "JOIN", 1, 2)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "closed without an answer"),
        (b"+PON", "closed in the middle"),
        (b"$5\r\nab", "closed in the middle"),
        (b"HTTP/1.1 400 Bad Request\r\n", "this is not RESP"),
        (b"$x\r\n", "this is not RESP"),
        (b"\r\n", "this is not RESP"),
        (b"$99999999999\r\n", "too large"),
        (b"*99999999999\r\n", "too large"),
        (b"+OK\r\n", "not a JSON reply"),
        (b"$3\r\n{a}\r\n", "not a JSON reply"),
        (b":1\r\n", "not a JSON reply"),
        (b"-ERR unknown command 'STATUS', with args beginning with: \r\n", "not an admin port"),
    ],
)
def test_what_is_no_answer_names_the_server(answering, answer, complaint):
    where = answering(answer)
    with pytest.raises(Unreachable) as raised:
        admin.ask(where, "STATUS")
    assert str(raised.value).startswith(f"{where}: ")
    assert complaint in str(raised.value)


def test_silence_ends_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Unreachable, match=f"{where}: no answer to STATUS in time"):
            admin.ask(where, "STATUS", answer_s=0.05)


def test_meta_and_status_print_refusals_with_status_1(cli, answering):
    where = answering(b"-ERR moving buckets comes in a later version\r\n")
    result = cli("meta", "move", 1, 5, "--node", where)
    assert result.status == 1
    assert result.err == "eraft: moving buckets comes in a later version\n"
