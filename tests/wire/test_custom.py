"""A user's own wire format: what it sends, what it finds, and what is wrong with it."""

import json

import pytest

from targets.recording import Recording, facts, replay
from targets.target import Target
from targets.wire import custom
from tests.exchanges import make_call
from traces.errors import InputError

SPEC = Target("own", "http://127.0.0.1:1", model="m")
ASK = make_call(0, 0, "hello there", 2, 7, history=(("user", "before"),))
TOLD = {
    "path": "/generate",
    "headers": {"x-tenant": "load"},
    "body": {
        "text": "Q: {prompt}",
        "n": "{output_tokens}",
        "chat": "{messages}",
        "deep": [{"m": "{model}", "x": "{y}"}],
    },
    "answer": {"text": "out.0.text", "ended": "last", "output_tokens": "usage.out", "finish_reason": "why"},
}


def test_the_request_is_filled_in_with_types_kept():
    path, headers, body = custom.parse(TOLD, "own.toml").request(ASK, SPEC)
    assert (path, headers) == ("/generate", [("x-tenant", "load")])
    assert json.loads(body) == {
        "text": "Q: before\n\nhello there",
        "n": 7,
        "chat": [{"role": "user", "content": "before"}, {"role": "user", "content": "hello there"}],
        "deep": [{"m": "m", "x": "{y}"}],
    }


@pytest.mark.parametrize(
    ("answer", "body", "told"),
    [
        (
            TOLD["answer"],
            'data: {"out":[{"text":"Hi"}]}\n\n'
            'data: {"out":[{"text":""}],"last":true,"usage":{"out":3},"why":"length"}\n\n',
            {"outcome": "ok", "tokens": [1], "chars": 2, "usage_output": 3, "finish_reason": "length"},
        ),
        (TOLD["answer"], 'data: {"out":[{"text":"Hi"}]}\n\n', {"outcome": "truncated", "tokens": [1], "chars": 2}),
        (
            {"text": "t", "tokens": "n", "cumulative": True, "end": "EOS"},
            'data: {"t":"a","n":1}\n\ndata: {"t":"abc","n":3}\n\ndata: EOS\n\n',
            {"outcome": "ok", "tokens": [1, 2], "chars": 3},
        ),
        (
            {"text": "t", "tokens": "n"},
            'data: {"t":"a"}\n\ndata: {"t":"bc","n":2}\n\ndata: {"n":0}\n\n',
            {"outcome": "ok", "tokens": [1, 2], "chars": 3},
        ),
        (
            {"text": "t", "error": "oops.why"},
            'data: {"t":"a"}\n\ndata: {"oops":{"why":"no memory"}}\n\n',
            {"outcome": "http_error", "tokens": [1], "chars": 1, "error": "no memory"},
        ),
        ({"text": "t"}, 'data: {"t":"a"}\n\n', {"outcome": "ok", "tokens": [1], "chars": 1}),
    ],
)
def test_the_answer_is_found(answer, body, told):
    wire = custom.parse({**TOLD, "answer": answer}, "own.toml")
    assert facts(replay(wire, Recording(200, body.encode()))) == told


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"path": "generate"}, "path"),
        ({"path": 3}, "path"),
        ({"pth": "/x"}, "pth"),
        ({"body": {"n": 1}}, "body"),
        ({"body": None}, "body"),
        ({"answer": None}, "answer"),
        ({"answer": {}}, "answer.text"),
        ({"answer": {"text": "t", "txt": "t"}}, "answer.txt"),
        ({"answer": {"text": "t", "cumulative": "yes"}}, "answer.cumulative"),
        ({"headers": 3}, "headers"),
        ({"headers": {"content-length": 5}}, "headers"),
        ({"headers": {"Host": "other"}}, "headers"),
        ({"headers": {"x-api-key": "sesame"}}, "x-api-key"),
        ({"body": {"p": "{prompt}", "deep": [{"api_key": "sesame"}]}}, "api_key"),
    ],
)
def test_mistakes_name_their_key(changed, named):
    with pytest.raises(InputError, match=rf"own\.toml, column {named}:") as caught:
        custom.parse({**TOLD, **changed}, "own.toml")
    assert "sesame" not in str(caught.value)


def test_a_file_that_is_not_toml(tmp_path):
    (tmp_path / "own.toml").write_text("path = /x")
    with pytest.raises(InputError, match=r"own\.toml:1: not TOML"):
        custom.read(str(tmp_path / "own.toml"))
    with pytest.raises(InputError, match="No such file"):
        custom.read(str(tmp_path / "none.toml"))
