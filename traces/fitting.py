"""`fit`: a workload from any trace, parameters only; `closeness`: how well what it makes resembles the trace.

Lengths become tables of 64 quantiles, tied by a copula from Spearman's rank correlation. Arrivals become, by how
bursty they are,
- on and off (`bursts`), if the gaps' CV is above 2.5: gaps longer than 13 mean gaps are silences, what lies between
  are bursts;
- a renewal process of constant or gamma gaps, if the counts of one vary as those seen do over windows of 1 to 120 s;
- else a Cox process: a `rhythm` of the slow changes that the trace shows (steps of 5 minutes and more), and one or
  two `wander`s that explain what variance of counts the rhythm leaves over windows of 1 to 120 s (least squares on
  the log of `traces.distributions`' formula, over a grid of decay times).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .distributions import Bursts, Lengths, Process, Rhythm, Wander, arrivals
from .errors import InputError
from .statistics import dispersion, prefix_entries, spearman, window_counts
from .trace import NS_PER_S, Floats, Trace, Whole, chain_starts
from .workload import Continued, Grown, Openings, Workload, synthesise

PROBABILITIES = np.unique([0, 0.002, 0.005, 0.01, *np.linspace(0.02, 0.98, 57), 0.99, 0.995, 0.999, 1])
WINDOWS = (1, 2, 5, 10, 20, 30, 60, 120)  # seconds
TAUS = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)  # seconds; slower changes are the rhythm's
FEWEST = 10  # requests that show anything at all
BURSTY = 2.5  # CV of gaps
SILENCE = 13  # mean gaps
RHYTHM_STEP, RHYTHM_MOST, RHYTHM_REQUESTS = 300.0, 48, 150  # s; steps; requests a step, at least
AGENTS, NESTED = 5, 0.8  # turns on average, and share of a prompt that comes again: sessions that grow
RECURRING = 0.2  # of requests that follow nobody, yet go on as an earlier one did
TEMPO, DRIFT = 0.03, 0.3  # of bursts: as in Azure's code service, the one public trace of that kind


def fit(trace: Trace) -> Workload:
    """A workload whose traces resemble this one. Raises InputError for too few requests, or all at one instant."""
    if len(trace) < FEWEST or not trace.span:
        problem = f"expected {FEWEST} requests or more, not all at one instant, got {len(trace)}"
        raise InputError(f"{problem} in {trace.span / NS_PER_S:g} s", where=trace.name, remedy="log more")
    due = (trace.column("due") - trace.column("due")[0]) / NS_PER_S
    rank = spearman(trace.column("prompt_tokens"), trace.column("output_tokens"))
    workload = Workload(
        about=f"Fitted to {trace.name}: {len(trace)} requests in {due[-1]:.0f} s.", duration=round(float(due[-1]), 3),
        arrivals=_arrivals(due), prompt=table(trace.column("prompt_tokens")),
        output=table(trace.column("output_tokens")),
        copula=round(2 * math.sin(math.pi / 6 * rank), 4) if rank is not None else 0.0,
    )  # fmt: skip
    return _with_sessions(workload, trace)


def _with_sessions(workload: Workload, trace: Trace) -> Workload:
    """With how requests follow each other, as logged or else as prefixes show."""
    if not trace.has("prefix") and not trace.has("session"):
        return workload
    parent, common, nest = _followed(trace)
    rows = np.flatnonzero(parent >= 0)
    if len(rows) < 20:
        return workload
    size = trace.block_tokens if isinstance(trace.block_tokens, int) and trace.block_tokens else 64
    if len(trace) >= AGENTS * (len(trace) - len(rows)) and nest > NESTED:
        return _growing(workload, trace, parent, size)
    due = trace.column("due")
    sessions = Continued(
        share=round(len(rows) / len(trace), 4), gap_ms=table((due[rows] - due[parent[rows]]) / 1e6), block_tokens=size,
        common=common // size, nest=round(nest, 3), openings=_openings(trace, parent < 0, common, size),
    )  # fmt: skip
    return replace(workload, sessions=sessions)


def _openings(trace: Trace, roots: npt.NDArray[np.bool_], common: int, size: int) -> Openings | None:
    """The texts with which requests that follow nobody go on after what is common, where these recur: of each as much
    as another one has too."""
    _, rows, tokens, hashes = prefix_entries(trace)
    ends = np.cumsum(tokens) - np.append(0, np.cumsum(np.bincount(rows, tokens, len(trace))))[rows]
    own = roots[rows] & (ends > common)
    rows, tokens, hashes = rows[own], tokens[own], hashes[own]
    _, where, visits = np.unique(hashes, return_inverse=True, return_counts=True)
    again = visits[where] > 1
    opening = np.zeros(len(trace), hashes.dtype)
    opening[rows[again]] = hashes[again]  # the deepest, which comes last
    shared = np.bincount(rows[again], tokens[again], len(trace))
    recurring = shared > 0
    if recurring.sum() <= RECURRING * roots.sum():
        return None
    requests = np.unique(opening[recurring], return_counts=True)[1]
    requests = np.append(requests, np.ones((roots & ~recurring).sum(), np.int64))
    blocks = max(1, round(float(shared[recurring].mean()) / size))
    return Openings(len(requests), blocks, table(requests))


def _growing(workload: Workload, trace: Trace, parent: Whole, size: int) -> Workload:
    """Agents: long sessions whose every turn carries the ones before. Sessions start as a Poisson process."""
    prompt, session = trace.column("prompt_tokens"), trace.column("session")
    later = np.flatnonzero(parent >= 0)
    chain = session[session >= 0] if trace.has("session") else chain_starts(parent)
    turns = np.unique(chain, return_counts=True)[1]
    sessions = Grown(
        turns=table(turns), mean_turns=round(float(turns.mean()), 1),
        growth=table(np.maximum(0, prompt[later] - prompt[parent[later]])),
        think_ms=table(trace.column("think")[later] / 1e6), block_tokens=size, most=int(np.quantile(prompt, 0.99)),
    )  # fmt: skip
    rate = float(f"{len(trace) / max(trace.span / NS_PER_S, 1e-9):.5g}")
    return replace(workload, arrivals=Process(rate=rate), prompt=table(prompt[parent < 0]), sessions=sessions)


def _followed(trace: Trace) -> tuple[Whole, int, float]:
    """(row of each request's parent or -1, tokens that most begin with, share of a parent's prompt that comes again).
    Where the trace doesn't name a parent it is the last request that began with the longest prefix seen before."""
    _, rows, tokens, hashes = prefix_entries(trace)
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    before = np.full(len(rows), -1)  # entry with the same prefix, the one before
    before[order[again + 1]] = order[again]
    seen = before >= 0
    shared = np.bincount(rows[seen], tokens[seen], len(trace)).astype(np.int64)
    depth = np.bincount(rows[seen], minlength=len(trace))
    _, first, visits = np.unique(hashes, return_index=True, return_counts=True)
    common = int(tokens[first[visits > 0.5 * len(trace)]].sum())  # one path from the root
    if (trace.column("parent") >= 0).any():
        followed = trace.parent_rows()
    else:
        deepest = np.minimum(trace.prefixes()[0][:-1] + depth - 1, max(0, len(rows) - 1))
        followed = np.where(shared > common, rows[before[deepest]], -1) if len(rows) else np.full(len(trace), -1)
    children = np.flatnonzero(followed >= 0)
    nest = (shared[children] - common).clip(0) / trace.column("prompt_tokens")[followed[children]]
    return followed, common, float(nest.clip(max=1).mean()) if len(children) else 0.0


