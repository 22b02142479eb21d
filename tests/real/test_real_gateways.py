"""A small trace through what nobody here wrote: tokens, ends and times as they are, failures as failures."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections import Counter

import pytest

from reports.store import row_files
from tests.loadgen.running import command, trace

from .gateways import MODEL, aimock, guidellm, litellm, proxy, transformers, upstream
from .servers import Unavailable

pytestmark = pytest.mark.real
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
WORDS = "one two three four five six seven eight"


@contextlib.contextmanager
def had(server):
    """The server; where it can't be had a user's test is skipped, CI's fails."""
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(server)
        except Unavailable as reason:
            if os.environ.get("CI"):
                pytest.fail(f"no such server: {reason}")
            pytest.skip(f"no such server: {reason}")
        yield started


@pytest.fixture(scope="module")
def simulated(namespace):
    with upstream(namespace) as url:
        yield url


@pytest.fixture
def replayed(namespace, tmp_path):
    """Replays 24 requests, 20 ms apart, of 6 to 10 tokens for 4; gives the finished process and the rows."""

    def replay(url, model=MODEL, *options):
        trace(tmp_path / "t.csv", 24)
        out = f"run-{len(list(tmp_path.iterdir()))}"
        words = namespace.command(*command("replay", "t.csv", "--url", url, "-m", model, "--out", out, *options))
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        rows = row_files.read(tmp_path / out).to_pylist() if (tmp_path / out).exists() else []
        return done, rows

    return replay


def whole(rows, tokens, finish="length"):
    """All 24 ended well, each with so many tokens by the server's count."""
    assert Counter((r["outcome"], r["usage_output"], r["finish_reason"]) for r in rows) == {("ok", tokens, finish): 24}
    assert all(r["sent"] <= r["headers_at"] <= r["token_at"][0] <= r["token_at"][-1] <= r["done"] for r in rows)


def median_ms(rows, first, last):
    return statistics.median(last(row) - first(row) for row in rows) * 1e-6


def ttft_ms(rows):
    return median_ms(rows, lambda row: row["sent"], lambda row: row["token_at"][0])


def tpot_ms(rows):
    decode_ms = median_ms(rows, lambda row: row["token_at"][0], lambda row: row["token_at"][-1])
    return decode_ms / (rows[0]["usage_output"] - 1)


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_a_proxy_hands_streams_on_and_its_own_answers_are_failures(namespace, simulated, replayed, tmp_path, name):
    _, direct = replayed(simulated)
    with had(proxy(namespace, name, tmp_path)) as urls:
        done, rows = replayed(urls["live"])
        whole(rows, 4)
        assert ttft_ms(rows) > 0.5 * ttft_ms(direct) and tpot_ms(rows) > 0.5 * tpot_ms(direct), done.stdout
        if name == "haproxy":
            done, rows = replayed(urls["lumped"])
            whole(rows, 4)
            assert "24 answers came all at once: their TTFT is their E2E, and they have no TPOT." in done.stdout
        for way, statuses in (("dead", {502, 503}), ("late", {504})):
            done, rows = replayed(urls[way], MODEL, "--probe")
            assert {r["outcome"] for r in rows} == {"http_error"} and {r["status"] for r in rows} <= statuses
            assert len(rows) == 24 and "24 x http_error" in done.stdout
            assert done.returncode in (1, 3), done.stdout  # 3: a busy machine spoils the measurement
            assert f"HTTP {rows[0]['status']}" in done.stderr and "server behind it" in done.stderr


def test_litellm(namespace, simulated, replayed, tmp_path):
    with had(litellm(namespace, tmp_path)) as url:
        _, rows = replayed(url, "live")
        whole(rows, 4)
        done, rows = replayed(url, "dead")
        assert {(r["outcome"], r["status"]) for r in rows} == {("http_error", 500)}, done.stdout


def test_aimock_whose_disconnects_are_counted_once_each(namespace, replayed, tmp_path):
    """It logs each request that it took: as many as there are rows, whatever became of them."""
    with had(aimock(namespace, tmp_path, WORDS, "--chaos-disconnect", "0.3")) as url:
        done, rows = replayed(url)
        journal = json.loads(namespace.run(sys.executable, "-c", GET, f"{url}/v1/_requests"))
    cut = sum(entry["response"].get("chaosAction") == "disconnect" for entry in journal)
    assert len(rows) == len(journal) == 24 and 0 < cut < 24
    assert Counter(r["outcome"] for r in rows) == {"ok": 24 - cut, "truncated": cut}, done.stdout
    ok = [row for row in rows if row["outcome"] == "ok"]
    assert {(r["finish_reason"], sum(r["token_events"]), r["chars"]) for r in ok} == {("stop", 7, len(WORDS))}
    assert tpot_ms(ok) > 2


def test_guidellms_mock_server(namespace, replayed):
    """Its times are known, and it fails from the 25th request on."""
    times = ("--ttft-ms", "40", "--itl-ms", "8", "--output-tokens", "4")
    with had(guidellm(namespace, *times, "--fail-after-requests", "24")) as url:
        _, rows = replayed(url)
        whole(rows, 4, "stop")
        assert 40 <= ttft_ms(rows) < 120 and 8 <= tpot_ms(rows) < 24
        done, rows = replayed(url)
        assert {(r["outcome"], r["status"]) for r in rows} == {("http_error", 500)}, done.stdout


def test_transformers_serve(namespace, replayed):
    """It sends no [DONE]: an answer with a finish_reason and a clean end is whole. It takes no ignore_eos, either."""
    with had(transformers(namespace)) as (url, model):
        done, rows = replayed(url, model, "--probe")
        assert done.returncode == 2 and not rows and "--heed-eos" in done.stderr, done.stderr
        done, rows = replayed(url, model, "--concurrency", "2", "--heed-eos", "--probe")
    assert {r["outcome"] for r in rows} == {"ok"}, done.stdout + done.stderr
    assert all(r["finish_reason"] in ("length", "stop") and 0 < r["usage_output"] <= 4 for r in rows)
    assert 0 < ttft_ms(rows) < 5000
