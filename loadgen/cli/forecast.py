"""How a forecast is printed, for `--plan`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NoReturn

from rich.console import Console

from reports import number_format
from reports.render import text
from traces.errors import UNUSABLE

from ..forecast import Forecast, PlannedArm, Total
from .options import print_json

FIGURES = ("round", "arrivals", "requests", "prompt tokens", "output tokens", "$ at most")


def end(forecast: Forecast, as_json: bool) -> NoReturn:
    """Shows it and exits: 0, or 2 where a quota can't admit what would be sent."""
    if as_json:
        print_json(forecast)
    else:
        show(forecast, Console())
    sys.exit(0 if forecast.admitted else UNUSABLE)


def show(forecast: Forecast, console: Console) -> None:
    text.widen(console)
    for line in _head(forecast):
        console.print(text.printable(line), soft_wrap=True, markup=False, highlight=False)
    rows = [(str(arm.round), arm.step, arm.target, duration(arm.seconds), *_figures(arm)) for arm in forecast.arms]
    rows += [("all", "", total.target, "", *_figures(total)) for total in forecast.totals]
    headings = ("round", "step", "target", *FIGURES[1:])
    console.print(text.grid(headings, rows, FIGURES), soft_wrap=False)
    for line in _findings(forecast):
        console.print(text.printable(line), soft_wrap=True, markup=False, highlight=False)


def _head(forecast: Forecast) -> Iterator[str]:
    rounds = f"{forecast.rounds} rounds" if forecast.rounds > 1 else "one round"
    at_most = f", at most {duration(forecast.seconds_at_most)} with the last answers" if forecast.seconds else ""
    yield f"{forecast.trace}: {rounds}, {forecast.order}, {duration(forecast.seconds)}{at_most}"
    if forecast.quota_scale != 1:
        yield f"thinned to {forecast.quota_scale:.3g} of its sessions, for all targets alike (--quota-scale)"


def _figures(row: PlannedArm | Total) -> tuple[str, ...]:
    tokens = (row.requests, row.input_tokens, row.output_tokens)
    return (*(f"{number:,}" for number in tokens), number_format.dollars(row.dollars))


def _findings(forecast: Forecast) -> Iterator[str]:
    if forecast.extra.requests:
        asked = f"{forecast.extra.requests:,} fixed prompts"
        yield f"with {asked} for each target, before the rounds (--no-evidence leaves them out)"
    for fit in forecast.fits:
        verdict = f"fits, {fit.share:.0%} of it in the worst {fit.limit.period}" if fit.admits else str(fit)
        yield f"{fit.target}: {fit.limit}: {verdict}" if fit.admits else f"{fit.target}: {verdict}"
    known = {fit.target for fit in forecast.fits}
    if unknown := [total.target for total in forecast.totals if total.target not in known]:
        yield f"no quota is known of {', '.join(unknown)}"
    yield from forecast.undecided


def duration(seconds: float | None) -> str:
    """45 s, 12 min, 2 h 05 min."""
    if seconds is None:
        return "not known"
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
