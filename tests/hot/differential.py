"""Comparing both implementations, errors included."""

from collections.abc import Callable
from typing import Any

from hypothesis import settings

thorough = settings(max_examples=300, deadline=None)


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or type and message of what it raises."""
    try:
        return "returned", function(*args)
    except Exception as error:
        return type(error), str(error)
