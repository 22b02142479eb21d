"""ServeGen client sets: not a log but a generator. A service is its clients superposed, and a few of them carry
the bursts.

A folder or tar file with, for each client N, `chunk-N-trace.csv` (no header; rows of window start s, requests/s, CV,
law of the gaps, shape, scale) and `chunk-N-dataset.json` ({window start: {input_tokens, output_tokens: "{tokens:
share}"}}). Each client is a renewal process in operational time (`traces.distributions`): gaps of mean 1 under its
window's law, carried over window ends, so that bursty clients keep their rate.
"""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np

from ..distributions import Process, renewal
from ..errors import InputError
from ..files import Source
from ..trace import LONGEST, NS_PER_S, Floats, Notes, Trace, build
from .cells import BadCell, shown
from .rows import ReadOptions, within

NAME = re.compile(r"chunk-(\d+)-(trace\.csv|dataset\.json)")
PAIR = re.compile(r"(\d+(?:\.\d+)?): *(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")
LAWS = {"Gamma": "gamma", "Weibull": "weibull", "": "exponential"}
BUDGET = 2_000_000  # requests
MEMBER_LIMIT = 256 << 20  # bytes of one file in a tar
REMEDY = "docs/traces.md has the format"
STAND_IN = (512, 128)  # lengths where a set has rates only

Table = tuple[Floats, Floats]  # tokens ascending, and the share of lengths up to each


@dataclass
class ServeGenClient:
    windows: list[tuple[float, float, str, float]] = field(default_factory=list)  # start s, rate, law, shape
    lengths: dict[float, tuple[Table, Table]] = field(default_factory=dict)  # by window start, s


def is_set(sources: list[Source]) -> bool:
    if len(sources) == 1:
        return sources[0].head[257:262] == b"ustar"
    return any(NAME.search(PurePath(source.name).name) for source in sources)


def read(sources: list[Source], options: ReadOptions) -> Trace:
    clients: dict[int, ServeGenClient] = {}
    for name, data in _files(sources):
        match = NAME.search(PurePath(name).name)
        if not match:
            continue
        client = clients.setdefault(int(match[1]), ServeGenClient())
        try:
            if match[2] == "trace.csv":
                client.windows = list(_windows(data.decode()))
            else:
                client.lengths = dict(_lengths(json.loads(data)))
        except BadCell as error:
            raise InputError(error.message, where=name, line=int(error.column), remedy=REMEDY) from None
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"not a ServeGen file: {str(error)[:80]}", where=name, remedy=REMEDY) from None
    return _generate([clients[number] for number in sorted(clients)], options, sources[0].name)


def _generate(clients: list[ServeGenClient], options: ReadOptions, where: str) -> Trace:
    end, cut = _end(clients, options)
    seeded = [np.random.default_rng((options.seed, number)) for number in range(len(clients))]
    drawn = [_client(client, end, rng) for client, rng in zip(clients, seeded, strict=True)]
    due, prompt, output = (np.concatenate(column) for column in zip(*drawn, strict=True)) if drawn else ((),) * 3
    if not len(due):
        raise InputError("these clients send no request in that time", where=where, remedy="is it a ServeGen set?")
    order = np.argsort(due, kind="stable")
    due = np.rint(due[order] * NS_PER_S).astype(np.int64)
    columns = {"due": due - due[0], "prompt_tokens": prompt[order], "output_tokens": output[order]}
    notes: Notes = {"generated from clients": len(clients), "seed": options.seed}
    if cut:
        notes["ended early, at (s)"] = round(end)
    if not any(client.lengths for client in clients):
        notes["lengths"] = f"not in this set: {STAND_IN[0]}/{STAND_IN[1]}"
    return within(build(columns, name="servegen", source=where, notes=notes), options)


