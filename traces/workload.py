"""`synthesise`: a trace drawn from a workload's parameters. A workload is a small JSON file (see docs/traces.md):

    {"about": ..., "duration": s, "arrivals": {...}, "prompt": {...}, "output": {...}, "copula": rho, "sessions": {...}}

The same workload, seed and rate give the same trace on every machine; another rate keeps each request's lengths and
changes only the instants. `distributions` says what arrivals and lengths may hold. Which request follows which, and
which prefix blocks they share, is drawn in two ways:

- `Continued`: instants and lengths stand as drawn, so their distributions are exactly the workload's; a share of
  the requests is declared to continue an earlier one that is about `gap_ms` old and short enough.
- `Grown`: whole sessions start by the arrival process and grow: agents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .distributions import LONGEST_MS, Lengths, Process, arrivals, pairs, quantile
from .errors import InputError, one_of
from .files import regular
from .trace import ASSUMED_TPOT, LONGEST, NS_PER_MS, NS_PER_S, SCHEMA, Columns, Trace, Whole, build, in_order
from .typed_json import LEFT_OUT, from_plain, named

FOLDER = Path(__file__).parent / "workloads"
WORKLOADS = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
LARGEST = 50_000_000  # requests; more is a slip of the keyboard
LOOK = 24  # neighbours in time, on each side, that are tried as a request's predecessor
MAX_TURNS = 10_000
COLUMNS = ("due", "prompt_tokens", "output_tokens", "session", "turn", "parent", "think", "prefix")


@dataclass(frozen=True)
class Openings:
    """What a request that repeats no more than the common blocks has next: one of `count` texts of `blocks` blocks (a
    passage that was looked up, say), each drawn in proportion to its `requests`."""

    count: int
    blocks: int
    requests: Lengths


@dataclass(frozen=True)
class Continued:
    """`share` of the requests continue an earlier one about `gap_ms` old. `common`: leading blocks that all requests
    have; `nest`: share of the earlier prompt that comes again."""

    gap_ms: Lengths
    block_tokens: int
    share: float = field(metadata=named("continue"))
    common: int = 0
    nest: float = 1.0
    openings: Openings | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class Grown:
    """`turns` a session, each longer than the one before by `growth` tokens, after `think_ms`; `most`: tokens at which
    a context is compacted, so that it starts anew."""

    turns: Lengths
    mean_turns: float
    growth: Lengths
    think_ms: Lengths
    block_tokens: int
    most: int = LONGEST


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Parameters of a service's traffic. `duration` in seconds; `copula`: correlation of prompt and output."""

    about: str = ""
    fitted_to: str = field(default="", metadata=LEFT_OUT)
    duration: float = 3600.0
    arrivals: Process = field(default_factory=Process)
    prompt: Lengths
    output: Lengths
    copula: float | None = None
    sessions: Grown | Continued | None = field(default=None, metadata=LEFT_OUT)


def synthesise(
    workload: str | Workload, *, rate: float | None = None, duration: float | None = None, seed: int = 0
) -> Trace:
    """A trace of a bundled workload (`WORKLOADS`), of a workload file, or of a workload that `fit` made. `rate` in
    requests/s and `duration` in s, else the workload's own. Raises InputError for what can't be used."""
    source = workload if isinstance(workload, str) else "workload"
    workload = load(workload) if isinstance(workload, str) else workload
    try:
        return _drawn(workload, rate, duration, seed, source)
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"not a workload: {error!r}", where=source, remedy="see docs/traces.md") from None


def load(name_or_file: str) -> Workload:
    """The workload of a name or a file. Raises InputError, with file and field."""
    path = FOLDER / f"{name_or_file}.json" if name_or_file in WORKLOADS else Path(name_or_file)
    try:
        return from_plain(Workload, json.loads(regular(path).read_text()), name_or_file)
    except OSError:
        remedy = one_of(name_or_file, WORKLOADS)
        raise InputError("no such workload", where=name_or_file, remedy=remedy) from None
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=name_or_file, remedy="expected a workload file") from None


