"""The summary on a terminal: one table that a person reads in ten seconds, and what stands behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isinf
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from . import compare, lead, units
from .gates import Result, Verdict

COLUMNS = (("ttft", 0.5), ("ttft", 0.99), ("tpot", 0.5), ("tpot", 0.99), ("e2e", 0.5))
WIDE = 120
NARROW = 110  # columns, below which the intervals are left out
STATUS_STYLE = {"valid": "green", "suspect": "yellow", "invalid": "bold red"}
RESULT_STYLE = {Result.PASS: "green", Result.FAIL: "bold red", Result.TOO_FEW: "yellow", Result.INVALID: "bold red"}


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Prints the verdict table, who leads where, what went wrong, and whether the run can be trusted."""
    _widen(console)
    console.print(_table(summary, narrow=console.width < NARROW))
    if rows := lead.matrix(summary):
        console.print(_leads(rows))
    for sentence in lead.sentences(summary):
        console.print(Text(printable(sentence)), soft_wrap=True)
    for note in notes(summary):
        console.print(Text(printable(note), style="yellow"), soft_wrap=True)
    console.print(validity_line(summary["validity"]), soft_wrap=True)


def _widen(console: Console) -> None:
    """A file or a pipe has no width of its own: give it room for the intervals."""
    if not console.is_terminal:
        console.width = max(console.width, WIDE)


