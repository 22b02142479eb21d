"""Steady, drifting, overloaded: of endpoints whose state is known, and what headroom follows from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports.analysis import samples, steadiness
from reports.analysis.samples import Sample
from reports.analysis.steadiness import State, Steadiness, headroom
from reports.analysis.summary import Summary
from reports.store import durations, row_files
from targets.exchange import Outcome
from tests.exchanges import make_exchange
from tests.reports import made

S = made.S
WINDOW = (30.0 * S, 150.0 * S)


def queue(use: float, seed: int = 1, seconds: float = 150.0, per_s: float = 10.0, ramp: float = 1.0) -> pd.DataFrame:
    """A queue with one server, first come, first served, that is used to this share in the mean; arrivals come evenly,
    or more and more of them (`ramp` 2: their rate is proportional to time). A token is 10 ms of service."""
    rng = np.random.default_rng(seed)
    due = np.sort(rng.uniform(0, 1, int(per_s * seconds)) ** (1 / ramp)) * seconds
    service = rng.gamma(4, use / per_s / 4, len(due))
    begun, done = np.empty(len(due)), 0.0
    for i, (at, takes) in enumerate(zip(due, service, strict=True)):
        begun[i] = max(at, done)
        done = begun[i] + takes
    first = begun + service * 0.1
    return pd.DataFrame({
        "round": 1, "due": due * S, "done": (begun + service) * S, "counted": due * S >= WINDOW[0], "ok": True,
        "output_tokens": np.maximum(1, service * 100), "ttft": first - due, "tpot": 0.01,
    })  # fmt: skip


@pytest.mark.parametrize(("use", "states"), [(0.3, {"steady"}), (0.6, {"steady"}), (1.3, {"overloaded"})])
def test_a_queue_of_known_use(use: float, states: set[str]) -> None:
    found = [steadiness.of_window(queue(use, seed), WINDOW) for seed in range(40)]
    assert {str(each.state) for each in found} == states
    if use > 1:
        assert np.median([each.began_s for each in found]) < 15
        assert all(each.little > 1.1 for each in found)
        assert "backlog grew from second" in found[0].why


def test_the_second_at_which_a_backlog_begins() -> None:
    """A server that becomes four times slower at second 70."""
    rows = queue(0.5)
    done, dues = 0.0, rows["due"].to_numpy() / S
    service = np.where(dues < 70, 0.05, 0.2)
    ends = []
    for at, takes in zip(dues, service, strict=True):
        done = max(at, done) + takes
        ends.append(done)
    rows["done"] = np.array(ends) * S
    rows["ttft"] = np.array(ends) - dues
    found = steadiness.of_window(rows, WINDOW)
    assert found.state is State.OVERLOADED
    assert found.began_s == pytest.approx(70, abs=6)


def test_a_rate_that_rises_overloads_nobody() -> None:
    states = {steadiness.of_window(queue(0.3, seed, ramp=2.0), WINDOW).state for seed in range(20)}
    assert State.OVERLOADED not in states


def test_a_cache_that_fills_drifts() -> None:
    rows = queue(0.3)
    rows["ttft"] = np.linspace(0.5, 0.2, len(rows)) * np.random.default_rng(1).lognormal(0, 0.3, len(rows))
    found = steadiness.of_window(rows, WINDOW)
    assert (found.state, found.why[:12]) == (State.DRIFTING, "TTFT fell by")
    rows["ok"] = rows["due"] < 100 * S
    failing = steadiness.of_window(rows, WINDOW)
    assert (failing.state, failing.why) == (
        State.DRIFTING,
        f"{steadiness.PER_TOKEN} rose without bound over the window",
    )


def test_too_few_say_nothing() -> None:
    found = steadiness.of_window(queue(0.3)[::100], WINDOW)
    assert (found.state, found.why) == (State.UNKNOWN, "12 requests, needs 20")
    assert steadiness.of_window(queue(0.3), (5.0, 5.0)).state is State.UNKNOWN


def test_an_endpoint_that_stopped_answering_is_overloaded_not_fast() -> None:
    rows = [make_exchange(index=i, target="t", due=i * S, prompt_tokens=1, output_tokens=1, outcome=Outcome.CUT)
            for i in range(60)]  # fmt: skip
    for row in rows[:20]:
        row.outcome, row.done = Outcome.OK, row.due + 1000
    frame = pd.DataFrame(durations.columns_of(row_files.table(rows)))
    assert steadiness.of_window(frame, (0, 60 * S)).overloaded


@pytest.mark.parametrize(
    ("rounds", "middle"),
    [
        ("s", "steady"), ("sd", "drifting"), ("so", "overloaded"), ("ssd", "steady"), ("sdo", "drifting"),
        ("sssdo", "steady"), ("ssdoo", "drifting"), ("ssooo", "overloaded"),
    ],
)  # fmt: skip
def test_rounds_have_their_middle_state(rounds: str, middle: str) -> None:
    states = {"s": State.STEADY, "d": State.DRIFTING, "o": State.OVERLOADED}
    found = steadiness.over_rounds([Steadiness(states[each], "why" if each != "s" else "") for each in rounds])
    assert found.state == middle
    if middle != "steady" and len(rounds) > 1:
        assert found.why == f"why (in {rounds.count(middle[0])} of {len(rounds)} rounds)"


def test_the_overloaded_are_named(summed: Summary) -> None:
    loaded = {(each.target, each.step) for each in summed.results if each.overloaded}
    assert loaded == {("groqrack", "3x"), ("gpu+groq", "3x")}
    assert {each.steadiness.state for each in summed.results if each.step == "1x"} == {State.STEADY}


def test_a_batch_that_slows_itself_down(tmp_path: Path) -> None:
    """At 30 requests/s of 180 tokens, each of which takes 0.22 ms longer for each request in flight, more come than can
    end: 30/s * 180 * 0.22 ms > 1. At 10/s they end."""
    slowed = made.Made("gpu", prefill=24_000, tpot=0.0062, per_peer=0.00022)
    summary = made.summarise(made.run(tmp_path, (slowed,), steps={"1x": 10.0, "3x": 30.0}))
    assert [each.overloaded for each in summary.results] == [False, True]


@pytest.mark.parametrize("seed", range(4))
def test_steady_loads_are_not_called_overloaded(tmp_path: Path, seed: int) -> None:
    folder = made.run(tmp_path, (made.RACK,), steps={"": 10.0}, seed=seed * 11)
    assert not made.summarise(folder).results[0].overloaded


def of(use: float, factor: float, target: str = "a") -> Sample:
    rows = queue(use, per_s=10 * factor)
    figures = [name for name in (*durations.DURATIONS, *durations.BRACKETS) if name not in rows]
    rows = rows.assign(
        **dict.fromkeys(figures, 1.0), output_count=1.0, first_token=rows["due"], last_token=rows["done"]
    )
    return replace(samples.sample(target, f"{factor:g}x", rows, WINDOW, {}), factor=factor)


def test_headroom_is_a_steeper_step_that_was_steady() -> None:
    calm, near, over = of(0.3, 1.0), of(0.45, 1.5), of(1.5, 3.0)
    steps = [calm, near, over, of(0.1, 4.0, target="another")]
    assert headroom(calm, steps) == steadiness.Headroom(True, "steady at 1.5 times this load", pytest.approx(15, 0.05))
    lacking = headroom(near, steps)
    assert not lacking.shown
    assert lacking.why.startswith("no headroom: overloaded at 2 times this load, steady below about 1")
    assert headroom(over, steps).why == "overloaded at this load"
    alone = headroom(calm, [calm])
    assert (alone.shown, alone.why) == (False, "no headroom shown: no step at 1.5 times this load")
    assert headroom(calm, [calm], capacity=16.3).why == "at 62% of its capacity"
    assert not headroom(calm, [calm], capacity=12.0).shown
