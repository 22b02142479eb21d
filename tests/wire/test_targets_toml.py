"""targets.toml: what it gives, and that a mistake names the key and the line."""

import os
from dataclasses import replace

import pytest

from targets.address import RequestHead, address, tls_context
from targets.target import Target
from targets.targets_toml import load_targets, parse
from traces.errors import InputError

GOOD = """\
[defaults]
model = "llama"
request_timeout = 90

[groq]
type = "groq"
url = "https://api.groq.com/"
api_key_env = "GROQ_API_KEY"
headers = { x-team = "${TEAM}" }
extra_body = { service_tier = "flex" }
price_per_hour = 12.5
watts = 4000
labels = { hardware = "GroqRack", racks = 2 }

["two legs"]
prefill = ["http://10.0.0.1:8100", "http://10.0.0.2:8100"]
decode = "http://10.0.0.3:8200"
protocol = "nixl"
local_prefill_below = 64
metrics = "http://10.0.0.1:8100/metrics"
model = "other"
"""


def test_what_a_file_gives():
    groq, legs = parse(GOOD)
    assert (groq.name, groq.endpoint_type, groq.url, groq.model) == ("groq", "groq", "https://api.groq.com", "llama")
    assert (groq.api_key_env, groq.headers) == ("GROQ_API_KEY", (("x-team", "${TEAM}"),))
    assert (groq.extra_body, groq.price_per_hour, groq.watts) == ({"service_tier": "flex"}, 12.5, 4000.0)
    assert groq.labels == {"hardware": "GroqRack", "racks": "2"}
    assert groq.limits.request_timeout == 90.0
    assert (legs.name, legs.model, legs.protocol, legs.local_prefill_below) == ("two legs", "other", "nixl", 64)
    assert (legs.prefill, legs.decode) == (("http://10.0.0.1:8100", "http://10.0.0.2:8100"), ("http://10.0.0.3:8200",))
    assert legs.metrics == ("http://10.0.0.1:8100/metrics",)


def test_every_pair_of_hardware():
    pairs = parse(
        GOOD.replace('decode = "http://10.0.0.3:8200"', 'decode = ["http://d:1", "http://d:2"]\nevery_pair = true')
    )
    assert [(p.name, p.prefill, p.decode) for p in pairs[1:]] == [
        ("two legs/1+1", ("http://10.0.0.1:8100",), ("http://d:1",)),
        ("two legs/1+2", ("http://10.0.0.1:8100",), ("http://d:2",)),
        ("two legs/2+1", ("http://10.0.0.2:8100",), ("http://d:1",)),
        ("two legs/2+2", ("http://10.0.0.2:8100",), ("http://d:2",)),
    ]


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ('[a]\nurl = "http://x"\nmodle = "m"', 3, "modle", "did you mean model?"),
        ('[a]\nurl = "http://x"\napi_key = "sk-1"', 3, "api_key", "use api_key_env"),
        ('[a]\nurl = "ftp://x"', 2, "url", "expected a URL"),
        ('[a]\nurl = "http://user:pw@x"', 2, "url", "without a user or password"),
        ('[a]\nurl = "http://x:99999"', 2, "url", "expected a URL"),
        ("[a]\nurl = 3", 2, "url", "expected a text"),
        ('[b]\nurl = "http://x"\n\n[a]\ntype = "chta"\nurl = "http://x"', 5, "type", "one of chat"),
        ('[a]\nurl = "http://x"\nwatts = -3', 3, "watts", "a number above 0"),
        ('[a]\nurl = "http://x"\nprice_per_million_input = -3\n', 3, "price_per_million_input", "0 or more"),
        ('[a]\nurl = "http://x"\nprice_per_million_output = 3\n', 3, "price_per_million_output", "million_input too"),
        (
            '[a]\nurl = "http://x"\nprice_per_hour = 3\nprice_per_million_input = 1\nprice_per_million_output = 1',
            4,
            "price_per_million_input",
            "by the hour or by the token",
        ),
        ('[a]\nurl = "http://x"\ninsecure = "yes"', 3, "insecure", "true or false"),
        ('[a]\nurl = "http://x"\nheaders = { Authorization = "Bearer abc" }', 3, "headers", "${VARIABLE}"),
        ('[a]\nurl = "http://x"\nextra_body = { auth_token = "abc" }', 3, "extra_body", "auth_token"),
        ('[a]\nurl = "http://x"\n[a.headers]\n"x y" = "1"', 3, "headers", "header names"),
        ('[a]\nmodel = "m"', 1, None, "has no url"),
        ('[a]\nprefill = "http://x"\nprotocol = "nixl"', 2, "prefill", "need decode too"),
        ('[a]\nprefill = "http://x"\ndecode = "http://y"\nprotocol = "nixel"', 4, "protocol", "one of nixl"),
        ('[a]\nurl = "http://z"\nprefill = "http://x"\ndecode = "http://y"\nprotocol = "nixl"', 2, "url", "not both"),
        ('[defaults]\nwatts = "lots"\n[a]\nurl = "http://x"', 2, "watts", "a number above 0"),
        ('url = "http://x"', 1, "url", "outside a table"),
        ('[a]\nurl = "http://x"\nevery_pair = true', 3, "every_pair", "only a target with two legs"),
        ('[a]\nurl = "http://x"\nlocal_prefill_below = 9', 3, "local_prefill_below", "only a target with two legs"),
        ('[a]\nurl = "http://x"\nlabels = { bootstrap_port = "abc" }', 3, "labels", "bootstrap_port to be a port"),
        ('[a]\nurl = "http://x"\nlabels = { hw = "\\u001b[31mA" }', 3, "labels", "without control characters"),
        ('[a]\nurl = "http://x"\nca_file = "/nope"', 3, "ca_file", "a file that can be found"),
        ('[a]\nurl = "http://x"\ntype = "nope.toml"', 3, "type", "no such file"),
        ('[a]\nurl = "http://x"\nmodel = "a\\u001b[2J"', 3, "model", "without control characters"),
        ('[b]\nurl = "http://x"\n["a\\u001b[2J"]\nurl = "http://x"', 3, None, "without control characters"),
        ('["a.b"]  # its own\nurl = "http://x"\nwatts = 0', 3, "watts", "a number above 0"),
        ('[a]\nurl = "http://x"\n"m\\u001b" = 1', 1, r"'m\x1b'", "unknown key"),
        ('[a]\nurl = "http://x"\nheaders = { Content-Length = "5" }', 3, "headers", "no header Content-Length"),
        ('[a]\nurl = "http://x"\nheaders = { transfer-encoding = "chunked" }', 3, "headers", "no header transfer-enc"),
        ('[a]\nurl = "http://x"\nheaders = { Connection = "close" }', 3, "headers", "no header Connection"),
        ('[a]\nurl = "http://x"\nheaders = { Accept-Encoding = "br" }', 3, "headers", "no header Accept-Encoding"),
        ('[a]\nurl = "http://x"\nheaders = { Host = "b", host = "c" }', 3, "headers", "no header host"),
        ('[a]\nurl = "http://x"\nheaders = { a = "\\u4e2d" }', 3, "headers", "within Latin-1"),
        ('[a]\nurl = "http://x"\nomit = "stream_options"', 3, "omit", "a list of texts"),
        ('[a]\nurl = "http://x"\nheaders = { a = "b\\u0000" }', 3, "headers", "without control characters"),
        ("[a\nurl = 3", 1, None, "not TOML"),
        ("", None, None, "names no target"),
    ],
)
def test_a_mistake_names_the_key_and_the_line(text, line, column, says):
    with pytest.raises(InputError) as caught:
        parse(text, "mine.toml")
    place = "mine.toml" + (f":{line}" if line else "") + (f", column {column}" if column else "") + ":"
    assert str(caught.value).startswith(place), str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_default_for_two_legs_leaves_other_targets_as_they_are():
    (spec,) = parse('[defaults]\nevery_pair = true\nlocal_prefill_below = 9\n[a]\nurl = "http://x"')
    assert (spec.name, spec.prefill) == ("a", ())


