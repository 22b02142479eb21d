"""`phaseload targets check` and `phaseload record` as a user runs them, against simulated servers."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import tomllib
from functools import partial

import pytest

from reports.store import row_files
from targets import telemetry
from targets.recording import facts, recording, replay
from targets.wire import WIRES
from tests import commands
from tests.loadgen.running import Replays, expected, trace
from tests.targets.scripted import Scripted, good

phaseload = partial(commands.phaseload, COLUMNS="200")


@contextlib.contextmanager
def simulated(*words):
    command = [sys.executable, "-m", "targets.simulated", *words, "--model", "llama3-8b"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture(scope="module")
def groqrack():
    """A GroqRack that admits 30,000 tokens a minute."""
    with simulated("groqrack-published", "--limit-tokens", "30000") as url:
        yield url


@pytest.fixture(scope="module")
def replayed():
    with Replays() as replays:
        yield replays


TARGETS = """\
[defaults]
model = "llama3-8b"
url = "{url}"
[rack]
type = "groq"
[gone]
url = "http://127.0.0.1:9"
[other-model]
model = "nope"
[other-type]
type = "tgi"
[secret]
api_key_env = "PHASELOAD_TEST_KEY"
model = "nope"
"""


def test_check_names_what_is_wrong_with_each(groqrack, tmp_path):
    file = tmp_path / "targets.toml"
    file.write_text(TARGETS.format(url=groqrack))
    done = phaseload("targets", "check", file, PHASELOAD_TEST_KEY="sk-never-shown")
    assert done.returncode == 1, done.stderr
    said = done.stdout.splitlines()
    verdicts = [line.split()[:2] for line in said if not line.startswith(" ")]
    assert verdicts == [["yes", "rack"], ["no", "gone"], ["no", "other-model"], ["no", "other-type"], ["no", "secret"]]
    assert "reports queue, prefill, decode" in done.stdout and "limits: 30000 tokens" in done.stdout
    assert "can't be reached: Connection refused" in done.stdout
    assert "no such model or path (HTTP 404: The model `nope` does not exist.)" in done.stdout
    assert "sk-never-shown" not in done.stdout + done.stderr


def test_check_names_a_target_that_cant_admit_the_load(groqrack, tmp_path):
    file = tmp_path / "targets.toml"
    file.write_text(f'[rack]\nmodel = "llama3-8b"\nurl = "{groqrack}"\ntype = "groq"\n')
    assert phaseload("targets", "check", file).returncode == 0
    done = phaseload("targets", "check", file, "--trace", "azure-conv", "--duration", "120")
    assert done.returncode == 1
    assert "admits 30,000 tokens a minute (x-ratelimit-limit-tokens), the trace's worst minute needs" in done.stdout


def test_a_mistake_in_the_file_is_exit_code_2(tmp_path):
    file = tmp_path / "targets.toml"
    file.write_text('[rack]\nurl = "http://x"\nmodle = "m"\n')
    done = phaseload("targets", "check", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file}:3, column modle: unknown key (did you mean model?)" in done.stderr


def test_a_recording_is_a_test(groqrack, tmp_path):
    out = tmp_path / "groq.toml"
    for name in ("one", "two"):
        words = ("record", groqrack, "-m", "llama3-8b", "--endpoint-type", "groq", "--tokens", "5")
        done = phaseload(*words, "--source", "simulated", "--name", name, "--out", out)
        assert done.returncode == 0, done.stderr
        assert f"[{name}] ok, 5 tokens in 5 events" in done.stderr
    tables = tomllib.loads(out.read_text())
    assert list(tables) == ["one", "two"]
    for table in tables.values():
        assert table["source"] == "simulated" and table["facts"]["usage_output"] == 5
        assert facts(replay(WIRES["groq"], recording(table))) == table["facts"]


def test_recorded_twice_to_one_file_by_a_type_that_is_found(groqrack, tmp_path):
    out = tmp_path / "found.toml"
    for name in ("stream", "stream-2"):
        done = phaseload("record", groqrack, "-m", "llama3-8b", "--endpoint-type", "auto", "--out", out)
        assert done.returncode == 0, done.stderr
        assert "answers as endpoint type" in done.stderr and f"[{name}] ok, 8 tokens" in done.stderr
    assert list(tomllib.loads(out.read_text())) == ["stream", "stream-2"]
    out.write_text("[stream")
    done = phaseload("record", groqrack, "-m", "llama3-8b", "--out", out)
    assert (done.returncode, out.read_text()) == (2, "[stream") and "not TOML" in done.stderr


def test_bytes_that_are_no_text_are_recorded_as_they_came():
    body = b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\r\n\r\ndata: [DONE]\r\n\r\n'

    def serve(listening):
        with contextlib.closing(listening.accept()[0]) as peer:
            peer.recv(1 << 16)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        done = phaseload("record", f"http://127.0.0.1:{listening.getsockname()[1]}", "-m", "m")
    (table,) = tomllib.loads(done.stdout).values()
    assert recording(table).body == body
    assert facts(replay(WIRES["chat"], recording(table))) == table["facts"]


def test_an_error_can_be_recorded_too(groqrack):
    done = phaseload("record", groqrack, "-m", "nope")
    (table,) = tomllib.loads(done.stdout).values()
    assert (table["status"], table["facts"]["outcome"]) == (404, "http_error")
    assert phaseload("record", "http://127.0.0.1:9", "-m", "m").returncode == 2


TOKEN = b'data: {"choices": [{"delta": {"content": "w"}}]}\n\n'


@pytest.mark.parametrize(
    ("says", "missed"),
    [
        (b"", "no first token within 0.3 s"),
        (b": ping\n\n", "no first token within 0.3 s"),
        (TOKEN, "no whole answer within 0.9 s"),
    ],
    ids=["nothing", "pings", "tokens"],
)
def test_a_recording_ends_at_the_targets_limits(says, missed):
    def script(peer):
        peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for _ in range(200):
            peer.say(says, pause=0.1)

    server, limits = Scripted(script), ("--first-token-timeout", "0.3", "--request-timeout", "0.9")
    done = phaseload("record", server.url, "-m", "m", *limits)
    server.close()
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert missed in done.stderr


def test_a_recording_ends_where_tokens_end():
    def script(peer):
        peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + TOKEN)
        for _ in range(200):
            peer.say(b": ping\n\n", pause=0.1)

    server = Scripted(script)
    done = phaseload("record", server.url, "-m", "m", "--silence-timeout", "0.5")
    server.close()
    assert done.returncode == 2 and "no further token within 0.5 s" in done.stderr


def test_a_file_that_cant_be_written_is_known_before_anything_is_asked(tmp_path):
    (tmp_path / "file").write_text("")
    server = Scripted(good)
    for out in (tmp_path / "none" / "x.toml", tmp_path / "file" / "x.toml", tmp_path):
        done = phaseload("record", server.url, "-m", "m", "--out", out)
        assert done.returncode == 2 and "--out: can't be" in done.stderr and "fault of its own" not in done.stderr
    server.close()
    assert server.connections == 0


KINDS = """\
[defaults]
model = "llama3-8b"
[front]
url = "{url}"
type = "dynamo"
metrics = "{url}/metrics"
[legs]
prefill = ["{url}"]
decode = ["{url}"]
protocol = "nixl"
[own]
url = "{url}"
type = "own.toml"
"""
OWN = """\
path = "/v1/completions"
body = { model = "{model}", prompt = "{prompt}", max_tokens = "{output_tokens}", stream = true }
answer = { text = "choices.0.text", end = "[DONE]" }
"""


def test_a_bakeoff_of_a_front_door_two_legs_and_a_format_of_ones_own(tmp_path, replayed):
    """One server in three ways: rows of each have what its way can tell, and the report is written."""
    trace(tmp_path / "t.csv", 40, gap_s=0.07)  # metrics are read once a second
    with simulated("h100-disagg") as url:
        (tmp_path / "targets.toml").write_text(KINDS.format(url=url))
        (tmp_path / "own.toml").write_text(OWN)
        words = ("bakeoff", "t.csv", "--targets", "targets.toml", "--order", "parallel")
        done = replayed(*words, "--probe", "--report", "--out", "run", cwd=tmp_path)
    assert done.returncode == expected(tmp_path / "run", 0), done.stderr
    rows = row_files.read(tmp_path / "run").to_pylist()
    assert {row["outcome"] for row in rows} == {"ok"}
    of = {name: [row for row in rows if row["target"] == name] for name in ("front", "legs", "own")}
    assert len({len(some) for some in of.values()}) == 1 and of["own"]
    assert all(row["server_transfer"] > 0 and row["prefill_worker"] for row in of["front"])
    assert all(row["prefill_sent"] < row["prefill_done"] <= row["decode_sent"] for row in of["legs"])
    assert all(row["usage_output"] is None and row["server_ttft"] is None for row in of["own"])
    assert "hand-over" in (tmp_path / "run" / "report.html").read_text()
    metrics = telemetry.read(tmp_path / "run" / telemetry.FILE)
    assert {reading.when for reading in metrics} == {"before", "during", "after"}


def test_auto_finds_the_type_and_says_it(groqrack, tmp_path, replayed):
    trace(tmp_path / "t.csv", 3)
    words = ("replay", "t.csv", "-m", "llama3-8b", "--endpoint-type", "auto", "--url", groqrack)
    done = replayed(*words, "--probe", "--out", "run", cwd=tmp_path)
    assert "answers as endpoint type" in done.stderr, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["targets"][0]["endpoint_type"] in ("dynamo", "groq")


def test_a_hopeless_target_is_refused_before_the_run(groqrack, tmp_path, replayed):
    words = ("replay", trace(tmp_path / "t.csv", 3), "--url", groqrack, "-m", "nope", "--out", tmp_path / "run")
    done = phaseload(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "The model `nope` does not exist." in done.stderr
    assert not (tmp_path / "run").exists()
    assert replayed(*words, cwd=tmp_path).returncode != 2
    assert (tmp_path / "run" / "run.json").exists()
