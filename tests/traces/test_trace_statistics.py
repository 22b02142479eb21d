"""`describe`: figures by hand on small traces; the published figures of real ones are in test_trace_shared_files."""

import json

import numpy as np
import pytest

from traces.statistics import describe, dispersion, prefix_reuse, spearman
from traces.trace import NS_PER_S, build
from traces.typed_json import to_plain


def prefixed(prefixes, lengths, block_tokens):
    rows = len(prefixes)
    return build(
        {"due": range(rows), "prompt_tokens": lengths, "output_tokens": [1] * rows, "prefix": prefixes},
        block_tokens=block_tokens,
    )


def test_a_perfect_cache_hits_the_longest_known_beginning():
    trace = prefixed([[1, 2], [1, 2, 3], [1, 9, 3], [2]], [20, 30, 30, 10], 10)
    reuse = prefix_reuse(trace)
    assert reuse.hit_tokens == 0 + 20 + 10 + 0  # block 3 after 9, and 2 at the start, are not known prefixes
    assert reuse.hit_share == 30 / 90 and reuse.in_blocks_share == 1.0


def test_blocks_are_cut_at_the_prompts_end_and_may_vary():
    assert prefix_reuse(prefixed([[1, 2], [1, 2]], [15, 15], 10)).hit_tokens == 15
    assert prefix_reuse(prefixed([[1, 2], [1, 2]], [15, 15], {1: 3, 2: 4})).hit_tokens == 7


def test_dispersion_counts_whole_windows():
    assert dispersion(np.arange(0, 100, 0.5), 1.0) == 0
    assert dispersion(np.repeat(np.arange(0, 100, 2.0), 2), 1.0) == pytest.approx(1.0, rel=0.02)
    assert dispersion(np.arange(4.0), 1.0) is None


def test_spearman_shares_ties():
    assert spearman(np.array([1, 2, 3]), np.array([1, 4, 9])) == pytest.approx(1)
    assert spearman(np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2])) == pytest.approx(0)
    assert spearman(np.array([1, 1, 1]), np.array([1, 2, 3])) is None


def test_sessions_are_counted_by_their_turns():
    trace = build(
        {
            "due": [0, NS_PER_S, 2 * NS_PER_S, 3 * NS_PER_S],
            "prompt_tokens": [1, 2, 3, 4],
            "output_tokens": [1, 1, 1, 1],
            "session": [0, 0, 1, -1],
            "parent": [-1, 0, -1, -1],
            "think": [0, 5_000_000, 0, 0],
        }
    )
    sessions = describe(trace).sessions
    assert (sessions.count, sessions.requests, sessions.follow_ups) == (2, 3, 1)
    assert sessions.turns.max == 2 and sessions.think_ms.p50 == 5


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_all_statistics_are_json(rows):
    trace = build(
        {"due": range(0, rows * NS_PER_S, NS_PER_S), "prompt_tokens": [5] * rows, "output_tokens": [0] * rows}
    )
    again = json.loads(json.dumps(to_plain(describe(trace)), allow_nan=False))
    assert again["requests"] == rows
    assert again["timeline"] is None or sum(again["timeline"]["counts"]) == rows
    json.dumps(to_plain(describe(trace[0:0])), allow_nan=False)
