"""What each worker and each request gets of a whole: shares of slots, and when a request's user leaves. Pure."""

from __future__ import annotations

import numpy as np


def share(total: int, shard: int, shards: int) -> int:
    """How many of `total` slots one of `shards` workers holds; the shares add up to the total."""
    return total // shards + (shard < total % shards)


def leaves(seed: int, index: int, share: float, tokens: int) -> int | None:
    """After how many tokens a request's user leaves; None for the 1 - `share` who stay. The same in every process."""
    random = np.random.default_rng([seed, index])
    return 1 + int(random.integers(max(1, tokens))) if random.random() < share else None
