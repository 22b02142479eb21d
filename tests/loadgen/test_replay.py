"""`phaseload replay` as a process against real sockets: what is asked, what is recorded, what exit codes say."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from loadgen.replays import numbered
from tests import commands

from .running import (
    Replays,
    about,
    command,
    endpoint,
    expected,
    phaseload,
    refused,
    relay,
    rows,
    running,
    trace,
    until,
)  # fmt: skip


def test_every_request_once_at_its_instant(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 30)
    with endpoint() as server:
        done = phaseload(
            "replay", "t.csv", "--url", server.url, "-m", "m", "--warmup", "0.2", "--duration", "0.3", "--out", "r",
            "--extra-body", '{"top_k": 7}', "--header", "X-Team: a", "--json", "--slo", "errors < 25%",
            "--report", cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == expected(tmp_path / "r", 0), done.stderr
    assert json.loads(done.stdout)["run"]["ended"] == "completed"
    table = rows(tmp_path / "r")
    assert sorted(table["index"].to_pylist()) == list(range(25))
    assert table["due"].to_pylist() == [round(index * 0.02 * 1e9) for index in table["index"].to_pylist()]
    assert sum(table["counted"].to_pylist()) == 15
    assert set(table["outcome"].to_pylist()) == {"ok"}
    assert min(table["started"].to_numpy() - table["due"].to_numpy()) >= 0
    assert server.repeated == []
    assert all(body["top_k"] == 7 and body["model"] == "m" for body in server.bodies)
    lengths = dict(zip(table["index"].to_pylist(), table["prompt_tokens"].to_pylist(), strict=True))
    assert sorted(len(prompt.split()) for prompt in server.prompts) == sorted(lengths.values())
    assert (tmp_path / "r" / "report.html").stat().st_size > 10_000
    facts = about(tmp_path / "r")
    assert (facts["ended"], facts["missing"]) == ("completed", {})
    assert facts["phases"][0]["window"] == [200_000_000, 500_000_000]
    assert facts["phases"][0]["planned"] == {"m": 25}


def test_salt_keeps_prompts_apart_and_none_does_not(tmp_path: Path, replayed: Replays) -> None:
    """Each run in a folder of its own."""
    trace(tmp_path / "t.csv", 3)
    with endpoint() as server:
        for salt in ("none", "none", "auto"):
            replayed("replay", "t.csv", "--url", server.url, "--salt", salt, cwd=tmp_path)
    assert sorted(Counter(server.prompts).values()) == [1, 1, 1, 2, 2, 2]
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_runs_that_start_at_once_have_a_folder_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(numbered, [tmp_path / "r"] * 8))
    assert len(set(folders)) == 8 and all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize("named", ["--url", "--targets"])
def test_a_unix_socket(tmp_path: Path, named: str, replayed: Replays) -> None:
    trace(tmp_path / "t.csv", 3)
    with endpoint() as server, relay(server, socket.AF_UNIX, str(tmp_path / "s")):
        url = f"unix://{tmp_path}/s"
        (tmp_path / "targets.toml").write_text(f'[near]\nurl = "{url}"\nmodel = "m"\n')
        how = ["replay", "t.csv", "--url", url, "-m", "m"]
        if named == "--targets":
            how = ["bakeoff", "t.csv", "--targets", "targets.toml"]
        done = replayed(*how, "--report", "--out", "r", cwd=tmp_path)
    assert done.returncode == expected(tmp_path / "r", 0), done.stdout + done.stderr
    assert rows(tmp_path / "r")["outcome"].to_pylist() == ["ok"] * 3
    assert about(tmp_path / "r")["targets"][0]["url"] == url


def test_a_proxied_target_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but the proxy knows its name."""
    trace(tmp_path / "t.csv", 3)
    with endpoint() as server, relay(server, socket.AF_INET, ("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        done = phaseload("replay", "t.csv", "--url", "http://endpoint.test:8000", "--out", "r", cwd=tmp_path)
    assert done.returncode == expected(tmp_path / "r", 0), done.stdout + done.stderr
    assert rows(tmp_path / "r")["outcome"].to_pylist() == ["ok"] * 3


def test_a_fixed_number_in_flight(tmp_path: Path, replayed: Replays) -> None:
    trace(tmp_path / "t.csv", 12, gap_s=5.0)
    with endpoint() as server:
        done = replayed("replay", "t.csv", "--url", server.url, "--concurrency", "3", "--out", "r", cwd=tmp_path)
    assert done.returncode == expected(tmp_path / "r", 0), done.stderr
    spans = sorted(server.spans.values())
    assert len(spans) == 12
    for began, _ in spans:
        assert sum(start <= began < end for start, end in spans) <= 3


def test_what_had_no_turn_is_not_missing(tmp_path: Path, replayed: Replays) -> None:
    """The slots are full until the end, and turns wait for their parents: the server is slow, the run is whole."""
    trace(tmp_path / "t.csv", 6, gap_s=0.1, session=["a", "a", "b", "b", "c", "c"], turn=[0, 1] * 3)
    limits = ("-m", "m", "--duration", "0.6", "--drain-timeout", "0.5")
    for load in (("--concurrency", "2"), ()):
        out = f"r{len(load)}"
        with endpoint("endless") as server:
            done = replayed("replay", "t.csv", "--url", server.url, *load, *limits, "--out", out, cwd=tmp_path)
        unsent = 4 if load else 3
        assert about(tmp_path / out)["phases"][0]["unsent"] == {"m": unsent}, done.stderr
        assert len(rows(tmp_path / out)) == 6 - unsent
        assert f"{unsent} of 6 requests had no turn before the end" in done.stdout
        assert "row file" not in done.stdout


FAILURES = {"failing": "http_error", "cutting": "truncated", "broken": "malformed", "endless": "cut"}


def test_a_targets_failure_is_counted_and_reported(tmp_path: Path, replayed: Replays) -> None:
    trace(tmp_path / "t.csv", 5)
    with ExitStack() as stack:
        servers = {manner: stack.enter_context(endpoint(manner)) for manner in FAILURES}
        targets = [f"--target={manner}={server.url}" for manner, server in servers.items()]
        done = replayed(
            "bakeoff", "t.csv", *targets, "--order", "parallel", "--drain-timeout", "1", "--slo", "errors < 1%",
            "--out", "r", "--report", cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == expected(tmp_path / "r", 1), done.stdout + done.stderr
    found = Counter((row["target"], row["outcome"]) for row in rows(tmp_path / "r").to_pylist())
    assert found == dict.fromkeys(FAILURES.items(), 5)
    assert (tmp_path / "r" / "report.html").exists()
    assert "Traceback" not in done.stderr


BAD = [
    (["nowhere.csv"], "nowhere.csv"),
    (["empty.csv"], "empty.csv"),
    (["negative.csv"], "negative.csv:3"),
    (["t.csv", "--duration", "-1"], "--duration"),
    (["t.csv", "--slo", "ttft p99 << 3"], "ttft p99 << 3"),
    (["t.csv", "--goodput", "speed:3"], "--goodput"),
    (["t.csv", "--endpoint-type", "smoke"], "--endpoint-type"),
    (["t.csv", "--request-rate", "0"], "--request-rate"),
    (["t.csv", "--concurrency", "1", "--processes", "2"], "--concurrency"),
    (["t.csv", "--extra-body", "[1]"], "--extra-body"),
    (["t.csv", "--header", "nonsense"], "--header"),
    (["t.csv", "--api-key-env", "PHASELOAD_NO_SUCH_KEY"], "PHASELOAD_NO_SUCH_KEY"),
    (["t.csv", "--out", "full"], "full"),
    (["t.csv", "--tokenizer", "nowhere.json"], "nowhere.json"),
    (["t.csv", "--token-ids", "32000"], "--token-ids"),
    (["t.csv", "--prompts", "nowhere.jsonl"], "nowhere.jsonl"),
    (["t.csv", "--prompts", "empty.csv"], "empty.csv: holds no text"),
    (["t.csv", "--prompts", "negative.csv"], "negative.csv:1: not JSON"),
    (["t.csv", "--prompts", "unspaced.jsonl"], "--tokenizer"),
    (
        ["t.csv", "--prompts", "p", "--token-ids", "32000", "--endpoint-type", "completions"],
        "--token-ids: can't be combined with --prompts",
    ),
    (["t.csv", "--web-port", "99999"], "--web-port"),
    (["t.csv", "--web-port", "{taken}"], "can't listen at 127.0.0.1:{taken}"),
    (["t.csv", "--master", "--master-bind-port", "{taken}"], "--master-bind-port: can't listen"),
    (["t.csv", "--out", "/proc/x"], "/proc/x: can't be made"),
]


@pytest.mark.parametrize(("arguments", "named"), BAD)
def test_unusable_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], named: str) -> None:
    trace(tmp_path / "t.csv", 2)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "negative.csv").write_text("due_s,prompt_tokens,output_tokens\n0,1,1\n1,-5,1\n")
    (tmp_path / "unspaced.jsonl").write_text(json.dumps("字" * 100))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "run.json").write_text("{}")
    with endpoint() as server:
        taken = server.url.rpartition(":")[2]
        arguments = [argument.format(taken=taken) for argument in arguments]
        done = refused("replay", *arguments, "--url", server.url, cwd=tmp_path)
    assert done.returncode == 2
    assert named.format(taken=taken) in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3  # a gate is shown with a caret beneath
    assert server.prompts == []


