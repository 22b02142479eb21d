"""targets.toml: what it gives, and that a mistake names the key and the line."""

import pytest

from targets.config import load, parse
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
    assert groq.request_timeout == 90.0
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
    (spec,) = load(tmp_path / "targets.toml")
    assert spec.endpoint_type == str(tmp_path / "own.toml")
    (tmp_path / "own.toml").write_text('path = "g"')
    with pytest.raises(InputError, match=r"own\.toml, column path"):
        load(tmp_path / "targets.toml")
