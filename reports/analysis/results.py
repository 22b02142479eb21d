"""What one target did in one load step, as numbers: the entries of summary.json's "results". Durations in seconds.

Counted requests only, prefill's figures and decode's side by side and never averaged together, every quantile with its
interval and the samples it needs. Each dataclass here is a JSON object of the same fields; `measure` computes them from
a sample. docs/metrics.md defines each figure for readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from statistics import fmean

import pandas as pd

from targets.exchange import Outcome
from traces.errors import InputError, one_of
from traces.request import NS_PER_S

from ..store.digests import Digests
from ..store.durations import DURATIONS
from ..store.run_folder import Run
from ..store.run_json import StepFacts
from . import phases, quantiles, samples, warmup
from .costs import Cost, cost, usage_of
from .phases import Part, ServerFigure
from .quantiles import Quantile, finite
from .samples import Metric, Sample, Slice, Throughput
from .steadiness import Headroom, Steadiness
from .warmup import Start

CHARACTERS = 4  # of a reference token, where no tokenizer is at hand
ERRORS = 10  # texts that are listed, the most frequent first
ERROR_LENGTH = 300  # characters of each
WITH_DIGIT = r"\w*\d\w*"  # a word that may differ from one failure to the next of the same cause
FEWEST, CHANCE = 5, 0.001  # of failures in a row that mean an end, and how probable they may be by the rate before


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests and tries: one row is one try, `requests` are the different ones, `admitted` is the share of them that
    was not refused for its rate at every try. `whole`: answers that did not stream; `at_once`: streams whose tokens,
    more than one, all came in one read, which say nothing of prefill apart from decode; `sent_again`: requests on a
    used connection that the server had closed before they came."""

    planned: int | None
    unsent: int
    recorded: int
    warmup: int
    counted: int
    ok: int
    failed: int
    requests: int
    admitted: float | None
    outcomes: dict[str, int]
    whole: int
    at_once: int
    retried: int
    sent_again: int = 0


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that met every objective (metric -> seconds)."""

    objectives: dict[str, float]
    good: int
    share: float | None
    requests_per_s: float | None


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens that the trace asked for, against those that the server gave: medians and sums."""

    asked_p50: float | None
    given_p50: float | None
    asked: int | None
    given: int | None


@dataclass(frozen=True, slots=True)
class Reference:
    """TPOT per reference token: vendors' tokens differ, text doesn't."""

    unit: str
    tpot_p50: float | None
    n: int


@dataclass(frozen=True, slots=True)
class LengthFigures:
    """Comparing E2E stands on the equality of what was asked and given."""

    prompt: Length
    output: Length
    reference: Reference | None


@dataclass(frozen=True, slots=True)
class Cached:
    """The share of prompt tokens that the server reports as cached (by so many requests), and what the trace's own
    prefixes allow."""

    reported: float | None
    requests: int
    trace_allows: float | None


@dataclass(frozen=True, slots=True)
class ClientState:
    """The client's condition: "ttft p50" -> both ends of its bracket (s), and shares of inexact instants."""

    brackets: dict[str, tuple[float, float]]
    shared_first_reads: float | None
    unstamped: float | None
    reused_connections: float | None
    max_lag: float | None


@dataclass(frozen=True, slots=True)
class InFlight:
    """The target's requests in flight when one was sent, itself included. `held_open`: median time (s) for which the
    server kept an answer open after its last event; its slot isn't free until then."""

    mean: float | None
    p50: float | None
    max: int | None
    held_open: float | None = None


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """A server wrote these texts, so they are cut and must be escaped. `texts` that differ only in words with a digit
    (a length, an id) are counted together, `error` is the most frequent of them."""

    outcome: str
    error: str
    n: int
    texts: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """One target in one load step. `window` in seconds from the run's start, `round_s` those that
    count of each round; `server`: None for what it doesn't report;
    `cost`: None without a price or watts; `starts`: when it became steady, round by round; `no_answer_since`: the
    second of the run after which all requests failed; `vllm`: the keys of vLLM's benchmark."""

    target: str
    step: str
    load: str
    window: tuple[float, float]
    counts: Counts
    metrics: dict[str, Metric]
    throughput: Throughput
    goodput: Goodput | None
    lengths: LengthFigures
    tokens_from: dict[str, int]
    cached: Cached
    phases: list[Part]
    server: dict[str, ServerFigure | None]
    cost: Cost | None
    round_s: float
    overloaded: bool
    steadiness: Steadiness
    headroom: Headroom
    starts: tuple[Start, ...]
    client: ClientState
    in_flight: InFlight
    slices: dict[str, list[Slice]]
    errors: list[ErrorCount]
    no_answer_since: float | None
    vllm: dict[str, float | None]

    def quantile(self, metric: str, q: float) -> Quantile:
        """In seconds. `metric`: one of `metrics`; `q`: 0.5, 0.9, 0.95, 0.99 or 0.999. InputError for any other."""
        if metric not in self.metrics:
            raise InputError(f"no metric {metric!r}", where="quantile", remedy=one_of(metric, self.metrics))
        return self.metrics[metric].at(q)


