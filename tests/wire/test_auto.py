"""The type of a target that is "auto", found by probes of a real server; and how many requests that takes."""

import pytest

from targets.probing import CANDIDATES, probe, settle
from targets.target import Limits, Target
from tests.wire.answering import refuses, serving, stream, words

CHAT, GROQ, MESSAGES = "/v1/chat/completions", "/openai/v1/chat/completions", "/v1/messages"
GOOD = stream(*words())
ANTHROPIC = stream(
    {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 9}}},
    *({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "w "}} for _ in range(16)),
    {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 16}},
    {"type": "message_stop"},
    end="",
)
TIMES = {"usage": {"queue_time": 0.1, "total_time": 0.2, "completion_tokens": 16}}
NO_EOS = ("", ["ignore_eos"], refuses("Unsupported parameter: 'ignore_eos'"))


@pytest.mark.parametrize(
    ("rules", "kind", "asked", "says"),
    [
        ([(CHAT, [], GOOD)], "chat", 1, ""),
        ([(CHAT, [], stream(*words(), end=""))], "chat", 1, ""),
        ([(CHAT, [], stream(*words(nvext={"timing": {"total_time_ms": 5}})))], "dynamo", 1, ""),
        ([(CHAT, ["nvext"], refuses("unknown field nvext")), (CHAT, [], GOOD)], "chat", 2, ""),
        ([(GROQ, [], stream(*words(x_groq=TIMES)))], "groq", 3, ""),
        ([NO_EOS, (GROQ, [], stream(*words(x_groq=TIMES)))], "groq", 2, ""),
        ([(MESSAGES, [], ANTHROPIC)], "anthropic", len(CANDIDATES), ""),
        # A refused field ends the search: it isn't Groq because Groq's request leaves that field out.
        ([NO_EOS, (CHAT, [], GOOD), (GROQ, [], GOOD)], "chat", 2, "ignore_eos = false"),
        ([("", ["max_tokens"], refuses("no 'max_tokens' here")), (GROQ, [], GOOD)], "chat", 2, "max_completion_tokens"),
        (
            [("", ["stream_options"], (422, {"detail": [{"loc": ["body", "stream_options"], "msg": "extra"}]}))],
            "chat",
            2,
            'omit = ["stream_options"]',
        ),
        # So does an answer whose format was recognised, however it ended.
        ([(CHAT, [], stream({"error": {"message": "boom"}}))], "chat", 1, "reports a failure inside its answer: boom"),
        ([(CHAT, [], stream(*words(3), {"error": {"message": "boom"}}))], "chat", 1, "inside its answer: boom"),
        ([(CHAT, [], stream(*words(3), "NaN")), ("/v1/completions", [], GOOD)], "chat", 1, "not JSON"),
        ([(CHAT, [], stream(*words()[:-1], end=""))], "chat", 1, "cut its answer short"),
        # What speaks for every type is asked for once.
        ([("", [], refuses("slow down", 429))], "auto", 1, "rate limit"),
        ([("", [], refuses("none left", 498))], "auto", 1, "rate limit"),
        ([("", [], refuses("overloaded", 529))], "auto", 1, "rate limit"),
        ([("", [], (200, None))], "auto", 1, "didn't answer in time"),
        ([("", [], refuses("bad key", 401))], "auto", 1, "asks for another key (HTTP 401: bad key)"),
        # Else the most telling answer is reported, not the first.
        ([("/generate", [], refuses("the model is loading", 503))], "auto", len(CANDIDATES), "the model is loading"),
        ([], "auto", len(CANDIDATES), "HTTP 404: no such page"),
    ],
)
def test_what_is_found(rules, kind, asked, says):
    with serving(*rules) as (url, paths):
        found = settle(Target("a", url, "m", "auto", limits=Limits(first_token_timeout=1.0)))
    assert (found.target.endpoint_type, len(paths)) == (kind, asked), (found.problem, paths)
    assert says in found.problem if says else found.ok and found.notes[0] == f"answers as endpoint type {kind}"


def test_a_refused_key_is_tried_under_anthropics_header_too(monkeypatch):
    monkeypatch.setenv("AUTO_TEST_KEY", "good-key-of-the-test")
    with serving((MESSAGES, [], ANTHROPIC), ("", [], refuses("no x-api-key", 401))) as (url, paths):
        found = settle(Target("a", url, "m", "auto", api_key_env="AUTO_TEST_KEY"))
    assert found.ok and found.target.endpoint_type == "anthropic" and paths == [CHAT, MESSAGES]


def test_nobody_there_is_noticed_once():
    tried = []

    def ask(spec):
        tried.append(spec.endpoint_type)
        return probe([spec])[0]

    found = settle(Target("a", "http://127.0.0.1:9", "m", "auto"), ask)
    assert "can't be reached" in found.problem and tried == [CANDIDATES[0]]


def test_one_that_cant_be_used_ends_nothing_for_the_others():
    with serving(("", [], refuses("bad key", 403))) as (bad, _), serving((CHAT, [], GOOD)) as (good, _):
        kinds = {"a": (bad, "auto"), "b": (good, "auto"), "c": (good, "chat"), "d": (bad, "chat")}
        found = probe([Target(name, url, "m", kind) for name, (url, kind) in kinds.items()])
    assert [(each.target.name, each.target.endpoint_type, each.ok) for each in found] == [
        ("a", "auto", False),
        ("b", "chat", True),
        ("c", "chat", True),
        ("d", "chat", False),
    ]


def test_two_legs_of_plain_openai_servers_are_no_dynamo():
    """Their workers are named by us, not by an answer."""
    handed = {"choices": [{"message": {"content": "w"}}], "kv_transfer_params": {"remote_host": "h"}}
    with serving(("", ["kv_transfer_params"], (200, handed))) as (prefill, _), serving((CHAT, [], GOOD)) as (decode, _):
        legs = {"prefill": (prefill,), "decode": (decode,), "protocol": "nixl"}
        found = settle(Target("pair", decode, "m", "auto", **legs))
    assert found.ok and found.target.endpoint_type == "chat" and found.target.protocol == "nixl"