def test_fields_that_are_not_sent():
    (spec,) = parse('[a]\nurl = "http://x"\nomit = ["stream_options"]\nextra_body = { seed = 1 }')
    assert spec.extra_body == {"stream_options": None, "seed": 1}


def test_a_host_of_ones_own_is_allowed():
    (spec,) = parse('[a]\nurl = "http://x"\nheaders = { Host = "tenant.example" }')
    assert spec.headers == (("Host", "tenant.example"),)


def test_a_secret_is_not_repeated():
    with pytest.raises(InputError) as caught:
        parse('[a]\nurl = "http://x"\napi_key = "sk-very-secret"')
    assert "sk-very-secret" not in str(caught.value)
    with pytest.raises(InputError) as caught:
        parse('[a]\nurl = "http://x"\nheaders = { Authorization = "Bearer sk-very-secret" }')
    assert "sk-very-secret" not in str(caught.value)
    with pytest.raises(InputError) as caught:
        parse('[a]\nurl = "http://me:sk-very-secret@x"')
    assert "sk-very-secret" not in str(caught.value)


def test_a_custom_format_beside_the_file(tmp_path):
    (tmp_path / "own.toml").write_text('path = "/g"\n[body]\np = "{prompt}"\n[answer]\ntext = "t"\n')
    (tmp_path / "targets.toml").write_text('[a]\ntype = "own.toml"\nurl = "http://x"\n')
    (spec,) = load_targets(tmp_path / "targets.toml")
    assert spec.endpoint_type == str(tmp_path / "own.toml")
    (tmp_path / "own.toml").write_text('path = "g"')
    with pytest.raises(InputError, match=r"own\.toml, column path"):
        load_targets(tmp_path / "targets.toml")


def test_a_fifo_that_nobody_writes_is_refused_and_a_pipe_gives_its_key_to_every_client(tmp_path, monkeypatch):
    monkeypatch.setattr("targets.secrets.HELD", {})
    os.mkfifo(fifo := tmp_path / "fifo.toml")
    named = Target("a", "http://127.0.0.1:9", "m", api_key_file=str(fifo))
    waiting = (
        lambda: RequestHead(named, address("http://127.0.0.1:9")),
        lambda: load_targets(fifo),
        lambda: tls_context(insecure=False, ca_file=str(fifo)),
        replace(named, endpoint_type=str(fifo)).wire_format,
    )
    for read in waiting:
        with pytest.raises(InputError, match=r"fifo\.toml"):
            read()
    read_end, write_end = os.pipe()
    os.write(write_end, b"sk-of-a-pipe\n")
    os.close(write_end)
    piped = replace(named, api_key_file=f"/dev/fd/{read_end}")
    heads = [RequestHead(piped, address("http://127.0.0.1:9")).payload("/", [], b"") for _ in range(2)]
    os.close(read_end)
    assert all(b"sk-of-a-pipe" in head for head in heads)
