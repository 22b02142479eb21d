"""The summary on a terminal: one table that a person reads in ten seconds, and what stands behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isinf
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .. import number_format
from ..analysis import comparison, leaders
from ..analysis.gates import Result, Verdict

COLUMNS = (("ttft", 0.5), ("ttft", 0.99), ("tpot", 0.5), ("tpot", 0.99), ("e2e", 0.5))
WIDE = 120
ROOM = 100  # columns, that the table of gates needs
LEAD = 19  # columns, at least, for one step's leader
ODD = 0.01  # the share of answers from which on an oddity of theirs is told
GAP = 2  # blanks between columns
UNDER = {"TTFT p50": "prefill", "TTFT p99": "prefill", "TPOT p50": "decode", "TPOT p99": "decode", "E2E p50": "whole",
         "goodput": "/s"}  # fmt: skip
INTERVALS = "intervals"
EXPENDABLE = ("tokens/s", "E2E p50", INTERVALS, "goodput", "n", "TTFT p99", "TPOT p99")  # the first first
Cell = tuple[Text, Text]  # a figure, and what stands beneath it: its interval, or the samples that it lacks
STATUS_STYLE = {"valid": "green", "suspect": "yellow", "invalid": "bold red"}
RESULT_STYLE = {Result.PASS: "green", Result.FAIL: "bold red", Result.TOO_FEW: "yellow", Result.INVALID: "bold red"}


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Prints the verdict table, who leads where, what went wrong, and whether the run can be trusted."""
    _widen(console)
    for line in _table(summary, console.width):
        console.print(line, soft_wrap=True)
    if rows := leaders.matrix(summary):
        console.print(_leads(rows, console.width), soft_wrap=False)
    else:
        console.print()
    for alarm in alarms(summary):
        console.print(Text(printable(alarm), style="bold red"), soft_wrap=True)
    for sentence in leaders.sentences(summary):
        console.print(Text(printable(sentence)), soft_wrap=True)
    for note in notes(summary):
        console.print(Text(printable(note), style="yellow"), soft_wrap=True)
    console.print(validity_line(summary["validity"]), soft_wrap=True)


def _widen(console: Console) -> None:
    """A file or a pipe has no width of its own: give it room for the intervals."""
    if not console.is_terminal:
        console.width = max(console.width, WIDE)


def _table(summary: Mapping[str, Any], width: int) -> Iterator[Text]:
    """The table's lines: a load step's title spans them, and what a narrow console has no room for is left out."""
    rows = [(result["step"], _cells(summary, result)) for result in summary["results"]]
    widths, beneath = _layout([cells for _, cells in rows], width)
    yield _title(summary, beneath)
    yield Text()
    yield _line({name: Text(name, style="bold") for name in widths}, widths)
    yield _line({name: Text(UNDER.get(name, ""), style="dim") for name in widths}, widths)
    yield Text("─" * _whole(widths))
    for number, step in enumerate(leaders.steps(summary)):
        if number:
            yield Text()
        if heading := _heading(summary, step):
            yield Text(heading, style="bold dim")
        for cells in (cells for of, cells in rows if of == step):
            yield _line({name: cell[0] for name, cell in cells.items()}, widths)
            if beneath and any(cells[name][1] for name in widths):
                yield _line({name: cell[1] for name, cell in cells.items()}, widths)


def _layout(rows: Sequence[Mapping[str, Cell]], width: int) -> tuple[dict[str, int], bool]:
    """The columns that fit, with their widths, and whether there is room for the intervals beneath the figures."""
    kept, beneath = list(rows[0]), True
    widths = _widths(rows, kept, beneath, width)
    for least in EXPENDABLE:
        if _whole(widths) <= width:
            break
        kept, beneath = [name for name in kept if name != least], beneath and least != INTERVALS
        widths = _widths(rows, kept, beneath, width)
    widths["target"] = max(3, widths["target"] - max(0, _whole(widths) - width))
    return widths, beneath


