"""What a run would take: the forecast, `--plan`, and a quota that refuses a run before any of it is sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen import replays
from loadgen.cli.forecast import duration
from loadgen.forecast import Extra, forecast
from loadgen.options import Load, RunOptions
from loadgen.plan import LoadStep
from loadgen.quotas import Round
from targets.quota import Limit
from targets.target import Target
from traces.trace import NS_PER_S, Trace, build

from .running import Replays, about, endpoint, expected, refused, trace

PAID = Target("paid", "http://p:1", "m", price_per_million_input=1.0, price_per_million_output=4.0)
HIRED = Target("hired", "http://h:1", "m", price_per_hour=36.0)


def requests(count: int, gap: float = 1.0, prompt: int = 1000) -> Trace:
    due = [round(number * gap * NS_PER_S) for number in range(count)]
    return build({"due": due, "prompt_tokens": [prompt] * count, "output_tokens": [500] * count})


def planned(
    *rounds: Sequence[LoadStep], slo: Sequence[str] = (), targets: Sequence[Target] = (PAID, HIRED)
) -> list[Round]:
    return [replays.planned("t", steps, targets, RunOptions(slo=slo)) for steps in rounds]


def test_time_tokens_and_dollars() -> None:
    base = LoadStep("base", Load(duration=90.0, warmup=10.0), requests(100))
    fast = LoadStep("2x", Load(duration=40.0, drain_timeout=20.0), requests(80, 0.5), factor=2.0)
    whole = forecast(planned([base, fast], [base, fast]), {})
    assert (whole.rounds, whole.seconds, whole.seconds_at_most) == (2, 280.0, 440.0)
    assert [(arm.round, arm.step, arm.target) for arm in whole.arms] == [
        (number, step, target) for number in (1, 2) for step in ("base", "2x") for target in ("paid", "hired")
    ]
    paid, hired = whole.arms[:2]
    assert (paid.seconds, paid.requests, paid.input_tokens, paid.output_tokens) == (100.0, 100, 100_000, 50_000)
    assert paid.dollars == pytest.approx(0.1 + 0.2)
    assert hired.dollars == pytest.approx(1.0)  # 100 s at a cent a second
    assert [(total.requests, total.input_tokens) for total in whole.totals] == [(360, 360_000)] * 2
    assert [total.dollars for total in whole.totals] == pytest.approx([2 * (0.3 + 0.24), 2.8])
    assert whole.admitted and not whole.fits and not whole.undecided


def test_what_is_not_known_is_not_told() -> None:
    in_flight = LoadStep("base", Load(concurrency=4), requests(10))
    whole = forecast(planned([in_flight]), {})
    assert (whole.seconds, whole.seconds_at_most) == (None, None)
    assert [arm.dollars for arm in whole.arms] == [pytest.approx(0.03), None]
    free = forecast(planned([in_flight], targets=[replace(HIRED, price_per_hour=None)]), {})
    assert free.totals[0].dollars is None


def test_quotas_beside_it() -> None:
    base = LoadStep("base", Load(duration=60.0), requests(60))
    limits = {"paid": [Limit("requests", "minute", 60, "x"), Limit("tokens", "minute", 50_000, "y")]}
    whole = forecast(planned([base]), limits)
    assert [(fit.needed, fit.admits) for fit in whole.fits] == [(60, True), (90_000, False)]
    assert not whole.admitted


@pytest.mark.parametrize(
    ("gate", "rounds", "says"),
    [
        ("ttft p99 < 800ms", 1, "p99 needs about 507 effective requests, 120 are planned: no verdict is likely"),
        ("ttft p99 < 800ms", 3, "360 are planned (120 + 120 + 120 in 3 rounds)"),
        ("ttft p99 < 800ms", 5, None),
        ("ttft p50 < 800ms", 1, None),
        ("errors < 1%", 1, "errors needs about 333 effective requests, 120 are planned"),
        ("errors < 1%", 3, None),
        ("ttft p90 < 1s where prompt_tokens > 2000", 1, "p90 needs about 50 effective requests, 0 are planned"),
        ("ttft p90 < 1s where in_flight > 2", 1, None),  # not known before
        ("@2x: ttft p99 < 1s", 1, None),
        ("requests > 1/s", 1, None),
    ],
)
def test_gates_that_the_sample_can_not_decide(gate: str, rounds: int, says: str | None) -> None:
    base = LoadStep("base", Load(duration=120.0, warmup=10.0), requests(130))
    lines = [line for line in forecast(planned(*[[base]] * rounds, slo=[gate]), {}).undecided if "needs" in line]
    if says is None:
        assert lines == []
    else:
        (line,) = lines
        assert says in line and line.startswith(f"{gate} in step base: ")


def test_a_tail_needs_a_steeper_step() -> None:
    steps = [LoadStep(f"{factor:g}x", Load(duration=60.0), requests(60), factor=factor) for factor in (0.5, 1.0, 1.4)]
    slo = ["ttft p99 < 1s", "@0.5x: tpot p90 < 1s", "@1.4x: tpot p90 < 1s", "tpot p50 < 1s", "errors < 5%"]
    lines = [line for line in forecast(planned(*[steps] * 9, slo=slo), {}).undecided if "headroom" in line]
    assert lines == [
        "ttft p99 < 1s can't pass in steps 1x, 1.4x: no step of 1.5 times the load shows headroom",
        "@1.4x: tpot p90 < 1s can't pass in step 1.4x: no step of 1.5 times the load shows headroom",
    ]
    assert not any("headroom" in line for line in forecast(planned(steps, slo=slo), {}).undecided)  # of one round


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "not known"),
        (45.2, "45 s"),
        (119.0, "119 s"),
        (720.0, "12 min"),
        (3599.0, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_a_plan_sends_nothing(tmp_path: Path) -> None:
    trace(tmp_path / "t.csv", 40)
    with endpoint() as server:
        shared = (
            "bakeoff",
            "t.csv",
            "-t",
            f"one={server.url}",
            "-m",
            "m",
            "--duration",
            "0.8",
            "--load",
            "0.5,1",
            "--slo",
            "ttft p99 < 1s",
        )
        done = refused(*shared, "--plan", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "ttft p99 < 1s in step base: p99 needs about 507 effective requests, 40 are planned" in done.stdout
        as_json = refused(*shared, "--plan", "--json", cwd=tmp_path)
        assert server.prompts == []
    facts = json.loads(as_json.stdout)
    assert [(arm["step"], arm["target"]) for arm in facts["arms"]] == [("0.5x", "one"), ("base", "one")]
    assert facts["arms"][1]["requests"] == 40
    assert not (tmp_path / "runs").exists()
    gone = refused("replay", "t.csv", "--url", server.url, "-m", "m", "--plan", cwd=tmp_path)
    assert gone.returncode == 0 and "one round" in gone.stdout


def test_the_demonstrations_plan_starts_no_endpoint(tmp_path: Path) -> None:
    done = refused("bakeoff", "--plan", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert {arm["target"] for arm in facts["arms"]} == {"a100", "groqrack", "a100+groqrack"}
    assert all(total["dollars"] is None for total in facts["totals"])  # nothing of it is hired
    assert list(tmp_path.iterdir()) == []


def test_a_quota_refuses_before_anything_is_sent(tmp_path: Path, replayed: Replays) -> None:
    """Only the probe's one request comes, whose headers name the limit; thinned, the same load is sent."""
    trace(tmp_path / "t.csv", 60)  # of 12 tokens a request on average: 720 in the one minute
    headers = {"x-ratelimit-limit-tokens": "500"}
    with endpoint(headers=headers) as limited, endpoint() as free:
        both = ("bakeoff", "t.csv", "-t", f"free={free.url}", "-t", f"limited={limited.url}", "-m", "m", "--probe")
        for arguments in (both, (*both, "--rounds", "2", "--round-duration", "0.5")):
            done = refused(*arguments, cwd=tmp_path)
            assert done.returncode == 2
            assert (
                "limited: its quota of 500 tokens a minute (x-ratelimit-limit-tokens) can't admit minute 1 of step base"
                in done.stderr
            )
            assert "--quota-scale auto" in done.stderr and done.stderr.rstrip().splitlines()[-1].startswith(
                "phaseload: "
            )
        assert not (tmp_path / "runs").exists()
        done = refused(*both, "--plan", cwd=tmp_path)
        assert done.returncode == 2 and "can't admit" in done.stdout
        assert len(limited.prompts) == len(free.prompts) == 3  # probes
        done = replayed(*both, "--quota-scale", "auto", "--out", "r", cwd=tmp_path)
        assert done.returncode == expected(tmp_path / "r", 0), done.stderr
        assert 20 <= len(limited.prompts) - 4 <= 45
        assert len(limited.prompts) == len(free.prompts)
    facts = about(tmp_path / "r")
    assert 0.3 < facts["quota_scale"] < 0.75
    assert facts["phases"][0]["planned"] == {"free": len(free.prompts) - 4}
    assert "of its sessions, for all targets alike" in done.stdout


def test_the_fixed_prompts_are_counted_with_the_load() -> None:
    base = LoadStep("base", Load(duration=90.0, warmup=10.0), requests(100))
    alone, asked = forecast(planned([base]), {}), forecast(planned([base]), {}, Extra(120, 120 * 36, 120 * 16))
    for before, after in zip(alone.totals, asked.totals, strict=True):
        assert after.requests - before.requests == 120
        assert (after.input_tokens - before.input_tokens, after.output_tokens - before.output_tokens) == (4320, 1920)
    assert asked.totals[0].dollars == pytest.approx((alone.totals[0].dollars or 0) + 4320e-6 + 4 * 1920e-6)
