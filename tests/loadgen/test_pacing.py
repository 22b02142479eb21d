"""Shares of slots."""

from loadgen.pacing import share


def test_shares_add_up() -> None:
    for total in (1, 7, 8, 100):
        for shards in (1, 2, 3, 7):
            parts = [share(total, shard, shards) for shard in range(shards)]
            assert sum(parts) == total
            assert max(parts) - min(parts) <= 1
