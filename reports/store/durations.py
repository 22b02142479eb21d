"""The derived durations over columns: what `targets.exchange.Exchange` defines for one row, for many at once.

`flatten` turns rows of `row_files.SCHEMA` into plain numpy columns, with each token list reduced to what the
definitions need; a test holds every DURATIONS entry equal to Exchange's property of that name. Durations are float
seconds, nan where undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from targets.exchange import Exchange, Outcome
from traces.errors import InputError
from traces.request import NS_PER_S

from . import row_files

Array = np.ndarray[Any, Any]
Columns = dict[str, Any]  # numpy arrays by name, texts as pandas categories

# Read from the files; the server's ids and texts stay there.
_TEXTS = ("target", "step", "outcome", "error")
_LISTS = ("token_at", "token_events")
_SKIPPED = (
    "request_id", "fingerprint", "ratelimit", "prefill_worker", "decode_worker", "finish_reason", "model",
    "service_tier", "region",
)  # fmt: skip
# Only the durations need these: a long run's frame is large enough without them.
_SPENT = (
    "session", "turn", "planned", "started", "connected", "body_sent", "headers_at", "first_after", "last_after",
    "first_lag", "bytes_received", "retry_after", "last_events", "longest_gap",
)  # fmt: skip
COLUMNS = [name for name in row_files.SCHEMA.names if name not in _SKIPPED]
# What the derived durations, counts and rates follow from, and the server's own phases.
SOURCES = (
    "due", "started", "connected", "sent", "body_sent", "done", "counted", "stepped", "token_at", "token_events",
    "first_tokens", "first_after", "last_after", "first_lag", "unstamped", "whole", "outcome", "usage_output",
    "tokenizer_output", "server_queue", "server_prefill", "server_transfer", "server_decode",
)  # fmt: skip
BATCH = 2_000  # exchanges that are objects at a time


def lateness(rows: Columns) -> Array:
    """started - due: the generator's own fault."""
    return _span(rows["due"], rows["started"])


def connect(rows: Columns) -> Array:
    """connected - started: the network's and the server's; about 0 on a connection that is open already."""
    return _span(rows["started"], rows["connected"])


def upload(rows: Columns) -> Array:
    return _span(rows["sent"], rows["body_sent"])


def ttft(rows: Columns) -> Array:
    """From just before the request's first byte was written to the arrival of the first token-bearing event; nan where
    the answer came whole, without a first token."""
    return _seen(rows, _span(rows["sent"], rows["first_token"]))


def ttft_from_due(rows: Columns) -> Array:
    """From the instant when the request should have been sent: lateness and connect are in it."""
    return _seen(rows, _span(rows["due"], rows["first_token"]))


def tpot(rows: Columns) -> Array:
    """Seconds per output token after the first event; nan where there is no such token."""
    return _per_token(rows, rows["last_token"] - rows["first_token"])


def e2e(rows: Columns) -> Array:
    return _span(rows["sent"], rows["last_token"])


def longest_stall(rows: Columns) -> Array:
    """The largest gap between two token-bearing reads."""
    return np.asarray(rows["longest_gap"]) / NS_PER_S


def client_lag(rows: Columns) -> Array:
    """Read instant - kernel arrival instant of the first token: a diagnostic."""
    return np.asarray(rows["first_lag"]) / NS_PER_S


DURATIONS: dict[str, Callable[[Columns], Array]] = {
    "ttft": ttft,
    "ttft_from_due": ttft_from_due,
    "tpot": tpot,
    "e2e": e2e,
    "longest_stall": longest_stall,
    "lateness": lateness,
    "connect": connect,
    "upload": upload,
    "client_lag": client_lag,
}

# The metric that stands for each phase, and for the whole: what is compared, and who leads, is said of these.
HEADLINES = {"ttft": "prefill", "tpot": "decode", "e2e": "whole request"}


def output_count(rows: Columns) -> Array:
    """Tokens given: the server's usage, else a local tokenizer's count, else token-bearing events."""
    counted = np.where(np.isnan(rows["tokenizer_output"]), rows["events"], rows["tokenizer_output"])
    return np.asarray(np.where(np.isnan(rows["usage_output"]), counted, rows["usage_output"]))


