"""Servers' own metrics: their text read right, and a run's readings made by a process of their own."""

import contextlib
import http.server
import json
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.client.blocking import get
from targets.client.http import HttpError
from targets.clock import Clock
from targets.linux import round_trip
from targets.scraper import LARGEST, Look, Scraper, looks_at
from targets.target import Target
from targets.telemetry import FILE, Histogram, Reading, means, parse, read, round_trips
from traces.errors import InputError

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


def row(text, when="during"):
    """What a line of metrics.jsonl says of a server's answer."""
    line = json.dumps(Reading.of_text(7, "http://u", when, text).to_json())
    assert Reading.from_json(json.loads(line)) == Reading.of_text(7, "http://u", when, text)
    place = {"at": 7, "url": "http://u", "when": when}
    return {key: value for key, value in json.loads(line).items() if place.get(key) != value}


def test_vllm():
    assert row(VLLM, "before") == {
        "running": 15.0,
        "waiting": 2.0,
        "kv_use": 0.75,
        "ttft": [5.5, 10.0],
        "ttft_buckets": [[0.1, 5.0], [1.0, 9.0]],
        "transfer": [0.5, 2.0],
        "transfer_buckets": [],
    }
    assert "ttft_buckets" not in row(VLLM)


@pytest.mark.parametrize(
    ("text", "expected"),
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
        ("vllm:num_requests_running -3\nvllm:num_requests_waiting 1e400\nsglang:num_queue_reqs 2", {"waiting": 2.0}),
        ("vllm:time_to_first_token_seconds_sum -4\nvllm:time_to_first_token_seconds_count 3", {}),
        ("", {}),
    ],
)
def test_other_servers_and_nonsense(text, expected):
    assert row(text) == expected


def test_a_bound_that_is_no_number_costs_its_bucket_only():
    text = VLLM.replace('le="0.1"', 'le="abc"')
    assert row(text, "after")["ttft_buckets"] == [[1.0, 9.0]]


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read(text):
    parse(text)


class Speaking:
    """A server that says the same to everyone, then closes (or sends `on` for ever). `heard`: what it was asked."""

    def __init__(self, says, on=b""):
        self.says, self.on, self.heard = says, on, []
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._sock.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=self._sock.accept()[:1], daemon=True).start()

    def _answer(self, peer):
        with peer, contextlib.suppress(OSError):
            self.heard.append(peer.recv(1 << 16))
            peer.sendall(self.says)
            while self.on:
                peer.sendall(self.on)
                time.sleep(0.05)


