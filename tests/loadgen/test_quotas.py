"""Quotas: what vendors say, the worst window of what would be sent, and how far it is thinned to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen import quotas, replays
from loadgen.options import Load, RunOptions
from loadgen.plan import LoadStep
from loadgen.quotas import Round, check, fits, share_that_fits, shortfalls, worst
from targets.quota import Limit, limits
from targets.target import Target
from traces.errors import InputError
from traces.trace import NS_PER_S, Trace, build
from traces.workload import synthesise

MINUTE = 60 * NS_PER_S
CHAT = Target("a", "http://a:1", "m")
GROQ = Target("g", "https://api.groq.com/openai", "m", endpoint_type="groq")
OPENAI_HEADERS = {"x-ratelimit-limit-requests": "60", "x-ratelimit-limit-tokens": "150000", "x-ratelimit-reset": "1s"}


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        (CHAT, OPENAI_HEADERS, {"requests a minute": 60, "tokens a minute": 150_000}),
        (GROQ, OPENAI_HEADERS, {"requests a day": 60, "tokens a minute": 150_000}),
        (replace(GROQ, endpoint_type="chat"), OPENAI_HEADERS, {"requests a day": 60, "tokens a minute": 150_000}),
        (
            CHAT,
            {"Anthropic-RateLimit-Input-Tokens-Limit": "30000", "anthropic-ratelimit-output-tokens-limit": "8000"},
            {"input tokens a minute": 30_000, "output tokens a minute": 8_000},
        ),
        (
            CHAT,
            {"x-ratelimit-limit-requests-day": "1000", "x-ratelimit-limit-tokens-per-day": "7"},
            {"requests a day": 1000, "tokens a day": 7},
        ),
        (CHAT, {"x-ratelimit-limit-tokens": "0", "x-ratelimit-limit-requests": "lots", "x-ratelimit-limit": "3"}, {}),
        (
            replace(CHAT, tokens_per_minute=5, requests_per_day=9, concurrent_requests=3),
            OPENAI_HEADERS,
            {"tokens a minute": 5, "requests a day": 9, "requests a minute": 60},
        ),
    ],
)
def test_what_vendors_say(target: Target, headers: dict[str, str], expected: dict[str, int]) -> None:
    assert {f"{limit.kind} a {limit.period}": limit.most for limit in limits(target, headers)} == expected


def test_who_said_it() -> None:
    stated, shown = limits(replace(CHAT, tokens_per_minute=5), OPENAI_HEADERS)
    assert str(stated) == "5 tokens a minute (tokens_per_minute)"
    assert str(shown) == "60 requests a minute (x-ratelimit-limit-requests)"


@settings(deadline=None)
@given(
    due=st.lists(st.integers(0, 300), min_size=1, max_size=40).map(sorted),
    period=st.integers(1, 100),
    data=st.data(),
)
def test_the_worst_period_is_the_worst(due: list[int], period: int, data: st.DataObject) -> None:
    amount = data.draw(st.lists(st.integers(0, 50), min_size=len(due), max_size=len(due)))
    most, first = worst(np.array(due), np.array(amount), period)
    sums = [sum(a for d, a in zip(due, amount, strict=True) if start <= d < start + period) for start in due]
    assert most == max(sums) == sums[first]


def requests(*due: float, prompt: int = 10, output: int = 5) -> Trace:
    count = len(due)
    instants = [round(at * NS_PER_S) for at in due]
    return build({"due": instants, "prompt_tokens": [prompt] * count, "output_tokens": [output] * count})


def planned(*rounds: Sequence[LoadStep], targets: Sequence[Target], groups: bool = False) -> list[Round]:
    """`groups`: each target alone, one after the other."""
    names = {step.name: [[target.name] for target in targets] for step in rounds[0]} if groups else None
    return [replays.planned("t", steps, targets, RunOptions(), groups=names) for steps in rounds]


def step(name: str, *due: float, seconds: float = 60.0, concurrency: int | None = None) -> LoadStep:
    return LoadStep(name, Load(duration=seconds, concurrency=concurrency), requests(*due))


TOKENS = Limit("tokens", "minute", 45, "x")


def test_the_worst_minute_and_where_it_is() -> None:
    rounds = planned([step("base", 0, 50), step("2x", 1, 2, 3, 59)], targets=[CHAT])
    (fit,) = fits(rounds, {"a": [TOKENS]})
    assert (fit.needed, fit.round, fit.step, fit.at) == (60, 1, "base", 50.0)  # 50 s, and those from 60 s on
    (fit,) = fits(rounds, {"a": [Limit("requests", "day", 9, "x")]})
    assert (fit.needed, fit.admits) == (6, True)


def test_rounds_and_targets_alone_come_one_after_the_other() -> None:
    one = [step("base", 0, 59)]
    together, alone = (planned(one, one, targets=[CHAT, replace(CHAT, name="b", url="http://b:1")], groups=groups)
                       for groups in (False, True))  # fmt: skip
    assert [fit.needed for fit in fits(together, {"a": [TOKENS], "b": [TOKENS]})] == [30, 30]
    assert [fit.needed for fit in fits(alone, {"a": [TOKENS]})] == [30]
    (fit,) = fits(together, {"b": [Limit("input tokens", "day", 45, "x")]})
    assert (fit.needed, fit.round, fit.step) == (40, 1, "base")


def test_two_names_of_one_account_share_its_quota() -> None:
    rounds = planned([step("base", 0, 59)], targets=[CHAT, replace(CHAT, name="again")])
    assert [fit.needed for fit in fits(rounds, {"a": [TOKENS], "again": [TOKENS]})] == [60, 60]
    other_key = replace(CHAT, name="again", api_key_env="OTHER")
    rounds = planned([step("base", 0, 59)], targets=[CHAT, other_key])
    assert [fit.needed for fit in fits(rounds, {"a": [TOKENS]})] == [30]


def test_the_refusal_is_one_line_with_the_arithmetic() -> None:
    rounds = planned([step("base", 0)], [step("base", 0, 61, 62, 63, 64, seconds=120)], targets=[CHAT])
    with pytest.raises(InputError) as refused:
        check(rounds, {"a": [TOKENS]})
    assert str(refused.value) == (
        "a: its quota of 45 tokens a minute (x) can't admit minute 2 of step base of round 2, which needs 60 "
        "(--quota-scale auto thins the load equally for all targets, here to about 0.75)"
    )
    check(rounds, {"a": [replace(TOKENS, most=60)]})


def test_a_day_is_the_whole_run() -> None:
    rounds = planned([step("base", 0, 1)], [step("base", 0, 1)], targets=[CHAT])
    with pytest.raises(InputError, match=r"3 requests a day \(x\) can't admit the run's 4"):
        check(rounds, {"a": [Limit("requests", "day", 3, "x")]})


def test_a_number_in_flight() -> None:
    few = replace(CHAT, concurrent_requests=4)
    check(planned([step("base", 0, concurrency=4)], targets=[few]), {"a": [replace(TOKENS, most=1)]})  # no instants
    with pytest.raises(InputError, match="concurrent_requests = 4 can't admit 5 in step base"):
        check(planned([step("base", 0, concurrency=5)], targets=[few]), {})
    with pytest.raises(InputError, match="can't thin a fixed number in flight"):
        step("base", 0, concurrency=5).thinned(0.5)


def test_the_load_is_thinned_until_it_fits() -> None:
    trace = synthesise("azure-conv", duration=300.0, seed=1)
    load = LoadStep("base", Load(duration=300.0, seed=3), trace)

    def at(share: float) -> list[Round]:
        return [replays.planned("t", [load], [CHAT], RunOptions(), quota_scale=share)]

    (whole,) = fits(at(1.0), {"a": [TOKENS]})
    half = {"a": [replace(TOKENS, most=whole.needed // 2)]}
    share = share_that_fits(at, half)
    (fit,) = fits(at(share), half)
    assert fit.admits and fit.share > 0.9
    assert 0.35 < share < 0.65
    [(plan, traces)] = at(share)
    assert plan.quota_scale == share
    assert set(traces["plan/0.arrow"].column("due")) <= set(trace.column("due"))
    assert share_that_fits(at, {"a": [replace(TOKENS, most=whole.needed)]}) == 1.0
    assert quotas.share_of(0.3, at, half) == 0.3
    with pytest.raises(InputError, match="next to nothing"):
        share_that_fits(at, {"a": [replace(TOKENS, most=1)]})


def test_shortfalls_of_a_trace() -> None:
    trace = requests(0, 1, 2)
    assert list(shortfalls([replace(TOKENS, most=45)], trace)) == []
    (line,) = shortfalls([replace(TOKENS, most=30)], trace)
    assert line == "admits 30 tokens a minute (x), the trace's worst minute needs 45: at most 67% of it would be let in"


@pytest.mark.parametrize("scale", ["0", "1.5", "-1", "half", "nan"])
def test_no_share(scale: str) -> None:
    with pytest.raises(InputError, match="expected a share from 0 to 1, or auto"):
        RunOptions(quota_scale=scale)
