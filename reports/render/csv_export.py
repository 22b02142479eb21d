"""Every request's figures as CSV, for a spreadsheet or somebody else's plots. Seconds, empty where undefined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from traces.request import NS_PER_S

from ..analysis import durations
from ..store.run_folder import Run

COLUMNS = (
    "target", "step", "index", "attempt", "counted", "outcome", "status", "prompt_tokens", "output_tokens",
    "usage_prompt", "output_count", "token_source", "usage_cached", "in_flight", *durations.DURATIONS,
    "server_queue", "server_prefill", "server_transfer", "server_decode", "error",
)  # fmt: skip


def write_csv(runs: Sequence[Run], path: Path | str) -> None:
    """One line an exchange, warm-up included, with the run's name first; `due` is in seconds from the run's start."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        for number, run in enumerate(runs):
            rows = run.rows[list(COLUMNS)].copy()
            rows.insert(0, "run", run.name)
            rows.insert(3, "due", run.rows["due"] / NS_PER_S)
            rows["error"] = rows["error"].astype("str").map(_inert)
            rows.to_csv(file, index=False, header=number == 0, float_format="%.9g")


def _inert(text: str) -> str:
    """A server's text that a spreadsheet would take for a formula is only text."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
