"""What a probe's one exchange means: reasons not to start, each with its remedy, and what is worth knowing."""

import json
import ssl
import time
from array import array
from contextlib import ExitStack, suppress
from dataclasses import replace

import gevent
import pytest
import trustme

from targets.exchange import Outcome
from targets.probing import TOKENS, judge, probe, with_model
from targets.target import Limits, Target
from tests.exchanges import make_exchange
from tests.targets.scripted import Scripted, good
from tests.targets.wire_cases import DONE, TWO, chunked, frame, token
from tests.wire.answering import refuses, serving, stream, words

USAGE = 'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}\n\n'
GOOD = chunked(TWO + USAGE + DONE)
SPEC = Target("one", "http://127.0.0.1:1", "m", api_key_env="KEY_VARIABLE")


def exchange(outcome=Outcome.OK, status=200, error="", usage=TOKENS, reads=TOKENS, events=1, at=0, **more):
    facts = {"outcome": outcome, "status": status, "error": error, "usage_output": usage, **more}
    made = make_exchange(0, "one", 0, 20, TOKENS, **facts)
    made.token_at, made.token_events = array("q", range(at, at + reads)), array("i", [events] * reads)
    return made


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (exchange(Outcome.REFUSED, None, "Connection refused"), ["can't be reached", "Connection refused"]),
        (exchange(Outcome.HTTP_ERROR, 401, "bad key"), ["HTTP 401: bad key", "KEY_VARIABLE"]),
        (exchange(Outcome.HTTP_ERROR, 404, "no model"), ["no such model or path", "'m'", "'chat'"]),
        (exchange(Outcome.HTTP_ERROR, 400, "unknown field ignore_eos"), ["ignore_eos = false"]),
        (exchange(Outcome.HTTP_ERROR, 422, "extra nvext"), ["endpoint type"]),
        (exchange(Outcome.HTTP_ERROR, 500, ""), ["fails (HTTP 500)", "may pass"]),
        (exchange(Outcome.HTTP_ERROR, 502, "bad"), ["fails (HTTP 502: bad)", "may pass", "the server behind it"]),
        (exchange(Outcome.HTTP_ERROR, 503, ""), ["HTTP 503", "still starting"]),
        (exchange(Outcome.HTTP_ERROR, 529, ""), ["HTTP 529", "may pass"]),
        (exchange(Outcome.HTTP_ERROR, 307, "307: redirects are not followed (to /v1/)"), ["(to /v1/)", "give the URL"]),
        (exchange(Outcome.RATE_LIMITED, 429, "slow down"), ["rate limit", "slow down"]),
        (exchange(Outcome.TRUNCATED), ["cut its answer short"]),
        (exchange(Outcome.MALFORMED, 200, "not JSON"), ["doesn't speak"]),
        (exchange(Outcome.TIMEOUT, None), ["in time"]),
        (exchange(reads=0, usage=0), ["without a single token"]),
        (exchange(reads=1, sent=0, first_after=95, at=100), ["doesn't stream", "proxy"]),
        (exchange(reads=1, events=16, usage=None, sent=0, first_after=95, at=100), ["doesn't stream: 16 tokens came"]),
        (exchange(reads=1, sent=0, first_after=0, at=100, whole=True), ["doesn't stream", "one JSON document"]),
        (exchange(Outcome.HTTP_ERROR, 200, "engine died"), ["inside its answer", "engine died"]),
    ],
)
def test_reasons_not_to_start(given, says):
    found = judge(SPEC, given)
    assert not found.ok and found.notes == ()
    assert all(word in found.problem for word in says), found.problem
    assert "\n" not in found.problem


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (exchange(), "reports no phases"),
        (exchange(usage=None), "no usage"),
        (exchange(usage=5, reads=5), "gave 5 of 16"),
        (exchange(unterminated=True), "a finish reason alone"),
        (exchange(reads=1, sent=0, first_after=80, at=100), "may not stream: 16 tokens were read at once"),
        (exchange(reads=11), "11 chunks carried 16 tokens"),
        (exchange(model="other"), "answers as model 'other'"),
        (exchange(server_queue=0.1, server_decode=1.0), "reports queue, decode"),
        (exchange(ratelimit='{"x-ratelimit-limit-tokens":"6000"}'), "limits: 6000 tokens"),
    ],
)
def test_what_is_worth_knowing(given, says):
    found = judge(SPEC, given)
    assert found.ok and any(says in note for note in found.notes), found


