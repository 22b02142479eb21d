"""What a user may ask for: the load, the target, the run. Each field is an option of that name, with its default.

`cli.options.taking` makes a command take all of them at once. `--help` reads them: what is heavy is imported when a
trace is opened or a target made.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from math import inf, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from targets import secrets
from targets.rules import FieldError, Limits
from traces.errors import InputError, check_factor, one_of
from traces.request import NS_PER_S
from traces.typed_json import hold_to_types

if TYPE_CHECKING:
    from targets.simulated.build import SimulatedTarget
    from targets.target import Target, TargetFields
    from traces.trace import Trace

LONGEST = 10_000_000  # tokens of a prompt; more is a slip of the keyboard
AS_ADMITTED = "auto"  # a quota's scale that is found out
MOST = 50_000_000  # requests of a step, too
FASTEST = 1_000_000.0  # requests/s
SOUGHT = 1 / 3  # of the duration: what is sent in addition where the warm-up is found after the run


@dataclass(frozen=True)
class Load:
    """How a trace is paced and cut: durations in seconds, rates in requests a second. `warmup` "auto": arrivals go on
    for `duration` and SOUGHT of it more, and the window begins where the run is found to have become steady. Raises
    InputError."""

    speedup: float = 1.0
    request_rate: float | None = None
    burstiness: float = 1.0
    concurrency: int | None = None
    duration: float | None = None
    warmup: float | Literal["auto"] = 0.0
    drain_timeout: float = 60.0
    request_count: int | None = None
    max_context: int | None = None
    open_loop: bool = False
    retries: int = 0
    leave: float = 0.0
    skip_bad_rows: bool = False
    keep_ticks: bool = False
    columns: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        hold_to_types(self)
        for option, value in (("--duration", self.duration), ("--drain-timeout", self.drain_timeout)):
            if value is not None and not 0 < value < inf:
                raise InputError(f"must be positive and finite, not {value:g} s", where=option)
        if self.warmup != "auto" and not 0 <= self.warmup < inf:
            raise InputError(f"must not be negative, and finite, but is {self.warmup:g} s", where="--warmup")
        check_factor(self.speedup, "--speedup")
        if self.request_rate is not None and FASTEST < self.request_rate < inf:
            message = f"at most {FASTEST:,.0f} requests/s, not {self.request_rate:g}"
            raise InputError(message, where="--request-rate", remedy="inf sends all at once")
        for option, count, least in (
            ("--concurrency", self.concurrency, 1),
            ("--request-count", self.request_count, 1),
            ("--max-context", self.max_context, 2),
            ("--retries", self.retries, 0),
            ("--seed", self.seed, 0),
        ):
            if count is not None and count < least:
                raise InputError(f"must be at least {least}, not {count}", where=option)
        if self.concurrency is not None and self.request_rate is not None:
            raise InputError("can't be combined with --request-rate", where="--concurrency", remedy="give one of them")
        if not 0 <= self.leave <= 1:
            raise InputError(f"must be a share from 0 to 1, not {self.leave:g}", where="--leave")

    @property
    def seconds(self) -> float | None:
        """Warm-up and window together."""
        more = SOUGHT * (self.duration or 0.0) if self.warmup == "auto" else self.warmup
        return None if self.duration is None else more + self.duration

    def duration_in(self, seconds: float) -> float:
        """The longest `duration` that takes no more than `seconds`, warm-up included."""
        return seconds / (1 + SOUGHT) if self.warmup == "auto" else seconds - self.warmup

    @property
    def warmup_s(self) -> float:
        """The part of it that is known not to count before the run."""
        return 0.0 if self.warmup == "auto" else self.warmup

    @property
    def window_s(self) -> float | None:
        """The part of it whose arrivals count as far as is known before the run."""
        return None if self.seconds is None else self.seconds - self.warmup_s

    def describe(self) -> str:
        """The load in a few words, for reports."""
        if self.concurrency is not None:
            return f"{self.concurrency} in flight"
        if self.request_rate is not None:
            return f"{self.request_rate:g} requests/s"
        return "trace" if self.speedup == 1 else f"trace x {self.speedup:g}"

    def requests(self, trace: Trace | str | Path) -> Trace:
        """The requests of one load step with their final due instants, in nanoseconds from its start; of a trace or of
        the one of that name (see `traces.open_trace`). Raises InputError."""
        from traces import transforms
        from traces.trace import Trace

        paced = trace if isinstance(trace, Trace) else self._opened(str(trace))
        name = trace.source or trace.name if isinstance(trace, Trace) else str(trace)
        if not len(paced):
            raise InputError("the trace is empty", where=name)
        if self.speedup != 1:
            paced = transforms.speedup(paced, self.speedup)
        if self.request_rate is not None:
            paced = transforms.pace(paced, self.request_rate, burstiness=self.burstiness, seed=self.seed)
        if self.seconds is not None and self.concurrency is None:
            paced = transforms.clip(paced, 0, self.seconds)
        if self.request_count is not None:
            paced = transforms.limit(paced, self.request_count)
        if self.max_context is not None:
            paced = transforms.cap_context(paced, self.max_context)
        if not len(paced):
            raise InputError("no request is left to send", where=name, remedy="a longer --duration?")
        self._check(paced, name)
        return paced

    @property
    def timed(self) -> bool:
        """Do requests have the trace's own instants?"""
        return self.request_rate is None and self.concurrency is None

    def _opened(self, name: str) -> Trace:
        """As much of the trace as its own instants bring into the run."""
        return self.opened(name, self.seconds * self.speedup if self.timed and self.seconds is not None else None)

    def opened(self, name: str, until: float | None = None) -> Trace:
        """The trace of this name, as it is, up to this second of it. Raises InputError."""
        from traces.reading import open_trace

        if not name:
            raise InputError("is missing", where="TRACE", remedy="a file, or a bundled workload such as azure-conv")
        rows = {"skip_bad_rows": self.skip_bad_rows, "keep_ticks": self.keep_ticks}
        return open_trace(name, until=until, columns=self.columns, seed=self.seed, **rows)

    def _check(self, trace: Trace, name: str) -> None:
        """Refuses what would stall, or send without counting anything."""
        if len(trace) > MOST:
            raise InputError(f"{len(trace):,} requests", where=name, remedy=f"at most {MOST:,}: give --duration")
        lengths = trace.column("prompt_tokens")
        if (longest := int(lengths.max())) > LONGEST:
            index = trace.column("index")[lengths.argmax()]
            message = f"request {index} has a prompt of {longest:,} tokens"
            raise InputError(message, where=name, remedy="--max-context cuts it")
        # The instants are known of requests that wait for no other one.
        waits = self.concurrency is not None or (trace.has("session") and not self.open_loop)
        end = int(trace.column("due")[-1])
        if not waits and end < self.warmup_s * NS_PER_S:
            message = f"the trace ends at {end / NS_PER_S:g} s, before the warm-up does ({self.warmup_s:g} s)"
            raise InputError(message, where="--warmup")


