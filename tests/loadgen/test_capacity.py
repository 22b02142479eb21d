"""The capacity search: pure on endpoints of known capacity, in virtual time from end to end, and once on a real one."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen import Load, RunOptions, Workers, capacity
from loadgen.capacities import Live, Slices
from loadgen.search import Ask, check, search, warmup
from reports.analysis import capacity as analysis
from reports.analysis.capacity import GUARD, Interval, interval, result
from reports.analysis.gate_grammar import parse
from reports.analysis.quantiles import BATCHES
from reports.store import capacity_json, run_json
from reports.store.capacity_json import CapacityFacts, CapacityStep, SearchTerms, Tally
from reports.store.run_folder import Run, open_run
from targets.target import Target
from tests import commands
from traces.errors import InputError
from traces.reading import open_trace

from .running import endpoint, trace, until

GATE = parse("ttft p99 < 800ms")  # 1 % may be beyond
TERMS = SearchTerms(lowest=1.0, highest=1000.0)


def step(level: float, beyond: int, n: int = 1000, *, confirms: bool = False) -> CapacityStep:
    """One step, its requests spread evenly over the batches."""
    parts = [len(part) for part in np.array_split(np.arange(n), BATCHES)]
    events = [len(part) for part in np.array_split(np.arange(beyond), BATCHES)]
    return CapacityStep(level, 30.0, 40.0, (Tally(tuple(parts), tuple(events), float(n)),), confirms)


def share(level: float, limit: float, steep: float) -> float:
    """Of requests beyond the gate: 1 % at the limit."""
    return float(min(1.0, 0.01 * (level / limit) ** steep))


def searched(
    limit: float, steep: float = 20.0, seed: int | None = None, terms: SearchTerms = TERMS
) -> list[CapacityStep]:
    """A search on an endpoint of this capacity; without a seed its shares have no noise."""
    rng = np.random.default_rng(seed)

    def observe(ask: Ask) -> CapacityStep:
        n = max(1, round((ask.level if terms.by == "rate" else 5 * ask.level) * ask.seconds))
        p = share(ask.level, limit, steep)
        beyond = round(n * p) if seed is None else int(rng.binomial(n, p))
        made = step(ask.level, beyond, n, confirms=ask.confirms)
        return replace(made, seconds=ask.seconds, took=ask.seconds + ask.warmup_s)

    return search(observe, [GATE], terms)


@given(st.floats(0.3, 300), st.floats(5, 50), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_search_keeps_its_terms(limit: float, steep: float, seed: int) -> None:
    steps = searched(limit, steep, seed)
    assert sum(each.took for each in steps) <= TERMS.budget_s
    assert all(1 / 64 < each.level <= 1000 and each.seconds <= TERMS.max_step_s for each in steps)
    found = interval([GATE], steps)
    assert found.low < found.high or found == Interval(0.0, inf)


@given(st.floats(2, 300), st.floats(10, 50))
@settings(max_examples=40, deadline=None)
def test_without_noise_the_capacity_is_in_the_interval(limit: float, steep: float) -> None:
    found = interval([GATE], searched(limit, steep, terms=replace(TERMS, budget_s=36_000)))
    assert 0 < found.low <= limit <= found.high < inf


def test_with_independent_requests_nearly_all_intervals_hold_it_and_are_narrow() -> None:
    found = [interval([GATE], searched(20.0, 20.0, seed)) for seed in range(60)]
    assert np.mean([each.low <= 20.0 <= each.high for each in found]) >= 0.95
    assert np.median([each.high / each.low for each in found]) < 1.3


def test_a_number_in_flight_is_whole() -> None:
    terms = replace(TERMS, by="concurrency", budget_s=36_000)
    steps = searched(13.5, terms=terms)
    assert all(each.level == int(each.level) >= 1 for each in steps)
    found = interval([GATE], steps)
    assert 11 <= found.low < 13.5 <= found.high <= 15
    few = searched(2.5, terms=replace(terms, least=2))
    assert {each.level for each in few} == {2, 4, 3}
    assert interval([GATE], few).high == pytest.approx(3 * GUARD)


def test_the_lowest_load_is_halved_and_the_highest_never_exceeded() -> None:
    low = searched(0.5, terms=replace(TERMS, lowest=4.0, budget_s=36_000))
    assert interval([GATE], low).low > 0.3
    high = searched(50.0, terms=replace(TERMS, highest=10.0))
    assert max(each.level for each in high) == 10.0
    assert interval([GATE], high) == Interval(pytest.approx(10 / GUARD), inf)
    never = searched(0.001, terms=replace(TERMS, lowest=4.0, budget_s=36_000))
    assert interval([GATE], never).low == 0
    assert min(each.level for each in never) == 4 / 2**5


def test_what_decides_nothing_is_tried_once_more_and_then_counts_as_too_high() -> None:
    asked: list[float] = []

    def observe(ask: Ask) -> CapacityStep:
        asked.append(ask.level)
        if ask.level > 3:
            return CapacityStep(ask.level, ask.seconds, ask.seconds, (), ask.confirms, "the client was late")
        return replace(step(ask.level, 0, 5000, confirms=ask.confirms), took=ask.seconds)

    steps = search(observe, [GATE], TERMS)
    assert asked[:4] == [1, 2, 4, 4]
    found = interval([GATE], steps)
    assert 2 < found.low < 3 and found.high == inf


def test_terms_that_allow_no_step_are_refused() -> None:
    for bad, message in (
        ({"max_step_s": 10.0}, "--max-step"), ({"budget_s": 20.0}, "--budget"), ({"lowest": 0.0}, "lowest <= highest"),
        ({"lowest": 9.0, "highest": 8.0}, "lowest <= highest"), ({"precision": 0.0}, "precision"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            check(SearchTerms(**bad))
    assert warmup(TERMS, 30.0) == 10.0
    assert warmup(TERMS, 6.0) == TERMS.warmup_s


@pytest.mark.parametrize(
    ("steps", "low", "high"),
    [
        ([], 0, inf),
        ([step(10, 0)], 0, inf),  # one calm window shows nothing
        ([step(10, 0), step(10, 1), step(10, 0)], 10 / GUARD, inf),
        ([step(10, 0), step(11, 1), step(12, 0)], 10 / GUARD, inf),  # three at this load and above
        ([step(10, 0)] * 3 + [step(12, 50)], 10 / GUARD, 12),
        ([step(10, 0)] * 3 + [step(11, 12), step(12, 50)], 10 / GUARD, 12),
        ([step(10, 0)] * 3 + [step(11, 14), step(12, 14), step(13, 14)], 10 / GUARD, 12),  # together they fail
        ([step(10, 50), step(12, 0), step(12, 0), step(12, 0)], 12 / GUARD, 10),  # a contradiction is one
    ],
)
def test_neighbours_are_pooled(steps: list[CapacityStep], low: float, high: float) -> None:
    found = interval([GATE], steps)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high * GUARD))


def test_the_first_gate_to_fail_decides() -> None:
    gates = [GATE, parse("errors < 5%")]
    both = [
        replace(step(level, 0), tallies=(*step(level, 0).tallies, *step(level, errors).tallies))
        for level, errors in [(10, 5), (10, 5), (10, 5), (12, 200)]
    ]
    assert interval(gates, both) == Interval(pytest.approx(10 / GUARD), pytest.approx(12 * GUARD), 1)
    point = analysis.points(gates, both)[-1]
    assert (point.decision, point.share) == ("fail", pytest.approx(4.0))


@pytest.mark.parametrize(
    ("slo", "problem"),
    [
        ("ttft mean < 800ms", "no share"), ("ttft max < 800ms", "no share"), ("itl p99 < 40ms", "no share"),
        ("ttft p99 > 800ms", "no share"), ("requests > 5/s", "no share"), ("goodput > 5/s", "no share"),
        ("errors > 5%", "no share"), ("other: ttft p99 < 800ms", "one target"), ("@base: ttft p99 < 1s", "one target"),
        ("ttft p99 < 800ms where prompt_tokens > 100", "slice"), ("errors <= 0%", "allows no request"),
        ("goodput >= 100%", "allows no request"),
    ],
)  # fmt: skip
def test_gates_that_no_step_could_decide_are_refused(slo: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        analysis.check([parse(slo)], "here")


def facts(steps: list[CapacityStep], **more: object) -> CapacityFacts:
    about = CapacityFacts("c", "", "", "here", "azure-conv", (GATE.text,), (), TERMS, tuple(steps), "completed")
    return replace(about, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "words", "code"),
    [
        (
            facts([step(10.5, 0, confirms=True)] * 3 + [step(12, 50)]),
            "10 to 12.6 requests/s at ttft p99 < 800ms (4 steps, 3 of them to confirm)", 0,
        ),
        (facts([step(1000, 0)] * 3), "at least 952 requests/s .*: 1,000, the highest asked for, holds", 0),
        (facts([step(1 / 32, 80)]), "no load holds: 0.0312 requests/s fails", 1),
        (facts([step(2, 80)]), "no verdict: less than 2.1 requests/s, and nothing was shown to hold", 3),
        (facts([step(2, 0)] * 3), "no verdict: at least 1.9 requests/s, and nothing more was shown to fail", 3),
        (facts([step(2, 10)]), "no verdict: nothing was shown to hold or to fail", 3),
        (facts([step(2, 80), *[step(4, 0)] * 3]), "no verdict: 3.81 requests/s held and 2.1 failed", 3),
        (
            facts([step(10, 0)] * 3 + [step(12, 50)], terms=replace(TERMS, by="concurrency")),
            "9 to 13 requests in flight", 0,
        ),
    ],
)  # fmt: skip
def test_the_answer_in_words(made: CapacityFacts, words: str, code: int) -> None:
    found = result(Path("c"), made)
    assert found.code == code
    assert found.sentence.startswith(words.split(" .*")[0]) and words.split(".*")[-1] in found.sentence
    assert bool(found.remedy) == (code == 3)


def test_no_verdict_says_what_would_decide_it() -> None:
    assert "more minutes at 2 requests/s" in result(Path("c"), facts([step(2, 6)])).remedy
    assert "three steps that confirm take 12 minutes" in result(Path("c"), facts([step(2, 0)])).remedy
    lost = CapacityStep(8.0, 30.0, 30.0, (), lost="requests left late")
    assert "requests left late" in result(Path("c"), facts([step(2, 3), lost])).remedy
    assert "interrupted" in result(Path("c"), facts([step(2, 3)], ended="interrupted")).remedy


def test_slices_are_fresh(tmp_path: Path) -> None:
    recorded = open_trace(str(trace(tmp_path / "t.csv", 100)))
    slices = Slices(recorded, Load(duration=2, warmup=0))
    asks = [Ask(number, 10.0, 0.0, 2.0, False) for number in range(1, 9)]
    rows = [set(slices.step(ask, TERMS).requests.column("index").tolist()) for ask in asks]
    assert not rows[0] & rows[1] and not rows[1] & rows[2]
    long = slices.step(Ask(9, 200.0, 0.0, 2.0, False), TERMS).requests
    assert len(long) > 300 and float(long.column("due")[-1]) < 2e9  # more than the trace has: it is repeated
    drawn = Slices("azure-conv", Load(duration=2, warmup=0))
    first, second = (drawn.step(ask, TERMS).requests for ask in asks[:2])
    assert first.column("prompt_tokens").tolist()[:9] != second.column("prompt_tokens").tolist()[:9]


def test_a_search_in_virtual_time_from_the_command_line(tmp_path: Path) -> None:
    done = commands.phaseload(
        "capacity", "azure-conv", "--simulate", "a100", "--from", "2", "--to", "8", "--max-context", "2000",
        "--slo", "ttft p50 < 500ms", "--duration", "8", "--max-step", "12", "--budget", "3m", "--out", "c", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 3 < found["low"] < found["high"] <= 8 * GUARD
    words = f"{found['low']:.3g} to {found['high']:.3g} requests/s at ttft p50 < 500ms"
    assert found["capacity"].startswith(words) and found["capacity"] in done.stderr
    stored = capacity_json.read(tmp_path / "c")
    assert [(tmp_path / "c" / each.folder / "summary.json").exists() for each in stored.steps] == [True] * len(
        stored.steps
    )
    page = (tmp_path / "c" / "report.html").read_text()
    (tmp_path / "c" / "report.html").unlink()
    again = commands.phaseload("report", "c", cwd=tmp_path)
    assert found["capacity"] in again.stdout
    assert (tmp_path / "c" / "report.html").read_text() == page


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--simulate", "h100", "--url", "http://h:1"), "--simulate: can't be combined"),
        (("--simulate", "h100", "--by", "concurrency", "--slo", "ttft p99 < 1s"), "virtual time only rates"),
        (("--simulate", "h100", "--by", "weight"), "expected one of rate, concurrency"),
        (("--simulate", "h100"), "--slo: is missing"),
        (("--simulate", "nothing", "--slo", "ttft p99 < 1s"), "nothing"),
        (("--simulate", "h100", "--slo", "ttft mean < 1s"), "no share"),
        (("--simulate", "h100", "--slo", "ttft p99 < 1s", "--budget", "10"), "--budget"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, words: tuple[str, ...], problem: str) -> None:
    done = commands.phaseload("capacity", "azure-conv", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert problem in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_backlog_is_waited_for() -> None:
    """Of 20 requests, whose clients have left: one second's work."""
    with endpoint(tokens=1, ttft=0.05, alone=True) as server:
        target = Target("here", server.url, "m")
        live = Live(target, RunOptions(), Workers(), None)  # type: ignore[arg-type] - it isn't asked for a run
        for number in range(20):
            body = json.dumps({"messages": [{"content": str(number)}]}).encode()
            with socket.create_connection(("127.0.0.1", server.server_address[1])) as leaving:
                leaving.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        until(lambda: len(server.prompts) >= 20)
        cut = Run(Path(), run_json.unknown("r"), pd.DataFrame({"outcome": ["ok", "cut"]}))
        drained = replace(cut, rows=cut.rows[:1])
        assert live.work_off(drained) < 0.1
        assert live.work_off(cut) > 0.2
        assert len(server.spans) >= 20 - 2  # their ends; who came last may have been the first to get the server