def test_a_port_where_nobody_listens():
    specs = [Target(name, "http://127.0.0.1:9", "m") for name in ("one", "two")]
    found = probe(specs)
    assert [each.target.name for each in found] == ["one", "two"]
    assert all("http://127.0.0.1:9 can't be reached" in each.problem and each.hopeless for each in found)


def test_a_target_that_cant_be_made_hides_no_other(tmp_path):
    specs = [
        Target("no-ca", "https://127.0.0.1:9", "m", ca_file=str(tmp_path / "none.pem")),
        Target("no-name", "http://no.such.host.invalid", "m"),
        Target("nobody", "http://127.0.0.1:9", "m"),
    ]
    found = probe(specs)
    assert [each.target.name for each in found] == ["no-ca", "no-name", "nobody"]
    assert "none.pem" in found[0].problem and "no.such.host.invalid" in found[1].problem
    assert [each.sent for each in found] == [False, False, True]
    assert all(each.hopeless for each in found)


def late(pause, gap):
    """A server that gives each token after `gap` seconds, the first after `pause`."""

    def script(peer):
        while peer.request():
            head, end, body = GOOD.partition(b"\r\n\r\n")
            peer.say(head + end, pause)
            for part in body.splitlines(keepends=True):
                peer.say(part, gap if part.startswith(b"data") else 0)

    return script


def test_a_client_that_was_busy_blames_no_server():
    """The process stalls through the whole of the first answer; asked again it sees the tokens come one by one."""
    server = Scripted(late(0.02, 0.02))
    stalls = iter([0.4])
    stall = gevent.get_hub().loop.timer(0.01)
    stall.start(lambda: time.sleep(next(stalls, 0)))
    (found,) = probe([Target("good", server.url, "m")])
    server.close()
    assert next(stalls, None) is None, "it never stalled"
    assert found.ok and not any("may not stream" in note for note in found.notes)
    assert len(found.exchange.token_at) == 2


def test_a_buffering_proxy_is_named():
    def all_at_once(peer):
        while peer.request():
            time.sleep(0.15)
            peer.say(chunked(TWO + USAGE + DONE))

    server = Scripted(all_at_once)
    (found,) = probe([Target("proxied", server.url, "m")])
    server.close()
    assert "doesn't stream" in found.problem and found.hopeless


@pytest.mark.parametrize(
    ("given", "hopeless"),
    [
        (exchange(), False),
        (exchange(reads=1, sent=0, first_after=95, at=100), True),
        (exchange(reads=1, sent=0, first_after=80, at=100), False),
        (exchange(Outcome.HTTP_ERROR, 404), True),
        (exchange(Outcome.HTTP_ERROR, 307), True),
        (exchange(Outcome.HTTP_ERROR, 500), False),
        (exchange(Outcome.RATE_LIMITED, 429), False),
        (exchange(Outcome.TRUNCATED), False),
    ],
)
def test_what_may_pass_is_left_to_the_run(given, hopeless):
    assert judge(SPEC, given).hopeless is hopeless


def event(text):
    return frame(f"data: {token(text)}\n\n".encode())


def characters(peer):
    """16 tokens of 19 characters, an event for each."""
    while peer.request():
        peer.head()
        for letter in "incomprehensibility" * TOKENS:
            peer.say(event(letter), 0.001)
        usage = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 16}}\n\n'
        peer.say(frame(usage) + frame(DONE.encode()) + frame(b""))


def endless(peer):
    peer.request()
    peer.head()
    with suppress(OSError):
        while True:
            peer.say(event("x") * 16, 0.0005)


def test_a_server_that_streams_by_character_is_usable_and_one_that_never_ends_is_not():
    servers = [Scripted(characters), Scripted(endless)]
    letters, never = probe([Target("a", server.url, "m") for server in servers])
    for server in servers:
        server.close()
    assert letters.ok, letters.problem
    assert letters.exchange.usage_output == TOKENS < sum(letters.exchange.token_events)
    assert "goes on after the 16 tokens that it was asked for" in never.problem


@pytest.mark.parametrize("https", [True, False])
def test_a_scheme_that_the_port_doesnt_speak_is_named_with_the_one_it_does(https):
    server = Scripted(good)
    if https:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(server.context)
    schemes = ("http", "https") if https else ("https", "http")
    given, right = (f"{scheme}://{server.url.rpartition('/')[2]}/base" for scheme in schemes)
    (found,) = probe([Target("other", given, "m", limits=Limits(connect_timeout=0.5))])
    server.close()
    assert found.problem == f"{given} doesn't speak {schemes[0]} at this port: give {right}" and found.hopeless


