"""report.html: one self-contained page. No script, no network; every string from outside is escaped by the template.

The page is Jinja2 with autoescape on; only the plots (ours) and the style sheet are marked safe. A
Content-Security-Policy forbids the page to load or run anything, whatever a server's text may have tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from targets.telemetry.readings import Reading
from traces.errors import InputError
from traces.files import write_whole

from .. import number_format
from ..analysis import comparison, gates, leaders, quantiles, server_metrics, slices, time_account
from ..analysis import summary as summaries
from ..analysis.quantiles import Values
from ..store import run_folder
from ..store.run_folder import Key, Run
from . import pages, plots, text
from .definitions import DEFINITIONS

HONESTY = (
    "Arrival instants are the kernel's receive times, read with each piece of data; send instants come from the same "
    "clock. Lateness and client lag below are this program's own; where they could have moved a figure the run is "
    "called suspect or invalid above."
)
PHASES_CAPTION = (
    "Bars are numbered as the rows above; from left to right the phases in the order of the columns. Palest: not "
    "attributed, and the client's own; dotted: queue; solid: prefill; crossed: KV transfer and hand-over."
)
SLICES = (
    ("prompt_tokens", "Prompt tokens (as the trace asks)"),
    ("output_count", "Output tokens (as given; answered requests only)"),
    ("in_flight", "The target's requests in flight at send"),
)
LEAST = quantiles.needed(0.5)
SHOWN = (0.5, 0.9, 0.99, 0.999)
HIDDEN = ("api_key_env", "api_key_file", "headers")  # names of secrets say nothing to a reader


def page(loaded: Sequence[Run], found: Sequence[Mapping[str, Any]], out: Path | str | None = None) -> Path:
    """Writes one report over all runs; by default report.html in the first run's folder."""
    path = Path(out) if out is not None else loaded[0].folder / "report.html"
    if path.is_dir():
        path /= "report.html"
    write_whole(path, render(loaded, found).encode(errors="replace"))
    return path


def render(runs: Sequence[Run], found: Sequence[Mapping[str, Any]]) -> str:
    """The page's text."""
    names = list(dict.fromkeys(result["target"] for summary in found for result in summary["results"]))
    numbers = {name: number for number, name in enumerate(names)}
    return pages.render(
        "report.html.j2",
        title=" and ".join(run.name for run in runs),
        numbers=numbers,
        overview=_overview(runs, found),
        across=_across(runs),
        headings=comparison.HEADINGS,
        sections=[
            _section(run, summary, numbers, f"run{number}")
            for number, (run, summary) in enumerate(zip(runs, found, strict=True))
        ],
        definitions=DEFINITIONS,
    )


