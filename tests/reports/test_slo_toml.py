"""slo.toml: what it gives, and that a mistake names the line and the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.analysis import slo_toml
from reports.analysis.gate_grammar import SLICED_BY, Condition, parse
from traces.errors import InputError

GOOD = """\
goodput = "ttft:800ms tpot:40ms"

[[gate]]
name = "chat feels instant"
slo = "ttft p99 < 800"
target = "groqrack"
load = "base"
where = "prompt_tokens <= 4096 and turn > 0"

[[gate]]
slo = "errors < 1%"

[[gate]]
name = "enough are good"
slo = "@2x: goodput > 95%"

[baseline]
run = "runs/last"
max_regress = ["ttft p99 10%", "tpot p50 5%"]
"""


def test_what_a_file_gives() -> None:
    slo = slo_toml.read(GOOD, "deploy/slo.toml")
    assert slo.gates == (
        "groqrack@base: ttft p99 < 800ms where prompt_tokens <= 4096 and turn > 0 # chat feels instant",
        "errors < 1%",
        "@2x: goodput > 95% # enough are good",
    )
    gate = parse(slo.gates[0])
    assert (gate.target, gate.step, gate.name, gate.limit) == ("groqrack", "base", "chat feels instant", 0.8)
    assert gate.where == (Condition("prompt_tokens", "<=", 4096), Condition("turn", ">", 0))
    assert slo.goodput == ("ttft:800ms tpot:40ms",)
    assert slo.baseline == Path("deploy/runs/last")
    assert slo.max_regress == ("ttft p99 10%", "tpot p50 5%")


def test_lists_and_single_texts_are_both_taken() -> None:
    slo = slo_toml.read('goodput = ["ttft:1s", "e2e:9s"]\n[baseline]\nmax_regress = "ttft p99 10%"\n')
    assert (slo.goodput, slo.max_regress, slo.baseline) == (("ttft:1s", "e2e:9s"), ("ttft p99 10%",), None)


@pytest.mark.parametrize(
    ("change", "place", "expected"),
    [
        (("< 800", "< fast"), "slo.toml:5, column slo", "a number"),
        (("prompt_tokens <=", "class ="), "slo.toml:8, column where", "prompt_tokens, output_tokens, in_flight"),
        (("> 95%", "> 95"), "slo.toml:15, column slo", "a unit"),
        (('"errors < 1%"', '"errors < 1%"\nseverity = "warn"'), "slo.toml:12, column severity", "unknown key"),
        (('"errors < 1%"', "3"), "slo.toml:11, column slo", "a text of one line, got 3"),
        (('slo = "errors < 1%"', 'name = "no errors"'), "slo.toml:10", "a gate without slo"),
        (('slo = "errors < 1%"', 'lso = "errors < 1%"'), "slo.toml:11, column lso", "did you mean slo?"),
        (('"enough are good"', '"chat feels instant"'), "slo.toml:14, column name", "another gate"),
        (('"@2x: goodput', '"@2x: goodput > 1% where turn > 0"\nwhere = "turn > 1" #'), "slo.toml:16, column where",
         "stands in slo already"),
        (('"groqrack"', '"groq@rack"'), "slo.toml:6, column target", "it holds @"),
        (('goodput = "ttft:800ms tpot:40ms"', ""), "slo.toml:15, column slo", "needs objectives"),
        (("tpot:40ms", "speed:40"), "slo.toml:1, column goodput", "no objective"),
        (("ttft p99 10%", "ttft p99 < 1"), "slo.toml:19, column max_regress", "how much it may regress"),
        (('max_regress = ["ttft p99 10%", "tpot p50 5%"]', ""), "slo.toml:17, column max_regress", "is missing"),
        (('"runs/last"', "7"), "slo.toml:18, column run", "a run's folder, got 7"),
        (("[baseline]", "[basline]"), "slo.toml:17", "did you mean baseline?"),
        (("goodput = ", "good = "), "slo.toml:1, column good", "did you mean goodput?"),
        (("[[gate]]", "[gate]"), "slo.toml:10", "not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_line_and_key(change: tuple[str, str], place: str, expected: str) -> None:
    text = GOOD.replace(*change, 1)
    assert text != GOOD
    with pytest.raises(InputError) as caught:
        slo_toml.read(text)
    message = str(caught.value)
    assert message.startswith(f"{place}: ") and expected in message


@pytest.mark.parametrize("text", ["", "gate = 3", "gate = [3]", "baseline = 3", "[gate]\nslo = 'errors < 1%'"])
def test_a_file_that_asks_nothing(text: str) -> None:
    with pytest.raises(InputError, match=r"slo\.toml"):
        slo_toml.read(text)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_any_texts_are_a_gate_that_says_them_or_an_input_error(name: str, target: str, load: str) -> None:
    quoted = [text.replace("\\", "").replace("'", "") for text in (name, target, load)]
    text = "[[gate]]\nslo = 'ttft p99 < 1s'\nname = '{}'\ntarget = '{}'\nload = '{}'".format(*quoted)
    try:
        slo = slo_toml.read(text)
    except InputError:
        return
    gate = parse(slo.gates[0])
    assert [gate.name, gate.target, gate.step] == [text.strip() for text in quoted]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.toml"):
        slo_toml.load(tmp_path / "missing.toml")


def test_the_documents_file_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gates.md").read_text()
    [block] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    slo = slo_toml.read(block)
    assert [parse(line).target for line in slo.gates] == ["groqrack", "", ""]
    assert len(slo.max_regress) == 2
    keys = {*slo_toml.GATE_KEYS, *slo_toml.BASELINE_KEYS, "goodput"}
    assert keys == set(re.findall(r"^(\w+) =", block, re.MULTILINE))
    for field in SLICED_BY:
        assert f"`{field}`" in page
    assert slo_toml.load(Path(__file__).parents[2] / "examples" / "slo.toml").gates