def _drawn(workload: Workload, rate: float | None, duration: float | None, seed: int, source: str) -> Trace:
    process, sessions = workload.arrivals, workload.sessions
    rate = (1.0 if process.rate is None else process.rate) if rate is None else rate
    duration = workload.duration if duration is None else duration
    if not (rate > 0 and duration > 0 and rate * duration <= LARGEST):
        raise InputError(f"expected a rate and a duration above 0, got {rate}/s for {duration} s", where=source)
    rng = np.random.default_rng((seed, 0))
    if isinstance(sessions, Grown):
        before = run_up(sessions, workload.output)
        instants = arrivals(process, rate / sessions.mean_turns, before + duration, rng) - before
    else:
        instants = arrivals(process, rate, duration, rng)
    due = np.rint(instants * NS_PER_S).astype(np.int64)
    columns = _requests(workload, due, int(duration * NS_PER_S), seed)
    if not len(columns["due"]):
        raise InputError(f"no request falls into {duration:g} s at {rate:g}/s", where=source, remedy="raise either")
    notes = {"synthetic": {"workload": source, "rate": rate, "duration": duration, "seed": seed}}
    block_tokens = sessions.block_tokens if sessions else 0
    return build(columns, name=Path(source).stem, block_tokens=block_tokens, source=source, notes=notes)


def _requests(workload: Workload, due: Whole, end: int, seed: int) -> Columns:
    """Columns of requests, or of sessions, that start at `due`."""
    sessions, rng = workload.sessions, np.random.default_rng((seed, 4))
    if isinstance(sessions, Grown):
        return grown(sessions, (workload.prompt, workload.output), due, end, rng)
    first, second = pairs(len(due), workload.copula or 0.0, (seed,))
    prompt, output = quantile(workload.prompt, first, 1), quantile(workload.output, second, 1)
    columns: Columns = {"due": due, "prompt_tokens": prompt, "output_tokens": output}
    return columns if sessions is None else {**columns, **continued(sessions, due, prompt, output, rng)}


def continued(sessions: Continued, due: Whole, prompt: Whole, output: Whole, rng: np.random.Generator) -> Columns:
    """Columns session, turn, parent, think and prefix for requests that stand."""
    rows = len(due)
    rank = np.argsort(np.argsort(prompt, kind="stable")) / max(1, rows - 1)  # the longer, the likelier a continuation
    wish = rng.random(rows) < 2 * sessions.share * rank
    target = due - quantile(sessions.gap_ms, rng.random(rows), 1, LONGEST_MS) * NS_PER_MS
    near = np.searchsorted(due, target)
    parent, session, turn = [-1] * rows, list(range(rows)), [0] * rows
    taken = [False] * rows
    lengths, answered = prompt.tolist(), (prompt + output).tolist()
    for row in np.flatnonzero(wish & (target >= 0)).tolist():
        before = _before(int(near[row]), row, lengths[row], due, int(target[row]), answered, taken)
        if before >= 0:
            taken[before] = True
            parent[row], session[row], turn[row] = before, session[before], turn[before] + 1
    return {
        "session": session,
        "turn": turn,
        "parent": parent,
        "think": [int(due[row] - due[before]) if before >= 0 else 0 for row, before in enumerate(parent)],
        "prefix": _nested(sessions, parent, lengths, _openings(sessions, rows, rng)),
    }


def _before(near: int, row: int, room: int, due: Whole, aim: int, length: list[int], taken: list[bool]) -> int:
    """The longest request within half a gap of instant `aim` that `row` has `room` for; else the closest, or -1."""
    neighbours = range(max(0, near - LOOK), min(row, near + LOOK))
    fitting = [earlier for earlier in neighbours if length[earlier] < room and not taken[earlier]]
    off = {earlier: abs(int(due[earlier]) - aim) for earlier in fitting}
    half = (int(due[row]) - aim) // 2
    timely = [earlier for earlier in fitting if off[earlier] <= half]
    if timely:
        return max(timely, key=lambda earlier: length[earlier])
    return min(fitting, key=lambda earlier: off[earlier], default=-1)


