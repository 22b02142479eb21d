"""The type of a target that is "auto", found by probes of a real server; and how many requests that takes."""

import contextlib
import http.server
import json
import threading
import time

import pytest

from targets.auto import CANDIDATES, look, settle
from targets.target import Spec

CHAT, GROQ, MESSAGES = "/v1/chat/completions", "/openai/v1/chat/completions", "/v1/messages"
NOT_FOUND = (404, {"error": {"message": "no such page"}})


def words(count=16, **last):
    chunks = [{"choices": [{"delta": {"content": f"w{i} "}}]} for i in range(count)]
    return [*chunks, {"choices": [{"delta": {}, "finish_reason": "length"}], **last}]


def stream(*events, end="data: [DONE]\n\n"):
    said = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return 200, "".join(f"data: {one}\n\n" for one in said) + end


def refuses(message, status=400):
    return status, {"error": {"message": message}}


@contextlib.contextmanager
def serving(*answers):
    """A server with (path, fields, answer) rules, the first that fits is taken: of a request to that path (any, where
    empty) that has those fields. Gives its URL, and the list of paths that it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fits = (
                a for path, named, a in answers if path in ("", self.path) and (not named or set(named) & {*fields})
            )
            status, body = next(fits, NOT_FOUND)
            if body is None:
                threading.Event().wait(3)
                return
            kind = "text/event-stream" if isinstance(body, str) else "application/json"
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for piece in data.splitlines(keepends=True):
                self.wfile.write(piece)
                time.sleep(0.002)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


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
        ([(CHAT, [], stream(*words(nvext={"timing": {"total_time_ms": 5}})))], "dynamo", 1, ""),
        ([(CHAT, ["nvext"], refuses("unknown field nvext")), (CHAT, [], GOOD)], "chat", 2, ""),
        ([(GROQ, [], stream(*words(x_groq=TIMES)))], "groq", 3, ""),
        ([NO_EOS, (GROQ, [], stream(*words(x_groq=TIMES)))], "groq", 2, ""),
        ([(MESSAGES, [], ANTHROPIC)], "anthropic", 9, ""),
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
        ([(CHAT, [], stream(*words(), end=""))], "chat", 1, "format of your own without `end`"),
        # What speaks for every type is asked for once.
        ([("", [], refuses("slow down", 429))], "auto", 1, "rate limit"),
        ([("", [], refuses("none left", 498))], "auto", 1, "rate limit"),
        ([("", [], refuses("overloaded", 529))], "auto", 1, "rate limit"),
        ([("", [], (200, None))], "auto", 1, "didn't answer in time"),
        ([("", [], refuses("bad key", 401))], "auto", 1, "asks for another key (HTTP 401: bad key)"),
        # Else the most telling answer is reported, not the first.
        ([("/generate", [], refuses("the model is loading", 503))], "auto", 9, "the model is loading"),
        ([], "auto", 9, "HTTP 404: no such page"),
    ],
)
def test_what_is_found(rules, kind, asked, says):
    with serving(*rules) as (url, paths):
        found = settle(Spec("a", url, "m", "auto", first_token_timeout=1.0))
    assert (found.spec.endpoint_type, len(paths)) == (kind, asked), (found.problem, paths)
    assert says in found.problem if says else found.ok and found.notes[0] == f"answers as endpoint type {kind}"


def test_a_refused_key_is_tried_under_anthropics_header_too(monkeypatch):
    monkeypatch.setenv("AUTO_TEST_KEY", "good-key-of-the-test")
    with serving((MESSAGES, [], ANTHROPIC), ("", [], refuses("no x-api-key", 401))) as (url, paths):
        found = settle(Spec("a", url, "m", "auto", api_key_env="AUTO_TEST_KEY"))
    assert found.ok and found.spec.endpoint_type == "anthropic" and paths == [CHAT, MESSAGES]


def test_nobody_there_is_noticed_once():
    tried = []

    def ask(spec):
        tried.append(spec.endpoint_type)
        return next(look([spec]))

    found = settle(Spec("a", "http://127.0.0.1:9", "m", "auto"), ask)
    assert "can't be reached" in found.problem and tried == [CANDIDATES[0]]


def test_one_that_cant_be_used_ends_nothing_for_the_others():
    with serving(("", [], refuses("bad key", 403))) as (bad, _), serving((CHAT, [], GOOD)) as (good, _):
        kinds = {"a": (bad, "auto"), "b": (good, "auto"), "c": (good, "chat"), "d": (bad, "chat")}
        found = list(look([Spec(name, url, "m", kind) for name, (url, kind) in kinds.items()]))
    assert [(each.spec.name, each.spec.endpoint_type, each.ok) for each in found] == [
        ("a", "auto", False),
        ("b", "chat", True),
        ("c", "chat", True),
        ("d", "chat", False),
    ]
