"""A Target finds its own mistakes, whoever makes it; what is given loosely is held as declared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import targets
from loadgen.options import TargetOptions
from targets import Limits, Target
from targets.rules import FieldError
from targets.targets_toml import parse
from traces.errors import InputError

LEGS: dict[str, Any] = {"prefill": "http://p:1/", "decode": ["http://d:1", "http://d:2"], "protocol": "nixl"}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"url": "http://127.0.0.1:8000", "model": "meta/llama"}, "llama"),
        ({"url": "http://127.0.0.1:8000"}, "127.0.0.1:8000"),
        ({"url": "unix:///run/server"}, "target"),
        ({**LEGS}, "d:1"),
        ({"url": "http://h", "model": "m", "name": "own"}, "own"),
    ],
)
def test_a_name_that_nobody_gave(fields: dict[str, Any], name: str) -> None:
    assert Target(**fields).name == name


def test_what_is_given_loosely_is_held_as_declared() -> None:
    target = Target(**LEGS, headers={"X-Team": "a"}, labels={"racks": 2}, metrics="http://m/metrics", watts=3)  # type: ignore[arg-type]
    assert (target.url, target.prefill, target.decode) == ("http://d:1", ("http://p:1",), ("http://d:1", "http://d:2"))
    assert (target.headers, target.labels) == ((("X-Team", "a"),), {"racks": "2"})
    assert (target.metrics, target.watts) == (("http://m/metrics",), 3.0)
    assert Target.from_json(target.to_json()) == target
    limited = replace(target, limits=Limits(connect_timeout=1, request_timeout=9))
    assert limited.to_json()["request_timeout"] == 9.0 and Target.from_json(limited.to_json()) == limited


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({}, "url", "has no url"),
        ({"url": "http://me:sk-secret@h"}, "url", "without a user or password"),
        ({"url": "http://h", "endpoint_type": "chta"}, "endpoint_type", "one of chat"),
        ({"url": "http://h", "headers": (("Authorization", "sk-secret"),)}, "headers", "${VARIABLE}"),
        ({"url": "http://h", "headers": (("X-A", "1\r\nX-B: sk-secret"),)}, "headers", "without control characters"),
        ({"url": "http://h", "extra_body": {"a": [{"api_key": "sk-secret"}]}}, "extra_body", "api_key"),
        ({"url": "http://h", "extra_body": {"n": 2}}, "extra_body", "only one can be measured"),
        ({"url": "http://h", "extra_body": {"n": True}}, "extra_body", "only one can be measured"),
        ({"url": "http://h", "extra_body": {"parameters": {"best_of": 2}}}, "extra_body", "best_of asks for several"),
        ({"url": "http://h", "extra_body": {"sampling_params": {"n": [2]}}}, "extra_body", "only one can be measured"),
        ({"url": "http://h", "protocol": ["nixl"]}, "protocol", "one of nixl"),
        ({"url": "http://h", "prefill": "http://p"}, "prefill", "need decode and protocol too"),
        ({"url": "http://h", **LEGS}, "url", "not both"),
        ({**LEGS, "endpoint_type": "own.toml"}, "endpoint_type", "no format of your own"),
        ({"url": "http://h", "local_prefill_below": 3}, "local_prefill_below", "only a target with two legs"),
        ({"url": "http://h", "model": "a\x1b[2J"}, "model", "without control characters"),
    ],
)
def test_a_mistake_names_its_field_and_repeats_no_secret(fields: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(FieldError) as caught:
        Target(**fields)
    assert caught.value.field == field and says in str(caught.value)
    assert "sk-secret" not in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("seconds", [0, -1.0, float("inf"), float("nan"), True, "nine", "-9s"])
def test_limits_that_are_none(seconds: Any) -> None:
    with pytest.raises(FieldError, match=r"silence_timeout: expected a number of seconds above 0, and finite"):
        Limits(silence_timeout=seconds)


def test_a_limit_may_be_written_with_its_unit() -> None:
    assert Limits(connect_timeout="500ms", request_timeout="10m") == Limits(0.5, request_timeout=600)  # type: ignore[arg-type]


def test_the_edges_add_where_a_mistake_stands() -> None:
    text = '[a]\nurl = "http://h"\nsilence_timeout = 0\n'
    with pytest.raises(InputError, match=r"^t\.toml:3, column silence_timeout: expected a number of seconds above 0"):
        parse(text, "t.toml")
    with pytest.raises(InputError, match=r"^--header: expected no header TE"):
        TargetOptions(header=["TE: x"]).target("http://h")
    with pytest.raises(InputError, match=r"^--endpoint-type: expected one of chat"):
        TargetOptions(endpoint_type="chta").target("http://h")


def test_every_public_name_is_there() -> None:
    assert {type(getattr(targets, name)).__name__ for name in targets.__all__} <= {
        "type", "function", "EnumType", "_ProtocolMeta",
    }  # fmt: skip
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = targets.nothing