def test_nobody_listens(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 2)
    done = refused("replay", "t.csv", "--url", "http://127.0.0.1:9", cwd=tmp_path)
    assert done.returncode == 2
    assert "nobody answers" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("number", "more"),
    [(signal.SIGINT, ["--report"]), (signal.SIGTERM, ["--processes", "2"]), (signal.SIGHUP, ["--slo", "errors < 1%"])],
)
def test_a_signal_ends_the_run_and_reports_it(tmp_path: Path, number: int, more: list[str]) -> None:
    trace(tmp_path / "t.csv", 3000, gap_s=0.02)
    with (
        endpoint() as server,
        running("replay", "t.csv", "--url", server.url, "--out", "r", *more, cwd=tmp_path) as process,
    ):
        until(lambda: len(server.prompts) > 20)
        if number == signal.SIGTERM:  # as `timeout` does: to the process, then to its group
            process.send_signal(number)
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 3, out + err
    assert "Traceback" not in err
    facts = about(tmp_path / "r")
    assert facts["ended"] == "interrupted" or (number == signal.SIGTERM and facts["ended"] == "worker_lost")
    assert (tmp_path / "r" / "summary.json").exists()
    recorded = rows(tmp_path / "r")["index"].to_pylist()
    assert len(recorded) == len(set(recorded)) == len(server.prompts)
    assert facts["missing"]["127.0.0.1:" + server.url.rpartition(":")[2]] == 3000 - len(recorded)
    assert (tmp_path / "r" / "report.html").exists() == ("--report" in more)


