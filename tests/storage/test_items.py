"""What the items of a record hold."""

import pytest

from eraft.errors import ProtocolError
from eraft.storage.items import decode_group_state, group_state_item
from eraft.types import ConfState, GroupState, HardState, ReplicaAddress


def test_a_group_state_comes_back() -> None:
    state = GroupState(
        gid=3,
        replica_id=7,
        generation=9,
        conf=ConfState((1, 2, 4), (7,), (1, 2, 3), (3,), auto_leave=True),
        members=(ReplicaAddress(1, 2, "store"), ReplicaAddress(7, 4)),
        hard_state=HardState(5, 2, 90),
        base_index=90,
        base_term=4,
        quarantined="why",
    )
    assert decode_group_state(group_state_item(state)[3]) == state


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b'{"hard_state": 1}',
        group_state_item(GroupState(1, 1, 1, ConfState()))[3][:-9],
    ],
)
def test_what_is_no_group_state(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="group state"):
        decode_group_state(payload)
