"""The planted bugs still fit the code; whether they are found takes longer (`make mutations`)."""

import pytest

from tests.sim.mutate import ROOT, Mutation, check_of, mutations

MUTATIONS = mutations()


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=list(MUTATIONS))
def test_it_fits(mutation: Mutation) -> None:
    for path, text in mutation.broken(ROOT).items():
        compile(text, path, "exec")


def test_checks_are_named() -> None:
    assert check_of("Violation: one leader per term: group 1") == "one leader per term"
    assert check_of("InvariantViolation: log: what\nelse") == "eraft's own: log"
    assert check_of("IndexError: entry 3") == "eraft's own: IndexError"