def token_source(rows: Columns) -> Array:
    local = np.where(np.isnan(rows["tokenizer_output"]), "chunks", "tokenizer")
    return np.asarray(np.where(np.isnan(rows["usage_output"]), local, "usage"))


def ttft_low(rows: Columns) -> Array:
    """TTFT at the lower end of its bracket; equal to `ttft` where the first token's instant is exact."""
    return _seen(rows, _span(rows["sent"], _lower(rows, "first")))


def tpot_low(rows: Columns) -> Array:
    return _per_token(rows, np.maximum(_lower(rows, "last") - rows["first_token"], 0))


def tpot_high(rows: Columns) -> Array:
    return _per_token(rows, rows["last_token"] - _lower(rows, "first"))


BRACKETS: dict[str, Callable[[Columns], Array]] = {"ttft_low": ttft_low, "tpot_low": tpot_low, "tpot_high": tpot_high}


def _lower(rows: Columns, end: str) -> Array:
    """The earliest instant at which the token can have come: the kernel keeps only the last instant of segments that
    it merges, so a read with several token-bearing events, or without a kernel timestamp, bounds it from above only."""
    instant, after = rows[f"{end}_token"], rows[f"{end}_after"]
    exact = (rows[f"{end}_events"] <= 1) & (rows["unstamped"] == 0)
    return np.asarray(np.where(exact | np.isnan(after), instant, np.fmin(after, instant)))


def _per_token(rows: Columns, elapsed: Array) -> Array:
    later = output_count(rows) - rows["first_tokens"]
    defined = (later > 0) & (rows["reads"] >= 2)
    return np.asarray(np.divide(elapsed / NS_PER_S, later, out=np.full(len(later), np.nan), where=defined))


def _seen(rows: Columns, times: Array) -> Array:
    return np.where(rows["whole"], np.nan, times)


def _span(start: Array, end: Array) -> Array:
    return np.asarray((end - start) / NS_PER_S)


def flatten(part: pa.Table) -> Columns:
    """Columns of numpy arrays: numbers as float64 (nanoseconds are exact up to 104 days), texts as pandas categories.

    Token lists become first_token, last_token, longest_gap (ns), reads, events, first_events, last_events.
    """
    columns: Columns = {}
    for name in part.schema.names:
        column = part[name]
        if name in _TEXTS:
            columns[name] = pd.Categorical(column.to_pandas())
        elif pa.types.is_boolean(column.type):
            columns[name] = column.to_numpy()
        elif name not in _LISTS and not pa.types.is_string(column.type):
            columns[name] = pc.cast(column, pa.float64(), safe=False).to_numpy()
    return columns | _reduced(part)


def _reduced(part: pa.Table) -> dict[str, Array]:
    at, starts, ends = _list(part["token_at"])
    events, event_starts, event_ends = _list(part["token_events"])
    none = starts == ends
    last = np.maximum(ends - 1, 0)
    sums = np.concatenate([[0], np.cumsum(events)])
    event_none = event_starts == event_ends
    return {
        "first_token": _picked(at, starts, none),
        "last_token": _picked(at, last, none),
        "longest_gap": _longest_gap(at, starts, ends),
        "reads": (ends - starts).astype(np.float64),
        "events": (sums[event_ends] - sums[event_starts]).astype(np.float64),
        "first_events": np.nan_to_num(_picked(events, event_starts, event_none)),
        "last_events": np.nan_to_num(_picked(events, np.maximum(event_ends - 1, 0), event_none)),
    }


def _list(column: pa.ChunkedArray[Any]) -> tuple[Array, Array, Array]:
    """The flat values of a list column and each row's start and end in them."""
    whole: Any = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], column.type)
    offsets = np.asarray(whole.offsets)
    return np.asarray(whole.values), offsets[:-1], offsets[1:]


def _picked(values: Array, position: Array, none: Array) -> Array:
    if not len(values):
        return np.full(len(position), np.nan)
    return np.where(none, np.nan, values[np.minimum(position, len(values) - 1)])


