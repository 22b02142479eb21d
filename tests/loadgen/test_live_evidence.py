"""A target behind whose name another model answers from some round on: page one says so."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from loadgen import Load, bakeoff, evidence
from loadgen.evidence import Witness
from loadgen.plan import LoadStep, Plan
from reports import summarise
from targets import Target, asking
from targets.asking import ask
from targets.quota import Limit
from tests.exchanges import make_exchange
from traces import build
from traces.trace import NS_PER_S

from .running import endpoint

COUNT = 100
TRACE = {
    "due": range(0, COUNT * NS_PER_S // 50, NS_PER_S // 50),
    "prompt_tokens": [9] * COUNT,
    "output_tokens": [4] * COUNT,
}


def questions(bodies: Sequence[dict[str, Any]]) -> int:
    return sum(body.get("temperature") == 0 for body in list(bodies))


def test_a_model_that_changes_between_rounds_is_named(tmp_path: Path) -> None:
    with endpoint(ttft=0.002, gap=0.001) as steady, endpoint(ttft=0.002, gap=0.001) as changing:
        steady.fingerprint = lambda: "fp_a"

        def model() -> str:
            """Another one from the first question of round 2 on."""
            if questions(changing.bodies) <= 2 * evidence.QUESTIONS:
                return "fp_a"
            changing.word = "v"
            return "fp_<b>"

        changing.fingerprint = model
        run = bakeoff(
            build(TRACE), [Target("steady", steady.url, "m"), Target("changing", changing.url, "m")],
            Load(drain_timeout=5.0), rounds=2, round_duration=0.6, probe=False, report=False, out=tmp_path / "r",
        )  # fmt: skip
        asked = [body for body in changing.bodies if body.get("temperature") == 0]
    assert len(asked) == evidence.extra(2).requests
    assert {body["max_tokens"] for body in asked} == {evidence.OUTPUT_TOKENS}
    found = summarise(run).evidence
    changed = [(change.target, change.round, change.fact) for change in found.changes]
    assert changed[-1] == ("changing", 2, "answers")
    assert found.sentences[-1].startswith("changing: 20 of 20 fixed prompts were answered differently in round 2")
    if not run.lost:  # as a busy machine may have it: then there is no other round's name to compare
        assert changed[:-1] == [("changing", 2, "fingerprint")]
        assert found.sentences[0] == "changing: its fingerprint changed from fp_a to fp_<b> in round 2"
    [constant] = [target.constant for target in found.targets if target.target == "steady"]
    assert constant == "fingerprint fp_a; at most 0 of 20 fixed prompts answered differently (twice in a row: 0)"
    recorded = [(part.folder / name).read_bytes() for part in run.parts for name in ("run.json", "plan.json")]
    assert not any(b"w0" in whole or b"v0" in whole for whole in recorded)  # digests, and no answer's text


def test_a_target_that_does_not_answer_costs_few_requests_and_has_no_digests() -> None:
    with endpoint("failing") as failing, endpoint("cutting") as cutting:
        targets = [Target("failing", failing.url, "m"), Target("cutting", cutting.url, "m")]
        of_failing, of_cutting = Witness().of([*targets])
        assert len(failing.bodies) == len(cutting.bodies) == 6  # three failures in a row, and both askings
    assert (of_failing.failure, of_cutting.failure) == ("http_error", "truncated")
    assert not any((*of_failing.answers, *of_failing.first, *of_failing.again, *of_cutting.answers))


def test_the_first_asking_that_is_answered_is_the_reference() -> None:
    witness = Witness()
    with endpoint("failing", ttft=0.001, gap=0.001) as server:
        target = Target("one", server.url, "m")
        assert not any(witness.of([target])[0].first)
        server.manner = "well"
        [second] = witness.of([target])
        server.word = "v"
        [third] = witness.of([target])
    assert all(second.answers) and second.answers == second.first == second.again
    assert third.first == second.first and not set(third.answers) & set(third.first)


def test_two_bakeoffs_have_nothing_to_compare() -> None:
    """The key is forgotten: the same answers have other digests."""
    with endpoint(ttft=0.001, gap=0.001) as server:
        one, other = (Witness().of([Target("one", server.url, "m")])[0] for _ in range(2))
    assert not set(one.answers) & set(other.answers)


def test_a_quota_is_kept_while_asking() -> None:
    with endpoint(ttft=0.001, gap=0.001) as server:
        target = Target("one", server.url, "m", requests_per_minute=600)
        answers = ask(target, ["one", "two", "three", "four"], 4)
        began = [server.spans[prompt][0] for prompt in ("one", "two", "three", "four")]
    assert all(answer.text for answer in answers)
    assert all(later - before > 0.095 for before, later in pairwise(began))


@pytest.mark.parametrize(("most", "gap"), [(520, 6.0), (1, asking.PATIENCE)])
def test_a_limit_below_one_prompt_costs_no_hours(most: int, gap: float) -> None:
    assert asking._gap([Limit("tokens", "minute", most, "x-ratelimit-limit-tokens")], 36, 16) == gap


@pytest.mark.parametrize(("retry_after", "pause"), [(None, asking.PAUSE), (0.001, asking.SHORTEST), (7.0, 7.0)])
def test_a_server_that_names_next_to_no_pause_is_not_flooded(retry_after: float | None, pause: float) -> None:
    refused = make_exchange(0)
    refused.retry_after = retry_after
    assert asking._pause(refused) == pause


@pytest.mark.parametrize(
    ("limit", "rests"),
    [
        (Limit("requests", "minute", 100 + 2 * evidence.QUESTIONS, "own"), False),
        (Limit("requests", "minute", 99 + 2 * evidence.QUESTIONS, "own"), True),
        (Limit("requests", "day", 100, "own"), False),
        (Limit("tokens", "minute", 1300, "own"), True),
        (Limit("tokens", "minute", 100_000, "own"), False),
    ],
)
def test_the_load_waits_only_where_a_minute_can_t_hold_both(limit: Limit, rests: bool) -> None:
    load = Load(duration=2.0)
    step = LoadStep("base", load, load.requests(build(TRACE)))
    plan = Plan("p", (step.step("plan/0.arrow", [Target("one", "http://127.0.0.1:1", "m")]),))
    assert evidence.must_rest((plan, {"plan/0.arrow": step.requests}), {"one": [limit]}) is rests
