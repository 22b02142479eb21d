"""What a probe's one exchange means: reasons not to start, each with its remedy, and what is worth knowing."""

from array import array

import pytest

from targets.exchange import Exchange, Outcome
from targets.probe import TOKENS, judge, probe
from targets.target import Spec

SPEC = Spec("one", "http://127.0.0.1:1", "m", api_key_env="KEY_VARIABLE")


def exchange(outcome=Outcome.OK, status=200, error="", usage=TOKENS, reads=TOKENS, **more):
    made = Exchange(0, "one", 0, 20, TOKENS, outcome=outcome, status=status, error=error, usage_output=usage, **more)
    made.token_at, made.token_events = array("q", range(reads)), array("i", [1] * reads)
    return made


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (exchange(Outcome.REFUSED, None, "Connection refused"), ["can't be reached", "Connection refused"]),
        (exchange(Outcome.HTTP_ERROR, 401, "bad key"), ["HTTP 401: bad key", "KEY_VARIABLE"]),
        (exchange(Outcome.HTTP_ERROR, 404, "no model"), ["no such model or path", "'m'", "'chat'"]),
        (exchange(Outcome.HTTP_ERROR, 400, "unknown field ignore_eos"), ["ignore_eos = false"]),
        (exchange(Outcome.HTTP_ERROR, 422, "extra nvext"), ["endpoint type"]),
        (exchange(Outcome.HTTP_ERROR, 500, ""), ["HTTP 500"]),
        (exchange(Outcome.RATE_LIMITED, 429, "slow down"), ["rate limit", "slow down"]),
        (exchange(Outcome.TRUNCATED), ["cut its answer short"]),
        (exchange(Outcome.MALFORMED, 200, "not JSON"), ["doesn't speak"]),
        (exchange(Outcome.TIMEOUT, None), ["in time"]),
        (exchange(reads=0, usage=0), ["without a single token"]),
        (exchange(reads=1), ["doesn't stream", "proxy"]),
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
    specs = [Spec(name, "http://127.0.0.1:9", "m") for name in ("one", "two")]
    found = probe(specs)
    assert [each.spec.name for each in found] == ["one", "two"]
    assert all("http://127.0.0.1:9 can't be reached" in each.problem and each.hopeless for each in found)


@pytest.mark.parametrize(
    ("given", "hopeless"),
    [
        (exchange(), False),
        (exchange(reads=1), True),
        (exchange(Outcome.HTTP_ERROR, 404), True),
        (exchange(Outcome.HTTP_ERROR, 500), False),
        (exchange(Outcome.RATE_LIMITED, 429), False),
        (exchange(Outcome.TRUNCATED), False),
    ],
)
def test_what_may_pass_is_left_to_the_run(given, hopeless):
    assert judge(SPEC, given).hopeless is hopeless
