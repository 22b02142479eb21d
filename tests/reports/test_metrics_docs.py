"""docs/metrics.md names every figure and gate, and its examples and numbers are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reports.analysis import gate_grammar, quantiles, validity
from reports.store import durations

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
WORDS = re.sub(r"[*\s]+", " ", PAGE)


@pytest.mark.parametrize("name", [*durations.DURATIONS, "itl"])
def test_every_duration_is_defined(name: str) -> None:
    assert re.search(rf"\*\*{name.replace('_', ' ')}\*\*", PAGE, re.IGNORECASE)


@pytest.mark.parametrize("name", [*gate_grammar.UNITS, "e2el", "stall"])
def test_every_gate_metric_is_listed(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_the_example_gates_are_gates() -> None:
    examples = re.findall(r'--slo "([^"]+)"', PAGE)
    assert len(examples) >= 4
    for example in examples:
        gate_grammar.parse(example)
    (objectives,) = re.findall(r"--goodput ((?:\w+:\d+ ?)+)", PAGE)
    assert gate_grammar.parse_goodput([objectives]) == {"ttft": 0.8, "tpot": 0.04}


@pytest.mark.parametrize(("q", "n"), [(0.5, "6"), (0.9, "29"), (0.95, "59"), (0.99, "299"), (0.999, "2,995")])
def test_the_samples_needed(q: float, n: str) -> None:
    assert f"{quantiles.needed(q):,}" == n
    assert f"{n} {'requests on ' if q == 0.5 else ''}for p{q * 100:g}" in WORDS


def test_the_limits_of_validity() -> None:
    assert (validity.AGREE, validity.DOUBTFUL, validity.LATE, validity.LATE_SHARE) == (0.05, 0.2, 0.01, 0.1)
    assert "agree within 5 % | within 20 % | beyond" in WORDS
    assert "at most 10 ms or 10 % of the mean gap" in WORDS
