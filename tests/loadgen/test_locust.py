"""Locust is the runner: plain `locust -f`, more users than asked for, the web page, workers elsewhere."""

from __future__ import annotations

import json
import signal
import socket
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from reports.store.digests import Digests

from .running import about, endpoint, expected, phaseload, rows, running, trace, until

FILE = """
from loadgen import TraceUser
class Mine(TraceUser):
    trace, url, model, out = "t.csv", "{url}", "m", "r"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def locust(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "locust", "-f", "mine.py", *arguments]


def post(url: str, **form: str) -> dict[str, object]:
    with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), timeout=5) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found


def state(page: str) -> dict[str, object]:
    with urllib.request.urlopen(f"{page}/stats/requests", timeout=5) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return {"worker_count": 0, **found}


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except OSError:
        return False
    return True


def test_a_locust_file_of_three_lines(tmp_path: Path) -> None:
    """Asked for three users, it has one all the same: the trace is sent once."""
    trace(tmp_path / "t.csv", 20)
    with endpoint() as server:
        (tmp_path / "mine.py").write_text(FILE.format(url=server.url))
        with running(cwd=tmp_path, argv=locust("--headless", "-u", "3", "--json")) as process:
            out, err = process.communicate(timeout=40)
            assert process.returncode == expected(tmp_path / "r", 0), out + err
    assert server.repeated == []
    assert sorted(rows(tmp_path / "r")["index"].to_pylist()) == list(range(20))
    table = json.loads(out[out.index("[\n") :])
    assert {(row["method"], row["num_requests"]) for row in table} == {("POST", 20), ("TTFT", 20), ("TPOT", 20)}


def test_locusts_run_time_is_the_plans_duration(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 3000)
    with endpoint() as server:
        (tmp_path / "mine.py").write_text(FILE.format(url=server.url))
        with running(cwd=tmp_path, argv=locust("--headless", "-t", "1s")) as process:
            out, err = process.communicate(timeout=40)
            assert process.returncode == expected(tmp_path / "r", 0), out + err
    assert about(tmp_path / "r")["ended"] == "completed"
    assert sorted(rows(tmp_path / "r")["index"].to_pylist()) == list(range(50))


def test_a_second_user_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 60)
    more = (
        "import gevent\nfrom locust import events\n@events.init.add_listener\ndef wire(environment, **_):\n"
        "    more = lambda **_: gevent.spawn_later(0.3, environment.runner.spawn_users, {'Mine': 2})\n"
        "    environment.events.spawning_complete.add_listener(more)\n"
    )
    with endpoint() as server:
        (tmp_path / "mine.py").write_text(FILE.format(url=server.url) + more)
        with running(cwd=tmp_path, argv=locust("--headless")) as process:
            out, err = process.communicate(timeout=40)
            assert process.returncode == expected(tmp_path / "r", 0), out + err
    assert err.count("is refused") == 2
    assert server.repeated == []
    assert rows(tmp_path / "r")["outcome"].to_pylist() == ["ok"] * 60


@pytest.mark.parametrize("processes", ["1", "2"])
def test_stop_and_start_from_the_web_page_makes_two_runs(tmp_path: Path, processes: str) -> None:
    trace(tmp_path / "t.csv", 600, gap_s=0.02)
    port = free_port()
    page = f"http://127.0.0.1:{port}"
    with (
        endpoint() as server,
        running(
            "replay", "t.csv", "--url", server.url, "--web-port", str(port), "--processes", processes, "--out", "r",
            cwd=tmp_path,
        ) as process,
    ):  # fmt: skip
        until(lambda: answers(page))
        until(lambda: processes == "1" or state(page)["worker_count"] == int(processes))
        post(f"{page}/swarm", user_count="3", spawn_rate="3")
        until(lambda: len(server.prompts) > 20)
        post(f"{page}/stop")
        until(lambda: about(tmp_path / "r")["ended"] == "interrupted")
        first = len(server.prompts)
        post(f"{page}/swarm", user_count="3", spawn_rate="3")
        until(lambda: len(server.prompts) > first + 20)
        post(f"{page}/stop")
        until(lambda: about(tmp_path / "r-2")["ended"] == "interrupted")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert server.repeated == []
    recorded = [rows(tmp_path / name)["index"].to_pylist() for name in ("r", "r-2")]
    assert sum(map(len, recorded)) == len(server.prompts)
    assert all(indices == list(dict.fromkeys(indices)) for indices in recorded)
    assert about(tmp_path / "r")["salt"] != about(tmp_path / "r-2")["salt"]


def test_workers_without_the_masters_folder_send_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other machines: the workers see no run folder of the master's (mount namespaces would need root), and fill
    in what they may. All share a token."""
    for name, value in (("PHASELOAD_TOKEN", "sesame"), ("PHASELOAD_ALLOWED", "$TEAM"), ("TEAM", "blue")):
        monkeypatch.setenv(name, value)
    trace(tmp_path / "t.csv", 200, gap_s=0.005)
    port = str(free_port())
    hidden = [
        sys.executable,
        "-P",
        "-c",
        "import sys, loadgen.run.messages as m; m.is_shared = lambda _: False; m.boot_id = lambda: 'elsewhere'\n"
        "import loadgen.run.locustfile as l; l.main()",
        "-f",
        str(Path(sys.modules["reports"].__file__ or "").parent.parent / "loadgen" / "run" / "locustfile.py"),
        "--worker",
        "--master-host",
        "127.0.0.1",
        "--master-port",
        port,
        "--skip-log-setup",
    ]
    with (
        endpoint() as server,
        running(
            "replay", "t.csv", "--url", server.url, "--master", "--expect-workers", "2", "--master-bind-port", port,
            "-H", "X-Team: ${TEAM}", "--out", "r", cwd=tmp_path,
        ) as master,
        running(cwd=tmp_path, argv=hidden),
        running(cwd=tmp_path, argv=hidden),
    ):  # fmt: skip
        out, err = master.communicate(timeout=50)
        assert master.returncode == expected(tmp_path / "r", 0), out + err
    assert server.repeated == []
    assert sorted(rows(tmp_path / "r")["index"].to_pylist()) == list(range(200))
    workers = about(tmp_path / "r")["workers"]
    assert [worker["rows"] for worker in workers] == [100, 100]
    assert all(0 < worker["clock_offset_error_s"] < 0.1 for worker in workers)
    assert all(abs(worker["clock_offset_s"]) <= worker["clock_offset_error_s"] for worker in workers)


def test_two_processes_send_each_request_once_and_merge_their_digests(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 300, gap_s=0.004)
    with endpoint(tokens=6, gap=0.004, ttft=0.005) as server:
        done = phaseload("replay", "t.csv", "--url", server.url, "--processes", "2", "--out", "r", cwd=tmp_path)
    assert done.returncode == expected(tmp_path / "r", 0), done.stdout + done.stderr
    table = rows(tmp_path / "r")
    assert sorted(table["index"].to_pylist()) == list(range(300))
    assert server.repeated == []
    workers = about(tmp_path / "r")["workers"]
    assert [worker["rows"] for worker in workers] == [150, 150]
    assert len({worker["pid"] for worker in workers}) == 2
    digests = Digests.load(tmp_path / "r" / "digests.json")
    sent, first = table["sent"].to_numpy(), [at[0] for at in table["token_at"].to_pylist()]
    ttft = (np.array(first) - sent) * 1e-9
    for q in (0.5, 0.99):
        found = digests.quantile(table["target"][0].as_py(), "replay", "ttft", q)
        assert found == pytest.approx(float(np.quantile(ttft, q)), rel=0.002)
