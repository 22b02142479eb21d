"""What a bundle keeps of a run, and what it hides: numbers and words of ours stay; prompts, keys, hosts, paths, users
and what a server wrote do not.

Theory of operation. Each record of the run is made anew from the fields that are named here, so that a field which
somebody adds later is hidden until it is named. Texts that stay go through `Hiding.text`, which takes out URLs, paths,
addresses, what looks like a key, and the names of hosts and users that the run or this machine knows. What is hidden
gets a number (server-2, t1), the same in all files, by which equal things stay equal and different ones different:
figures depend on no more. The numbers follow the run's own order, so that the same run gives the same bundle.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from functools import partial
from hashlib import blake2b
from ipaddress import ip_address
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from targets.exchange import Outcome
from targets.rules import TIMEOUTS
from targets.secrets import SHAPE, masked
from targets.target import QUOTAS
from targets.telemetry import Reading
from traces.words import CorpusFacts

from . import row_files
from .digests import DigestsFile
from .rounds_json import RoundFacts, RoundsFacts
from .run_json import (
    AnswerFacts,
    ClockFacts,
    MachineFacts,
    RunFacts,
    StepFacts,
    TargetFacts,
    TraceFacts,
    WorkerFacts,
)  # fmt: skip
from .seen import RAY

T = TypeVar("T")

GONE = "***"
URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+|\bunix:\S+", re.IGNORECASE)
PATH = re.compile(r"(?<![\w.])~?(?:/[\w.@+-]+){2,}/?")
V4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.])")
V6 = re.compile(r"(?<![\w:.])[0-9a-f:.]*:[0-9a-f:.]*(?![\w:.])", re.IGNORECASE)
PUBLIC = ("localhost", "127.0.0.1", "::1", "")  # names of every machine, which name none
SHORTEST = 2  # characters of a host or user that is looked for
TARGET = (
    "ignore_eos", "insecure", "resend", "protocol", "local_prefill_below", "price_per_hour", "watts",
    "price_per_million_input", "price_per_million_cached", "price_per_million_output",
    "embedded", "description", "standing", "settings", "units", *TIMEOUTS, *QUOTAS,
)  # fmt: skip
RUN = (
    "created", "version", "seed", "goodput", "order", "json", "report", "simulated", "ended", "versions",
    "certificate_exceeded", "missing_requests", "strays", "quota_scale",
)  # fmt: skip
STEP = ("name", "load", "start", "window", "end", "warmup_s", "drain_s", "factor", "warmup")
WORKER = ("number", "rows", "clock_offset_s", "clock_offset_error_s", "counts")
MACHINE = ("system", "cpu", "cores", "usable_cores")
TRACE = ("name", "requests", "span_s", "transforms", "notes")
SERIES = (
    "created",
    "version",
    "seed",
    "planned",
    "order",
    "why",
    "factors",
    "loads",
    "stop_early",
    "simulated",
    "ended",
)
LOST = {  # what the coordinator itself says of a lost worker
    "its process is gone", "it never claimed its part", "it didn't hand over its results", "it was stopped"
}  # fmt: skip
OURS = re.compile(  # errors in words of the client's own and of the system's
    r"(?:Too many open files|Cannot assign requested address).*"
    r"|Connection refused|no (?:connection|first token) within \S+ s|no token for \S+ s|not done within \S+ s"
    r"|the run ended first|cancelled|the user left after \d+ events|the stream ended before its terminator"
    r"|no event of the answer carried a token|an empty answer \(204\)|the compressed body ended before its end"
    r"|connection (?:closed|Connection reset by peer|Broken pipe)"
    r"(?: before any answer| in mid-answer| by the proxy| during the TLS handshake)?"
)
SAID = ("model", "fingerprint", "service_tier", "region")  # columns in which a server's words stay, as far as they may


class Hiding:
    """What is hidden of one run. `runs`: its facts, of each round in their order."""

    def __init__(self, runs: Iterable[RunFacts]) -> None:
        runs = list(runs)
        targets = [target for facts in runs for target in facts.targets]
        urls = [url for target in targets for url in (target.url, *target.prefill, *target.decode, *target.metrics)]
        hosts = {name for url in urls for name in _names(url)} | _machine()
        hosts |= {name for facts in runs for name in (facts.machine.host, *(worker.host for worker in facts.workers))}
        self._hosts = {name.lower() for name in hosts if len(name) >= SHORTEST} - set(PUBLIC)
        words = sorted(map(re.escape, self._hosts), key=lambda word: (-len(word), word))
        self._words = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(words)})(?![a-z0-9])", re.IGNORECASE) if words else None
        self._numbers: dict[str, dict[str, str]] = {}
        self._targets = {
            name: self._target(name, n) for n, name in enumerate(dict.fromkeys(t.name for t in targets), 1)
        }

    # Texts.

    def text(self, text: str) -> str:
        """A text of ours, without what it must not name."""
        return masked(self._without_names(text))

    def _without_names(self, text: str) -> str:
        for pattern in (URL, PATH, V4, SHAPE):
            text = pattern.sub(GONE, text)
        text = V6.sub(lambda found: GONE if _address(found[0]) else found[0], text)
        return self._words.sub(GONE, text) if self._words else text

    def name(self, text: str, what: str) -> str:
        """A name, which may be random letters, or, where something of it must be hidden, `what` and a number."""
        return text if self._without_names(text) == text else self._number(text, what)

    def model(self, text: str, what: str = "model") -> str:
        """A model may be named by its files' path."""
        return self.name(PurePosixPath(text).name if text.startswith(("/", "~", "./")) else text, what)

    def target(self, name: str) -> str:
        return self._targets.get(name) or self._targets.setdefault(name, self._target(name, len(self._targets) + 1))

    def _target(self, name: str, number: int) -> str:
        hidden = name.lower() in self._hosts or self._without_names(name) != name
        return f"t{number}" if hidden else name

    def url(self, url: str) -> str:
        """Servers and the parts of their paths by numbers: what begins alike still does."""
        if not url:
            return ""
        parts = urlsplit(url)
        path = [self._number(part, "path") for part in parts.path.split("/") if part]
        return "/".join((f"hidden://{self._number(f'{parts.scheme}://{parts.netloc}', 'server')}", *path))

    def error(self, text: str) -> str:
        """An error's text may hold anything. What is left is what tells it from others: texts that differ in words with
        a digit only are counted together (`reports.analysis.results`), so their kind gets a letter, each its number."""
        if OURS.fullmatch(text):
            return text
        kind = self._number(re.sub(r"\w*\d\w*", "0", text), "kind")
        letters = _letters(int(kind.rpartition("-")[2]))
        return f"text {self._number(text, 'error').rpartition('-')[2]} of kind {letters}, not in the bundle"

    def gate(self, text: str) -> str:
        """A gate may name a target, and have a name of its own."""
        for name, hidden in self._targets.items():
            if found := re.match(rf"\s*{re.escape(name)}(?=\s*[@:])", text):
                text = hidden + text[found.end() :]
                break
        gate, mark, own = text.partition(" # ")
        return gate + mark + self.text(own)

    def _number(self, text: str, what: str) -> str:
        numbers = self._numbers.setdefault(what, {})
        return numbers.setdefault(text, f"{what}-{len(numbers) + 1}")

    def plain(self, value: Any) -> Any:
        """A value with each of its texts as `text` has it; numbers and their records are as they were."""
        if isinstance(value, str):
            return self.text(value)
        if is_dataclass(value):
            kept: Any = value
            return replace(kept, **{field.name: self.plain(getattr(kept, field.name)) for field in fields(kept)})
        if isinstance(value, Mapping):
            return {self.plain(key): self.plain(item) for key, item in value.items()}
        return type(value)(self.plain(item) for item in value) if isinstance(value, list | tuple) else value

    # Records: each is made anew of what is named.

    def _of(self, record: object, names: Iterable[str]) -> dict[str, Any]:
        return {name: self.plain(getattr(record, name)) for name in names}

    def series(self, facts: RoundsFacts) -> RoundsFacts:
        rounds = tuple(
            RoundFacts(
                each.number, each.seed, {step: tuple(map(self.target, names)) for step, names in each.order.items()},
                self.text(each.lost),
            )
            for each in facts.rounds
        )  # fmt: skip
        return RoundsFacts(**self._of(facts, SERIES), name=self.name(facts.name, "run"), rounds=rounds)

    def run(self, facts: RunFacts) -> RunFacts:
        prompts = facts.prompts
        return RunFacts(
            **self._of(facts, RUN), name=self.name(facts.name, "run"), salt="",
            prompts=prompts and CorpusFacts("", prompts.fingerprint, prompts.texts, prompts.words),
            slo=tuple(map(self.gate, facts.slo)),
            trace=facts.trace and self.trace(facts.trace),
            targets=tuple(map(self.target_facts, facts.targets)),
            steps=tuple(
                StepFacts(**self._of(step, STEP), planned=self.counts(step.planned), unsent=self.counts(step.unsent))
                for step in facts.steps
            ),
            workers=tuple(map(self.worker, facts.workers)),
            machine=MachineFacts(**self._of(facts.machine, MACHINE), host=""),
            clock=facts.clock and ClockFacts(facts.clock.origin_ns),
            evidence=tuple(map(self.answers, facts.evidence)), missing=self.counts(facts.missing),
        )  # fmt: skip

    def counts(self, by_target: Mapping[str, int]) -> dict[str, int]:
        return {self.target(name): n for name, n in by_target.items()}

    def trace(self, facts: TraceFacts) -> TraceFacts:
        fingerprint = facts.fingerprint if PRINT.fullmatch(facts.fingerprint) else ""  # random letters, yet no key
        return TraceFacts(**self._of(facts, TRACE), fingerprint=fingerprint, source="", profile=facts.profile)

    def target_facts(self, facts: TargetFacts) -> TargetFacts:
        own_format = facts.endpoint_type.endswith(".toml")
        return TargetFacts(
            **self._of(facts, TARGET), name=self.target(facts.name), url=self.url(facts.url),
            model=self.model(facts.model), endpoint_type="custom.toml" if own_format else facts.endpoint_type,
            prefill=tuple(map(self.url, facts.prefill)), decode=tuple(map(self.url, facts.decode)),
            metrics=tuple(map(self.url, facts.metrics)),
        )  # fmt: skip

    def worker(self, facts: WorkerFacts) -> WorkerFacts:
        lost = facts.lost if facts.lost is None or facts.lost in LOST else "why is not in the bundle"
        host = self._number(facts.host, "machine") if facts.host else ""
        diagnostics = self.plain(facts.diagnostics)
        return WorkerFacts(**self._of(facts, WORKER), pid=0, host=host, lost=lost, diagnostics=diagnostics)

    def answers(self, facts: AnswerFacts) -> AnswerFacts:
        digests = {
            name: tuple(digest if HEX.fullmatch(digest) else "" for digest in getattr(facts, name))
            for name in ("answers", "first", "again")
        }
        failure = facts.failure if facts.failure in list(Outcome) else ""
        return AnswerFacts(target=self.target(facts.target), failure=failure, **digests)

    def digests(self, file: DigestsFile) -> DigestsFile:
        return replace(
            file,
            digests=tuple(
                replace(each, target=self.target(each.target), step=self.text(each.step), digest=_numbers(each.digest))
                for each in file.digests
            ),
        )

    def reading(self, reading: Reading) -> Reading:
        return replace(reading, url=self.url(reading.url), error=reading.error and "why is not in the bundle")

    # Rows.

    def rows(self, rows: pa.Table) -> pa.Table:
        """Rows of `row_files.SCHEMA`: columns of numbers as they are, of texts only those that figures need."""
        for place, column in enumerate(row_files.SCHEMA):
            if pa.types.is_string(column.type):
                change = self._column(column.name)
                rows = rows.set_column(place, column, _changed(rows[column.name], change, column))
        return rows

    def _column(self, name: str) -> Callable[[str], str | None]:
        if name in SAID:
            return partial(self._said, name.replace("_", "-"))
        changes: dict[str, Callable[[str], str | None]] = {
            "target": self.target, "step": self.text, "outcome": _outcome, "request_id": _hashed,
            "error": lambda text: self.error(text) if text else "",
        }  # fmt: skip
        return changes.get(name, lambda _: None)

    def _said(self, what: str, text: str) -> str:
        """Of Cloudflare's number of a request only the place is kept, as figures have it."""
        ray = RAY.fullmatch(text)
        return ray[1] if ray else self.model(text[:LONGEST], what)