def _end(clients: list[ServeGenClient], options: ReadOptions) -> tuple[float, bool]:
    """(seconds at which to stop, whether because of the budget)."""
    rates: dict[float, float] = {}
    for client in clients:
        for start, rate, _, _ in client.windows:
            rates[start] = rates.get(start, 0.0) + rate
    if not rates:
        return 0.0, False
    starts = sorted(rates)
    step = float(min(np.diff(starts), default=600.0))
    begun = next((start for start in starts if rates[start] > 0), 0.0)
    until = math.inf if options.until_ns is None else begun + step + options.until_ns / NS_PER_S
    sent = 0.0
    for start in starts:
        if sent + rates[start] * step > BUDGET:
            return min(until, start + (BUDGET - sent) / rates[start]), True
        sent += rates[start] * step
    return min(until, starts[-1] + step), False


def _client(client: ServeGenClient, end: float, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """One client's (instants s, prompts, outputs) up to `end`."""
    dues, prompts, outputs = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    ahead = None  # operational time from the window's start to the next request
    starts = [window[0] for window in client.windows]
    stops = [*starts[1:], *(start + 600 for start in starts[-1:])]
    for (start, rate, law, shape), stop in zip(client.windows, stops, strict=True):
        passed = rate * (min(stop, end) - start)
        if passed <= 0:
            continue
        instants, ahead = renewal(Process(gaps=LAWS[law], shape=shape), passed, rng, ahead)
        dues.append(start + instants / rate)
        for drawn, table in zip((prompts, outputs), _table(client, start), strict=True):
            tokens, below = table
            drawn.append(tokens[np.searchsorted(below, rng.random(len(instants))).clip(max=len(tokens) - 1)])
    return np.concatenate(dues), np.concatenate(prompts), np.concatenate(outputs)


def _table(client: ServeGenClient, start: float) -> tuple[Table, Table]:
    """The length tables of the window nearest to `start`."""
    if not client.lengths:
        first, second = ((np.array([float(tokens)]), np.ones(1)) for tokens in STAND_IN)
        return first, second
    nearest = min(client.lengths, key=lambda begun: (begun > start, abs(begun - start)))
    return client.lengths[nearest]


def _windows(text: str) -> Iterator[tuple[float, float, str, float]]:
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.split(",")
        if len(cells) != 6 or cells[3] not in LAWS:
            raise BadCell(str(number), f"expected start, rate, cv, Gamma or Weibull, shape, scale; got {shown(line)}")
        start, rate = float(cells[0]), float(cells[1])
        shape = float(cells[4]) if rate and cells[3] else 1.0
        if not (0 <= start < 1e9 and 0 <= rate < 1e6 and 1e-4 <= shape < 1e6):
            raise BadCell(str(number), f"a rate or shape out of bounds in {shown(line)}")
        yield start, rate, cells[3], shape


def _lengths(document: dict[str, dict[str, str]]) -> Iterator[tuple[float, tuple[Table, Table]]]:
    for start, window in document.items():
        prompt, output = (_table_of(window[name]) for name in ("input_tokens", "output_tokens"))
        if len(prompt[0]) and len(output[0]):
            yield float(start), (prompt, output)


def _table_of(text: str) -> Table:
    """Values are Python dicts written as text."""
    pairs = np.array([(float(tokens), float(weight)) for tokens, weight in PAIR.findall(text)]).reshape(-1, 2)
    tokens, weight = pairs[(pairs[:, 0] >= 1) & (pairs[:, 0] <= LONGEST) & (pairs[:, 1] > 0)].T
    order = np.argsort(tokens)
    return np.rint(tokens[order]), np.cumsum(weight[order]) / max(float(weight.sum()), 1e-300)


def _files(sources: list[Source]) -> Iterator[tuple[str, bytes]]:
    if len(sources) > 1:
        for source in sources:
            with source.open() as stream:
                yield source.name, stream.read()
        return
    with sources[0].open() as stream:
        try:
            with tarfile.open(fileobj=io.BufferedReader(stream, 1 << 20), mode="r|") as archive:
                for member in archive:
                    if member.isfile() and member.size <= MEMBER_LIMIT and (part := archive.extractfile(member)):
                        yield f"{sources[0].name}:{member.name}", part.read()
        except tarfile.TarError as error:
            raise InputError(f"damaged tar file: {error}", where=sources[0].name, remedy="fetch it again") from None