def _openings(sessions: Continued, rows: int, rng: np.random.Generator) -> list[range]:
    """For each request the blocks of a text that others begin with too, after the common ones."""
    if sessions.openings is None:
        return [range(0)] * rows
    count, blocks, common = sessions.openings.count, sessions.openings.blocks, sessions.common
    popular = np.cumsum(quantile(sessions.openings.requests, (np.arange(count) + 0.5) / count, 1))
    drawn = np.searchsorted(popular, rng.random(rows) * popular[-1], side="right")
    return [range(common + text * blocks, common + (text + 1) * blocks) for text in drawn.tolist()]


def _nested(
    sessions: Continued, parent: list[int], prompt: list[int], openings: list[range]
) -> list[range | list[int]]:
    """Block ids: the common ones and an opening, or the predecessor's whole blocks, then new ones up to the end."""
    size, common, nest = sessions.block_tokens, sessions.common, sessions.nest
    prefixes: list[Any] = []
    fresh = max((opening.stop for opening in openings), default=0) or common
    for row, length in enumerate(prompt):
        blocks = -(-length // size)
        again = prefixes[parent[row]][: int(nest * prompt[parent[row]] / size)] if parent[row] >= 0 else ()
        start = list(again) if len(again) > common else [*range(common), *openings[row]][:blocks]
        more = blocks - len(start)
        prefixes.append(start + list(range(fresh, fresh + more)))
        fresh += more
    return prefixes


def grown(
    sessions: Grown, lengths: tuple[Lengths, Lengths], starts: Whole, end: int, rng: np.random.Generator
) -> Columns:
    """All columns of sessions that start at `starts` (ns); turns before 0 and after `end` (ns) are left out, and who
    followed one of them then follows nobody. `lengths`: of prompts and of outputs."""
    rows: list[tuple[Any, ...]] = []
    fresh = 0
    for session, start in enumerate(starts.tolist()):
        parent = -1
        for turn, (due, prompt, output, think, blocks) in enumerate(_session(sessions, lengths, start, fresh, rng)):
            if due >= end:
                break
            fresh = blocks.stop
            if due >= 0:
                rows.append((due, prompt, output, session, turn, parent, think, list(blocks)))
                parent = len(rows) - 1
        fresh += 1
    columns = zip(COLUMNS, zip(*rows, strict=True) if rows else [()] * len(COLUMNS), strict=True)
    return in_order({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns})


def _session(
    sessions: Grown, lengths: tuple[Lengths, Lengths], start: int, fresh: int, rng: np.random.Generator
) -> Iterator[tuple[int, int, int, int, range]]:
    """The turns of a session, as (due, prompt, output, think, blocks); its blocks count from `fresh`."""
    size, most = sessions.block_tokens, sessions.most
    turns = int(min(MAX_TURNS, quantile(sessions.turns, rng.random(1), 1)[0]))
    prompts, outputs, growth = (quantile(each, rng.random(turns), 0).tolist() for each in (*lengths, sessions.growth))
    thinks = quantile(sessions.think_ms, rng.random(turns), 0, LONGEST_MS).tolist()
    due, length, blocks = start, 0, range(fresh, fresh)
    for turn in range(turns):
        think = thinks[turn] * NS_PER_MS if turn else 0
        due += think
        length += growth[turn]
        if not turn or length > most:
            length, blocks = max(1, min(most, prompts[turn])), range(blocks.stop, blocks.stop)
        blocks = range(blocks.start, blocks.start + length // size)
        output = max(1, outputs[turn])
        yield due, length, output, think, blocks
        due += output * ASSUMED_TPOT


def run_up(sessions: Grown, output: Lengths) -> float:
    """Seconds before the trace's start from which sessions must have begun for full swing: four mean lifetimes."""
    even = (np.arange(1000) + 0.5) / 1000
    think, tokens = quantile(sessions.think_ms, even, 0, LONGEST_MS).mean(), quantile(output, even, 1).mean()
    return 4 * sessions.mean_turns * (float(think) / 1e3 + float(tokens) * ASSUMED_TPOT / NS_PER_S)
