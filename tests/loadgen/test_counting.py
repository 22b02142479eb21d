"""Token counts by a local tokenizer.json: of the whole answer, in the row, whoever else counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadgen.run.worker import TokenCounting
from targets import exchange as exchanges
from targets.exchange import Exchange
from tests.exchanges import make_exchange

from .running import Replays, endpoint, rows, trace

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """Tokens are the characters of words: `w12 ` has three."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE({char: n for n, char in enumerate("w0123456789ax")}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("manner", ["silent", "well"])
def test_answers_are_counted_by_the_local_tokenizer(
    tmp_path: Path, tokenizer: str, manner: str, replayed: Replays
) -> None:
    trace(tmp_path / "t.csv", 6)
    with endpoint(manner, gap=0.001) as server:
        done = replayed("replay", "t.csv", "--url", server.url, "--tokenizer", tokenizer, "--out", "r", cwd=tmp_path)
    table = rows(tmp_path / "r")
    assert set(table["outcome"].to_pylist()) == {"ok"}, done.stderr
    assert table["tokenizer_output"].to_pylist() == [8] * 6, done.stderr  # w0 w1 w2 w3
    assert set(table["chars"].to_pylist()) == {12} and set(map(sum, table["token_events"].to_pylist())) == {4}
    assert set(table["usage_output"].to_pylist()) == ({None} if manner == "silent" else {4})


def test_every_exchange_is_recorded_once_in_order(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "TEXT_LIMIT", 10)
    recorded: list[Exchange] = []
    counting = TokenCounting(tokenizer, recorded.append)
    for index, text in enumerate(["w0 w1", "", "w" * 11]):
        exchange = make_exchange(index, text=[])
        exchange.add_text(text)
        counting.put(exchange)
    counting.put(make_exchange(3))
    counting.close()
    assert [exchange.index for exchange in recorded] == [0, 1, 2, 3]
    assert [exchange.tokenizer_output for exchange in recorded] == [
        4,
        None,
        None,
        None,
    ]  # no text, too much, not kept
    assert not any(exchange.text for exchange in recorded)
