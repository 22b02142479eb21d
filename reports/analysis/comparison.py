"""Paired comparison: the same request on two endpoints, and what the ratio of its two durations says.

Every request of a trace goes to each target, so the lengths, which differ far more from request to request than the
targets do, cancel in the ratio. The median ratio has its distribution-free interval (order statistics: the inversion of
the sign test), and takes failures as they are: a request that only one endpoint answered is won by that one without
bound. The ratio of the p99s is not a quantile of ratios; its interval comes from a paired bootstrap, seeded, over
blocks of neighbouring requests, because neighbours wait in the same queue and are not independent.

A ratio is other / base: below 1 the other is faster. A phase is won only where the interval excludes 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from math import exp, inf, isfinite, isnan, log
from typing import Any

import numpy as np
import pandas as pd

from traces.errors import InputError

from ..store.run_folder import Key, Run
from . import quantiles, slices
from .quantiles import Values, finite

PHASES = {"ttft": "prefill", "tpot": "decode", "e2e": "whole request"}
SAME_LENGTH = 0.10  # the largest difference of median given lengths at which whole requests are comparable
RESAMPLES = 1000
WORK = 40_000_000  # values drawn by one bootstrap at most
SEED = 20_240_229


def of_run(run: Run, base: str = "") -> list[dict[str, Any]]:
    """Every pair of the run's targets in each load step (with `base`: its pairs only). Empty for one target."""
    groups = dict(run.groups())
    names = list(dict.fromkeys(target for target, _ in groups))
    if base and base not in names:
        raise InputError(f"no target {base!r} here", where=str(run.folder), remedy=f"there are {', '.join(names)}")
    pairs = [(base, name) for name in names if name != base] if base else list(combinations(names, 2))
    steps = list(dict.fromkeys(step for _, step in groups))
    return [
        of_pair(groups[first, step], groups[second, step], first, second, step)
        for first, second in pairs
        for step in steps
        if (first, step) in groups and (second, step) in groups
    ]


def of_runs(before: Run, after: Run) -> list[dict[str, Any]]:
    """The same target and step in two runs of one trace and, where they took their words from one, of one corpus;
    runs of a single target each are paired whatever its name."""
    for fact, differing in (
        ("trace", "replayed different traces"),
        ("prompts", "took their prompts from different texts"),
    ):
        prints = [getattr(getattr(run.facts, fact), "fingerprint", None) for run in (before, after)]
        if prints[0] != prints[1]:
            raise InputError(f"the runs {differing}: there are no pairs", where=f"{before.folder} and {after.folder}")
    first, second = dict(before.groups()), dict(after.groups())
    keys: list[tuple[Key, Key]] = [(key, key) for key in first if key in second]
    if not keys and len({target for target, _ in first}) == len({target for target, _ in second}) == 1:
        keys = [(a, b) for a in first for b in second if a[1] == b[1]]
    if not keys:
        raise InputError("the runs have no target and load step in common", where=f"{before.folder} and {after.folder}")
    names = _names(before, after)
    return [of_pair(first[a], second[b], f"{a[0]} ({names[0]})", f"{b[0]} ({names[1]})", a[1]) for a, b in keys]


def _names(before: Run, after: Run) -> tuple[str, str]:
    return (before.name, after.name) if before.name != after.name else (str(before.folder), str(after.folder))


def of_pair(base: pd.DataFrame, other: pd.DataFrame, base_name: str, other_name: str, step: str) -> dict[str, Any]:
    """One comparison, JSON-able; ratios are other / base."""
    pairs = paired(base, other)
    lengths = _lengths(pairs)
    return {
        "base": base_name,
        "other": other_name,
        "step": step,
        "pairs": len(pairs),
        "base_failed": int((~pairs["ok_base"]).sum()),
        "other_failed": int((~pairs["ok_other"]).sum()),
        "lengths": lengths,
        "metrics": {
            metric: _phase(pairs, metric, base_name, other_name) if metric != "e2e" or lengths["comparable"] else None
            for metric in PHASES
        },
        "by_prompt": list(_bucketed(pairs, "prompt_tokens", pairs["prompt_tokens_base"], "ttft")),
        "by_output": list(_bucketed(pairs, "output_count", pairs["output_tokens_base"], "e2e"))
        if lengths["comparable"]
        else [],
    }