def _overview(runs: Sequence[Run], found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each result of every run; empty for a single run."""
    if len(runs) < 2:
        return []
    return [
        {"run": run.name, "status": summary["validity"]["status"], "result": result}
        for run, summary in zip(runs, found, strict=True)
        for result in summary["results"]
    ]


def _across(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """The first run against each later one, request by request, where they replayed the same trace."""
    rows: list[tuple[str, ...]] = []
    for later in runs[1:]:
        try:
            rows += comparison.table(comparison.of_runs(runs[0], later))
        except InputError:  # nothing to pair: the overview stands alone
            continue
    return rows


def _section(run: Run, summary: Mapping[str, Any], numbers: Mapping[str, int], slug: str) -> dict[str, Any]:
    results = summary["results"]
    steps = leaders.steps(summary)
    facts = run.facts
    trace = facts.get("trace") or {}
    readings = server_metrics.readings(run.folder)
    return {
        "simulated": bool(facts.get("simulated")),
        "server_phases": server_metrics.phase_means(run, readings),
        "round_trips": server_metrics.round_trips(run, readings),
        "failed_readings": server_metrics.failures(readings),
        "summary": summary,
        "results": results,
        "steps": [(step, [result for result in results if result["step"] == step]) for step in steps],
        "several": len(steps) > 1,
        "targets": [name for name in numbers if any(result["target"] == name for result in results)],
        "standing": _standing(facts, numbers),
        "shown": SHOWN,
        "labels": [number_format.label(q) for q in SHOWN],
        "best": lambda result, metric, q: text.is_best(summary, result, metric, q),
        "sentences": leaders.sentences(summary),
        "leads": leaders.matrix(summary),
        "alarms": list(text.alarms(summary)),
        "notes": list(text.notes(summary)),
        "verdicts": list(_verdicts(run, summary)),
        "plots": _plots(run, summary, numbers, slug) | {"servers": list(_servers(run, readings, numbers, slug))},
        "errors": [
            {"target": result["target"], "step": result["step"], **error}
            for result in results
            for error in result["errors"]
        ],
        "comparison": list(comparison.table(summary["comparison"])),
        "phase_names": [name for name in time_account.ALL if any(_part(r["phases"], name) for r in results)],
        "aligned": lambda parts: [
            _part(parts, name) for name in time_account.ALL if any(_part(r["phases"], name) for r in results)
        ],
        "costs": [result for result in results if result["cost"]],
        "causes": text.causes(summary["validity"]),
        "least": LEAST,
        "slices": [(heading, _matched(summary, name)) for name, heading in SLICES],
        "server": [name for name in summaries.SERVER if any(result["server"][name] for result in results)],
        "honesty": HONESTY,
        "workers": _workers(facts),
        "trace": trace.get("name") or trace.get("source") or "",
        "profile": list(_profile(trace)),
        "configured": [
            {"name": target.get("name", ""), "facts": list(flat({k: v for k, v in target.items() if _told(k, v)}))}
            for target in facts.get("targets", [])
        ],
        "configuration": list(_configuration(facts)),
    }


def _matched(summary: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Buckets with a row for each step and target, like beside like, without those that bound no median."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for step in leaders.steps(summary):
        for result in summary["results"]:
            for row in result["slices"][name] if result["step"] == step else ():
                if row["n"] >= LEAST:
                    rows.setdefault(row["low"], []).append({**row, "target": result["target"], "step": step})
    return [{"bucket": rows[low][0]["bucket"], "rows": rows[low]} for low in sorted(rows)]


def _part(parts: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    return next((part for part in parts if part["phase"] == name), None)


def _standing(facts: Mapping[str, Any], numbers: Mapping[str, int]) -> dict[str, str]:
    """What each target is: the standing of a simulated endpoint's figures must meet the eye beside its name."""
    told = {target.get("name"): target for target in facts.get("targets", [])}
    standing = {}
    for name in numbers:
        target = told.get(name) or {}
        described = str(target.get("description") or "")
        simulated = target.get("embedded") and not described.startswith("simulated")
        parts = ["simulated" if simulated else "", described, target.get("standing")]
        standing[name] = ", ".join(str(part) for part in parts if part)
    return standing


def _told(name: str, value: Any) -> bool:
    return name not in HIDDEN and name != "name" and value not in (None, "", [], {}, False)


def _verdicts(run: Run, summary: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The run's own gates, asked again."""
    asked = [gates.parse(str(slo)) for slo in run.facts.get("slo") or []]
    if not asked:
        return
    for verdict in gates.judge(run_folder.samples(run, summary["objectives"]), asked, summary["validity"]["reasons"]):
        yield {
            "gate": verdict.gate.text, "target": verdict.target, "step": verdict.step, "result": str(verdict.result),
            "figure": text.figure(verdict, verdict.figure), "interval": text.bounds(verdict), "n": f"{verdict.n:,}",
            "note": verdict.note,
        }  # fmt: skip


def _plots(
    run: Run, summary: Mapping[str, Any], numbers: Mapping[str, int], slug: str
) -> dict[str, list[dict[str, Any]]]:
    groups = dict(run.groups())
    samples = {key: _sorted(run, key, groups) for key in groups}
    steps = leaders.steps(summary)
    return {
        "cdfs": [
            _plot(f"{slug}-cdf-{number}", _cdfs(samples, numbers, step, f"{slug} cdf {number}"), _cdf_caption(step))
            for number, step in enumerate(steps)
        ],
        "load": list(_load_plots(run, summary, numbers, steps, slug)),
        "phases": [_plot(f"{slug}-phases", _phases(summary, numbers, f"{slug} phases"), PHASES_CAPTION)],
        "timeline": [_plot(
            f"{slug}-timeline", plots.timeline(f"{slug} timeline", run.rows, numbers, _windows(run, groups)),
            "Over the whole run, warm-up included.")],
        "trace": [_plot(
            f"{slug}-trace", _trace(run, f"{slug} trace"), "The requests as planned, before any server saw them.")],
        "client": [_plot(f"{slug}-client", plots.client(
            f"{slug} client", _pooled(samples, numbers, "lateness"), _pooled(samples, numbers, "client_lag")),
            "The client's own part, all counted requests.")],
    }  # fmt: skip


def _phases(summary: Mapping[str, Any], numbers: Mapping[str, int], name: str) -> str:
    return plots.phases(name, [(numbers[r["target"]], r["phases"]) for r in summary["results"]], time_account.ALL)


def _servers(run: Run, readings: Sequence[Reading], numbers: Mapping[str, int], slug: str) -> Iterator[dict[str, Any]]:
    targets = run.facts.get("targets", [])
    series = server_metrics.series(readings)
    if series:
        drawn = [(numbers.get(server_metrics.owner(targets, url), 0), gauges) for url, gauges in series.items()]
        caption = "Read from the servers' metrics every second, a line a URL in its target's colour."
        yield _plot(f"{slug}-servers", plots.servers(f"{slug} servers", drawn, server_metrics.SHOWN), caption)


def _trace(run: Run, name: str) -> str:
    """Lengths of one target's rows: the same requests go to all."""
    rows = run.rows[run.rows["target"] == run.rows["target"].iloc[0]]
    profile = (run.facts.get("trace") or {}).get("profile") or {}
    asked = [np.sort(rows[column].to_numpy(np.float64)) for column in ("prompt_tokens", "output_tokens")]
    return plots.trace(name, profile, asked[0], asked[1])


def _cdf_caption(step: str) -> str:
    return (
        f"Cumulative shares{', ' + step if step else ''}; logarithmic time. Dotted: p50 and p99. "
        "A curve that ends below 100 % belongs to an endpoint that failed some."
    )


def _cdfs(
    samples: Mapping[Key, tuple[dict[str, Values], int]], numbers: Mapping[str, int], step: str, name: str
) -> str:
    return plots.cdfs(name, _curves(samples, numbers, step, "ttft"), _curves(samples, numbers, step, "tpot"))


def _plot(name: str, svg: str, caption: str) -> dict[str, Any]:
    return {"id": name, "svg": Markup(svg), "caption": caption}  # drawn by us, holds no outside text


def _sorted(run: Run, key: Key, groups: Mapping[Key, Any]) -> tuple[dict[str, Values], int]:
    counted = groups[key][groups[key]["counted"]]
    answered = counted[counted["ok"]]
    return run_folder.values(run, key, counted, answered), len(counted) - len(answered)


def _curves(
    samples: Mapping[Key, tuple[dict[str, Values], int]], numbers: Mapping[str, int], step: str, metric: str
) -> dict[int, tuple[Values, int]]:
    return {numbers[key[0]]: (values[metric], failed) for key, (values, failed) in samples.items() if key[1] == step}


def _pooled(
    samples: Mapping[Key, tuple[dict[str, Values], int]], numbers: Mapping[str, int], metric: str
) -> dict[int, tuple[Values, int]]:
    """All steps of a target together."""
    parts: dict[int, list[Values]] = {}
    for key, (values, _) in samples.items():
        parts.setdefault(numbers[key[0]], []).append(values[metric])
    return {number: (np.sort(np.concatenate(found)), 0) for number, found in parts.items()}


def _windows(run: Run, groups: Mapping[Key, Any]) -> list[tuple[float, float]]:
    return sorted({run.window(key, rows) for key, rows in groups.items()})


def _load_plots(
    run: Run, summary: Mapping[str, Any], numbers: Mapping[str, int], steps: list[str], slug: str
) -> Iterator[dict[str, Any]]:
    if len(steps) > 1:
        medians = {metric: _medians(summary, numbers, steps, metric) for metric in ("ttft", "tpot", "e2e")}
        flips = {metric: _flips(summary, steps, metric) for metric in medians}
        named = "; ".join(f"step {number + 1}: {_load(summary, step)}" for number, step in enumerate(steps))
        caption = f"Medians against load ({named}). A red line: between these steps the lead changes hands."
        yield _plot(f"{slug}-steps", plots.by_step(f"{slug} steps", len(steps), medians, flips), caption)
    rows = run.rows[run.rows["counted"]]
    tables = {
        numbers[str(target)]: slices.table(part, "in_flight") for target, part in rows.groupby("target", observed=True)
    }
    caption = (
        "Medians with 95 % intervals against the target's own requests in flight at send, all load steps together: "
        "how an endpoint fares as concurrency rises."
    )
    yield _plot(f"{slug}-in-flight", plots.in_flight(f"{slug} in flight", tables), caption)


def _load(summary: Mapping[str, Any], step: str) -> str:
    load = next(result["load"] for result in summary["results"] if result["step"] == step)
    return ", ".join(part for part in (step, load) if part)


def _medians(
    summary: Mapping[str, Any], numbers: Mapping[str, int], steps: list[str], metric: str
) -> dict[int, list[Mapping[str, Any] | None]]:
    found = {(numbers[r["target"]], r["step"]): leaders.p50(r, metric) for r in summary["results"]}
    return {number: [found.get((number, step)) for step in steps] for number in sorted({key[0] for key in found})}


def _flips(summary: Mapping[str, Any], steps: list[str], metric: str) -> list[int]:
    return [steps.index(after.step) for _, after in leaders.flips(leaders.leads(summary, metric))]


def _workers(facts: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """A row a fact, a column a worker."""
    told = [dict(flat(worker)) for worker in facts.get("workers", []) if isinstance(worker, Mapping)]
    names = list(dict.fromkeys(name for worker in told for name in worker))
    return [(name.removeprefix("diagnostics "), [worker.get(name, "") for worker in told]) for name in names]


def _profile(trace: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The trace's facts without the timeline, which is drawn."""
    profile = {name: value for name, value in (trace.get("profile") or {}).items() if name != "timeline"}
    yield from flat({name: value for name, value in trace.items() if name != "profile"})
    yield from flat(profile)


def _configuration(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if facts.get("argv"):
        yield "command", " ".join(str(part) for part in facts["argv"])
    skipped = ("argv", "targets", "trace", "workers", "phases", "missing_requests", "slo")
    yield from flat({name: value for name, value in facts.items() if name not in skipped})
    for slo in facts.get("slo") or []:
        yield "slo", str(slo)


def flat(facts: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as (name, text) pairs; long lists are cut."""
    if isinstance(facts, Mapping):
        for name, value in facts.items():
            yield from flat(value, f"{prefix} {name}".strip().replace("_", " "))
    elif isinstance(facts, (list, tuple)):
        shown = ", ".join(str(part) for part in facts[:12]) + (", ..." if len(facts) > 12 else "")
        yield prefix, shown or "-"
    elif isinstance(facts, float):
        yield prefix, f"{facts:,.6g}"
    else:
        yield prefix, "-" if facts is None else str(facts)