@contextmanager
def _at_option() -> Iterator[None]:
    """The mistake in a target's field becomes the mistake of the option that gave it."""
    try:
        yield
    except FieldError as error:
        option = "--" + {"headers": "header"}.get(error.field, error.field).replace("_", "-")
        raise InputError(error.message, where=option, remedy=error.remedy) from None


@dataclass(frozen=True)
class TargetOptions:
    """How a target is spoken to, and what it is asked for, as options name it: a `Target` without its URL.
    `header`: "KEY: VALUE"; `extra_body`: a JSON object; timeouts in seconds. Raises InputError."""

    model: str = ""
    endpoint_type: str = "chat"
    api_key_env: str | None = None
    api_key_file: str | None = None
    header: Sequence[str] = ()
    insecure: bool = False
    resend: bool = True
    ca_file: str | None = None
    connect_timeout: float = Limits.connect_timeout
    first_token_timeout: float = Limits.first_token_timeout
    silence_timeout: float = Limits.silence_timeout
    request_timeout: float = Limits.request_timeout
    ignore_eos: bool | None = None
    extra_body: str | None = None

    def __post_init__(self) -> None:
        with _at_option():
            limits = Limits(self.connect_timeout, self.first_token_timeout, self.silence_timeout, self.request_timeout)
        vars(self).update(vars(limits))
        hold_to_types(self)

    def target(self, url: str | None, name: str = "") -> Target:
        """The target at this URL. Raises InputError with the option."""
        from targets.target import Target

        if not url:
            raise InputError("is missing", where="--url", remedy="for example --url http://127.0.0.1:8000")
        flat = {**vars(self), "headers": tuple(map(_header, self.header)), "extra_body": _body(self.extra_body)}
        del flat["header"]
        with _at_option():
            return Target.from_json({"name": name, "url": url, **flat}).sheltered()

    def targets(self, named: Sequence[str], file: Path | None) -> list[Target]:
        """The targets of --target NAME=URL and of --targets FILE. Raises InputError."""
        from targets.targets_toml import load_targets

        targets = load_targets(file) if file is not None else []
        for text in named:
            name, equals, url = text.partition("=")
            if not equals or not name.strip():
                raise InputError(f"expected NAME=URL, got {secrets.masked(text)!r}", where="--target")
            targets.append(self.target(url.strip(), name.strip()))
        return targets