def paired(base: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """One row for each request that is counted on both sides (its first try), in order of due."""
    columns = ["index", "due", "ok", "prompt_tokens", "output_tokens", "output_count", *PHASES]
    sides = [rows.loc[rows["counted"] & (rows["attempt"] == 1), columns] for rows in (base, other)]
    whole = sides[0].merge(sides[1], on="index", suffixes=("_base", "_other"))
    return whole.sort_values("due_base", kind="stable", ignore_index=True)


def _lengths(pairs: pd.DataFrame) -> dict[str, Any]:
    both = pairs[pairs["ok_base"] & pairs["ok_other"]]
    given = [float(both[f"output_count_{side}"].median()) if len(both) else 0.0 for side in ("base", "other")]
    comparable = bool(len(both)) and abs(given[1] - given[0]) <= SAME_LENGTH * max(given)
    return {"base_given_p50": given[0], "other_given_p50": given[1], "comparable": comparable}


def ratios(pairs: pd.DataFrame, metric: str) -> Values:
    """other / base, sorted: inf where only the base answered, 0 where only the other did; nothing where neither did, or
    where a duration is undefined (TPOT of a single token)."""
    base = np.where(pairs["ok_base"], pairs[f"{metric}_base"], np.inf)
    other = np.where(pairs["ok_other"], pairs[f"{metric}_other"], np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = other / base  # inf / inf is nan: neither answered
    return np.sort(found[~np.isnan(found)])


def _phase(pairs: pd.DataFrame, metric: str, base: str, other: str) -> dict[str, Any] | None:
    """None where too few pairs have the metric to bound the median."""
    found = ratios(pairs, metric)
    bounds = quantiles.ranks(len(found), 0.5)
    if bounds is None:
        return None
    value, low, high = _median(found), float(found[bounds[0] - 1]), float(found[bounds[1] - 1])
    return {
        "n": len(found),
        "median": _interval(value, low, high),
        "base_won": float((found > 1).mean()),
        "other_won": float((found < 1).mean()),
        "winner": other if high < 1 else base if low > 1 else None,
        "p99": _p99(pairs, metric),
    }


def _median(ordered: Values) -> float:
    """The upper median by rank where the two middle ones can't be averaged."""
    middle = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(sum(middle) / 2) if isfinite(middle[1]) else float(middle[1])


def _interval(value: float, low: float, high: float) -> dict[str, float | None]:
    """null where unbounded."""
    return {"value": finite(value), "low": finite(low), "high": finite(high)}


def _p99(pairs: pd.DataFrame, metric: str) -> dict[str, float | None] | None:
    """The ratio of the two p99s with its bootstrap interval; None where a sample can't bound a p99."""
    sides = [np.where(pairs[f"ok_{side}"], pairs[f"{metric}_{side}"], np.inf) for side in ("base", "other")]
    defined = ~(np.isnan(sides[0]) | np.isnan(sides[1]))
    base, other = sides[0][defined], sides[1][defined]
    if len(base) < quantiles.needed(0.99):
        return None
    drawn = bootstrap(base, other, 0.99)
    truth = _ratio(_at(base, 0.99), _at(other, 0.99))
    return None if isnan(truth) else _interval(truth, *drawn)


def bootstrap(base: Values, other: Values, q: float, seed: int = SEED) -> tuple[float, float]:
    """95 % interval of quantile(other) / quantile(base): circular blocks of neighbouring pairs, resampled together."""
    n = len(base)
    length = max(1, round(n ** (1 / 3)))
    blocks = -(-n // length)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(max(100, min(RESAMPLES, WORK // n))):
        starts = rng.integers(0, n, blocks)
        rows = ((starts[:, None] + np.arange(length)) % n).ravel()[:n]
        drawn.append(_ratio(_at(base[rows], q), _at(other[rows], q)))
    ordered = np.sort([ratio for ratio in drawn if not isnan(ratio)])
    if not len(ordered):
        return 0.0, inf
    return float(ordered[int(0.025 * (len(ordered) - 1))]), float(ordered[int(np.ceil(0.975 * (len(ordered) - 1)))])


def _at(values: Values, q: float) -> float:
    """By rank, because failures are inf and can't be interpolated."""
    position = min(len(values) - 1, int(np.ceil(q * (len(values) - 1))))
    return float(np.partition(values, position)[position])


def _ratio(base: float, other: float) -> float:
    if not isfinite(base):
        return 0.0 if isfinite(other) else float("nan")
    return other / base if base > 0 else float("nan")


def _bucketed(pairs: pd.DataFrame, name: str, values: pd.Series[float], metric: str) -> Iterator[dict[str, Any]]:
    """The median ratio at matched lengths: the bucket is the request's, the same on both sides."""
    for number, part in pairs.groupby(slices.bucket(values, name)):
        found = ratios(part, metric)
        bounds = quantiles.ranks(len(found), 0.5)
        row: dict[str, Any] = {"bucket": slices.label(name, int(number)), "n": len(found), "metric": metric}
        if bounds is not None:
            row["median"] = _interval(_median(found), float(found[bounds[0] - 1]), float(found[bounds[1] - 1]))
        yield row


def flips(comparisons: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[str, str, str]]:
    """(step, loser, winner) wherever a pair's clear winner changes from one load step to the next clear one."""
    found = []
    for pair in dict.fromkeys((one["base"], one["other"]) for one in comparisons):
        mine = [one for one in comparisons if (one["base"], one["other"]) == pair and one["metrics"][metric]]
        clear = [(one["step"], one["metrics"][metric]["winner"]) for one in mine if one["metrics"][metric]["winner"]]
        found += [(step, before, winner) for (_, before), (step, winner) in pairwise(clear) if winner != before]
    return found


def crossovers(summary: Mapping[str, Any], metric: str) -> Iterator[tuple[str, str, float]]:
    """(leader, follower, in flight): where one target's p50 against its own concurrency crosses another's.

    Between the two buckets around the crossing, on the logarithms of both axes; only where both buckets' intervals are
    clear of each other on their side.
    """
    curves = _curves(summary, metric)
    for (first, a), (second, b) in combinations(curves.items(), 2):
        shared = sorted(set(a) & set(b))
        clear = [low for low in shared if _apart(a[low], b[low])]
        for left, right in pairwise(clear):
            gap = [log(a[low]["value"] / b[low]["value"]) for low in (left, right)]
            if gap[0] * gap[1] < 0:
                share = gap[0] / (gap[0] - gap[1])
                where = exp(log(left) + share * (log(right) - log(left)))
                yield (first, second, where) if gap[0] < 0 else (second, first, where)


def _curves(summary: Mapping[str, Any], metric: str) -> dict[str, dict[int, Mapping[str, Any]]]:
    """target -> lower edge of the in-flight bucket -> p50, of the step with most requests in that bucket."""
    curves: dict[str, dict[int, Mapping[str, Any]]] = {}
    for result in summary["results"]:
        curve = curves.setdefault(result["target"], {})
        for row in result["slices"]["in_flight"]:
            median = row[metric][0]
            if median["enough"] and median["value"] and median["n"] > curve.get(row["low"], {"n": 0})["n"]:
                curve[row["low"]] = median
    return curves


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return bool(
        (a["high"] is not None and a["high"] < b["low"]) or (b["high"] is not None and b["high"] < a["low"])
    )  # fmt: skip


HEADINGS = ("pair", "load", "phase", "pairs", "faster, median of ratios", "requests won", "faster at p99")


def table(comparisons: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Rows of text under HEADINGS: who is faster, by what factor, with which interval."""
    for one in comparisons:
        for metric, phase in PHASES.items():
            found = one["metrics"][metric]
            names = (f"{one['base']} / {one['other']}", one["step"], f"{phase} {metric.upper()}")
            if found is None:
                yield (*names, f"{one['pairs']:,}", _why(one, metric), "", "")
                continue
            won = f"{found['base_won']:.0%} / {found['other_won']:.0%}"
            p99 = told(one, found["p99"]) if found["p99"] else "too few pairs"
            yield (*names, f"{found['n']:,}", told(one, found["median"]), won, p99)


def _why(one: Mapping[str, Any], metric: str) -> str:
    if metric != "e2e" or one["lengths"]["comparable"]:
        return "too few pairs"
    if not one["lengths"]["base_given_p50"] and not one["lengths"]["other_given_p50"]:
        return "not comparable: no request that both answered"
    return "not comparable: gave {base_given_p50:,.0f} / {other_given_p50:,.0f} tokens".format(**one["lengths"])


def told(one: Mapping[str, Any], ratio: Mapping[str, float | None]) -> str:
    """From the winner's side, so that a factor is above 1: `groqrack 2.11x (2.06-2.11)`."""
    low, high = ratio["low"], ratio["high"]
    if low is None or low > 1:
        return f"{one['base']} {_spread(ratio)}"
    if high is not None and high < 1:
        return f"{one['other']} {_spread(_inverse(ratio))}"
    return f"no clear difference ({_ends(ratio)})"


def _inverse(interval: Mapping[str, float | None]) -> dict[str, float | None]:
    """base / other; what was unbounded becomes 0, and 0 unbounded."""

    def flipped(value: float | None) -> float | None:
        return 0.0 if value is None else 1 / value if value else None

    return {"value": flipped(interval["value"]), "low": flipped(interval["high"]), "high": flipped(interval["low"])}


def _spread(interval: Mapping[str, float | None]) -> str:
    return f"{_factor(interval['value'])}x ({_ends(interval)})"


def _ends(interval: Mapping[str, float | None]) -> str:
    return f"{_factor(interval['low'])}–{_factor(interval['high'])}"


def _factor(value: float | None) -> str:
    return "∞" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
