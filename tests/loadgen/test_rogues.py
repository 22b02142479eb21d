"""A rogue master, a rogue worker, a stranger on their channel, and a foreign page: what each doesn't get."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fastdigest import TDigest
from gevent.queue import Queue

from loadgen import plan as plans
from loadgen import replays
from loadgen.options import Load, RunOptions, TargetOptions
from loadgen.plan import Arm, Plan, Step
from loadgen.processes import TOKEN, Workers, free_port
from loadgen.run.coordinator import Coordinator, Inbox
from loadgen.run.messages import Assignment, Claim, Failed, Final, Message, Over, Rows, StrayError, decode, encode
from loadgen.run.worker import Worker
from reports.store.digests import MetricDigest
from reports.store.run_json import WorkerFacts
from targets.target import Target
from traces.errors import InputError
from traces.typed_json import to_plain

from .running import endpoint, refused, running, trace, until

# A rogue master.


@pytest.mark.parametrize("file", ["/etc/passwd", "../plan/0.arrow", "plan/../../x.arrow", "plan/0.arrow/", "run.json"])
def test_a_plan_names_its_own_files_only(file: str) -> None:
    with pytest.raises(InputError, match="no file of a plan"):
        Arm(Target("a", "http://h"), file, 1)


def failure(target: Target, allowed: set[str]) -> str:
    """Why a worker refuses a plan for this target."""
    plan = Plan("p", (Step("s", (Arm(target, plans.step_file(0), 1),)),))
    sent: Queue[Message] = Queue()
    worker = Worker(lambda raw: sent.put(decode(raw)), lambda _: None, allowed)
    assert isinstance(sent.get(timeout=5), Claim)
    worker.deliver(encode(Assignment(0, 1, plan, "none", "/nowhere", "s", "elsewhere")))
    refusal = sent.get(timeout=5)
    worker.finish()
    worker.done.wait(5)
    return refusal.error if isinstance(refusal, Failed) else type(refusal).__name__


@pytest.mark.parametrize(
    ("fields", "secret", "remedy"),
    [
        ({"headers": (("X-Team", "a ${HOME_SECRET}"),)}, "$HOME_SECRET", "--allow-env HOME_SECRET"),
        ({"api_key_env": "HOME_SECRET"}, "$HOME_SECRET", "--allow-env HOME_SECRET"),
        ({"api_key_file": "/etc/hostname"}, "/etc/hostname", "--allow-key-file /etc/hostname"),
        ({"url": "unix:///run/docker.sock"}, "/run/docker.sock", "--allow-key-file /run/docker.sock"),
    ],
)
def test_a_worker_fills_in_only_what_its_own_command_line_names(
    fields: dict[str, Any], secret: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME_SECRET", "hunter2")
    target = Target(**{"name": "a", "url": "http://h", **fields})
    refusal = failure(target, {"$OTHER"})
    assert f"asks for {secret}, which this worker may not give away" in refusal and remedy in refusal
    assert failure(target, {secret}) == "Ping", "it goes on"


def test_a_plan_has_no_second_target_behind_a_name() -> None:
    evil, clean = (
        Arm(Target("a", "http://h", headers=headers), plans.step_file(0), 1) for headers in ((("X", "${HOME}"),), ())
    )
    for steps in ((Step("s", (evil, clean)),), (Step("s", (evil,)), Step("t", (clean,)))):
        with pytest.raises(InputError, match="two different targets have this name"):
            Plan("p", steps)
    assert Plan("p", (Step("s", (clean, clean)),)).targets == [clean.target]


def test_what_a_worker_names() -> None:
    options = TargetOptions(header=["X-Team: ${TEAM}"], api_key_env="KEY", api_key_file="/run/key")
    wants = options.target("http://h").wants()
    assert wants == {"$TEAM", "$KEY", "/run/key"}
    assert Target("a", "http://h/${PHASELOAD_SECRET_9}", extra_body={"a": "${HOME}"}).wants() == {"$PHASELOAD_SECRET_9"}
    workers = Workers(worker=True, allow_env=["A", "B"], allow_key_file=["/k"])
    assert set(workers.environment(wants)["PHASELOAD_ALLOWED"].splitlines()) == {*wants, "$A", "$B", "/k"}


# A rogue worker, and strangers.


def coordinated(folder: Path, *messages: tuple[str, object]) -> tuple[Coordinator, dict[str, Any]]:
    """A run whose worker "w" claims its part, what it and others send, and its run.json."""
    step = plans.LoadStep("replay", Load(), Load().requests(trace(folder / "t.csv", 3)))
    plan, traces = replays.planned("t", [step], [Target("a", "http://127.0.0.1:9")], RunOptions())
    plans.save(plan, traces, folder)
    inbox: Inbox = Queue()
    for message in (("w", encode(Claim(1, "h", "b"))), *messages):
        inbox.put(message)
    coordinator = Coordinator(folder, plan, ["w"], lambda raw, _: None, lambda _: True, inbox)
    assert coordinator.over.wait(10)
    return coordinator, json.loads((folder / "run.json").read_text())


def final(digests: tuple[MetricDigest, ...] = (), **odd: Any) -> Final:
    nothing: dict[str, Any] = {"rows": 0, "lost": None, "clock_offset_s": 0.0, "diagnostics": None}
    return Final(WorkerFacts(**{"number": 0, "pid": 1, "host": "\x1b[2J" * 999, **nothing, **odd}), False, digests, 1)


def done() -> Mapping[str, object]:
    return encode(final())


def test_what_is_no_message_of_ours_is_dropped_and_counted(tmp_path: Path) -> None:
    strays = (None, 7, [1], {}, {"kind": "conduct"}, {"kind": ["claim"]}, {"kind": None, "step": 1})
    stranger = [("stranger", raw) for raw in (*strays, encode(Over(0, {})), done())]
    coordinator, facts = coordinated(tmp_path, *stranger, *(("w", raw) for raw in strays), ("w", done()))
    assert facts["ended"] == "completed" and not coordinator.workers["w"].lost
    assert facts["strays"] == 2 * len(strays) + 2


STRAYS = """
import msgpack
from loadgen.run import locust_user
from fastdigest import TDigest
from gevent.queue import Queue
from locust.env import Environment
from locust.rpc.zmqrpc import Client