def check_names(targets: Iterable[TargetFields | SimulatedTarget]) -> None:
    """Raises InputError where two targets have one name."""
    names = [target.name for target in targets]
    if twice := {name for name in names if names.count(name) > 1}:
        remedy = "results are told apart by it: give name=, on the command line --target NAME=..."
        raise InputError(f"two targets are called {min(twice)}", remedy=remedy)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise InputError("expected KEY:VALUE", where="--header", remedy="what was given isn't shown: it may be a key")
    return name.strip(), secrets.header_value(name.strip(), value.strip())


def _body(text: str | None) -> dict[str, Any]:
    try:
        body = json.loads(text or "{}")
    except ValueError as problem:
        raise InputError(f"not JSON: {problem}", where="--extra-body") from None
    if not isinstance(body, dict):
        raise InputError("expected a JSON object", where="--extra-body")
    return body


@dataclass(frozen=True)
class RunOptions:
    """How a run is prepared, judged and kept, whatever its targets and its load.

    `slo`: gates such as "ttft p99 < 800ms"; `goodput`: objectives such as "ttft:800 tpot:40" (ms); `slo_file`: a
    slo.toml, whose gates are added to `slo`, and whose objectives count where `goodput` has none (its baseline is for
    `phaseload gate`). `prompts`: a JSONL file of the user's own texts, from which prompts take their words;
    `tokenizer`: a tokenizer.json in whose tokens prompts are exact; `token_ids`: prompts are sent as ids below it;
    `salt` keeps prompts out of the caches of earlier runs: "auto", "none", or a text. `wait_ready` (90, "90s", "10m"):
    how long a target may take until it accepts connections; `probe`: each target gets one request before the run;
    `evidence`: and fixed prompts before each of several rounds. `quota_scale`: the load is thinned to this share of its
    sessions, or to what quotas admit ("auto"). `out`: the run's folder (runs/NAME-TIME where it is None); `report`:
    report.html is written; `json`: the command line prints the summary as JSON.
    """

    slo: Sequence[str] = ()
    goodput: Sequence[str] = ()
    slo_file: str | Path | None = None
    prompts: str | None = None
    tokenizer: str | None = None
    token_ids: int | None = None
    salt: str = "auto"
    wait_ready: str | float | None = None
    probe: bool = True
    evidence: bool = True
    quota_scale: str | float | None = None
    out: str | Path | None = None
    report: bool = True
    json: bool = False

    def __post_init__(self) -> None:
        hold_to_types(self)
        object.__setattr__(self, "quota_scale", _share(self.quota_scale))
        if self.slo_file is not None:
            from reports.analysis import slo_toml

            file = slo_toml.load(self.slo_file)
            # The run carries the texts: its verdicts can be had again without the file, on another machine too.
            vars(self).update(slo=(*self.slo, *file.gates), goodput=self.goodput or file.goodput, slo_file=None)

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> RunOptions:
        """The options that a library's caller names. Raises InputError, for a name that nobody knows too."""
        for name in keywords.keys() - {field.name for field in fields(cls)}:
            raise InputError("no option of a run", where=name, remedy=one_of(name, RunKeywords.__annotations__))
        return cls(**keywords)


