"""How many buckets each group is due, and the first assignment of them."""

from collections.abc import Mapping

from eraft.types import BUCKETS


def shares(weights: Mapping[int, int]) -> dict[int, int]:
    """Buckets per gid in proportion to the weights (each at least 1).

    The method of the largest remainder: every share is the ideal one rounded
    down or up, so it differs from the ideal by less than one bucket, and the
    shares sum to BUCKETS. Equal remainders go to the lower gid.
    """
    total = sum(weights.values())
    found = {gid: BUCKETS * weight // total for gid, weight in sorted(weights.items())}
    by_remainder = sorted(found, key=lambda gid: (-(BUCKETS * weights[gid] % total), gid))
    for gid in by_remainder[: BUCKETS - sum(found.values())]:
        found[gid] += 1
    return found


def first_assignment(weights: Mapping[int, int]) -> list[int]:
    """The owner of every bucket when the cluster opens: one run per group, by gid."""
    return [gid for gid, count in shares(weights).items() for _ in range(count)]