HEX = re.compile(r"[0-9a-f]{16}")
PRINT = re.compile(r"[0-9a-f]{32}")  # a trace's, as `Trace.fingerprint` makes it
LONGEST = 200  # characters of a server's word


def _names(url: str) -> set[str]:
    """A URL's host, with its port and without, and, where it is one of a network's own, its first label."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return set()
    labels = host.split(".")
    return {
        host,
        parts.netloc.rpartition("@")[2],
        *(labels[:1] if len(labels) > 2 and labels[0] not in GENERIC else ()),
    }


GENERIC = ("api", "www")


def _machine() -> set[str]:
    """Names of this machine and its user."""
    node, names = os.uname().nodename, {os.environ.get(name, "") for name in ("USER", "LOGNAME", "HOSTNAME")}
    with suppress(KeyError):  # a user without an entry
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    return {node, node.partition(".")[0], *names, Path.home().name}


def _address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def _letters(number: int) -> str:
    """1 is a, 27 is aa."""
    letters = ""
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


def _hashed(text: str) -> str:
    """A vendor finds its own request ids again."""
    return blake2b(text.encode(), digest_size=8).hexdigest() if text else ""


def _outcome(text: str) -> str:
    return text if text in list(Outcome) else Outcome.INTERNAL_ERROR.value


def _changed(column: Any, change: Callable[[str], str | None], field: Any) -> Any:
    """Each different text is changed once."""
    whole = pc.dictionary_encode(column.combine_chunks())
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.combine_chunks()
    absent = None if field.nullable else ""
    values = [absent if (new := change(text)) is None else new for text in whole.dictionary.to_pylist()]
    return pa.array(values, pa.string()).take(whole.indices)


def _numbers(digest: Mapping[str, Any]) -> dict[str, Any]:
    """A digest holds numbers only, in lists of objects."""

    def kept(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: kept(item) for key, item in value.items() if key.isidentifier() and len(key) < 20}
        if isinstance(value, list | tuple):
            return [kept(item) for item in value]
        return value if value is None or (isinstance(value, int | float) and isfinite(value)) else 0

    result: dict[str, Any] = kept(digest)
    return result