def _gaps(at: Array, starts: Array, ends: Array) -> tuple[Array, Array]:
    """Every gap (ns) between neighbouring reads of one row, and the row that it belongs to."""
    row = np.repeat(np.arange(len(starts)), ends - starts)
    values = at[starts[0] : ends[-1]] if len(starts) else at
    same = row[1:] == row[:-1]
    return np.diff(values)[same], row[1:][same]


def _longest_gap(at: Array, starts: Array, ends: Array) -> Array:
    longest = np.full(len(starts), np.nan)
    several = ends - starts >= 2
    if several.any():
        gaps = np.append(np.diff(at), 0)  # the last row's end must be a valid index too
        bounds = np.stack([starts[several], ends[several] - 1], axis=1).ravel()
        longest[several] = np.maximum.reduceat(gaps, bounds)[::2]
    return longest


def itl(part: pa.Table) -> tuple[Array, Array]:
    """Inter-token latencies (s) and the row of each: one gap for each token-bearing read after the first."""
    gaps, row = _gaps(*_list(part["token_at"]))
    return gaps / NS_PER_S, row


def with_durations(columns: Columns) -> Columns:
    """The columns and what follows from them. An exchange that was open while the clock was stepped has no durations:
    its instants can't be compared."""
    derived = {name: function(columns) for name, function in (DURATIONS | BRACKETS).items()}
    for values in derived.values():
        values[columns["stepped"]] = np.nan
    counts = {"output_count": output_count(columns), "token_source": pd.Categorical(token_source(columns))}
    return {**columns, **derived, **counts, "ok": np.asarray(columns["outcome"] == Outcome.OK.value)}


def of_exchanges(rows: Iterable[Exchange], columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """A frame of flat columns (SOURCES at least) and durations, a row for each exchange, in their order."""
    schema = pa.schema([row_files.SCHEMA.field(name) for name in columns])
    parts, rows = [row_files.table([], schema)], iter(rows)
    while batch := list(islice(rows, BATCH)):
        parts.append(row_files.table(batch, schema))
    return pd.DataFrame(with_durations(flatten(pa.concat_tables(parts))))


def frames(run: Path | str, damaged: dict[str, InputError] | None = None) -> Iterator[tuple[pd.DataFrame, pa.Table]]:
    """A frame of flat columns and durations for each of the run's files, with the rows it came from."""
    for part in row_files.batches(run, COLUMNS, damaged):
        columns = {name: column for name, column in with_durations(flatten(part)).items() if name not in _SPENT}
        yield pd.DataFrame(columns), part


def joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The files' frames as one, with what only the whole can tell: `in_flight` at send."""
    for name in (*_TEXTS, "token_source"):
        _same_categories(parts, name)
    rows = pd.concat(parts, ignore_index=True)
    rows["in_flight"] = in_flight(rows)
    return rows.sort_values(["due", "target", "index"], kind="stable", ignore_index=True)


def _same_categories(parts: list[pd.DataFrame], name: str) -> None:
    """Gives a text column the same categories everywhere, else joining makes a Python object of each text."""
    known = sorted({text for part in parts for text in part[name].cat.categories})
    for part in parts:
        part[name] = part[name].cat.set_categories(known)


def in_flight(rows: pd.DataFrame) -> Array:
    """For each row, how many exchanges of its target were open at the instant it was sent, itself included.

    From the rows' own [sent, done] intervals: no worker knows what the others have in flight. nan where never sent.
    """
    count = np.full(len(rows), np.nan)
    for _, part in rows.groupby("target", observed=True):
        sent = part["sent"].to_numpy()
        begins = np.sort(sent[~np.isnan(sent)])
        done = part["done"].to_numpy()[~np.isnan(sent)]
        ends = np.sort(done[~np.isnan(done)])
        open_ = np.searchsorted(begins, sent, side="right") - np.searchsorted(ends, sent, side="right")
        count[part.index] = np.where(np.isnan(sent), np.nan, open_)
    return count