def test_kill_9_loses_at_most_5_seconds_of_rows(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 3000, gap_s=0.02)
    with endpoint() as server, running("replay", "t.csv", "--url", server.url, "--out", "r", cwd=tmp_path) as process:
        until(lambda: len(server.prompts) > 280)
        killed = time.time()
        process.kill()
        process.wait()
    answered = [end for _, end in server.spans.values() if end < killed - 5]
    assert len(rows(tmp_path / "r")) >= len(answered) > 0
    assert about(tmp_path / "r")["ended"] == "running"


def test_a_fault_of_ours_is_counted_and_hangs_nothing(tmp_path: Path) -> None:
    """Injected: the digests fail on one exchange, in a closed loop that waits for its end."""
    trace(tmp_path / "t.csv", 6, gap_s=5.0)
    injected = (
        "import sys\n"
        "import reports.store.digests as d\n"
        "good = d.Digests.add\n"
        "def add(self, exchange):\n"
        "    if exchange.index == 2: raise ZeroDivisionError('injected')\n"
        "    good(self, exchange)\n"
        "d.Digests.add = add\n"
    )
    (tmp_path / "sitecustomize.py").write_text(injected)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with endpoint() as server:
        arguments = command("replay", "t.csv", "--url", server.url, "--concurrency", "1", "--out", "r")
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=40, check=False
        )
    outcomes = {row["index"]: row["outcome"] for row in rows(tmp_path / "r").to_pylist()}
    assert outcomes == {index: "internal_error" if index == 2 else "ok" for index in range(6)}, done.stderr
    assert "injected" in done.stderr