def _share(text: str | float | None) -> str | float | None:
    """--quota-scale: a share of the load, or AS_ADMITTED. Raises InputError."""
    if text is None or text == AS_ADMITTED:
        return text
    try:
        share = float(text)
    except ValueError:
        share = nan
    if not 0 < share <= 1:
        raise InputError(f"expected a share from 0 to 1, or {AS_ADMITTED}, got {text}", where="--quota-scale")
    return share


class RunKeywords(TypedDict, total=False):
    """The fields of `RunOptions` as keyword arguments of `replay`, `bakeoff` and `capacity`."""

    slo: Sequence[str]
    goodput: Sequence[str]
    slo_file: str | Path | None
    prompts: str | None
    tokenizer: str | None
    token_ids: int | None
    salt: str
    wait_ready: str | float | None
    probe: bool
    evidence: bool
    quota_scale: str | float | None
    out: str | Path | None
    report: bool


@dataclass(frozen=True)
class UserOptions:
    """What the attributes of a `TraceUser` in a user's own Locust file ask for. `url` may be empty: Locust's --host is
    the other way to give it; `more`: fields of the target that targets.toml has and no option."""

    name: str
    trace: Trace | str | Path
    url: str
    load: Load
    run: RunOptions
    endpoint: TargetOptions
    more: Mapping[str, Any]

    def target(self, host: str | None) -> Target:
        """The target, at the class's URL or Locust's --host. Raises InputError."""
        url = self.url or host
        if not self.trace or not url:
            raise InputError("needs a trace and a URL", where=self.name, remedy='trace = "FILE", url = "http://..."')
        return replace(self.endpoint.target(url, self.name), **self.more).sheltered()


def attribute_names() -> tuple[set[str], set[str], set[str], set[str]]:
    """What a `TraceUser` may have beside trace, url and host: of its load, its run, its target, and more of that."""
    from targets.target import Target

    load, run, endpoint, target = (
        {field.name for field in fields(each)} for each in (Load, RunOptions, TargetOptions, Target)
    )
    return load, run - {"json", "evidence"}, endpoint, target - endpoint - {"url"}


def user_options(user: type, base: type, locusts: Collection[str]) -> UserOptions:
    """The options that a class has below `base`. `locusts`: names of Locust's own attributes, which pass, as methods,
    properties and what starts with an underscore do. Raises InputError, for a name that nobody knows too."""
    groups = attribute_names()
    known = {"trace", "url", "host"}.union(*groups)
    attributes = ChainMap(*(dict(vars(each)) for each in user.__mro__[: user.__mro__.index(base)]))
    given = {
        name: value
        for name, value in attributes.items()
        if not (name.startswith("_") or callable(value) or isinstance(value, property | classmethod | staticmethod))
        and (name in known or name not in locusts)
    }
    for name in given.keys() - known:
        remedy = one_of(name, known, "an option of `phaseload replay`, with underscores")
        raise InputError(f"no option of a replay: {name}", where=user.__name__, remedy=remedy)
    load, run, endpoint, more = ({name: given[name] for name in names & given.keys()} for names in groups)
    more = {name: tuple(value) if isinstance(value, list) else value for name, value in more.items()}
    if not isinstance(endpoint.get("extra_body", ""), str):
        more["extra_body"] = endpoint.pop("extra_body")
    trace, url = given.get("trace", ""), given.get("url") or given.get("host") or ""
    return UserOptions(user.__name__, trace, url, Load(**load), RunOptions(**run), TargetOptions(**endpoint), more)
