"""The public names of `reports`: a run is opened, summarised, judged and compared without a command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import orjson
import pytest

import reports
from reports import Run, Summary, compare, judge, open_run, summarise
from reports.analysis.summary import own_gates
from tests.reports import made
from traces.errors import InputError


def test_a_run_is_read_and_judged(bakeoff: Path, read_back: Run, tmp_path: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in bakeoff.rglob("*")}
    run = open_run(bakeoff)
    summary = summarise(run)
    assert run.exchanges().num_rows == len(run.rows) == sum(result.counts.recorded for result in summary.results)
    assert summary.results[0].quantile("ttft", 0.5).value == summary.samples["h100", "1x"].quantile("ttft", 0.5).value
    verdicts = judge(run, ["ttft p99 < 800ms"])
    assert [(verdict.target, verdict.step) for verdict in verdicts] == list(summary.samples)
    assert verdicts == judge(summary, "ttft p99 < 800ms") == judge(summary, verdicts[0].gate)
    assert compare(run) == summary.comparison
    assert compare(run, base="h100") == [pair for pair in summary.comparison if pair.base == "h100"]
    assert {path: path.stat().st_mtime_ns for path in bakeoff.rglob("*")} == files  # reading writes nothing
    summary.save(str(tmp_path))
    assert (tmp_path / "summary.json").exists()
    with pytest.raises(InputError, match="not a gate"):
        judge(summary, ["ttft p99"])
    with pytest.raises(InputError, match="needs objectives"):
        judge(summary, ["goodput > 1/s"])


def test_what_a_library_user_mistypes_is_named_with_what_there_is(read_back: Run, summed: Summary) -> None:
    with pytest.raises(InputError, match=r"no quantile 0.37 \(one of 0.5, 0.9, 0.95, 0.99, 0.999\)"):
        summed.results[0].quantile("ttft", 0.37)
    with pytest.raises(InputError, match=r"no metric 'tttf' \(did you mean ttft\?\)"):
        summed.results[0].quantile("tttf", 0.5)
    with pytest.raises(InputError, match=r"objectives: 'zz' is no objective \(one of ttft, "):
        summarise(read_back, {"zz": 1.0})
    with pytest.raises(InputError, match="objectives: ttft: expected seconds above 0, got -1"):
        summarise(read_back, {"ttft": -1})


@pytest.mark.parametrize(("field", "text", "read"), [("slo", "ttft p99", own_gates), ("goodput", "zz:5", summarise)])
def test_a_mistake_in_run_json_is_not_blamed_on_an_option(
    read_back: Run, field: str, text: str, read: Callable[[Run], object]
) -> None:
    run = replace(read_back, facts=replace(read_back.facts, **{field: (text,)}))
    with pytest.raises(InputError, match=f"run.json, field {field}(, column 9)?: "):
        read(run)


def test_json_has_the_fields_of_the_dataclasses(summed: Summary) -> None:
    """Every object of summary.json is a dataclass, or a mapping whose keys are names."""

    def same(value: object, stored: object) -> None:
        if is_dataclass(value):
            assert isinstance(stored, dict)
            names = [field.name for field in fields(value) if not field.name.startswith("_")]
            assert list(stored) == names
            for name in names:
                same(getattr(value, name), stored[name])
        elif isinstance(value, dict):
            assert isinstance(stored, dict)
            for name in value:
                same(value[name], stored[name])
        elif isinstance(value, list | tuple):
            assert isinstance(stored, list)
            for item, other in zip(value, stored, strict=True):
                same(item, other)

    same(summed, orjson.loads(summed.to_json()))


def test_a_digest_is_written_only_where_it_is_asked_for(tmp_path: Path) -> None:
    folder = made.run(tmp_path, (made.GPU,), seconds=10)
    (folder / "digests.json").unlink()
    assert summarise(open_run(folder)).digests == "from the rows"
    assert not (folder / "digests.json").exists()
    made.summarise(folder)
    assert (folder / "digests.json").exists()


def test_names_are_public_and_cheap() -> None:
    assert all(callable(getattr(reports, name)) for name in reports.__all__)
    code = "import sys, reports; assert not {'pandas', 'pyarrow', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        _ = reports.nonsense