def table(values: npt.NDArray[Any]) -> Lengths:
    """A distribution's quantiles, four digits each."""
    pairs = zip(PROBABILITIES.tolist(), np.quantile(values, PROBABILITIES).tolist(), strict=True)
    return Lengths(quantiles=tuple((round(p, 4), float(f"{q:.4g}")) for p, q in pairs))


def closeness(trace: Trace, workload: Workload, seeds: int = 3) -> list[dict[str, float | None]]:
    """For each seed: KS distances of lengths and gaps, relative errors of p50 and p99 and of dispersion at 1, 10 and
    60 s, of a synthetic trace as long as the real one."""
    duration = max(trace.span / NS_PER_S, 1.0)
    return [_compared(trace, synthesise(workload, seed=seed, duration=duration)) for seed in range(seeds)]


def _compared(real: Trace, made: Trace) -> dict[str, float | None]:
    errors: dict[str, float | None] = {"requests": len(made) / len(real) - 1}
    pairs = {name: (real.column(name), made.column(name)) for name in ("prompt_tokens", "output_tokens")}
    pairs["gaps"] = (np.diff(real.column("due")), np.diff(made.column("due")))
    for name, (a, b) in pairs.items():
        errors[f"{name} KS"] = kolmogorov(a, b) if len(b) else None  # one synthetic request has no gap
        for q in (0.5, 0.99):
            errors[f"{name} p{q * 100:g}"] = _error(*(float(np.quantile(v, q)) if len(v) else None for v in (a, b)))
    for window in (1, 10, 60):
        spread = [dispersion(trace.column("due") / NS_PER_S, window) for trace in (real, made)]
        errors[f"dispersion {window} s"] = _error(*spread)
    return errors