def test_ctrl_c_twice_kills(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 3000, gap_s=0.02)
    with endpoint() as server, running("replay", "t.csv", "--url", server.url, "--out", "r", cwd=tmp_path) as process:
        until(lambda: len(server.prompts) > 20)
        os.kill(process.pid, signal.SIGSTOP)  # so that both arrive before it can end by itself
        process.send_signal(signal.SIGINT)
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 3


def test_each_try_is_a_row_and_prompts_may_be_token_ids(tmp_path: Path, replayed: Replays) -> None:
    trace(tmp_path / "t.csv", 4)
    with endpoint("flaky") as server:
        replayed(
            "replay", "t.csv", "--url", server.url, "--retries", "2", "--token-ids", "1000", "--endpoint-type",
            "completions", "--out", "r", cwd=tmp_path,
        )  # fmt: skip
    tries = rows(tmp_path / "r").select(["index", "attempt", "outcome"]).to_pylist()
    found = sorted((row["index"], row["attempt"], row["outcome"]) for row in tries)
    assert found == [(index, n, outcome) for index in range(4) for n, outcome in ((1, "http_error"), (2, "ok"))]
    assert sorted(len(body["prompt"]) for body in server.bodies) == [6, 6, 7, 7, 8, 8, 9, 9]
    assert all(0 < token < 1000 for body in server.bodies for token in body["prompt"])


def test_prompts_take_their_words_from_a_corpus(tmp_path: Path, replayed: Replays) -> None:
    """The same texts in every process, at the trace's lengths; a comparison with other words is refused."""
    trace(tmp_path / "t.csv", 12)
    (tmp_path / "own.jsonl").write_text('"alpha beta gamma delta epsilon zeta eta theta iota kappa lambda my"\n')
    for run, arguments in (("r", ["--processes", "2", "--prompts", "own.jsonl"]), ("plain", [])):
        with endpoint() as server:
            done = replayed("replay", "t.csv", "--url", server.url, "--out", run, *arguments, cwd=tmp_path)
        assert done.returncode == expected(tmp_path / run, 0), done.stderr
        if run == "r":
            said = sorted(map(str.split, server.prompts), key=len)
    assert sorted(map(len, said)) == sorted(6 + row % 5 for row in range(12))
    assert all(words[1:6] == ["alpha", "beta", "gamma", "delta", "epsilon"] for words in said)
    assert len({words[0] for words in said}) == 12
    about = json.loads((tmp_path / "r" / "run.json").read_text())["prompts"]
    assert (about["source"], about["texts"], about["words"], len(about["fingerprint"])) == ("own.jsonl", 1, 12, 32)
    compared = commands.phaseload("compare", "r", "plain", cwd=tmp_path)
    assert compared.returncode == 2 and "prompts from different texts" in compared.stderr


