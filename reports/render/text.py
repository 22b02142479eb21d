"""The summary on a terminal: one table that a person reads in ten seconds, and what stands behind it; and every
request's figures as CSV, for a spreadsheet or somebody else's plots."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from traces.request import NS_PER_S

from .. import number_format
from ..analysis import leaders
from ..analysis.comparison import Comparison
from ..analysis.gates import Decision, Verdict
from ..analysis.judgement import Regression
from ..analysis.leaders import Lead
from ..analysis.page_one import PageOne
from ..analysis.results import Result
from ..analysis.summary import Summary
from ..analysis.validity import Status, Validity
from ..store.durations import DURATIONS, HEADLINES
from ..store.run_folder import Run
from . import findings
from . import page_one as front

COLUMNS = (("ttft", 0.5), ("ttft", 0.99), ("tpot", 0.5), ("tpot", 0.99), ("e2e", 0.5))
WIDE = 120
ROOM = 100  # columns, that the table of gates needs
HEADING, TARGET = 26, 22  # columns of page one's headings and of a target's figures
LEAD = 19  # columns, at least, for one step's leader
GAP = 2  # blanks between columns
UNDER = {"TTFT p50": "prefill", "TTFT p99": "prefill", "TPOT p50": "decode", "TPOT p99": "decode", "E2E p50": "whole",
         "goodput": "/s"}  # fmt: skip
INTERVALS = "intervals"
EXPENDABLE = ("tokens/s", "E2E p50", INTERVALS, "goodput", "n", "TTFT p99", "TPOT p99")  # the first first
CSV_COLUMNS = (
    "target", "step", "index", "attempt", "counted", "outcome", "status", "prompt_tokens", "output_tokens",
    "usage_prompt", "output_count", "token_source", "usage_cached", "in_flight", *DURATIONS,
    "server_queue", "server_prefill", "server_transfer", "server_decode", "error",
)  # fmt: skip
DOLLARS = {
    "per_request": "a request", "per_million_tokens": "a million\ntokens", "per_million_output": "of answers",
    "per_million_good": "that met\nthe SLO",
}  # fmt: skip
Cell = tuple[Text, Text]  # a figure, and what stands beneath it: its interval, or the samples that it lacks
STATUS_STYLE = {Status.VALID: "bold", Status.SUSPECT: "yellow", Status.INVALID: "bold red"}
DECISION_STYLE = {
    Decision.PASS: "green", Decision.FAIL: "bold red", Decision.NO_VERDICT: "yellow", Decision.INVALID: "bold red"
}  # fmt: skip


def print_summary(summary: Summary, console: Console) -> None:
    """Prints the verdict table, who leads where, what went wrong, and whether the run can be trusted."""
    widen(console)
    print_page_one(summary.page_one, console)
    for line in _table(summary, console.width):
        console.print(line, soft_wrap=True)
    console.print(_leads(leaders.matrix(summary), console.width), soft_wrap=False)
    if costs := _costs(summary, console.width):
        console.print(costs, soft_wrap=False)
    for style, sentences in (
        ("bold red", findings.alarms(summary)), ("", findings.sentences(summary)), ("yellow", findings.notes(summary))
    ):  # fmt: skip
        for sentence in sentences:
            console.print(Text(printable(sentence), style=style), soft_wrap=True)
    console.print(validity_line(summary.validity), soft_wrap=True)


def print_page_one(page: PageOne, console: Console) -> None:
    """The verdict, the figures at the decisive load, why to trust them, and what they can't say."""
    style = DECISION_STYLE[Decision(page.decision)] if page.decision else "bold"
    console.print(Text.assemble((page.verdict, style), f", run {page.state}"))
    for sentence in page.sentences:
        console.print(Text(printable(sentence)), soft_wrap=True)
    console.print(
        Text(printable(f"\nAt the decisive load, {front.load(page)}" if front.load(page) else ""), style="bold")
    )
    each = max(1, (console.width - HEADING) // TARGET)  # targets that have room beside each other
    for first in range(0, len(page.targets), each):
        console.print(_page_one(page, slice(first, first + each)), soft_wrap=False)
    for title, facts in (("Why to trust it", page.trust), ("Not measured", page.not_measured)):
        console.print(Text(title, style="bold"))
        for fact in facts:
            style = "yellow" if fact.doubtful else ""
            console.print(Text(printable(f"  {fact.about}: {fact.text}"), style=style), soft_wrap=True)
    console.print()


def _page_one(page: PageOne, chosen: slice) -> Table:
    headings = ["95 % intervals beneath"]
    headings += ["\n".join(filter(None, (target.target, target.about))) for target in page.targets[chosen]]
    rows = [[Text(line.heading), *map(_cell, line.cells[chosen])] for line in front.lines(page)]
    return grid(headings, rows, headings[1:])


def _cell(cell: front.Cell) -> Text:
    return Text.assemble(printable(cell.figure), "\n" if cell.beneath else "", (printable(cell.beneath), "dim"))


def widen(console: Console, width: int = WIDE) -> None:
    """A file or a pipe has no width of its own: give it room for all columns."""
    if not console.is_terminal:
        console.width = max(console.width, width)


def grid(
    headings: Iterable[str], rows: Iterable[Iterable[str | Text]], figures: Container[str] = (), title: str = ""
) -> Table:
    """A table of cells that are no markup; the columns of `figures` are aligned to the right."""
    table = Table(title=Text(printable(title), style="bold") if title else None, title_justify="left",
                  box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)  # fmt: skip
    for heading in headings:
        table.add_column(Text(printable(heading)), justify="right" if heading in figures else "left")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    return table


def _table(summary: Summary, width: int) -> Iterator[Text]:
    """The table's lines: a load step's title spans them, and what a narrow console has no room for is left out."""
    rows = [(result.step, _cells(summary, result)) for result in summary.results]
    widths, beneath = _layout([cells for _, cells in rows], width)
    limits = ", ".join(f"{name} <= {number_format.ms(limit, unit=True)}" for name, limit in summary.objectives.items())
    rounds = len(summary.run.rounds)
    of = f"over {rounds} rounds" if rounds > 1 else "inside this run"
    intervals = f", 95 % intervals {of} beneath" if beneath else ""
    goodput = f"; goodput: {limits}" if limits else ""
    yield Text(f"{printable(summary.run.name)} (milliseconds{intervals}{goodput})", style="bold")
    yield Text()
    yield _line({name: Text(name, style="bold") for name in widths}, widths)
    yield _line({name: Text(UNDER.get(name, ""), style="dim") for name in widths}, widths)
    yield Text("─" * _whole(widths))
    for number, step in enumerate(summary.steps):
        if number:
            yield Text()
        if heading := ", ".join(part for part in (step, summary.of_step(step)[0].load) if part):
            yield Text(printable(heading), style="bold dim")
        for cells in (cells for of, cells in rows if of == step):
            yield _line({name: cell[0] for name, cell in cells.items()}, widths)
            if beneath and any(cells[name][1] for name in widths):
                yield _line({name: cell[1] for name, cell in cells.items()}, widths)


def _layout(rows: Sequence[Mapping[str, Cell]], width: int) -> tuple[dict[str, int], bool]:
    """The columns that fit, with their widths, and whether there is room for the intervals beneath the figures."""
    for number in range(len(EXPENDABLE) + 1):
        left_out = EXPENDABLE[:number]
        beneath = INTERVALS not in left_out
        widths = {
            name: max(len(name), *(text.cell_len for cells in rows for text in cells[name][: 1 + beneath]))
            for name in rows[0]
            if name not in left_out
        }
        widths["target"] = min(widths["target"], max(12, width // 4))
        excess = _whole(widths) - width
        if excess <= 0:
            break
    widths["target"] = max(3, widths["target"] - max(0, excess))
    return widths, beneath


def _whole(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _line(texts: Mapping[str, Text], widths: Mapping[str, int]) -> Text:
    for name, width in widths.items():
        texts[name].truncate(width, overflow="ellipsis")
        texts[name].align("left" if name == "target" else "right", width)
    line = Text(" " * GAP).join(texts[name] for name in widths)
    line.rstrip()
    return line


def _leads(rows: Sequence[tuple[str, Sequence[Lead]]], width: int) -> Table | Text:
    if not rows:
        return Text()
    if width < LEAD * (len(rows[0][1]) + 1):
        lines = [f"{phase}, {lead.step}: {lead}" for phase, leads in rows for lead in leads]
        return Text(printable("\n".join(("", "fastest by p50, ahead by request:", *lines))))
    headings = ("fastest, by p50;\nahead, by request", *(lead.step or "all" for lead in rows[0][1]))
    return grid(headings, ((phase, *map(str, leads)) for phase, leads in rows))


def _costs(summary: Summary, width: int) -> Table | Text | None:
    """What was measured before what was simulated, whose prices are assumptions."""
    costs = [(result, result.cost) for result in summary.results if result.cost and result.cost.at_this_load]
    rows = []
    for result, cost in sorted(costs, key=lambda pair: pair[1].simulated):
        at_mean = cost.at_mean_load.per_million_output if cost.at_mean_load else None
        figures = [*(getattr(cost.at_this_load, name) for name in DOLLARS), at_mean]
        name = result.target + (" (simulated)" if cost.simulated else "")
        rows.append((name, result.step, cost.by or "", *map(number_format.dollars, figures)))
    if not rows:
        return None
    if width < ROOM:
        lines = [f"{' at '.join(filter(None, row[:2]))}: {row[3]} a request, {row[5]} a million tokens of answers"
                 for row in rows]  # fmt: skip
        return Text(printable("\n".join(("", "cost:", *lines))))
    headings = ("cost", "load", "by the", *DOLLARS.values(), "of answers, at\nthe trace's mean")
    return grid(headings, rows, headings[3:])


def _cells(summary: Summary, result: Result) -> dict[str, Cell]:
    counts, failed = result.counts, "bold red" if result.counts.failed else ""
    cells = {
        "target": (Text(printable(result.target).replace("\n", " ")), Text()),
        "n": (Text(f"{counts.counted:,}"), Text()),
        "failed": (Text(findings.failures(counts), style=failed), Text()),
    }
    for metric, q in COLUMNS:
        row = result.quantile(metric, q)
        best = findings.is_best(summary, result, metric, q)
        shown = Text(findings.quantile(row), style="bold green" if best else "")
        beneath = Text(findings.interval(row) or findings.lacking(row), style="dim")
        cells[f"{metric.upper()} {number_format.label(q)}"] = (shown, beneath)
    cells["tokens/s"] = (Text(number_format.rate(result.throughput.output_tokens_per_s)), Text())
    if good := result.goodput:
        share = Text(number_format.share(good.share), style="dim")
        cells["goodput"] = (Text(number_format.rate(good.requests_per_s)), share)
    return cells


def printable(text: str) -> str:
    """A server's text without what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def validity_line(validity: Validity, of: str = "run") -> Text:
    text = Text(printable(f"The {of} is ")).append(validity.status, style=STATUS_STYLE[validity.status]).append(".")
    for first, *others in findings.causes(validity):
        where = findings.where(first)
        text.append(printable(f"\n  {where + ': ' if where else ''}{first.text}"))
        if others:
            text.append(printable(f"; also {', '.join(map(findings.where, others))}"))
        remedy = f"; {first.remedy}" if first.remedy else ""
        text.append(printable(f" (affects {first.affects}{remedy})"), style="dim")
    return text


def print_verdicts(
    verdicts: Sequence[Verdict], validity: Validity, console: Console, regressions: Sequence[Regression] = ()
) -> None:
    """One line a gate and target: verdict, figure, interval, samples; what got worse than a baseline's; and what they
    say together."""
    if not verdicts and not regressions:
        return
    widen(console)
    if console.width < ROOM:
        for verdict in (*verdicts, *regressions):
            console.print(_verdict(verdict), soft_wrap=True)
    else:
        _verdict_table(verdicts, ("figure", "95 % interval"), console)
        _verdict_table(regressions, ("before", "now", "worse by", "95 % interval"), console)
    everything = [*verdicts, *regressions]
    console.print(Text(", ".join(findings.headline(everything, validity)), style="bold"))


def _verdict_table(verdicts: Sequence[Verdict], figures: Sequence[str], console: Console) -> None:
    def cells(verdict: Verdict) -> Iterator[str | Text]:
        yield "\n".join(filter(None, (verdict.gate.name, verdict.gate.text)))
        yield from (verdict.target, verdict.step)
        yield Text(verdict.decision, style=DECISION_STYLE[verdict.decision])
        yield from (*findings.figures(verdict), findings.bounds(verdict), f"{verdict.n:,}", verdict.note)

    if verdicts:
        headings = ("gate", "target", "load", "verdict", *figures, "n", "")
        console.print(grid(headings, map(cells, verdicts), (*figures, "n")), soft_wrap=False)


def _verdict(verdict: Verdict) -> Text:
    """The same as a sentence, for a console without room for the table."""
    parts = [findings.figure(verdict), findings.bounds(verdict), verdict.note or f"n={verdict.n:,}"]
    sentence = f" {findings.gate(verdict)}, {findings.where(verdict)}: {', '.join(part for part in parts if part)}"
    return Text.assemble((str(verdict.decision), DECISION_STYLE[verdict.decision]), printable(sentence))


def print_comparison(comparisons: Sequence[Comparison], console: Console) -> None:
    widen(console)
    rows: dict[str, list[list[str]]] = {}
    for pair, *cells in findings.comparison_rows(comparisons):
        rows.setdefault(pair, []).append(cells)
    for pair, lines in rows.items():
        title = f"{pair}: the same requests on both"
        table = grid(findings.COMPARISON_HEADINGS[1:], lines, ("pairs", "requests won"), title)
        console.print(table, soft_wrap=False)
    for metric in HEADLINES:
        for flip in leaders.flips_of_pairs(comparisons, metric):
            console.print(Text(printable(findings.flip_sentence(metric, flip))))


def write_csv(runs: Sequence[Run], path: Path | str) -> None:
    """One line an exchange, warm-up included, with the run's name first. Seconds, empty where undefined; `due` is
    counted from the run's start."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        for number, run in enumerate(runs):
            rows = run.rows[list(CSV_COLUMNS)].copy()
            rows.insert(0, "run", run.name)
            rows.insert(3, "due", run.rows["due"] / NS_PER_S)
            rows["error"] = rows["error"].astype("str").map(_inert)
            rows.to_csv(file, index=False, header=number == 0, float_format="%.9g")


def _inert(text: str) -> str:
    """A server's text that a spreadsheet would take for a formula is only text."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
