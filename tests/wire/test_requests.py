"""What is asked: the user's own fields go over ours, as deep as they go, and a null removes one."""

import json

import pytest

from targets.target import Target
from targets.wire import WIRES, custom
from targets.wire.interface import merged
from tests.exchanges import make_call

BODY = {"model": "{model}", "p": "{prompt}", "opts": {"n": "{output_tokens}"}}
CUSTOM = custom.parse({"path": "/g", "body": BODY, "answer": {"text": "t"}}, "own.toml")
FORMATS = {**WIRES, "own": CUSTOM}


def asked(kind, extra):
    _, _, body = FORMATS[kind].request(make_call(0, 0, "hello", 1, 7), Target("x", "http://h", "m", extra_body=extra))
    return json.loads(body)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_null_removes_a_field(kind):
    ours = asked(kind, {})
    assert None not in ours.values()
    for field in ours:
        assert asked(kind, {field: None}) == {key: value for key, value in ours.items() if key != field}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_field_of_the_users_is_added_and_nothing_lost(kind):
    nested = next((key for key, value in asked(kind, {}).items() if isinstance(value, dict)), "nested")
    ours = asked(kind, {})
    assert asked(kind, {"seed": 3, nested: {"deep": {"er": 1}}}) == {
        **ours,
        "seed": 3,
        nested: {**ours.get(nested, {}), "deep": {"er": 1}},
    }


@pytest.mark.parametrize(
    ("kind", "extra", "told"),
    [
        ("sglang", {"sampling_params": {"top_k": 1}}, {"top_k": 1, "max_new_tokens": 7, "ignore_eos": True}),
        ("sglang", {"sampling_params": {"ignore_eos": None}}, {"max_new_tokens": 7}),
        ("tgi", {"parameters": {"details": False}}, {"max_new_tokens": 7, "details": False}),
        ("dynamo", {"nvext": {"extra_fields": ["x"]}}, {"extra_fields": ["x"]}),
        ("chat", {"stream_options": {"include_usage": False}}, {"include_usage": False}),
        ("own", {"opts": {"x": 1}}, {"n": 7, "x": 1}),
    ],
)
def test_length_control_stays_beside_the_users_parameters(kind, extra, told):
    [(where, _)] = extra.items()
    assert asked(kind, extra)[where] == told


def test_merging_leaves_both_as_they_were():
    ours, own = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None, "e": {"f": None, "g": 3}}, "d": {"h": 4}}
    assert merged(ours, own) == {"a": {"c": 2, "e": {"g": 3}}, "d": {"h": 4}}
    assert (ours, own) == (
        {"a": {"b": 1, "c": 2}, "d": [1]},
        {"a": {"b": None, "e": {"f": None, "g": 3}}, "d": {"h": 4}},
    )


@pytest.mark.parametrize("kind", ["chat", "completions", "dynamo"])
def test_the_length_under_its_newer_name(kind):
    ours = asked(kind, {})
    del ours["max_tokens"]
    assert asked(kind, {"max_completion_tokens": "{output_tokens}"}) == {**ours, "max_completion_tokens": 7}