def _widths(rows: Sequence[Mapping[str, Cell]], kept: Sequence[str], beneath: bool, width: int) -> dict[str, int]:
    found = {
        name: max(len(name), *(text.cell_len for cells in rows for text in cells[name][: 1 + beneath])) for name in kept
    }
    return found | {"target": min(found["target"], max(12, width // 4))}


def _whole(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _line(texts: Mapping[str, Text], widths: Mapping[str, int]) -> Text:
    for name, width in widths.items():
        texts[name].truncate(width, overflow="ellipsis")
        texts[name].align("left" if name == "target" else "right", width)
    line = Text(" " * GAP).join(texts[name] for name in widths)
    line.rstrip()
    return line


def _heading(summary: Mapping[str, Any], step: str) -> str:
    load = next(result["load"] for result in summary["results"] if result["step"] == step)
    return printable(", ".join(part for part in (step, load) if part))


def _leads(rows: Sequence[tuple[str, Sequence[leaders.Lead]]], width: int) -> Table | Text:
    if width < LEAD * (len(rows[0][1]) + 1):
        lines = [f"fastest by p50, {phase}, {found.step}: {found}" for phase, leads in rows for found in leads]
        return Text(printable("\n" + "\n".join(lines)))
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("fastest, by p50")
    for found in rows[0][1]:
        table.add_column(Text(printable(found.step or "all")))
    for phase, leads in rows:
        table.add_row(phase, *(Text(printable(str(found))) for found in leads))
    return table


def _title(summary: Mapping[str, Any], beneath: bool) -> Text:
    objectives = ", ".join(
        f"{name} <= {number_format.ms(limit, unit=True)}" for name, limit in summary["objectives"].items()
    )
    intervals = ", 95 % intervals beneath" if beneath else ""
    goodput = f"; goodput: {objectives}" if objectives else ""
    return Text(f"{printable(summary['run']['name'])} (milliseconds{intervals}{goodput})", style="bold")


def _cells(summary: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Cell]:
    counts, failed = result["counts"], "bold red" if result["counts"]["failed"] else ""
    cells = {
        "target": (Text(printable(result["target"]).replace("\n", " ")), Text()),
        "n": (Text(f"{counts['counted']:,}"), Text()),
        "failed": (Text(number_format.failures(counts), style=failed), Text()),
    }
    for metric, q in COLUMNS:
        row = _at(result, metric, q)
        shown = Text(number_format.quantile(row), style="bold green" if is_best(summary, result, metric, q) else "")
        beneath = Text(number_format.interval(row) or number_format.lacking(row), style="dim")
        cells[f"{metric.upper()} {number_format.label(q)}"] = (shown, beneath)
    cells["tokens/s"] = (Text(number_format.rate(result["throughput"]["output_tokens_per_s"])), Text())
    if good := result["goodput"]:
        cells["goodput"] = (
            Text(number_format.rate(good["requests_per_s"])),
            Text(number_format.share(good["share"]), style="dim"),
        )
    return cells


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
    return bool(bounded) and all(low is None or low > max(row["high"], leaders.LEAST * row["value"]) for low in bounded)


def _at(result: Mapping[str, Any], metric: str, q: float) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(row for row in result["metrics"][metric]["quantiles"] if row["q"] == q)
    return found


def _where(result: Mapping[str, Any]) -> str:
    return str(result["target"]) + (f" at {result['step']}" if result["step"] else "")


def alarms(summary: Mapping[str, Any]) -> Iterator[str]:
    """Where there are no figures to read: the verdict is about the client, and stays valid."""
    for result in summary["results"]:
        if result["counts"]["counted"] and not result["counts"]["ok"]:
            first = result["errors"][0]
            said = f"{first['outcome']}: {first['error']}" if first["error"] else first["outcome"]
            yield f"{_where(result)}: every request failed, {result['counts']['counted']:,} of them; {said}"


def notes(summary: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know before he quotes a figure."""
    for result in summary["results"]:
        where, counts = _where(result), result["counts"]
        if counts["retried"]:
            yield (
                f"{where}: {counts['counted']:,} tries of {counts['requests']:,} requests: each try is a row, "
                "and n and failed count tries."
            )
        if (unstamped := result["client"]["unstamped"] or 0.0) > ODD:
            yield (
                f"{where}: {unstamped:.0%} of answers have no kernel receive times (Unix sockets give none): "
                "their instants are the client's own reads."
            )
        if result["overloaded"]:
            yield f"{where}: overloaded, its backlog grew all along: these percentiles depend on the run's length."
        asked, given = result["lengths"]["output"]["asked_p50"], result["lengths"]["output"]["given_p50"] or 0
        if asked and abs(given / asked - 1) > 0.1:
            yield f"{where}: median output {given:,.0f} tokens where {asked:,.0f} were asked for: E2E isn't comparable."
        if counts["outcomes"].get("rate_limited"):
            yield f"{where}: {_refusals(counts)}; in percentiles and gates they are failed ones."
        if unsent := counts.get("unsent"):
            planned = counts["planned"]
            yield f"{where}: {unsent:,} of {planned:,} requests had no turn before the end, and were not sent."
        if whole := counts["whole"]:
            yield f"{where}: {whole:,} answers did not stream: they have no TTFT and no TPOT."
        if (burst := counts["at_once"]) > ODD * counts["ok"]:
            yield f"{where}: {burst:,} answers came all at once: their TTFT is their E2E, and they have no TPOT."
        if chunks := result["tokens_from"].get("chunks"):
            yield f"{where}: {chunks:,} answers told no token counts; their token-bearing events were counted instead."
        for error in result["errors"][:2]:
            yield f"{where}: {error['n']:,} x {error['outcome']}: {error['error']}"


def _refusals(counts: Mapping[str, Any]) -> str:
    """Whom the target's quota let in: requests, of which each may have had several tries."""
    refused, requests = counts["outcomes"]["rate_limited"], counts["requests"]
    said = f"{counts['admitted']:.1%} admitted: "
    if not counts["retried"]:
        return f"{said}{refused:,} of {requests:,} requests were refused for their rate"
    never = requests - round(counts["admitted"] * requests)
    return (
        f"{said}{never:,} of {requests:,} requests were refused for their rate at every try, "
        f"as were {refused:,} of {counts['counted']:,} tries"
    )


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
    _widen(console)
    if console.width < ROOM:
        for verdict in verdicts:
            console.print(_verdict(verdict), soft_wrap=True)
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
    console.print(table, soft_wrap=False)


def _verdict(verdict: Verdict) -> Text:
    """The same as a sentence, for a console without room for the table."""
    where = " at ".join(part for part in (verdict.target, verdict.step) if part)
    told = [figure(verdict, verdict.figure), bounds(verdict), verdict.note or f"n={verdict.n:,}"]
    said = f" {verdict.gate.text}, {where}: {', '.join(part for part in told if part)}"
    return Text.assemble((str(verdict.result), RESULT_STYLE[verdict.result]), printable(said))


def bounds(verdict: Verdict) -> str:
    """A verdict's interval; only latencies have one."""
    if verdict.low is None:
        return ""
    return number_format.span(
        verdict.low, None if verdict.high is None or isinf(verdict.high) else verdict.high, unit=True
    )


def figure(verdict: Verdict, value: float | None) -> str:
    if value is None:
        return "-"
    if value == float("inf"):
        return "unbounded"
    if verdict.gate.unit == "%":
        return number_format.share(value)
    return f"{number_format.rate(value)}/s" if verdict.gate.unit.startswith("/") else number_format.ms(value, unit=True)


def print_comparison(comparisons: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A row for each pair, step and phase: who is faster, and by how much."""
    _widen(console)
    rows: dict[str, list[list[str]]] = {}
    for pair, *cells in comparison.table(comparisons):
        rows.setdefault(pair, []).append(cells)
    for pair, lines in rows.items():
        title = Text(f"{printable(pair)}: the same request on both, 95 % intervals", style="bold")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in comparison.HEADINGS[1:]:
            table.add_column(name, justify="right" if name in ("pairs", "requests won") else "left")
        for line in lines:
            table.add_row(*(Text(printable(cell)) for cell in line))
        console.print(table, soft_wrap=False)
    for metric, phase in comparison.PHASES.items():
        for step, loser, winner in comparison.flips(comparisons, metric):
            console.print(Text(printable(f"The lead in {phase} flips at {step}: {loser} lost it to {winner}.")))
