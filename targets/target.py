"""`Target`: an endpoint as the user names it, on the command line, in targets.toml or from Python. Pure.

All that can be wrong with what the user names is found here, when a Target is made, and nowhere else: each mistake is a
FieldError, to which targets.toml adds file and line, and the command line its option. What only the machine that sends
can know (names that resolve, keys and certificates that can be read) is found when a client is made for the target.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, cast

from traces.typed_json import LEFT_OUT

from . import rules, secrets
from .rules import PORTS, TIMEOUTS, FieldError, Limits, expect, split
from .wire import WIRES, Wire, custom
from .wire.protocols import PORT_LABELS, PROTOCOLS

AUTO = "auto"  # an endpoint type that is found out before the run


@dataclass(frozen=True)
class TargetFields:
    """What a user names, and a run remembers, of a target: JSON-able, without secrets."""

    name: str = ""
    url: str = ""
    model: str = ""
    endpoint_type: str = "chat"  # a key of targets.wire.WIRES, AUTO, or the TOML file of a custom format
    api_key_env: str | None = None
    api_key_file: str | None = None
    headers: tuple[tuple[str, str], ...] = ()  # values may hold ${VARIABLE}, filled in at the last moment
    extra_body: dict[str, Any] = field(default_factory=dict)
    ignore_eos: bool | None = None  # None: as the endpoint type allows
    insecure: bool = False  # certificates aren't verified
    resend: bool = True  # a request that a closing connection provably didn't deliver is sent again
    ca_file: str | None = None
    prefill: tuple[str, ...] = ()
    decode: tuple[str, ...] = ()
    protocol: str | None = None  # a key of targets.wire.protocols.PROTOCOLS
    local_prefill_below: int = 0  # prompts of fewer tokens go straight to decode
    metrics: tuple[str, ...] = ()  # URLs of the servers' Prometheus metrics
    labels: dict[str, str] = field(default_factory=dict)
    price_per_hour: float | None = None  # $ of the whole target
    price_per_million_input: float | None = field(default=None, metadata=LEFT_OUT)  # $ a million tokens of prompts
    price_per_million_cached: float | None = field(default=None, metadata=LEFT_OUT)  # of those that were cached
    price_per_million_output: float | None = field(default=None, metadata=LEFT_OUT)
    requests_per_minute: int | None = field(default=None, metadata=LEFT_OUT)  # its quota: what it admits
    requests_per_day: int | None = field(default=None, metadata=LEFT_OUT)
    tokens_per_minute: int | None = field(default=None, metadata=LEFT_OUT)  # of prompts and answers together
    tokens_per_day: int | None = field(default=None, metadata=LEFT_OUT)
    input_tokens_per_minute: int | None = field(default=None, metadata=LEFT_OUT)
    output_tokens_per_minute: int | None = field(default=None, metadata=LEFT_OUT)
    concurrent_requests: int | None = field(default=None, metadata=LEFT_OUT)
    watts: float | None = None
    format: dict[str, Any] = field(default_factory=dict)  # a custom format's tables, once a plan carries them


@dataclass(frozen=True)
class Target(TargetFields):
    """An endpoint, JSON-able without secrets: keys are named by variable or file, never held. Raises FieldError.

    `name`: the model's last part, else host and port, where none is given. `url`: scheme, host, port and an optional
    path prefix (a trailing /v1 is understood). `prefill`, `decode` and `protocol` are given together: two legs that the
    client drives, at the pools' URLs; `url` is then decode's first unless given. A URL, pair list or table may be
    given as text, list and mapping: it is held as declared.
    """

    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name, check in CHECKS.items():
            value = getattr(self, name)
            try:
                if value != DEFAULTS[name]:
                    self._set(name, check(value))
            except ValueError as error:
                hidden = name in ("headers", "extra_body", "api_key_env") or "@" in str(value)
                shown = "" if hidden else f", got {secrets.masked(repr(value))}"
                raise self._mistake(name, f"expected {error}{shown}") from None
        self._check_legs()
        self._check_prices()
        if not self.name:
            self._set("name", self.model.rpartition("/")[2] or split(self.url).netloc or "target")

    def _check_legs(self) -> None:
        """Fields that need or exclude each other."""
        given = [name for name in LEGS if getattr(self, name)]
        if given and len(given) < len(LEGS):
            missing = " and ".join(sorted({*LEGS} - {*given}))
            raise self._mistake(given[0], f"two legs need {missing} too")
        if given and not self.url:
            self._set("url", self.decode[0])
        if given and self.url not in (*self.prefill, *self.decode):
            raise self._mistake("url", "a target has a url or two legs, not both")
        if given and self.endpoint_type.endswith(".toml"):
            raise self._mistake("endpoint_type", "two legs take no format of your own")
        places = (self.extra_body, self.extra_body.get("sampling_params"), self.extra_body.get("parameters"))
        choices = [(key, place.get(key)) for place in places if isinstance(place, dict) for key in ("n", "best_of")]
        several = [key for key, value in choices if value is True or value not in (None, 1)]
        if several and not self.endpoint_type.endswith(".toml"):
            problem = f"{several[0]} asks for several choices: only one can be measured"
            raise self._mistake("extra_body", problem, f"leave {several[0]} out")
        if not self.url:
            raise self._mistake("url", "the target has no url", 'give one such as "http://host:port"')
        if not given and self.local_prefill_below:
            raise self._mistake("local_prefill_below", ONLY_LEGS, "give prefill, decode, protocol")

    def _check_prices(self) -> None:
        """A target is paid by the hour or by the token; both together would be counted twice."""
        given = [name for name in TOKEN_PRICES if getattr(self, name) is not None]
        if given and self.price_per_hour is not None:
            remedy = "an endpoint is paid by the hour or by the token: keep one"
            raise self._mistake(given[0], "can't stand beside price_per_hour", remedy)
        missing = [name for name in BOTH_WAYS if given and name not in given]
        if missing:
            raise self._mistake(given[0], f"needs {missing[0]} too", "0 where it is free")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _mistake(self, name: str, message: str, remedy: str = "") -> FieldError:
        return FieldError(name, message, target=str(self.name), remedy=remedy)

    def wire_format(self) -> Wire:
        """One of WIRES, or the user's own, as a plan carries it or as its file has it. Raises InputError."""
        if self.endpoint_type == AUTO:
            raise self._mistake("endpoint_type", "isn't known yet")
        if self.endpoint_type.endswith(".toml"):
            return custom.parse(self.format or custom.read(self.endpoint_type), self.endpoint_type)
        return WIRES[self.endpoint_type]

    def carried(self) -> Target:
        """The target with its custom format's tables in it: another machine has no such file. Raises InputError."""
        if self.format or not self.endpoint_type.endswith(".toml"):
            return self
        tables = custom.read(self.endpoint_type)
        custom.parse(tables, self.endpoint_type)
        return replace(self, format=tables)

    def sheltered(self) -> Target:
        """The target as a run may keep it: see `secrets`."""
        headers = tuple((name, secrets.header_value(name, value)) for name, value in self.headers)
        return replace(self._changed(secrets.keys_held), headers=headers)

    def opened(self) -> Target:
        """The target as it is spoken to; `address.RequestHead` fills in its headers. Raises InputError."""
        return self._changed(lambda text: secrets.put_back(text, self.name))

    def wants(self) -> set[str]:
        """What its client is given of a machine's own: variables as "$NAME", key files, and Unix sockets."""
        filled_in = rules.FILLED_IN.findall(" ".join(value for _, value in self.headers))
        names = {*filled_in, *secrets.PLACE.findall(str(self.to_json())), self.api_key_env}
        urls = (self.url, *self.prefill, *self.decode, *self.metrics)
        sockets = {split(url).path for url in urls if url.startswith("unix:")}
        return {f"${name}" for name in names if name} | sockets | ({self.api_key_file} if self.api_key_file else set())

    def _changed(self, change: Callable[[str], str]) -> Target:
        names = ("extra_body", "format", "url", "prefill", "decode", "metrics", "ca_file")  # in the order of numbers
        return replace(self, **{name: secrets.changed(getattr(self, name), change) for name in names})

    def to_json(self) -> dict[str, Any]:
        """The target as run.json has it: flat, with the limits side by side with the rest."""
        flat = asdict(self)
        limits: dict[str, float] = flat.pop("limits")
        return flat | limits

    @classmethod
    def from_json(cls, flat: Mapping[str, Any]) -> Target:
        """The target that `to_json` wrote. Raises FieldError, and TypeError for a field that no target has."""
        limits = {name: flat[name] for name in TIMEOUTS if name in flat}
        given = {name: value for name, value in flat.items() if value != [] and name not in limits}
        return cls(**given, limits=Limits(**limits))