odd = 7, ("up",), ("up", {}, [1]), ("up", {}, 7), ("up", {}, "w"), ("heartbeat", None, {}), ("exception", 1, "s")
runner = Environment().create_master_runner("127.0.0.1", 0)
runner.environment.phaseload = locust_user  # in place of a Wiring
locust_user.inbox, received = Queue(), Queue()
runner.register_message("up", lambda msg, **_: received.put(msg.data))
stranger = Client("127.0.0.1", runner.server.port, "s")
for raw in (b"", b"\\xc1", *map(msgpack.packb, odd), msgpack.packb(("up", "ours", "s"))):
    stranger.socket.send(raw)
print(received.get(timeout=5), len(received), len(locust_user.inbox) - len(odd))
"""


def test_a_stray_does_not_end_locusts_listener() -> None:
    master = subprocess.run([sys.executable, "-c", STRAYS], capture_output=True, text=True, timeout=30, check=False)
    assert master.stdout == "ours 0 2\n", master.stderr


@pytest.mark.parametrize(
    "message",
    [
        Over(7, {"a": 1}),
        Over(-1, {"a": 1}),
        final(number=999),
        final(pid=-5),
        final(rows=-7),
        final(rows=1 << 63),
        final((MetricDigest("a", "s", 1 << 63, 0, "ttft", TDigest().to_dict()),)),
        Rows("../../0-00000.parquet", 0, b"x", 1),
        Rows("/tmp/0-00000.parquet", 0, b"x", 1),
        Rows("1-00000.parquet", 0, b"x", 1),
        Rows("0-00000.parquet", -1, b"x", 1),
        Rows("0-00000.parquet", 1 << 60, b"x", 1),
    ],
    ids=str,
)
def test_a_workers_odd_message_costs_that_worker_and_not_the_run(tmp_path: Path, message: Message) -> None:
    coordinator, facts = coordinated(tmp_path, ("w", encode(message)))
    assert "it sent what can't be used" in coordinator.workers["w"].lost
    assert (facts["ended"], facts["missing"], facts["workers"][0]["shard"]) == ("worker_lost", {"a": 3}, 0)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_workers_words_are_one_bounded_line(tmp_path: Path) -> None:
    coordinator, _ = coordinated(tmp_path, ("w", encode(Failed("\x1b[2J\nowned" + "!" * 10_000))))
    assert coordinator.workers["w"].lost.startswith("[2J owned!") and len(coordinator.workers["w"].lost) < 1000


def test_rows_that_are_none_are_for_the_report_to_name(tmp_path: Path) -> None:
    _, facts = coordinated(tmp_path, ("w", encode(Rows("0-00000.parquet", 0, b"PAR1 or not", 1))), ("w", done()))
    assert facts["ended"] == "completed"
    assert (tmp_path / "exchanges" / "0-00000.parquet").read_bytes() == b"PAR1 or not"


def test_a_token_is_proven_by_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Rows("0-00000.parquet", 5, b"\x00\xff", 2)
    monkeypatch.setenv(TOKEN, "sesame")
    sealed = encode(message)
    assert decode(sealed) == message and "sesame" not in str(sealed)
    for forged in ({**sealed, "at": 6}, {"kind": "rows", **to_plain(message)}, {**sealed, "proof": None}):
        with pytest.raises(StrayError, match="--token-env"):
            decode(forged)
    monkeypatch.setenv(TOKEN, "another")
    with pytest.raises(StrayError):
        decode(sealed)


def test_forks_share_a_token_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TOKEN not in Workers().environment()
    assert len({Workers(processes=2).environment()[TOKEN] for _ in range(3)}) == 3
    monkeypatch.setenv("MINE", "sesame")
    assert Workers(worker=True, token_env="MINE").environment()[TOKEN] == "sesame"
    assert refused("replay", "--worker", "--token-env", "NONE", cwd=tmp_path).returncode == 2


# A foreign page.


def test_a_foreign_page_starts_no_run(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 20)
    port = free_port()
    page = f"http://127.0.0.1:{port}"

    def status(path: str, body: bytes | None = None, **headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(page + path, body, headers), timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    form = b"user_count=1&spawn_rate=1"
    with (
        endpoint() as server,
        running("replay", "t.csv", "--url", server.url, "--web-port", str(port), "--out", "r", cwd=tmp_path),
    ):
        until(lambda: status("/") == 200)
        assert status("/", Host=f"localhost:{port}") == status("/", Host=f"[::1]:{port}") == 200
        assert status("/", Host="rebound.example") == 403
        assert status("/swarm", form, Host="rebound.example", Origin="http://rebound.example") == 403
        assert status("/swarm", form, Origin="http://[") == status("/", Host="[") == 403
        assert status("/swarm", form, Origin="http://evil.example") == status("/swarm", form, Origin="null") == 403
        assert not (tmp_path / "r" / "run.json").exists()
        assert status("/swarm", form, Origin=page) == 200
        until(lambda: (tmp_path / "r" / "run.json").exists())