def _table(summary: Mapping[str, Any], narrow: bool) -> Table:
    table = Table(title=_title(summary, narrow), title_justify="left", box=box.SIMPLE_HEAD, header_style="bold")
    table.pad_edge, table.collapse_padding = False, True
    headings = [_heading(summary, step) for step in lead.steps(summary)]
    table.add_column("target", no_wrap=True, min_width=max(map(len, headings)))
    for heading in ("n", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric, q in COLUMNS:
        table.add_column(f"{metric.upper()} {units.label(q)}\n{_phase(metric)}", justify="right", no_wrap=True)
    if not narrow:
        table.add_column("tokens/s", justify="right", no_wrap=True)
    if summary["objectives"]:
        table.add_column("goodput\n/s", justify="right", no_wrap=True)
    for step, heading in zip(lead.steps(summary), headings, strict=True):
        if heading:
            table.add_row(Text(heading, style="bold dim"))
        for result in summary["results"]:
            if result["step"] == step:
                table.add_row(*_row(summary, result, narrow))
        table.add_section()
    return table


def _heading(summary: Mapping[str, Any], step: str) -> str:
    load = next(result["load"] for result in summary["results"] if result["step"] == step)
    return printable(", ".join(part for part in (step, load) if part))[:40]


def _phase(metric: str) -> str:
    return {"ttft": "prefill", "tpot": "decode", "e2e": "whole"}[metric]


def _leads(rows: Sequence[tuple[str, Sequence[lead.Lead]]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("fastest, by p50")
    for found in rows[0][1]:
        table.add_column(Text(printable(found.step or "all")))
    for phase, leads in rows:
        table.add_row(phase, *(Text(printable(str(found))) for found in leads))
    return table


def _title(summary: Mapping[str, Any], narrow: bool) -> Text:
    objectives = ", ".join(f"{name} <= {units.ms(limit, unit=True)}" for name, limit in summary["objectives"].items())
    beneath = "" if narrow else ", 95 % intervals beneath"
    goodput = f"; goodput: {objectives}" if objectives else ""
    return Text(f"{printable(summary['run']['name'])} (milliseconds{beneath}{goodput})", style="bold")


def _row(summary: Mapping[str, Any], result: Mapping[str, Any], narrow: bool) -> Iterator[Text | Group]:
    counts = result["counts"]
    yield Text(printable(result["target"]))
    yield Text(f"{counts['counted']:,}")
    yield Text(f"{counts['failed']:,}", style="bold red" if counts["failed"] else "")
    for metric, q in COLUMNS:
        row = _at(result, metric, q)
        shown = Text(units.quantile(row), style="bold green" if is_best(summary, result, metric, q) else "")
        yield shown if narrow else Group(shown, Text(units.interval(row) or units.lacking(row), style="dim"))
    if not narrow:
        yield Text(units.rate(result["throughput"]["output_tokens_per_s"]))
    if summary["objectives"]:
        good = result["goodput"]
        shown = Text(units.rate(good["requests_per_s"]))
        yield shown if narrow else Group(shown, Text(units.share(good["share"]), style="dim"))


def is_best(summary: Mapping[str, Any], result: Mapping[str, Any], metric: str, q: float) -> bool:
    """Clearly so: no other target's interval in the same step reaches below this one's upper end."""
    row = _at(result, metric, q)
    if not row["enough"] or row["high"] is None:
        return False
    others = [
        _at(other, metric, q)
        for other in summary["results"]
        if other["step"] == result["step"] and other["target"] != result["target"]
    ]
    bounded = [other["low"] for other in others if other["enough"]]
    return bool(bounded) and all(low is None or low > max(row["high"], lead.LEAST * row["value"]) for low in bounded)


def _at(result: Mapping[str, Any], metric: str, q: float) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(row for row in result["metrics"][metric]["quantiles"] if row["q"] == q)
    return found


def notes(summary: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know before he quotes a figure."""
    for result in summary["results"]:
        where = result["target"] + (f" at {result['step']}" if result["step"] else "")
        if result["overloaded"]:
            yield f"{where}: overloaded, its backlog grew all along: these percentiles depend on the run's length."
        asked, given = result["lengths"]["output"]["asked_p50"], result["lengths"]["output"]["given_p50"] or 0
        if asked and abs(given / asked - 1) > 0.1:
            yield f"{where}: median output {given:,.0f} tokens where {asked:,.0f} were asked for: E2E isn't comparable."
        if chunks := result["tokens_from"].get("chunks"):
            yield f"{where}: {chunks:,} answers told no token counts; their token-bearing events were counted instead."
        for error in result["errors"][:2]:
            yield f"{where}: {error['n']:,} x {error['outcome']}: {error['error']}"


def printable(text: str) -> str:
    """A server's text without what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def causes(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The reasons of a verdict that call for the same remedy, taken together, in order of weight."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for reason in facts["reasons"]:
        about = reason["text"].partition(":")[0] if reason["target"] else reason["text"]
        key = (reason["status"], reason["remedy"], about)
        cause = found.setdefault(key, {**reason, "where": []})
        where = " at ".join(part for part in (reason["target"], reason["step"]) if part)
        cause["where"].append((where, reason["text"]))
    return list(found.values())


def validity_line(facts: Mapping[str, Any]) -> Text:
    text = Text("The run is ").append(facts["status"], style=STATUS_STYLE[facts["status"]]).append(".")
    for cause in causes(facts):
        first, *others = cause["where"]
        text.append(printable(f"\n  {first[0] + ': ' if first[0] else ''}{first[1]}"))
        if others:
            text.append(printable(f"; also {', '.join(where for where, _ in others)}"))
        remedy = f"; {cause['remedy']}" if cause["remedy"] else ""
        text.append(printable(f" (affects {cause['affects']}{remedy})"), style="dim")
    return text


def print_verdicts(verdicts: Sequence[Verdict], console: Console) -> None:
    """One line a gate and target: verdict, figure, interval, samples."""
    if not verdicts:
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("gate", "target", "load", "verdict"):
        table.add_column(name)
    for name in ("figure", "95 % interval", "n"):
        table.add_column(name, justify="right")
    table.add_column("")
    for verdict in verdicts:
        names = (escape(printable(part)) for part in (verdict.gate.text, verdict.target, verdict.step))
        result = Text(str(verdict.result), style=RESULT_STYLE[verdict.result])
        shown = figure(verdict, verdict.figure)
        table.add_row(*names, result, shown, bounds(verdict), f"{verdict.n:,}", escape(verdict.note))
    _widen(console)
    console.print(table)


def bounds(verdict: Verdict) -> str:
    """A verdict's interval; only latencies have one."""
    if verdict.low is None:
        return ""
    return units.span(verdict.low, None if verdict.high is None or isinf(verdict.high) else verdict.high, unit=True)


def figure(verdict: Verdict, value: float | None) -> str:
    if value is None:
        return "-"
    if value == float("inf"):
        return "unbounded"
    if verdict.gate.unit == "%":
        return units.share(value)
    return f"{units.rate(value)}/s" if verdict.gate.unit.startswith("/") else units.ms(value, unit=True)


def print_comparison(comparisons: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A row for each pair, step and phase: who is faster, and by how much."""
    _widen(console)
    rows: dict[str, list[list[str]]] = {}
    for pair, *cells in compare.table(comparisons):
        rows.setdefault(pair, []).append(cells)
    for pair, lines in rows.items():
        title = Text(f"{printable(pair)}: the same request on both, 95 % intervals", style="bold")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in compare.HEADINGS[1:]:
            table.add_column(name, justify="right" if name in ("pairs", "requests won") else "left")
        for line in lines:
            table.add_row(*(Text(printable(cell)) for cell in line))
        console.print(table)
    for metric, phase in compare.PHASES.items():
        for step, loser, winner in compare.flips(comparisons, metric):
            console.print(Text(printable(f"The lead in {phase} flips at {step}: {loser} lost it to {winner}.")))
