"""Servers' own metrics: their text read right, and a run's readings made by a process of their own."""

import http.server
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.clock import Clock
from targets.scrape import FILE, Scraper, means, read, reading, round_trips, samples
from targets.target import Spec

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 12.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 4.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="m"} 9.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 10.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1",model_name="m"} 1.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 10.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 5.5 1395066363000
vllm:nixl_xfer_time_seconds_count 2
vllm:nixl_xfer_time_seconds_sum 0.5
"""


def test_vllm():
    assert reading(VLLM, buckets=True) == {
        "running": 15.0,
        "waiting": 2.0,
        "kv_use": 0.75,
        "ttft": [5.5, 10.0],
        "ttft_buckets": [[0.1, 5.0], [1.0, 9.0]],
        "transfer": [0.5, 2.0],
        "transfer_buckets": [],
    }
    assert "ttft_buckets" not in reading(VLLM)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("llamacpp:requests_processing 3\nllamacpp:requests_deferred 1\n", {"running": 3.0, "waiting": 1.0}),
        ('sglang:num_running_reqs{a="b"} 1\nsglang:token_usage 0.5', {"running": 1.0, "kv_use": 0.5}),
        (
            "tgi_queue_size 7\ntgi_request_queue_duration_sum 1\ntgi_request_queue_duration_count 4",
            {"waiting": 7.0, "queue": [1.0, 4.0]},
        ),
        ("vllm:num_requests_running NaN\n", {}),
        ("vllm:num_requests_running{ 3\nvllm:num_requests_running\n\x00\n<html>", {}),
        ('vllm:num_requests_running{model_name="a } 3 {"} 4', {"running": 4.0}),
        ("", {}),
    ],
)
def test_other_servers_and_nonsense(text, found):
    assert reading(text) == found


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read(text):
    samples(text)


def test_means_of_the_run_alone():
    rows = [
        {"url": "a", "when": "before", "ttft": [100.0, 10.0], "queue": [1.0, 10.0]},
        {"url": "a", "when": "during", "ttft": [101.0, 12.0]},
        {"url": "a", "when": "after", "ttft": [103.0, 16.0], "queue": [1.0, 10.0], "decode": [4.0, 2.0]},
        {"url": "b", "when": "before", "error": "refused"},
        {"url": "b", "when": "after", "ttft": [1.0, 1.0]},
    ]
    assert means(rows) == {"a": {"ttft": (0.5, 6), "decode": (2.0, 2)}}


class Metrics(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        type(self).asked += 1
        body = f"vllm:num_requests_running {self.asked}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_process_reads_before_during_and_after(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    up, down = f"http://127.0.0.1:{server.server_port}/metrics", "http://127.0.0.1:9/metrics"
    clock = Clock()
    specs = [Spec("one", up, metrics=(up, down)), Spec("two", up, metrics=(up,))]
    scraper = Scraper(specs, tmp_path, clock.origin)
    limit = time.monotonic() + 20
    while time.monotonic() < limit and not (tmp_path / FILE).exists():
        time.sleep(0.05)
    while time.monotonic() < limit and sum(row["when"] == "during" for row in read(tmp_path / FILE)) < 2:
        time.sleep(0.05)
    scraper.stop()
    server.shutdown()
    rows = read(tmp_path / FILE)
    good = [row for row in rows if row["url"] == up]
    assert [row["when"] for row in good] == ["before", *["during"] * (len(good) - 2), "after"]
    assert [row["running"] for row in good] == list(range(1, len(good) + 1))
    assert all(0 < row["at"] <= clock.now() for row in rows)
    assert [row["at"] for row in good] == sorted(row["at"] for row in good)
    assert all("refused" in row["error"].lower() for row in rows if row["url"] == down)
    (tmp_path / FILE).open("a").write('{"at": 1, "ur')
    assert read(tmp_path / FILE) == rows


def test_nothing_to_read_no_process(tmp_path):
    Scraper([Spec("near", "http://127.0.0.1:9")], tmp_path, Clock().origin).stop()
    assert list(tmp_path.iterdir()) == []


def test_round_trips_to_targets_elsewhere(tmp_path):
    """This machine under its other name stands in for a far one."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        url = f"http://0.0.0.0:{server.getsockname()[1]}"
        scraper = Scraper([Spec("far", url)], tmp_path, Clock().origin)
        limit = time.monotonic() + 20
        file = tmp_path / FILE
        while time.monotonic() < limit and not (file.exists() and '"during"' in file.read_text()):
            time.sleep(0.05)
        scraper.stop()
    found = round_trips(read(tmp_path / FILE))
    assert found.keys() == {url} and found[url].keys() == {"before", "during", "after"}
    assert all(0 < seconds < 1 for seconds in found[url].values())
