"""What our pages are made of: Jinja2 with autoescaping on, and matplotlib's figures as inline SVG.

The style sheet is in the page, and nothing is loaded from anywhere. matplotlib draws with placeholder colours (INK,
GRID and one for each target), and `svg` replaces them with variables of the style sheet: one plot is legible on a light
page, on a dark one and on paper, and a target has the same colour everywhere. Text stays text. No plot holds a name
that a server or a user chose, so there is nothing to escape; names are in the page's legend.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

from .. import number_format

INK, GRID, BAD = "#0a0b01", "#0a0b02", "#0a0b03"
COLOURS = 8  # CSS variables --t0 ... --t7; further targets begin again, with other line styles
LINES: Any = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)))  # so that curves that coincide are both seen
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "lines.linewidth": 1.8,
}
Data = ParamSpec("Data")

FILTERS: dict[str, Callable[..., str]] = {
    "ms": number_format.ms,
    "quantile": number_format.quantile,
    "interval": number_format.interval,
    "lacking": number_format.lacking,
    "share": number_format.share,
    "rate": number_format.rate,
    "factor": number_format.factor,
    "failures": number_format.failures,
    "off": lambda value: "-" if value is None else "< 0.01%" if abs(value) < 1e-4 else f"{value:+.2%}",
    "count": lambda value: "-" if value is None else f"{value:,.0f}",
}


def render(template: str, **values: Any) -> str:
    """The page's text, from a template of `assets/`."""
    env = Environment(
        loader=PackageLoader("reports", "assets"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
    )
    env.filters |= FILTERS
    assert env.loader is not None
    css = Markup(env.loader.get_source(env, "report.css")[0])
    return env.get_template(template).render(css=css, colours=COLOURS, **values)


def placeholder(target: int) -> str:
    return f"#0a0c{target % COLOURS:02x}"


def line(target: int) -> Any:
    return LINES[target % len(LINES)]


def stroke(target: int) -> dict[str, Any]:
    """How a target's lines look."""
    return {"color": placeholder(target), "linestyle": line(target)}


def drawing(
    height: float,
) -> Callable[[Callable[Concatenate[Figure, Data], None]], Callable[Concatenate[str, Data], str]]:
    """Makes what draws on a figure of that height (inches) a function of a name, see `svg`, and the data."""

    def decorate(draw: Callable[Concatenate[Figure, Data], None]) -> Callable[Concatenate[str, Data], str]:
        def drawn(name: str, /, *data: Data.args, **more: Data.kwargs) -> str:
            with mpl.rc_context(STYLE):
                figure = Figure(figsize=(11, height), layout="constrained")
                draw(figure, *data, **more)
                return svg(figure, name)

        return drawn

    return decorate


def svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element; `name` makes its ids unique in the page and is its accessible label."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _numbered(text, re.sub(r"\W+", "-", name))
    text = re.sub(r"font: ([\d.]+px|[\w ]*?[\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    for colour, variable in ((INK, "--ink"), (GRID, "--grid"), (BAD, "--bad")):
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"#0a0c(\d\d)", lambda match: f"var(--t{int(match[1], 16)})", text)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    return text.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)


def _numbered(text: str, slug: str) -> str:
    """Ids in order of appearance, unique in the page: matplotlib's hold addresses of objects and so change from
    drawing to drawing."""
    known: dict[str, str] = {}
    return re.sub(
        r'(\bid="|href="#|url\(#)([^")]+)', lambda m: m[1] + known.setdefault(m[2], f"{slug}-{len(known)}"), text
    )