def test_a_real_endpoint_keeps_its_connections_and_works_its_backlog_off(tmp_path: Path) -> None:
    """20 requests/s at most: at 40/s half of them wait when the step ends. The server goes on with what was cut. The
    user ends the search after two steps, and still has their answer."""
    seen: list[CapacityStep] = []

    def twice(made: CapacityStep, _: object) -> None:
        seen.append(made)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with endpoint(tokens=1, ttft=0.05, alone=True) as server:
        found = capacity(
            "azure-conv", Target("here", server.url, "m"), Load(duration=1.5, warmup=0.2, drain_timeout=0.2),
            terms=SearchTerms(lowest=40, highest=40, max_step_s=1.5, budget_s=600), slo=["ttft p50 < 250ms"],
            on_step=twice, out=tmp_path / "c", report=False,
        )  # fmt: skip
    assert (found.facts.ended, len(found.facts.steps), found.facts.steps[0].level) == ("interrupted", 2, 40)
    assert found.facts == capacity_json.read(tmp_path / "c")
    first, second = (open_run(tmp_path / "c" / each.folder).rows for each in seen)
    assert (first["outcome"] == "cut").any()
    sent = second.sort_values("due")
    assert sent["ttft"].iloc[0] < 0.5  # nobody waits for the step before, whose backlog takes more than a second
    assert sent["reused"].iloc[0]  # on a connection of the step before