OK = b"HTTP/1.1 200 OK\r\n"
LONG = b"vllm:x 1\n" * (LARGEST // 9 + 1)


@pytest.mark.parametrize(
    ("says", "on", "error"),
    [
        (b"garbage not http\r\n\r\n", b"", "not HTTP"),
        (b"", b"", "before any answer"),
        (OK + b"Content-Length: 1000\r\n\r\nvllm:num_requests_running 1\n", b"", "ended after 28 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nvllm\r\n", b"", "ended after 4 bytes"),
        (OK + b"\r\n", b"#", "no whole answer within 0.4 s"),
        (OK + b"\r\n" + LONG, b"", "longer than"),
        (b"HTTP/1.1 404 Not Found\r\n\r\nno such page", b"", "HTTP 404: no such page"),
        (b"HTTP/1.1 302 Found\r\nLocation: /metrics\r\nContent-Length: 0\r\n\r\n", b"", "HTTP 302"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", b"", "a URL such as"),
    ],
)
def test_an_answer_that_is_not_whole_is_an_error(says, on, error):
    with Speaking(says, on) as server, pytest.raises((OSError, HttpError, InputError), match=error):
        get(f"{server.url}/metrics", 0.4 if on else 5.0, largest=LARGEST)


def test_a_final_slash_and_a_redirect_to_it():
    with Speaking(OK + b"\r\nvllm:x 1\n") as there:
        moved = b"HTTP/1.1 307 Moved\r\nLocation: %s/metrics/\r\nContent-Length: 0\r\n\r\n" % there.url.encode()
        with Speaking(moved) as here:
            assert get(f"{here.url}/metrics", 5.0) == b"vllm:x 1\n"
        assert there.heard[0].startswith(b"GET /metrics/ HTTP/1.1\r\n")


def test_the_way_is_the_one_that_requests_take(monkeypatch):
    """A proxy of the environment, but never to this machine, nor to what no_proxy names."""
    with Speaking(OK + b"\r\nby proxy") as proxy, Speaking(OK + b"\r\ndirect") as server:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//user:word@"))
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert get(f"{server.url}/metrics", 5.0) == b"direct"
        assert get("http://far.test/metrics", 5.0) == b"by proxy"
        assert proxy.heard[0].startswith(b"GET http://far.test/metrics HTTP/1.1\r\nHost: far.test\r\n")
        assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in proxy.heard[0]
        monkeypatch.setenv("no_proxy", "far.test")
        with pytest.raises(InputError, match=r"far\.test"):
            get("http://far.test/metrics", 5.0)


def test_certificates_are_verified_unless_that_very_target_says_otherwise():
    strict, loose = "https://a.test/metrics", "https://b.test/metrics"
    specs = [
        Target("loose", "http://127.0.0.1:1", metrics=(loose, strict), insecure=True),
        Target("strict", "http://127.0.0.1:1", metrics=(strict,), ca_file="own.pem"),
    ]
    assert looks_at(specs) == [Look(strict, ca_file="own.pem"), Look(loose, insecure=True)]


def test_a_server_that_is_none_is_in_the_file_and_said_once(tmp_path, capfd):
    with Speaking(b"garbage not http\r\n\r\n") as server:
        url = f"{server.url}/metrics"
        scraper = Scraper([Target("one", "http://127.0.0.1:1", metrics=(url,))], tmp_path, Clock().origin)
        limit = time.monotonic() + 20
        while time.monotonic() < limit and not ((tmp_path / FILE).exists() and len(read(tmp_path / FILE)) >= 2):
            time.sleep(0.05)
        scraper.stop()
    rows = read(tmp_path / FILE)
    assert [rows[0].when, rows[-1].when] == ["before", "after"]
    assert all("not HTTP" in row.error for row in rows)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{url}: its metrics can't be read: not HTTP")


def test_means_of_the_run_alone():
    queue = Histogram(1.0, 10.0)
    rows = [
        Reading(0, "a", "before", histograms={"ttft": Histogram(100.0, 10.0), "queue": queue}),
        Reading(1, "a", "during", histograms={"ttft": Histogram(101.0, 12.0)}),
        Reading(
            2, "a", "after", histograms={"ttft": Histogram(103.0, 16.0), "queue": queue, "decode": Histogram(4.0, 2.0)}
        ),
        Reading(0, "b", "before", error="refused"),
        Reading(2, "b", "after", histograms={"ttft": Histogram(1.0, 1.0)}),
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
    specs = [Target("one", up, metrics=(up, down)), Target("two", up, metrics=(up,))]
    scraper = Scraper(specs, tmp_path, clock.origin)
    limit = time.monotonic() + 20
    while time.monotonic() < limit and not (tmp_path / FILE).exists():
        time.sleep(0.05)
    while time.monotonic() < limit and sum(row.when == "during" for row in read(tmp_path / FILE)) < 2:
        time.sleep(0.05)
    scraper.stop()
    server.shutdown()
    rows = read(tmp_path / FILE)
    good = [row for row in rows if row.url == up]
    assert [row.when for row in good] == ["before", *["during"] * (len(good) - 2), "after"]
    assert [row.gauges["running"] for row in good] == list(range(1, len(good) + 1))
    assert all(0 < row.at <= clock.now() for row in rows)
    assert [row.at for row in good] == sorted(row.at for row in good)
    assert all("refused" in row.error.lower() for row in rows if row.url == down)
    (tmp_path / FILE).open("a").write('{"at": 1, "ur')
    assert read(tmp_path / FILE) == rows


def test_a_line_that_is_no_reading_is_named(tmp_path):
    (tmp_path / FILE).write_text('{"at": 1, "url": "http://u", "when": "during"}\n{"at": 2}\n')
    with pytest.raises(InputError, match=rf"{FILE}:2: not a reading: KeyError\('url'\)"):
        read(tmp_path / FILE)


def test_nothing_to_read_no_process(tmp_path):
    Scraper([Target("near", "http://127.0.0.1:9")], tmp_path, Clock().origin).stop()
    assert list(tmp_path.iterdir()) == []


def test_round_trips_to_targets_elsewhere(tmp_path):
    """This machine under its other name stands in for a far one."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        url = f"http://0.0.0.0:{server.getsockname()[1]}"
        scraper = Scraper([Target("far", url)], tmp_path, Clock().origin)
        limit = time.monotonic() + 20
        file = tmp_path / FILE
        while time.monotonic() < limit and not (file.exists() and '"during"' in file.read_text()):
            time.sleep(0.05)
        scraper.stop()
    times = round_trips(read(tmp_path / FILE))
    assert times.keys() == {url} and times[url].keys() == {"before", "during", "after"}
    assert all(0 < seconds < 1 for seconds in times[url].values())


def test_the_kernels_round_trip_is_that_of_the_handshake():
    """However long the client waits before it looks."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        time.sleep(0.05)
        assert 0 < round_trip(sock) < 0.02
    one, other = socket.socketpair()
    with one, other:
        assert round_trip(one) is None
