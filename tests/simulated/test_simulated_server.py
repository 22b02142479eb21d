"""The server by its bytes: wire formats, counts, refusals, and a client that leaves."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from targets.simulated.__main__ import main

from .servers import chat, connect, events, get, post, serving

STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def gpu():
    with serving("h100") as url:
        yield url


def test_a_chat_stream_is_role_tokens_finish_usage_done(gpu):
    response = post(gpu, "/v1/chat/completions", chat(7, 20, **STREAM))
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    role, *tokens, finish, usage = events(response)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(tokens) == 20
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in tokens)
    assert len(text.split()) == 20
    assert finish["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens"] == 7
    assert usage["usage"]["completion_tokens"] == 20
    assert len({chunk["id"] for chunk in (role, *tokens, finish, usage)}) == 1


def test_completions_stream_and_take_token_ids(gpu):
    for prompt, count in (("one two three", 3), ([5, 6, 7, 8], 4), ([[1, 2]], 2)):
        body = {"model": "llama2-7b", "prompt": prompt, "max_tokens": 3, "ignore_eos": True, "min_tokens": 3, **STREAM}
        *tokens, finish, usage = events(post(gpu, "/v1/completions", body))
        assert len("".join(chunk["choices"][0]["text"] for chunk in tokens).split()) == 3
        assert finish["choices"][0]["finish_reason"] == "length"
        assert usage["usage"]["prompt_tokens"] == count


def test_without_a_stream_the_answer_is_whole(gpu):
    answer = json.loads(post(gpu, "/v1/chat/completions", chat(3, 5)).read())
    assert answer["object"] == "chat.completion"
    assert len(answer["choices"][0]["message"]["content"].split()) == 5
    assert answer["usage"]["total_tokens"] == 8


def test_max_completion_tokens_wins_over_max_tokens(gpu):
    answer = json.loads(post(gpu, "/v1/chat/completions", chat(3, 5, max_completion_tokens=2)).read())
    assert answer["usage"]["completion_tokens"] == 2


def test_content_parts_are_counted_by_their_text(gpu):
    parts = [{"type": "text", "text": "a b"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "c"}]
    body = {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": parts}], "max_tokens": 1}
    assert json.loads(post(gpu, "/v1/chat/completions", body).read())["usage"]["prompt_tokens"] == 4


def test_groq_gives_times_in_x_groq():
    with serving("groqrack") as url:
        body = {**chat(100, 10, stream=True), "max_completion_tokens": 10}
        first, *tokens, finish = events(post(url, "/openai/v1/chat/completions", body))
        assert first["x_groq"]["id"]
        assert len(tokens) == 10
        usage = finish["x_groq"]["usage"]
        assert usage["prompt_time"] == pytest.approx(131 * 138.5e-6)
        assert usage["completion_time"] == pytest.approx(9 * 32 * 138.5e-6)
        assert usage["total_time"] == pytest.approx(usage["prompt_time"] + usage["completion_time"])
        assert usage["queue_time"] >= 0


REFUSED = [
    ("/v1/chat/completions", b"{nonsense", 400, "JSON"),
    ("/v1/chat/completions", b"[]", 400, "object"),
    ("/v1/chat/completions", {"messages": "hello"}, 400, "messages"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": ""}]}, 400, "empty"),
    ("/v1/chat/completions", chat(1, 0), 400, "max_tokens"),
    ("/v1/chat/completions", chat(1, 1, n=2), 400, "n = 1"),
    ("/v1/chat/completions", chat(1, 4096), 400, "maximum context length is 4096"),
    ("/v1/chat/completions", {**chat(1, 1), "model": "gpt-9"}, 404, "gpt-9"),
    ("/v1/completions", {"prompt": ["a", "b"]}, 400, "prompt"),
    ("/v1/completions", {"prompt": {"a": 1}}, 400, "prompt"),
    ("/openai/v1/chat/completions", chat(1, 1, logprobs=True), 400, "logprobs"),
    ("/openai/v1/chat/completions", chat(1, 5000), 400, "reduce the length"),
]


@pytest.mark.parametrize(("path", "body", "status", "message"), REFUSED)
def test_what_can_not_be_served_is_refused_in_the_vendors_words(gpu, path, body, status, message):
    response = post(gpu, path, body)
    assert response.status == status
    error = json.loads(response.read())["error"]
    assert message in error["message"]
    assert {"message", "type", "code"} <= set(error)


def test_models_and_health(gpu):
    assert get(gpu, "/health").status == 200
    for path in ("/v1/models", "/openai/v1/models"):
        cards = json.loads(get(gpu, path).read())["data"]
        assert [card["id"] for card in cards] == ["llama2-7b"]


def test_a_client_that_leaves_frees_its_rack():
    with serving("groqrack") as url:
        leaver = connect(url)
        leaver.request("POST", "/v1/chat/completions", json.dumps(chat(10, 3000, stream=True)))
        leaver.getresponse().read(10)
        leaver.close()  # 13 s of service would be left
        start = time.monotonic()
        assert len(events(post(url, "/v1/chat/completions", chat(10, 10, stream=True)))) == 12
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["z100"], "no such simulated endpoint"),
        (["h100", "--set", "tp=0"], "tp=0"),
        (["h100", "--set", "speed=9"], "no such setting: speed"),
        (["h100", "--set", "speed"], "KEY=VALUE"),
        (["h100", "--model", "gpt"], "no such model"),
        (["a100", "--model", "llama2-70b"], "doesn't fit"),
        (["h100", "--fault", "hiccup=1"], "kinds are"),
        (["h100", "--fault", "stall=0.7,reset=0.7"], "at most 1 together"),
        (["h100", "--fault", "stall=often"], "KIND=SHARE"),
        (["h100", "--leg", "sglang"], ":prefill or :decode"),
    ],
)
def test_a_wrong_option_is_one_clear_line(capsys, options, message):
    assert main(options) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_a_taken_port_is_one_clear_line(gpu, capsys):
    assert main(["h100", "--port", gpu.rsplit(":", 1)[1]]) == 2
    assert "can't serve on 127.0.0.1" in capsys.readouterr().err


def test_gevent_is_never_imported():
    code = "import sys, targets.simulated.__main__, targets.simulated.server.server; sys.exit('gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_sigterm_ends_it_in_the_middle_of_a_stream():
    with serving("groqrack") as url:
        connection = connect(url)
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(10, 3000, stream=True)))
        response = connection.getresponse()
        assert response.read(10)
        start = time.monotonic()
    assert time.monotonic() - start < 5  # and with exit code 0 and nothing on stderr: see `serving`
    connection.close()