@pytest.mark.parametrize(
    ("listed", "model", "note"),
    [
        (["only"], "only", "asks for model 'only', the only one of URL"),
        (["one", "two"], "", "no model is named (-m), and URL has one, two"),
        ([], "", ""),
        ([{"id": 3}, None], "", ""),
    ],
)
def test_a_model_that_nobody_named_is_the_only_one_of_the_server(listed, model, note, monkeypatch):
    monkeypatch.setenv("THE_KEY", "sk-secret-1")
    body = json.dumps({"data": [{"id": name} for name in listed]}).encode()

    def script(peer):
        request = peer.request()
        assert request.startswith(b"GET /sk-path-2/v1/models ") and b"Bearer sk-secret-1" in request
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    server = Scripted(script)
    target, said = with_model(Target("a", f"{server.url}/sk-path-2", api_key_env="THE_KEY").sheltered())
    server.close()
    assert (target.model, said) == (model, note.replace("URL", target.url)) and "sk-path-2" not in said


def test_a_server_that_lists_no_models_is_left_to_the_probe():
    server = Scripted(cut(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
    for target in (Target("a", server.url), Target("b", server.url, "m"), Target("c", server.url, endpoint_type="tgi")):
        assert with_model(target) == (target, "")
    server.close()
    assert server.connections == 1


HANDED = {"choices": [{"message": {"content": "w"}}], "kv_transfer_params": {"remote_host": "h"}}
STREAM = stream(*words())


@pytest.fixture
def legs():
    """Makes a target of two legs: a server for each answer given. Gives it and each server's requests."""
    with ExitStack() as stack:

        def make(prefill, decode, protocol="nixl", **more):
            made = [[stack.enter_context(serving(("", [], answer))) for answer in pool] for pool in (prefill, decode)]
            pools = [tuple(url for url, _ in pool) for pool in made]
            spec = Target("legs", pools[1][0], "m", prefill=pools[0], decode=pools[1], protocol=protocol, **more)
            return spec, [paths for pool in made for _, paths in pool]

        yield make


def test_every_server_of_both_pools_is_asked_whatever_goes_straight_to_decode(legs):
    spec, asked = legs([(200, HANDED)] * 2, [STREAM] * 3, local_prefill_below=1000)
    (found,) = probe([spec])
    assert found.ok and found.target is spec
    assert [len(paths) for paths in asked] == [2, 1, 1, 1, 1]


def test_each_server_that_fails_is_named(legs):
    spec, _ = legs([(200, HANDED), refuses("no such key", 401)], [STREAM, STREAM, refuses("no such model", 404)])
    (found,) = probe([spec])
    assert found.hopeless and found.target is spec
    assert f"prefill server {spec.prefill[1]} asks for another key (HTTP 401: no such key)" in found.problem
    assert f"decode server {spec.decode[2]} has no such model or path (HTTP 404: no such model)" in found.problem
    assert not any(url in found.problem for url in (spec.prefill[0], *spec.decode[:2]))


def test_one_server_that_is_gone_is_named_beside_those_that_answer(legs):
    spec, _ = legs([(200, HANDED)], [STREAM])
    (found,) = probe([replace(spec, prefill=(*spec.prefill, "http://127.0.0.1:9"))])
    assert found.problem == "prefill server http://127.0.0.1:9 can't be reached: Connection refused" and found.hopeless


def cut(start):
    """Closes the connection when it has said so much."""

    def script(peer):
        peer.request()
        peer.say(start)

    return script


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"]
)
def test_a_prefill_leg_that_was_cut_beside_a_whole_decode_leg_is_what_is_told(legs, start):
    spec, _ = legs([(200, HANDED)], [STREAM], "sglang")
    server = Scripted(cut(start))
    url = server.url
    (found,) = probe([replace(spec, prefill=(url,))])
    server.close()
    assert found.problem.startswith(f"prefill server {url} cut its answer short: "), found.problem


def test_a_refused_prefill_leg_beside_a_whole_decode_leg_has_its_own_status(legs):
    spec, _ = legs([refuses("no such key", 401)], [STREAM], "sglang")
    (found,) = probe([spec])
    assert f"prefill server {spec.prefill[0]} asks for another key (HTTP 401: no such key)" in found.problem
    assert found.hopeless


def test_a_targets_own_limit_ends_its_probe():
    server = Scripted(late(0.3, 0.3))
    (found,) = probe([Target("slow", server.url, "m", limits=Limits(request_timeout=0.5))])
    server.close()
    assert "didn't answer in time: not done within 0.5 s" in found.problem
