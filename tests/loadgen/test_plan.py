"""plan.json and its traces: written and read again without loss; nonsense refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from loadgen import plan as plans
from loadgen.plan import Arm, Plan, Step
from targets import connect
from targets.clock import Clock
from targets.target import Target
from traces.errors import InputError
from traces.trace import Trace, build
from traces.typed_json import to_json


def requests() -> Trace:
    columns = {
        "due": [0, 7_000_000_001],
        "prompt_tokens": [9, 8],
        "output_tokens": [3, 4],
        "session": [4, 4],
        "prefix": [[1, 2], [1, 3]],
    }
    return build(columns, name="t", block_tokens={1: 4, 2: 5, 3: 4}, source="t.jsonl")


def made() -> Plan:
    pools = {"prefill": ("http://p",), "decode": ("http://h:1",), "protocol": "nixl"}
    target = Target("a", "http://h:1", headers=(("X-A", "${B}"),), extra_body={"top_k": 1}, **pools)
    arms = (Arm(target, plans.step_file(0), 2, concurrency=3),)
    return Plan("p", (Step("base", arms, warmup_s=2, window_s=1.5),), slo=("ttft p50 < 1s",), argv=("x",))


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plans.save(made(), {plans.step_file(0): requests()}, tmp_path)
    assert plans.load(tmp_path) == made()
    read = plans.unpack(tmp_path / plans.step_file(0))
    assert list(read) == list(requests())
    assert (read.block_tokens, read.name, read.source) == ({1: 4, 2: 5, 3: 4}, "t", "t.jsonl")
    assert read.fingerprint() == requests().fingerprint()


def parts(custom: Any) -> dict[str, object]:
    """What a custom format consists of; each has a body function and a reader class of its own."""
    made_of = {each.name: getattr(custom, each.name) for each in fields(custom)}
    return made_of | {"body": custom.body.args, "reader": custom.reader.paths}


def test_a_plan_carries_the_format_that_a_target_names(tmp_path: Path) -> None:
    """Workers on other machines have no such file."""
    told = 'path = "/g"\n[body]\np = "{prompt}"\nn = 3\n[answer]\ntext = "t"\ncumulative = true\n'
    file = tmp_path / "own.toml"
    file.write_text(told)
    spec = Target("a", "http://127.0.0.1:1", endpoint_type=str(file))
    plans.save(Plan("p", (Step("b", (Arm(spec, "plan/0.arrow", 1),)),)), {}, tmp_path)
    at_home = spec.wire_format()
    file.unlink()
    [target] = plans.load(tmp_path).targets
    assert parts(target.wire_format()) == parts(at_home)
    connect(target, Clock()).close()


def test_windows_are_nanoseconds_of_the_step() -> None:
    step = made().steps[0]
    assert (step.warmup_ns, step.end_ns) == (2_000_000_000, 3_500_000_000)
    assert Step("all", step.arms).end_ns is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"name": "x", "steps": []}', b'{"steps": 3}'])
def test_nonsense_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / plans.FILE).write_bytes(data)
    with pytest.raises(InputError):
        plans.load(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('"silence_timeout":60.0', '"silence_timeout":-1.0', ".target.limits.silence_timeout: expected a number"),
        ('"local_prefill_below":0', '"local_prefill_below":-3', ".target.local_prefill_below: expected a whole number"),
        ("plan/0.arrow", "../0.arrow", ": '../0.arrow' is no file of a plan"),
    ],
)
def test_a_mistake_inside_an_arm_is_named_with_file_and_field(
    before: str, after: str, words: str, tmp_path: Path
) -> None:
    text = to_json(made(), indent=False).decode()
    (tmp_path / plans.FILE).write_text(text.replace(before, after))
    with pytest.raises(InputError, match=rf"^plan.json, field steps\[0\].arms\[0\]{words}"):
        plans.load(tmp_path)


def test_no_secret_is_in_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "sesame")
    spec = Target("a", "http://h", api_key_env="SECRET_KEY", headers=(("Authorization", "Bearer ${SECRET_KEY}"),))
    assert b"sesame" not in to_json(Plan("p", (Step("b", (Arm(spec, "plan/0.arrow", 1),)),)))
