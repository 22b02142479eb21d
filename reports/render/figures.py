"""Which plots a run's report holds: their data, from the summary and its samples, and their captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ..analysis import leaders, server_metrics, slices, time_account
from ..analysis.durations import HEADLINES
from ..analysis.quantiles import Quantile
from ..analysis.samples import Sample
from ..analysis.summary import Summary
from ..store.run_folder import Run
from . import plots
from .plots import Curves

PHASES_CAPTION = (
    "Bars are numbered as the rows above; from left to right the phases in the order of the columns. Palest: not "
    "attributed, and the client's own; dotted: queue; solid: prefill; crossed: KV transfer and hand-over."
)


@dataclass(frozen=True, slots=True)
class Plot:
    id: str
    svg: Markup  # drawn by us, holds no outside text
    caption: str


def of_run(
    run: Run, summary: Summary, readings: Sequence[server_metrics.Reading], numbers: Mapping[str, int], slug: str
) -> dict[str, list[Plot]]:
    """By the part of the page where they stand. `numbers`: target -> its number, which gives its colour; `slug` makes
    the plots' ids unique in the page."""

    def plot(name: str, caption: str, draw: Callable[[str], str]) -> Plot:
        return Plot(f"{slug}-{name}", Markup(draw(f"{slug} {name}".replace("-", " "))), caption)  # noqa: S704
