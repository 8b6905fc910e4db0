"""What a client may ask of a node without taking it down."""

import pytest

from eraft import limits
from tests.node.test_leadership import led_by_one
from tests.node.test_order import keys_of
from tests.sim.opening import opened

OK = b"+OK\r\n"


def encoded(*args: bytes) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in args)


def test_the_expiry_of_many_long_keys_fits_into_entries() -> None:
    world = opened()
    client = world.connect(world.leader(1))
    count = limits.ENTRY_SIZE_BYTES // limits.KEY_SIZE_BYTES + 10
    for number in range(count):
        key = b"%08d" % number + b"k" * (limits.KEY_SIZE_BYTES - 8)
        client.send(encoded(b"SET", key, b"v", b"PX", b"100"))
        if number % 8 == 0:
            world.settle()
    world.settle()
    assert client.received == OK * count
    world.until(lambda: not world.nodes[world.leader(1)].replicas[1].machine.due(1 << 62, 1))
    client.received = b""
    client.send("DBSIZE")
    world.settle()
    assert client.received == b":0\r\n"


LARGE = bytes(limits.VALUE_SIZE_BYTES)
LARGE_REPLY = b"$%d\r\n%b\r\n" % (len(LARGE), LARGE)


@pytest.mark.parametrize("asked", [b"GET a\r\n", b"GET a\r\nPING\r\n", b"MGET a\r\n"])
def test_large_replies_come_in_pieces_that_the_client_takes(asked: bytes) -> None:
    world = opened()
    client = world.connect(world.leader(1))
    client.send(encoded(b"SET", b"a", LARGE))
    world.settle()
    taken = client.received = b""
    client.send(asked * 20 + b"STRLEN a\r\n")
    waiting = client.client.slots
    most = 0
    client.take = lambda: None  # type: ignore[method-assign]
    for _ in range(60):
        world.settle()
        client.client.output_full = bool(waiting.output)
        world.tick(2)
        most = max(most, waiting.size_bytes)
        if waiting.output:
            taken += waiting.take()
        client.client.output_full = False
        client.client.resume()
    reply = LARGE_REPLY if asked.startswith(b"GET") else b"*1\r\n" + LARGE_REPLY
    reply += b"+PONG\r\n" if b"PING" in asked else b""
    assert taken == reply * 20 + b":%d\r\n" % len(LARGE)
    assert most < limits.CLIENT_OUTPUT_BYTES
    assert not client.closed


def test_large_replies_before_the_end_of_a_connection_are_all_given() -> None:
    world = opened()
    client = world.connect(world.leader(1))
    client.send(encoded(b"SET", b"a", LARGE))
    world.settle()
    client.received = b""
    client.send(b"GET a\r\n" * 10 + b"QUIT\r\n")
    world.tick(10)
    assert client.received == LARGE_REPLY * 10 + OK


def test_what_the_writes_of_one_entry_answer_is_bounded() -> None:
    world = opened()
    client = world.connect(world.leader(1))
    client.send(encoded(b"SET", b"a", bytes(limits.VALUE_SIZE_BYTES)))
    world.settle()
    machine = world.nodes[world.leader(1)].shard(1).machine
    replies: list[object] = []
    payload = bytes(8) + encoded(b"GETEX", b"a") * 12
    machine.apply(machine.rows, world.nodes[world.leader(1)].shard(1).applied, 1, payload, replies)
    sizes = [len(reply) for reply in replies if isinstance(reply, bytes)]
    assert len(sizes) == 12
    assert sum(sizes) < limits.CLIENT_OUTPUT_BYTES + limits.VALUE_SIZE_BYTES


def test_large_replies_of_one_group_do_not_keep_back_a_read_of_another_before_them() -> None:
    world, leader = led_by_one()
    (small,), (large,) = keys_of(world, 1, 1), keys_of(world, 2, 1)
    client = world.connect(leader)
    value = bytes(limits.VALUE_SIZE_BYTES)
    client.send(encoded(b"SET", large.encode(), value))
    world.settle()
    client.received = b""
    world.stalled.update(node_id for node_id in world.ids if node_id != leader)
    client.send(f"SET {small} x", f"GET {small}")
    world.settle()
    client.send(f"GET {large}")
    world.settle()
    assert client.received == b""
    world.stalled.clear()
    world.tick(10)
    assert client.received[:30].startswith(OK + b"$1\r\nx\r\n$8388608\r\n")


@pytest.mark.parametrize("command", ["COMMAND", "INFO", "EXISTS n"])
def test_a_long_pipeline_lets_others_have_their_turn(command: str) -> None:
    """What it asks for is done in parts, and what is answered leaves between them."""
    world = opened()
    node = world.nodes[world.leader(1)]
    client = world.connect(node.identity.node_id)
    count = 8 * limits.CLIENT_COMMANDS
    client.send(f"{command}\r\n".encode() * count + b"ECHO end\r\n")
    name = command.split()[0].encode()
    assert node.context.command_calls[name] < 2 * limits.CLIENT_COMMANDS
    assert client.client.slots.size_bytes < 2 * limits.REPLY_PIECE_BYTES
    world.settle()
    assert node.context.command_calls[name] == count
    assert client.received.endswith(b"$3\r\nend\r\n")
    assert not client.closed