def kolmogorov(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """The two-sample Kolmogorov-Smirnov distance."""
    a, b = np.sort(a), np.sort(b)
    points = np.concatenate((a, b))
    below = [np.searchsorted(values, points, side="right") / len(values) for values in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def _error(real: float | None, made: float | None) -> float | None:
    return made / real - 1 if real and made is not None else None


def _arrivals(due: Floats) -> Process:
    gaps = np.diff(due)
    poisson = Process(rate=float(f"{len(due) / due[-1]:.5g}"))
    if len(gaps) < 20:
        return poisson
    bursty = gaps.std() > BURSTY * gaps.mean()
    return replace(poisson, bursts=_on_off(due, gaps)) if bursty else _cox(poisson, due, gaps)


def _on_off(due: Floats, gaps: Floats) -> Bursts:
    silent = gaps > SILENCE * gaps.mean()
    sizes = np.diff(np.flatnonzero(np.concatenate(([True], silent, [True]))))
    ends = np.cumsum(sizes) - 1
    lasted = due[ends] - due[ends - sizes + 1]
    hurry = round(spearman(sizes[sizes > 1], sizes[sizes > 1] / np.maximum(lasted[sizes > 1], 1e-3)) or 0.0, 3)
    return Bursts(table(sizes), table(gaps[silent] * 1e3), table(gaps[~silent] * 1e6), TEMPO, DRIFT, hurry)


def _cox(process: Process, due: Floats, gaps: Floats) -> Process:
    steps = int(min(RHYTHM_MOST, due[-1] / RHYTHM_STEP, len(due) / RHYTHM_REQUESTS))
    slow = 0.0  # variance of the relative rate that the rhythm explains
    if steps >= 4:
        relative = window_counts(due, due[-1] / steps * (1 - 1e-9))[:steps] * steps / len(due)
        chance = (gaps.std() / gaps.mean()) ** 2 * steps / len(due)  # the variance that independent gaps would show
        if relative.var() > 3 * chance:
            rhythm = Rhythm(round(float(due[-1]), 3), tuple(round(share, 3) for share in relative.tolist()))
            process = replace(process, rhythm=rhythm)
            slow = max(0.0, float(relative.var()) - chance)
    renewal = _renewal(process, gaps)
    if renewal.gaps == "constant" or _explains(renewal, due):
        return renewal
    return _shaped(replace(process, wander=_wander(due, slow)), due, gaps)


def _renewal(process: Process, gaps: Floats) -> Process:
    """Independent gaps of the same CV."""
    cv = float(gaps.std() / gaps.mean())
    if cv < 0.02:
        return replace(process, gaps="constant")
    return process if 0.9 < cv < 1.1 else replace(process, gaps="gamma", shape=round(cv**-2, 3))


def _explains(process: Process, due: Floats) -> bool:
    """Has a trace of this process, too, the dispersion that was seen over every window?"""
    tried = arrivals(process, len(due) / due[-1], float(due[-1]), np.random.default_rng(0))
    for window in WINDOWS:
        made, seen = dispersion(tried, window), dispersion(due, window)
        chance = 0.1 + math.sqrt(4 / max(1.0, due[-1] / window))  # of the logarithm of two variances' ratio
        if made and seen and due[-1] / window >= 25 and abs(math.log(made / seen)) > chance:
            return False
    return True


def _wander(due: Floats, slow: float) -> tuple[Wander, ...]:
    """One or two CIR processes that explain the dispersion left over by the rhythm."""
    rate = len(due) / due[-1]
    seen = {w: value for w in WINDOWS if (value := dispersion(due, w)) is not None and due[-1] / w >= 25}
    windows = np.array(list(seen), float)
    target = np.array(list(seen.values())) - rate * windows * slow
    if not len(windows) or target.max() < 1.15:
        return ()
    best: tuple[float, list[tuple[float, float]]] = (math.inf, [])
    for taus in [*((tau,) for tau in TAUS), *itertools.combinations(TAUS, 2)]:
        kernel = np.array([2 * rate * tau * (1 - tau / windows * (1 - np.exp(-windows / tau))) for tau in taus]).T
        weights = 1 / np.maximum(target, 1)
        variances, *_ = np.linalg.lstsq(kernel * weights[:, None], (target - 1) * weights, rcond=None)
        if (variances <= 0).any():
            continue
        model = 1 + kernel @ variances
        score = float(np.square(np.log(model / np.maximum(target, 0.5))).sum()) * (1 + 0.1 * len(taus))
        best = min(best, (score, list(zip(taus, variances, strict=True))))
    count = len(best[1])  # the path is the mean of its parts, which divides each variance by the count squared
    return tuple(Wander(float(f"{v * count * count:.4g}"), tau) for tau, v in best[1])


def _shaped(process: Process, due: Floats, gaps: Floats) -> Process:
    """With the gaps' own shape: what a first try with exponential gaps leaves of their variation."""
    tried = np.diff(arrivals(process, len(due) / due[-1], float(due[-1]), np.random.default_rng(0)))
    left = max(1e-4, (gaps.std() / gaps.mean()) ** 2 / (tried.std() / tried.mean()) ** 2)
    if 0.85 < left < 1.15:
        return process
    return replace(process, gaps="gamma", shape=round(float(np.clip(1 / left, 0.05, 50)), 3))
