"""Digests: near the exact quantiles, the same after merging, readable by the `tdigest` package."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tdigest import TDigest as OtherReader

from reports.store.digests import CENTROIDS, METRICS, Digests, MetricDigest
from targets.exchange import Exchange, Outcome
from tests.exchanges import make_exchange
from tests.reports import made
from traces.errors import InputError
from traces.typed_json import from_json, to_plain


def digests_of(rows: list[Exchange]) -> Digests:
    digests = Digests()
    for row in rows:
        digests.add(row)
    return digests


def exact(rows: list[Exchange], metric: str) -> list[float]:
    rows = [row for row in rows if row.call.counted and row.ok]
    if metric == "itl":
        return [gap for row in rows for gap in row.gaps()]
    return [value for row in rows if (value := getattr(row, metric)) is not None]


def test_two_workers_merged_are_the_exact_quantiles() -> None:
    rows = made.exchanges(made.GPU, seconds=60)
    master = Digests()
    for part in range(2):
        master.merge(digests_of(rows[part::2]).state())
    for metric in ("ttft", "ttft_from_due", "tpot", "itl", "e2e"):
        values = exact(rows, metric)
        assert master.groups["h100", "1x"].digests[metric].n_values == len(values)
        for q in (0.5, 0.99):
            assert master.quantile("h100", "1x", metric, q) == pytest.approx(np.quantile(values, q), rel=0.002)


@dataclass
class Handed:
    """As a message carries them."""

    digests: tuple[MetricDigest, ...]


def test_the_wire_form_is_bounded_and_near() -> None:
    rows = made.exchanges(made.GPU, rate=50, seconds=60)
    wire = json.dumps(to_plain(Handed(digests_of(rows).state())))
    assert len(wire) < 7 * 90_000
    merged = Digests()
    merged.merge(from_json(Handed, wire, "").digests)
    for metric in ("ttft", "tpot", "e2e"):
        assert merged.quantile("h100", "1x", metric, 0.99) == pytest.approx(
            np.quantile(exact(rows, metric), 0.99), rel=0.002
        )


@pytest.mark.parametrize("n", [50, 200, 326, 700, 1000, 1500, 2000, 6000])
def test_p50_and_p99_of_workers_merged_and_stored_are_within_a_five_hundredth(n: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(n)
    for number in range(10):
        values, merged, step = rng.lognormal(0, 1, n), Digests(), str(number)
        for part in np.array_split(values, 3):
            worker = Digests()
            worker.add_values("t", step, "e2e", part)
            merged.merge(worker.state())
        merged.save(tmp_path / "digests.json")
        stored = Digests.load(tmp_path / "digests.json")
        for q in (0.5, 0.99):
            allowed = 1e-9 if n <= CENTROIDS else 0.002
            assert stored.quantile("t", step, "e2e", q) == pytest.approx(np.quantile(values, q), rel=allowed)


def test_failures_are_counted_and_add_no_value() -> None:
    rows = made.exchanges(made.GPU, seconds=40)
    counted = [row for row in rows if row.call.counted]
    for row in counted[::10]:
        row.outcome = Outcome.TIMEOUT
    group = digests_of(rows).groups["h100", "1x"]
    failed = sum(not row.ok for row in counted)
    assert failed > len(counted) * 0.09
    assert (group.counted, group.failed) == (len(counted), failed)
    assert group.digests["ttft"].n_values == len(counted) - failed
    assert group.digests["lateness"].n_values == len(counted)


def test_requests_across_a_clock_step_have_no_durations() -> None:
    rows = made.exchanges(made.GPU, seconds=10, warmup=0)
    for row in rows[:7]:
        row.stepped = True
    digests = digests_of(rows)
    group = digests.groups["h100", "1x"]
    assert group.counted == len(rows)
    assert group.digests["ttft"].n_values == sum(row.ok for row in rows[7:])
    assert group.digests["lateness"].n_values == len(rows) - 7


def test_nothing_answered() -> None:
    row = make_exchange(started=10, outcome=Outcome.REFUSED)
    digests = digests_of([row])
    assert math.isnan(digests.quantile("t", "", "ttft", 0.5))
    assert math.isnan(digests.quantile("nobody", "", "ttft", 0.5))
    assert digests.groups["t", ""].digests["lateness"].n_values == 1


def test_outside_the_window_nothing_is_taken() -> None:
    rows = made.exchanges(made.GPU, seconds=5, warmup=99)
    assert not digests_of(rows).groups


def test_the_file_is_read_by_the_tdigest_package(tmp_path: Path) -> None:
    rows = made.exchanges(made.GPU, rate=200, seconds=30)
    digests = digests_of(rows)
    digests.save(tmp_path / "digests.json")
    stored = json.loads((tmp_path / "digests.json").read_text())["digests"]
    assert {row["metric"] for row in stored} == set(METRICS)
    (ttft,) = [row for row in stored if row["metric"] == "ttft"]
    other = OtherReader()
    other.update_from_dict(ttft["digest"])
    assert other.n == len(exact(rows, "ttft")) == ttft["counted"] - ttft["failed"]
    assert other.percentile(50) == pytest.approx(np.quantile(exact(rows, "ttft"), 0.5), rel=0.02)
    again = Digests.load(tmp_path / "digests.json")
    assert again.state() == digests.state()


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "digests.json"
    path.write_text('{"from": "rows", "digests": [{"target": 1}]}')
    with pytest.raises(InputError, match=r"digests\.json, field digests\[0\]\.target: expected a text"):
        Digests.load(path)
    row = {"target": "t", "step": "", "counted": 1, "failed": 0, "metric": "ttft", "unit": "s", "digest": {"min": 1}}
    path.write_text(json.dumps({"from": "rows", "digests": [row]}))
    with pytest.raises(InputError, match=r"digests\.json: not readable as digests"):
        Digests.load(path)
