"""Gates and objectives as they are written: what can be asked, what is refused and where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.analysis import gate_grammar
from traces.errors import InputError


@pytest.mark.parametrize(
    ("text", "metric", "statistic", "op", "limit", "target", "step"),
    [
        ("ttft p99 < 800ms", "ttft", "p99", "<", 0.8, "", ""),
        ("TTFT P99.9 <= 1.5 s", "ttft", "p99.9", "<=", 1.5, "", ""),
        ("tpot mean<40ms", "tpot", "mean", "<", 0.04, "", ""),
        ("e2el max < 30s", "e2e", "max", "<", 30.0, "", ""),
        ("errors < 1%", "errors", "", "<", 0.01, "", ""),
        ("ttft p99 < 800", "ttft", "p99", "<", 0.8, "", ""),
        ("gpu: errors < 1", "errors", "", "<", 0.01, "gpu", ""),
        ("requests > 10", "requests", "", ">", 10.0, "", ""),
        ("goodput > 5/s", "goodput", "", ">", 5.0, "", ""),
        ("goodput >= 99.5 %", "goodput", "", ">=", 0.995, "", ""),
        ("tokens > 600 /min", "tokens", "", ">", 10.0, "", ""),
        ("groqrack@3x: tpot p50 < 6000us", "tpot", "p50", "<", 0.006, "groqrack", "3x"),
        ("@3x: stall p99 < 1s", "longest_stall", "p99", "<", 1.0, "", "3x"),
        ("host:8000: lateness p99 < 2ms", "lateness", "p99", "<", 0.002, "host:8000", ""),
    ],
)
def test_read(text: str, metric: str, statistic: str, op: str, limit: float, target: str, step: str) -> None:
    gate = gate_grammar.parse(text)
    assert (gate.metric, gate.statistic, gate.op, gate.target, gate.step) == (metric, statistic, op, target, step)
    assert gate.limit == pytest.approx(limit) and gate.text.endswith(gate.unit)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1), ("ttft", 5), ("tttf p99 < 1s", 1), ("ttft 99 < 1s", 6), ("ttft p0 < 1s", 6), ("ttft p100 < 1s", 6),
        ("ttft p99 1s", 10), ("ttft p99 == 1s", 10), ("ttft p99 < fast", 12), ("goodput > 5", 12),
        ("ttft p99 < 80 minutes", 15), ("ttft p99 < 80ms or so", 17), ("errors p99 < 1%", 8), ("errors < 1/s", 11),
        ("goodput > 5ms", 12), ("ttft < 1s", 6), ("ttft p99 < -1s", 12), ("a: b: ttft p9x < 1s", 12),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_its_place(text: str, column: int) -> None:
    with pytest.raises(InputError) as caught:
        gate_grammar.parse(text)
    assert caught.value.column == column
    caret = str(caught.value).splitlines()[-1]
    assert caret == " " * (4 + column - 1) + "^"


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=30))
def test_any_text_is_a_gate_or_an_input_error(text: str) -> None:
    try:
        gate = gate_grammar.parse(text)
    except InputError:
        return
    assert gate.limit >= 0
    assert gate.metric in gate_grammar.UNITS


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("ttft p99 < 2s where prompt_tokens > 4096", "prompt_tokens > 4096"),
        ("gpu@2x: ttft p99 < 2s WHERE turn > 0 and in_flight <= 8", "turn > 0, in_flight <= 8"),
        ("errors < 1 where session = 12", "session = 12"),
        ("goodput > 95% where output_tokens != 1 and prompt_tokens>=1024", "output_tokens != 1, prompt_tokens >= 1024"),
    ],
)
def test_slices(text: str, where: str) -> None:
    gate = gate_grammar.parse(text)
    assert ", ".join(map(str, gate.where)) == where
    assert gate_grammar.parse_conditions(text.partition(" where ")[2] or text.partition(" WHERE ")[2], "") == gate.where


def test_a_bare_number_gets_its_unit_before_the_slice() -> None:
    assert gate_grammar.parse(" ttft p99 < 800 where turn > 0 ").text == "ttft p99 < 800ms where turn > 0"


@pytest.mark.parametrize(
    "line",
    [
        "ttft p99 < 800ms # chat feels instant",
        "groqrack@base: ttft p99 < 2s where prompt_tokens > 4096 # long prompts: no. 2 # of 3",
        "host:8000: errors < 1% # 5 %",
    ],
)
def test_a_line_carries_name_slice_and_target(line: str) -> None:
    gate = gate_grammar.parse(line)
    assert gate.line == line and gate_grammar.parse(gate.line) == gate
    assert gate.text + " # " + gate.name == line


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("ttft p99 < 2s where class = 1", 21, "prompt_tokens, output_tokens, in_flight, session, turn"),
        ("ttft p99 < 2s where turn", 25, "one of < <= >"),
        ("ttft p99 < 2s where turn > two", 28, "a number"),
        ("ttft p99 < 2s where", 20, "sliced by"),
        ("ttft p99 < 2s where turn > 1 or turn < 0", 30, "`and`"),
        ("ttft p99 < 2s if turn > 1", 15, "nothing more, or `where`"),
        ("ttft p99 = 2s", 10, "one of < <= > >="),
        ("ttft p99 < 2s # ", 17, "a name"),
    ],
)
def test_a_mistake_in_a_slice_says_which_slices_there_are(text: str, column: int, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        gate_grammar.parse(text)
    assert caught.value.column == column
    assert expected in caught.value.message


@pytest.mark.parametrize(
    ("text", "metric", "statistic", "limit"),
    [
        ("ttft p99 10%", "ttft", "p99", 0.1), ("a@b: TPOT P50 2.5 %", "tpot", "p50", 0.025),
        ("e2el mean 5% where turn > 0", "e2e", "mean", 0.05), ("goodput 3%", "goodput", "", 0.03),
        ("tokens 3% # speed", "tokens", "", 0.03),
    ],
)  # fmt: skip
def test_what_may_regress(text: str, metric: str, statistic: str, limit: float) -> None:
    allowance = gate_grammar.parse_allowance(text)
    assert (allowance.metric, allowance.statistic) == (metric, statistic)
    assert allowance.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("ttft p99", 9), ("ttft 10%", 6), ("ttft max 10%", 6), ("ttft p99 10ms", 12), ("errors 1%", 1),
        ("ttft p99 < 1%", 10), ("ttft p99 10", 12), ("", 1),
    ],
)  # fmt: skip
def test_what_is_no_regression(text: str, column: int) -> None:
    with pytest.raises(InputError, match="not a regression") as caught:
        gate_grammar.parse_allowance(text)
    assert caught.value.column == column


def test_objectives() -> None:
    assert gate_grammar.parse_goodput(["ttft:800", "tpot:40", "e2el:5000"]) == {"ttft": 0.8, "tpot": 0.04, "e2e": 5.0}
    assert gate_grammar.parse_goodput(["ttft:800 tpot:40"]) == gate_grammar.parse_goodput(["ttft:800,tpot:40"])
    assert gate_grammar.parse_goodput(["ttft:800ms tpot:0.04s"]) == gate_grammar.parse_goodput(["ttft:800 tpot:40"])
    assert gate_grammar.parse_goodput([]) == {}
    for text in ("ttft", "ttft:", "ttft:fast", "ttft:-1", "ttft:nan", "speed:1", "ttft:0", "ttft:5kg"):
        with pytest.raises(InputError, match="--goodput"):
            gate_grammar.parse_goodput([text])


def test_what_cant_be_decided_is_refused_before_the_run() -> None:
    gate_grammar.check(["ttft p99 < 1s", "goodput > 1/s"], ["ttft:800"])
    for slo, goodput in ((["goodput > 1/s"], []), (["ttft p99"], []), ([], ["ttft"])):
        with pytest.raises(InputError):
            gate_grammar.check(slo, goodput)
