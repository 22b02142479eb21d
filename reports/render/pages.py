"""Pages: Jinja2 with autoescaping on, the style sheet in the page, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from .. import number_format
from . import plots

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
    return env.get_template(template).render(css=css, colours=plots.COLOURS, **values)
