"""Every verdict with its exit code."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.analysis import gate_grammar, gates
from reports.analysis.gates import Decision, Verdict
from reports.analysis.quantiles import BATCHES, Ordered
from reports.analysis.samples import Sample, Throughput
from reports.analysis.summary import judge, summarise
from reports.analysis.validity import Reason, Status
from reports.store.run_folder import Run, open_run
from tests.commands import phaseload
from tests.reports import made
from traces.errors import InputError


def sample(values: Any, failed: int = 0, good: int | None = None, target: str = "t", step: str = "") -> Sample:
    """Requests that come evenly: each batch of the window has its part of the values and of the failures."""
    spread = lambda n: (np.arange(n) % BATCHES).astype(np.uint8)  # noqa: E731
    counts = lambda n: np.bincount(spread(n), minlength=BATCHES)  # noqa: E731
    ordered, n = Ordered.of(np.asarray(values, float), spread(len(values)), counts(failed), 10.0), len(values) + failed
    own = dataclasses.replace(ordered, failed=counts(0))
    return Sample(
        target=target, step=step, n=n, failed=failed, window=(0, 10 * made.S), gaps=ordered.values, sizes=counts(n),
        ordered=dict.fromkeys(gate_grammar.LATENCIES, ordered) | {"lateness": own}, throughput=Throughput(4.0, 400.0),
        good=good, good_in=None if good is None else counts(good), goodput=None if good is None else good / 10,
        rows=pd.DataFrame({"counted": np.zeros(0, np.bool_)}),
    )  # fmt: skip


def of(*keys: tuple[str, str]) -> dict[tuple[str, str], Sample]:
    return {key: sample(EVEN, target=key[0], step=key[1]) for key in keys}


def decide(run: dict[tuple[str, str], Sample], *texts: str, reasons: Sequence[Reason] = ()) -> list[Verdict]:
    return gates.decide([gate_grammar.parse(text) for text in texts], run, reasons)


EVEN = np.linspace(0.0001, 0.4, 4000)


@pytest.mark.parametrize(
    ("text", "given_", "decision", "figure"),
    [
        ("ttft p99 < 400ms", sample(EVEN), Decision.PASS, 0.396001),
        ("ttft p99 < 390ms", sample(EVEN), Decision.FAIL, 0.396001),
        ("ttft p99 < 396ms", sample(EVEN), Decision.NO_VERDICT, 0.396001),
        ("ttft p99 > 390ms", sample(EVEN), Decision.PASS, 0.396001),
        ("ttft p99 > 400ms", sample(EVEN), Decision.FAIL, 0.396001),
        ("ttft p99 < 1s", sample(EVEN[:298]), Decision.NO_VERDICT, None),
        ("ttft p99 < 1s", sample(EVEN[:299]), Decision.NO_VERDICT, 0.029602),
        ("ttft p99 < 1s", sample(EVEN[:400]), Decision.PASS, 0.039601),
        ("ttft p50 < 1s", sample(EVEN[:5]), Decision.NO_VERDICT, None),
        ("ttft p50 < 1s", sample([]), Decision.NO_VERDICT, None),
        ("ttft p99 < 99s", sample(EVEN, failed=80), Decision.FAIL, math.inf),
        ("ttft p99 < 99s", sample(EVEN, failed=44), Decision.NO_VERDICT, math.inf),
        ("ttft p50 < 1s", sample([], failed=9), Decision.FAIL, math.inf),
        ("lateness p99 < 1s", sample(EVEN, failed=80), Decision.PASS, 0.396001),
        ("tpot mean < 1s", sample(EVEN, failed=80), Decision.PASS, 0.20005),
        ("tpot max <= 400ms", sample(EVEN), Decision.PASS, 0.4),
        ("errors < 3%", sample(EVEN, failed=80), Decision.PASS, 80 / 4080),
        ("errors < 1%", sample(EVEN, failed=80), Decision.FAIL, 80 / 4080),
        ("errors < 2%", sample(EVEN, failed=80), Decision.NO_VERDICT, 80 / 4080),
        ("errors < 1%", sample(EVEN[:300]), Decision.NO_VERDICT, 0.0),
        ("errors < 1%", sample(EVEN[:400]), Decision.PASS, 0.0),
        ("errors < 1%", sample([]), Decision.NO_VERDICT, None),
        ("goodput > 5/s", sample(EVEN, good=49), Decision.FAIL, 4.9),
        ("goodput > 5/s", sample(EVEN, good=51), Decision.PASS, 5.1),
        ("goodput > 90%", sample(EVEN, good=4000), Decision.PASS, 1.0),
        ("goodput > 90%", sample(EVEN, good=3000), Decision.FAIL, 0.75),
        ("goodput > 90%", sample(EVEN, good=3600), Decision.NO_VERDICT, 0.9),
        ("requests > 5/s", sample(EVEN), Decision.FAIL, 4.0),
        ("tokens > 60/min", sample(EVEN), Decision.PASS, 400.0),
    ],
)
def test_verdicts(text: str, given_: Sample, decision: Decision, figure: float | None) -> None:
    verdict = gates.verdict(gate_grammar.parse(text), given_)
    assert verdict.decision is decision
    assert verdict.figure == (figure if figure is None else pytest.approx(figure, rel=1e-9))
    assert json.loads(json.dumps(verdict.as_json()))["gate"] == text


def test_a_goodput_gate_needs_objectives() -> None:
    with pytest.raises(InputError, match="needs objectives"):
        gates.verdict(gate_grammar.parse("goodput > 1/s"), sample(EVEN))


def test_each_target_and_step_is_asked_unless_the_gate_is_narrower() -> None:
    run = of(*((target, step) for target in "ab" for step in ("1x", "3x")))

    def asked(text: str) -> list[tuple[str, str]]:
        return [(verdict.target, verdict.step) for verdict in decide(run, text)]

    assert asked("ttft p50 < 1s") == list(run)
    assert asked("a: ttft p50 < 1s") == [("a", "1x"), ("a", "3x")]
    assert asked("@3x: ttft p50 < 1s") == [("a", "3x"), ("b", "3x")]
    assert asked("b@1x: ttft p50 < 1s") == [("b", "1x")]
    with pytest.raises(InputError, match="there are a@1x, a@3x, b@1x, b@3x"):
        asked("c: ttft p50 < 1s")


def because(status: Status, target: str = "") -> Reason:
    return Reason(status, "it is so", target=target)


def test_one_targets_invalid_evidence_leaves_the_others_judged() -> None:
    run = of(("a", ""), ("b", ""))

    def judged(*texts: str) -> tuple[list[Decision], int]:
        decided = decide(run, *texts, reasons=[because(Status.INVALID, "b")])
        return [verdict.decision for verdict in decided], gates.exit_code(decided, Status.INVALID)

    assert judged("ttft p99 < 1s") == ([Decision.PASS, Decision.INVALID], 3)
    assert judged("ttft p99 < 1ms") == ([Decision.FAIL, Decision.INVALID], 3)
    assert judged("a: ttft p99 < 1s") == ([Decision.PASS], 0)
    assert judged("a: ttft p99 < 1ms") == ([Decision.FAIL], 1)
    assert judged("b: ttft p99 < 1s") == ([Decision.INVALID], 3)
    del run["b", ""]  # it left no rows: nobody else can speak for it
    assert judged("ttft p99 < 1s") == ([Decision.INVALID], 3)


def test_an_invalid_run_passes_and_fails_no_gate() -> None:
    run, slos = of(("t", "")), ("ttft p99 < 1s", "ttft p99 < 1ms")
    decisions = {
        status: [verdict.decision for verdict in decide(run, *slos, reasons=[because(status)])] for status in Status
    }
    assert decisions[Status.VALID] == decisions[Status.SUSPECT] == [Decision.PASS, Decision.FAIL]
    assert decisions[Status.INVALID] == [Decision.INVALID] * 2


def test_exit_codes() -> None:
    run = of(("t", ""))

    def code(*texts: str, status: Status = Status.VALID) -> int:
        return gates.exit_code(decide(run, *texts, reasons=[because(status)]), status)

    good, bad, thin = "ttft p99 < 1s", "ttft p99 < 1ms", "ttft p99.99 < 1s"
    assert [code(good), code(bad), code(thin), code(good, bad), code(bad, thin), code(good, thin)] == [0, 1, 3, 1, 1, 3]
    assert [code(good, status=Status.SUSPECT), code(good, status=Status.INVALID), code(bad, status=Status.INVALID)] == [
        0,
        3,
        3,
    ]


@pytest.fixture(scope="module")
def recorded(run: Path) -> Run:
    return open_run(run)


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("prompt_tokens > 1000", lambda rows: rows["prompt_tokens"] > 1000),
        ("prompt_tokens > 500 and output_tokens <= 100",
         lambda rows: (rows["prompt_tokens"] > 500) & (rows["output_tokens"] <= 100)),
        ("in_flight >= 12", lambda rows: rows["in_flight"] >= 12),
        ("turn = 0", lambda rows: rows["turn"] == 0),
        ("session != 3", lambda rows: rows["session"] != 3),
    ],
)  # fmt: skip
def test_a_slice_is_judged_on_its_own_requests(
    recorded: Run, where: str, chosen: Callable[[pd.DataFrame], pd.Series]
) -> None:
    rows = recorded.rows[recorded.rows["counted"]]
    part = rows[chosen(rows)]
    slowest = float(part.loc[part["ok"], "ttft"].max())
    [share, most] = judge(
        summarise(recorded, {"ttft": 0.1}), [f"errors < 9% where {where}", f"ttft max < 9s where {where}"]
    )
    assert (share.n, share.figure) == (len(part), pytest.approx((~part["ok"]).mean()))
    assert 0 < share.effective <= share.n
    assert most.figure == pytest.approx(slowest)
    [good] = judge(summarise(recorded, {"ttft": 0.1}), f"goodput > 1% where {where}")
    assert good.figure == pytest.approx((part["ok"] & (part["ttft"] <= 0.1)).mean())


def test_a_slice_without_requests_has_no_verdict(recorded: Run) -> None:
    for gate in ("ttft p99 < 1s", "errors < 1%", "requests > 1/s", "tpot max < 1s"):
        [verdict] = judge(recorded, f"{gate} where prompt_tokens > 100000")
        assert (verdict.decision, verdict.n, verdict.note) == (Decision.NO_VERDICT, 0, "no counted requests")


def test_what_was_never_sent_is_named_beside_a_slice_by_load(recorded: Run) -> None:
    rows = recorded.rows.copy()
    rows.loc[rows.index[rows["counted"]][:7], ["ok", "in_flight"]] = [False, np.nan]
    [verdict] = judge(dataclasses.replace(recorded, rows=rows), "errors < 50% where in_flight != 0")
    assert verdict.n == rows["counted"].sum() - 7
    assert verdict.note.endswith("7 were never sent, and are in no slice")


def test_a_slice_of_gaps_is_refused() -> None:
    with pytest.raises(InputError, match="to no slice"):
        gate_grammar.parse("itl p99 < 1s where turn > 0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.run(tmp_path_factory.mktemp("gates") / "run", (made.GPU,), seconds=75)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--slo", "ttft p99 < 2s", "--slo", "errors < 5%"], 0, "pass"),
        (["--slo", "ttft p99 < 1ms"], 1, "fail"),
        (["--slo", "ttft p99.9 < 2s"], 3, "needs 2995"),
        (["--slo", "ttft p99 < fast"], 2, "^"),
        (["--goodput", "ttft:800", "tpot:40", "--slo", "goodput > 90%"], 0, "pass"),
        ([], 2, "no gate to ask"),
    ],
)
def test_the_command(run: Path, arguments: list[str], code: int, said: str) -> None:
    done = phaseload("gate", run, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_invalid_run_decides_nothing(tmp_path: Path) -> None:
    folder = made.run(tmp_path / "run", (made.GPU,), seconds=45, late=0.2)
    done = phaseload("gate", folder, "--slo", "ttft p99 < 2s", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == told["exit_code"] == 3
    assert told["validity"]["status"] == "invalid"
    assert told["verdicts"][0]["result"] == "invalid"
