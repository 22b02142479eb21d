"""run.json: read as it was written, each mistake named with its field; a target's fields are all there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.store import run_json
from targets.target import Target
from tests.reports import made
from traces.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made.run(tmp_path, (made.GPU, made.RACK), seconds=5)


def test_it_is_read_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    facts = run_json.read(folder)
    run_json.write(tmp_path, facts)
    assert run_json.read(tmp_path) == facts
    (step,) = facts.steps
    assert step.planned.keys() == {"h100", "groqrack"} and step.window[0] == 3 * made.S
    assert facts.workers[0].number == 0


def _deep(facts: dict[str, Any]) -> None:
    facts["phases"][0]["window"] = [0, "1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: facts.pop("seed"), "field seed: is missing"),
        (lambda facts: facts.update(sede=1), "field sede: is unknown"),
        (lambda facts: facts.update(seed="1"), "field seed: expected a whole number, got '1'"),
        (lambda facts: facts.update(ended="over"), "field ended: expected one of running, completed, interrupted"),
        (lambda facts: facts["workers"][0].update(pid=None), r"field workers\[0\].pid: expected a whole number"),
        (lambda facts: facts["workers"][0]["diagnostics"].pop("reads"), r"workers\[0\].diagnostics.reads: is missing"),
        (_deep, r"field phases\[0\].window\[1\]: expected a whole number, got '1'"),
    ],
)
def test_a_mistake_is_named_with_its_field(folder: Path, change: Callable[[dict[str, Any]], Any], words: str) -> None:
    path = folder / "run.json"
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match=f"run.json, {words}" if words.startswith("field") else words):
        run_json.read(folder)


def test_a_lost_worker_has_no_diagnostics(folder: Path) -> None:
    path = folder / "run.json"
    facts = json.loads(path.read_text())
    facts["workers"][0] |= {"lost": "its process is gone", "diagnostics": {}, "clock_offset_s": None}
    path.write_text(json.dumps(facts))
    read = run_json.read(folder)
    assert read.workers[0].diagnostics is None
    run_json.write(folder, read)
    assert json.loads(path.read_text())["workers"][0]["diagnostics"] == {}


def test_a_target_is_kept_whole() -> None:
    target = Target("a", "http://h:1", headers=(("X-A", "${B}"),), extra_body={"top_k": 1}, labels={"b": "c"})
    facts = run_json.target_facts(target)
    assert {name: getattr(facts, name) for name in target.to_json()} == target.to_json()
    assert not facts.embedded
    embedded = run_json.target_facts(target, run_json.EmbeddedFacts("simulated: x", "assumed"))
    assert (embedded.embedded, embedded.description, embedded.standing) == (True, "simulated: x", "assumed")