# Checks of single fields: each returns the value as a Target holds it; a ValueError says what was expected.


def _text(value: Any) -> str:
    expect(isinstance(value, str) and value.strip() and value.isprintable(), "a text without control characters")
    return str(value)


def _variable(value: Any) -> str:
    name = _text(value)
    plain = re.fullmatch(r"[A-Za-z_]\w*", name) and not secrets.suspicious(name)
    expect(plain, "the name of a variable (what was given isn't shown: it may be a key)")
    return name


def _url(value: Any) -> str:
    text = _text(value)
    split(text)
    return text.rstrip("/")


def _urls(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    expect(isinstance(values, list | tuple) and values, "a URL or a list of URLs")
    return tuple(map(_url, values))


def _metrics(value: Any) -> tuple[str, ...]:
    urls = _urls(value)
    expect(all(split(url).scheme in PORTS for url in urls), "a URL such as http://host:8000/metrics")
    return urls


def _number(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    expect(number and 0 < value < 1e12, "a number above 0")
    return float(value)


def _price(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    expect(number and 0 <= value < 1e9, "a price in dollars, 0 or more")
    return float(value)


def _quota(value: Any) -> int:
    expect(type(value) is int and 0 < value < 1e15, "a whole number above 0")
    return int(value)


def _count(value: Any) -> int:
    expect(type(value) is int and value >= 0, "a whole number of at least 0")
    return int(value)


def _flag(value: Any) -> bool:
    expect(isinstance(value, bool), "true or false")
    return bool(value)


def _table(value: Any) -> dict[str, Any]:
    expect(isinstance(value, Mapping), "a table")
    return dict(value)


def _limits(value: Any) -> Limits:
    expect(isinstance(value, Limits), "Limits(...)")
    return cast(Limits, value)


def _labels(value: Any) -> dict[str, str]:
    labels = {key: str(text) for key, text in _table(value).items()}
    for key, text in labels.items():
        expect(f"{key}{text}".isprintable(), "labels without control characters")
        expect(key not in PORT_LABELS or (text.isdecimal() and 0 < int(text) < 1 << 16), f"{key} to be a port")
    return labels


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    expect(isinstance(value, Mapping | list | tuple), "a table")
    pairs = tuple(value.items()) if isinstance(value, Mapping) else tuple((name, text) for name, text in value)
    for name, text in pairs:
        texts = isinstance(name, str) and isinstance(text, str)
        expect(texts and rules.sendable(name, ""), "header names with texts")
        sendable = text.isprintable() and rules.sendable(name, text)
        expect(sendable, f"{name} without control characters and within Latin-1")
    own, secret = rules.own_header(pairs), secrets.literal_header(pairs)
    expect(own is None, f"no header {own}: {rules.OURS_ALONE}")
    expect(secret is None, f"{secret} to name its secret as ${{VARIABLE}}")
    return pairs


def _body(value: Any) -> dict[str, Any]:
    body = _table(value)
    key = secrets.literal_field(body)
    expect(key is None, f"no secret such as {key}, which would be stored with the run: {rules.KEYS_ELSEWHERE}")
    return body


def _type(value: Any) -> str:
    name = _text(value)
    known = name in (*WIRES, AUTO) or name.endswith(".toml")
    expect(known, f"one of {', '.join(WIRES)}, {AUTO}, or a custom format's .toml file")
    return name


def _protocol(value: Any) -> str:
    expect(isinstance(value, str) and value in PROTOCOLS, f"one of {', '.join(PROTOCOLS)}")
    return str(value)


LEGS = ("prefill", "decode", "protocol")
TOKEN_PRICES = ("price_per_million_input", "price_per_million_cached", "price_per_million_output")
BOTH_WAYS = ("price_per_million_input", "price_per_million_output")
QUOTAS = (
    "requests_per_minute", "requests_per_day", "tokens_per_minute", "tokens_per_day", "input_tokens_per_minute",
    "output_tokens_per_minute", "concurrent_requests",
)  # fmt: skip
ONLY_LEGS = "only a target with two legs has this"
CHECKS: dict[str, Callable[[Any], object]] = {
    **dict.fromkeys(("name", "model", "api_key_file", "ca_file"), _text), "api_key_env": _variable,
    "url": _url, "prefill": _urls, "decode": _urls, "metrics": _metrics, "endpoint_type": _type, "protocol": _protocol,
    "headers": _headers, "extra_body": _body, "labels": _labels,
    "ignore_eos": _flag, "insecure": _flag, "resend": _flag,
    "local_prefill_below": _count, "price_per_hour": _number, "watts": _number, "format": _table,
    **dict.fromkeys(TOKEN_PRICES, _price), **dict.fromkeys(QUOTAS, _quota),
    "limits": _limits,
}  # fmt: skip
DEFAULTS = {f.name: f.default for f in fields(Target)}
