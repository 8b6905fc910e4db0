"""The demo's writer: a stock client in a closed loop that keeps account of every write."""

import itertools
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

BACK_OFF_S = 0.005
CLIENT_TIMEOUT_S = 3.0  # every command is answered within 2.5 s


def stock_client(address: str, **options: Any) -> Any:
    """redis-py's RedisCluster, as anybody would make it."""
    from redis.cluster import RedisCluster

    host, _, port = address.rpartition(":")
    return RedisCluster(
        host=host,
        port=int(port),
        decode_responses=True,
        socket_timeout=CLIENT_TIMEOUT_S,
        **options,
    )


class Writer(threading.Thread):
    """Writes one distinct key after the other and records what became of each.

    Attributes:
        acknowledged: key -> value of every write that was answered OK.
        unknown: key -> value of every write whose outcome is not known: the
            connection broke or nothing came back. It is never sent again.
        refused: how often a write was certainly not executed, and sent again.
        failure: an answer that must not be, which ended the writer.
    """

    def __init__(self, name: str, address: str, keys: Iterable[str]) -> None:
        super().__init__(name=name, daemon=True)
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.acknowledged: dict[str, str] = {}
        self.unknown: dict[str, str] = {}
        self.refused = 0
        self.failure = ""
        self._times_s: list[float] = []
        self._keys = iter(keys)
        self._client = stock_client(address, retry=Retry(NoBackoff(), 0))
        self._stopping = threading.Event()

    def run(self) -> None:
        for key in self._keys:
            value = f"value of {key}"
            while not self._stopping.is_set():
                if self._write(key, value):
                    break
                self._stopping.wait(BACK_OFF_S)
            if self._stopping.is_set() or self.failure:
                return

    def _write(self, key: str, value: str) -> bool:
        """One attempt; False if it certainly was not executed."""
        from redis import exceptions

        try:
            reply = self._client.set(key, value)
        except (exceptions.ClusterDownError, exceptions.TryAgainError, exceptions.MovedError):
            self.refused += 1
            return False
        except (
            exceptions.ConnectionError,
            exceptions.TimeoutError,
            exceptions.RedisClusterException,
        ):
            self.unknown[key] = value
            self._stopping.wait(BACK_OFF_S)
            return True
        except exceptions.ResponseError as error:
            if "outcome unknown" not in str(error):
                self.failure = f"SET {key} was answered {error}"
            self.unknown[key] = value
            return True
        if reply is not True:
            self.failure = f"SET {key} was answered {reply!r}"
            return True
        self._times_s.append(time.monotonic())
        self.acknowledged[key] = value
        return True

    def since(self, when_s: float) -> int:
        """How many writes were acknowledged after a moment (time.monotonic)."""
        return len(self._times_s) - bisect_right(self._times_s, when_s)

    def gap_s(self, when_s: float) -> float:
        """The longest time between two acknowledged writes, the later one after a moment."""
        pairs = itertools.pairwise(list(self._times_s))
        return max((later - earlier for earlier, later in pairs if later > when_s), default=0.0)

    def stop(self) -> None:
        """End the writer, again if need be; the write under way is finished first."""
        self._stopping.set()
        self.join()
        self._client.close()