def test_users_who_leave(tmp_path: Path, replayed: Replays) -> None:
    trace(tmp_path / "t.csv", 40)
    with endpoint(gap=0.02) as server:
        replayed("replay", "t.csv", "--url", server.url, "--leave", "0.5", "--out", "r", cwd=tmp_path)
    outcomes = Counter(rows(tmp_path / "r")["outcome"].to_pylist())
    assert set(outcomes) == {"ok", "cancelled"}
    assert 8 <= outcomes["cancelled"] <= 32


@pytest.mark.parametrize("open_loop", [False, True])
def test_a_turn_waits_for_its_parent_unless_the_loop_is_open(
    tmp_path: Path, open_loop: bool, replayed: Replays
) -> None:
    sessions = {"session": [0, 1, 0, 1, 0, 1], "turn": [0, 0, 1, 1, 2, 2], "parent": ["", "", 0, 1, 2, 3]}
    trace(tmp_path / "t.csv", 6, gap_s=0.01, **sessions, think_s=[0, 0, 0.05, 0.05, 0.05, 0.05])
    with endpoint(gap=0.03) as server:
        flag = ["--open-loop"] if open_loop else []
        replayed("replay", "t.csv", "--url", server.url, "--out", "r", *flag, cwd=tmp_path)
    table = {row["index"]: row for row in rows(tmp_path / "r").to_pylist()}
    assert sorted(table) == list(range(6))
    for child, parent in ((2, 0), (3, 1), (4, 2), (5, 3)):
        if open_loop:
            assert (table[child]["due"], table[child]["planned"]) == (child * 10_000_000, None)
            assert table[child]["started"] < table[parent]["done"]
        else:
            assert table[child]["due"] == table[parent]["done"] + 50_000_000
            assert table[child]["planned"] == child * 10_000_000
    history = max(len(body["messages"]) for body in server.bodies)
    assert history >= 3  # a question, its answer, and the turn's own (as far as the prompt's length goes)


def test_workers_end_with_a_killed_master(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 3000, gap_s=0.02)
    with (
        endpoint() as server,
        running("replay", "t.csv", "--url", server.url, "--processes", "2", "--out", "r", cwd=tmp_path) as process,
    ):
        until(lambda: len(server.prompts) > 30)
        workers = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        assert psutil.wait_procs(workers, timeout=20)[1] == []
        assert server.repeated == []
        until(lambda: len(server.spans) == len(server.prompts))
        assert len(rows(tmp_path / "r")) == len(server.prompts)


def test_a_killed_worker_makes_the_run_invalid_and_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spare").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spare"))
    trace(tmp_path / "t.csv", 150, gap_s=0.02)
    with (
        endpoint() as server,
        running("replay", "t.csv", "--url", server.url, "--processes", "2", "--out", "r", cwd=tmp_path) as process,
    ):
        until(lambda: len(server.prompts) > 30)
        workers = [child.pid for child in psutil.Process(process.pid).children()]
        os.kill(workers[0], signal.SIGKILL)
        out, err = process.communicate(timeout=40)
        assert process.returncode == 3, out + err
    assert "is lost" in err
    assert list((tmp_path / "spare").iterdir()) == []
    facts = about(tmp_path / "r")
    recorded = set(rows(tmp_path / "r")["index"].to_pylist())
    assert facts["ended"] == "worker_lost"
    assert server.repeated == []
    assert set(facts["missing_requests"]) == set(range(150)) - recorded
    assert sum(facts["missing"].values()) == 150 - len(recorded) > 25


def test_every_request_failed_is_no_success(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 4, gap_s=0.1)
    with endpoint("failing") as server:
        done = phaseload("replay", "t.csv", "--url", server.url, "--out", "r", cwd=tmp_path)
    assert done.stdout.startswith("every request failed: 4 of 4\n")
    assert done.returncode == expected(tmp_path / "r", 1)