def measure(run: Run, sample: Sample, digests: Digests, objectives: Mapping[str, float], headroom: Headroom) -> Result:
    """`objectives`: those that the sample was made with."""
    counted, answered = sample.counted, sample.answered
    step = run.step((sample.target, sample.step))
    target = next((target for target in run.facts.targets if target.name == sample.target), None)
    share = sample.good / sample.n if sample.good is not None and sample.n else None
    levels, held = counted["in_flight"].dropna(), (answered["body_end"] - answered["done"]).fillna(0.0) / NS_PER_S
    return Result(
        target=sample.target,
        step=sample.step,
        load=step.load if step else "",
        window=(sample.window[0] / NS_PER_S, sample.window[1] / NS_PER_S),
        counts=_counts(sample, counted, step),
        metrics={name: samples.metric(sample, name, digests) for name in (*DURATIONS, "itl")},
        throughput=sample.throughput,
        goodput=None if sample.good is None else Goodput(dict(objectives), sample.good, share, sample.goodput),
        lengths=LengthFigures(
            prompt=_length(answered["prompt_tokens"], answered["usage_prompt"].dropna()),
            output=_length(answered["output_tokens"], answered["output_count"]),
            reference=_reference(answered),
        ),
        tokens_from=_tally(answered["token_source"]),
        cached=_cached(answered, run),
        phases=phases.account(answered),
        server=phases.server_figures(answered),
        cost=cost(target, usage_of(sample), _mean_rate(run), simulated=target is not None and target.embedded),
        round_s=sample.window_s / len(sample.rounds),
        overloaded=sample.steadiness.overloaded,
        steadiness=sample.steadiness,
        headroom=headroom,
        starts=warmup.starts(run, sample),
        client=_client(sample, counted),
        in_flight=InFlight(finite(levels.mean()), finite(levels.median()), _whole(levels.max()), finite(held.median())),
        slices={name: samples.slices(counted, name) for name in samples.SLICES},
        errors=_errors(counted),
        no_answer_since=_no_answer_since(sample.rows),
        vllm=_vllm(sample, answered),
    )


def _mean_rate(run: Run) -> float | None:
    """The trace's requests/s at a factor of 1, of all rounds. run.json describes what the first step sent."""
    known = [
        part.facts.trace.profile.rate / part.facts.steps[0].factor
        for part in run.parts
        if part.facts.trace and part.facts.trace.profile.rate and part.facts.steps
    ]
    return fmean(known) if known else None


def _counts(sample: Sample, counted: pd.DataFrame, step: StepFacts | None) -> Counts:
    request = ["round", "index"]
    requests = len(counted.drop_duplicates(request))
    admitted = len(counted[counted["outcome"] != Outcome.RATE_LIMITED.value].drop_duplicates(request))
    in_one_read = (counted["reads"] == 1) & (counted["output_count"] > 1)
    return Counts(
        planned=step.planned.get(sample.target) if step else None,
        unsent=step.unsent.get(sample.target, 0) if step else 0, recorded=len(sample.rows),
        warmup=len(sample.rows) - sample.n, counted=sample.n, ok=sample.n - sample.failed, failed=sample.failed,
        requests=requests, admitted=admitted / requests if requests else None, outcomes=_tally(counted["outcome"]),
        whole=int((counted["ok"] & counted["whole"]).sum()),
        at_once=int((counted["ok"] & ~counted["whole"] & in_one_read).sum()),
        retried=int((counted["attempt"] > 1).sum()), sent_again=int(counted["reconnected"].sum()),
    )  # fmt: skip


def _tally(texts: pd.Series[str]) -> dict[str, int]:
    return {str(text): int(n) for text, n in texts.value_counts().items() if n}


def _length(asked: pd.Series[float], given: pd.Series[float]) -> Length:
    sums = (_whole(tokens.sum(min_count=1)) for tokens in (asked, given))  # nan without any
    return Length(finite(asked.median()), finite(given.median()), *sums)


def _whole(value: float) -> int | None:
    """JSON's writer holds 64 bits, and a server may claim any number of tokens. None for nan."""
    return None if isnan(value) else int(min(value, 2.0**62))


