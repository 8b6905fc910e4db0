"""The hot modules of one implementation, as a fixture: one test body runs on both."""

import importlib
from types import ModuleType

import pytest

PACKAGES = {"cython": "eraft._core", "python": "eraft._pure"}


class Twin:
    """`twin.log` is that module of this implementation; a missing one fails the test."""

    def __init__(self, impl: str) -> None:
        self.impl = impl

    def __getattr__(self, name: str) -> ModuleType:
        module = importlib.import_module(f"{PACKAGES[self.impl]}.{name}")
        setattr(self, name, module)
        return module


@pytest.fixture(scope="session", params=list(PACKAGES))
def twin(request: pytest.FixtureRequest) -> Twin:
    return Twin(request.param)