def _reference(answered: pd.DataFrame) -> Reference | None:
    """Counted by the local tokenizer where one was given, else four characters are one. None where no text was
    counted."""
    local = answered["tokenizer_output"].notna().all() and len(answered) > 0
    tokens = answered["tokenizer_output"] if local else answered["chars"] / CHARACTERS
    later = tokens * (1 - answered["first_tokens"] / answered["output_count"].where(answered["output_count"] > 0))
    elapsed = (answered["last_token"] - answered["first_token"]) / NS_PER_S
    tpot = (elapsed / later.where(later > 0)).where(answered["tpot"].notna()).dropna()
    unit = "token of the local tokenizer" if local else f"{CHARACTERS} characters"
    return Reference(unit, finite(tpot.median()), len(tpot)) if len(tpot) else None


def _cached(answered: pd.DataFrame, run: Run) -> Cached:
    known = answered.dropna(subset=["usage_cached", "usage_prompt"])
    prefix = run.facts.trace.profile.prefix if run.facts.trace else None
    prompt_tokens = known["usage_prompt"].sum()
    reported = float(known["usage_cached"].sum() / prompt_tokens) if prompt_tokens else None
    return Cached(reported, len(known), prefix.hit_share if prefix else None)


def _client(sample: Sample, counted: pd.DataFrame) -> ClientState:
    read = counted[counted["reads"] > 0]
    return ClientState(
        brackets=sample.brackets, shared_first_reads=finite((read["first_events"] > 1).mean()),
        unstamped=finite((read["unstamped"] > 0).mean()), reused_connections=finite(counted["reused"].mean()),
        max_lag=finite(counted["max_lag"].max() / NS_PER_S),
    )  # fmt: skip


def _errors(counted: pd.DataFrame) -> list[ErrorCount]:
    failed = counted[~counted["ok"]]  # of equal counts the text that came first: a bundle has other words for them
    each = failed.groupby(["outcome", "error"], observed=True, sort=False).size().reset_index(name="n")
    each = each.sort_values("n", ascending=False, kind="stable").astype({"error": "str"})
    each["alike"] = each["error"].str.replace(WITH_DIGIT, "0", regex=True)
    alike = each.groupby(["outcome", "alike"], observed=True, sort=False)
    most = alike.agg(error=("error", "first"), n=("n", "sum"), texts=("n", "size"))
    most = most.sort_values("n", ascending=False, kind="stable").head(ERRORS).reset_index()
    rows = most[["outcome", "error", "n", "texts"]].itertuples(index=False)
    return [ErrorCount(str(outcome), error[:ERROR_LENGTH], n, texts) for outcome, error, n, texts in rows]


def _no_answer_since(rows: pd.DataFrame) -> float | None:
    """The second of the run of a target's last answer, where it is no chance that all later requests failed."""
    last = rows.loc[rows["ok"], "done"].max()
    before, after = rows[rows["due"] <= last], rows[(rows["due"] > last) & (rows["outcome"] != Outcome.CUT.value)]
    if len(after) < FEWEST or (after["outcome"] == Outcome.RATE_LIMITED.value).any():
        return None
    share = (1 + int((~before["ok"]).sum())) / (2 + len(before))
    return float(last / NS_PER_S) if share ** len(after) < CHANCE else None


def _vllm(sample: Sample, answered: pd.DataFrame) -> dict[str, float | None]:
    """vLLM's benchmark keys, so that dashboards made for it read this too: of answered requests, ms and per second."""
    window, rates = sample.window_s, sample.throughput
    prompt, output = float(answered["prompt_tokens"].sum()), float(answered["output_count"].sum())
    flat: dict[str, float | None] = {
        "duration": window, "completed": len(answered), "failed": sample.failed, "total_input_tokens": _whole(prompt),
        "total_output_tokens": _whole(output), "request_throughput": rates.requests_per_s,
        "request_goodput": sample.goodput, "output_throughput": rates.output_tokens_per_s,
        "total_token_throughput": rates.output_tokens_per_s + (prompt / window if window else 0.0),
    }  # fmt: skip
    for metric, name in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2e", "e2el")):
        values = sample.values[metric]
        flat[f"mean_{name}_ms"] = finite(values.mean() * 1e3) if len(values) else None
        flat[f"median_{name}_ms"] = finite(quantiles.at(values, 0.5) * 1e3)
        flat[f"std_{name}_ms"] = finite(values.std() * 1e3) if len(values) else None
        for q, label in ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99")):
            flat[f"{label}_{name}_ms"] = finite(quantiles.at(values, q) * 1e3)
    return flat
