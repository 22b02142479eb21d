"""The derived durations over columns: what `targets.exchange.Exchange` defines for one row, for many at once.

`columns_of` turns rows of `row_files.SCHEMA` into plain numpy columns, with each token list reduced to what the
definitions need; a test holds every DURATIONS entry equal to Exchange's property of that name. Durations are float
seconds, nan where undefined.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
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
    "planned", "started", "connected", "body_sent", "headers_at", "first_after", "last_after",
    "first_lag", "bytes_received", "retry_after", "last_events", "longest_gap",
)  # fmt: skip
COLUMNS = [name for name in row_files.SCHEMA.names if name not in _SKIPPED]
# Columns of a frame that hold instants: nanoseconds from the run's start.
INSTANTS = (
    "due", "sent", "done", "body_end", "first_token", "last_token", "prefill_sent", "prefill_done", "decode_sent",
)  # fmt: skip
# What the derived durations, counts and rates follow from, and the server's own phases.
SOURCES = (
    "due", "started", "connected", "sent", "body_sent", "done", "counted", "stepped", "output_tokens", "token_at",
    "token_events", "first_tokens", "first_after", "last_after", "first_lag", "unstamped", "whole", "outcome",
    "usage_output", "tokenizer_output", "server_queue", "server_prefill", "server_transfer", "server_decode",
)  # fmt: skip
BATCH = 2_000  # exchanges that are objects at a time

DURATIONS = ("ttft", "ttft_from_due", "tpot", "e2e", "longest_stall", "lateness", "connect", "upload", "client_lag")
BRACKETS = ("ttft_low", "tpot_low", "tpot_high")

# The metric that stands for each phase, and for the whole: what is compared, and who leads, is said of these.
HEADLINES = {"ttft": "prefill", "tpot": "decode", "e2e": "whole request"}


def derived(rows: Columns) -> Columns:
    """DURATIONS, the ends of their BRACKETS, and what they are counted by."""
    due, started, sent, stepped = rows["due"], rows["started"], rows["sent"], rows["stepped"]
    first, last, first_low, last_low = rows["first_token"], rows["last_token"], _low(rows, "first"), _low(rows, "last")
    # Tokens given: the server's usage, else a local tokenizer's count, else token-bearing events.
    usage, local = rows["usage_output"], rows["tokenizer_output"]
    output_count = np.where(np.isnan(usage), np.where(np.isnan(local), rows["events"], local), usage)
    source = np.where(np.isnan(usage), np.where(np.isnan(local), "chunks", "tokenizer"), "usage")
    later = output_count - rows["first_tokens"]  # after the first event: without such a token there is no TPOT
    later = np.where((later > 0) & (rows["reads"] >= 2), later, np.nan)
    streamed = np.where(rows["whole"], np.nan, 1.0)  # an answer that came whole has no first token
    spans = {
        # From just before the request's first byte was written to the arrival of the first token-bearing event.
        "ttft": (first - sent) * streamed,
        "ttft_from_due": (first - due) * streamed,  # lateness and connect are in it
        "tpot": (last - first) / later,
        "e2e": last - sent,
        "longest_stall": rows["longest_gap"],  # between two token-bearing reads
        "lateness": started - due,  # the generator's own fault
        "connect": rows["connected"] - started,  # the network's and the server's; about 0 where it was open already
        "upload": rows["body_sent"] - sent,
        "client_lag": rows["first_lag"],  # read instant - kernel arrival instant of the first token: a diagnostic
        "ttft_low": (first_low - sent) * streamed,
        "tpot_low": np.maximum(last_low - first, 0) / later,
        "tpot_high": (last - first_low) / later,
    }
    # An exchange that was open while the clock was stepped has no durations: its instants can't be compared.
    seconds = {name: np.where(stepped, np.nan, span / NS_PER_S) for name, span in spans.items()}
    return {**seconds, "output_count": output_count, "token_source": pd.Categorical(source)}


def _low(rows: Columns, end: str) -> Array:
    """The earliest instant at which the token can have come: the kernel keeps only the last instant of segments that
    it merges, so a read with several token-bearing events, or without a kernel timestamp, bounds it from above only."""
    instant, after = rows[f"{end}_token"], rows[f"{end}_after"]
    exact = (rows[f"{end}_events"] <= 1) & (rows["unstamped"] == 0)
    return np.asarray(np.where(exact | np.isnan(after), instant, np.fmin(after, instant)))


def columns_of(part: pa.Table) -> Columns:
    """Columns of numpy arrays: numbers as float64 (nanoseconds are exact up to 104 days), texts as pandas categories,
    and what follows from them. Token lists become first_token, last_token, longest_gap (ns), reads, events,
    first_events, last_events."""
    columns: Columns = {}
    for name in part.schema.names:
        column = part[name]
        if name in _TEXTS:
            columns[name] = pd.Categorical(column.to_pandas())
        elif pa.types.is_boolean(column.type):
            columns[name] = column.to_numpy()
        elif name not in _LISTS and not pa.types.is_string(column.type):
            columns[name] = pc.cast(column, pa.float64(), safe=False).to_numpy()
    columns |= _reduced(part) | {"ok": np.asarray(columns["outcome"] == Outcome.OK.value)}
    return columns | derived(columns)


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
    at, starts, ends = _list(part["token_at"])
    row = np.repeat(np.arange(len(starts)), ends - starts)
    values = at[starts[0] : ends[-1]] if len(starts) else at
    same = row[1:] == row[:-1]
    return np.diff(values)[same] / NS_PER_S, row[1:][same]


def of_exchanges(rows: Iterable[Exchange], columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """A frame of flat columns (SOURCES at least) and durations, a row for each exchange, in their order."""
    schema = pa.schema([row_files.SCHEMA.field(name) for name in columns])
    parts, rows = [row_files.table([], schema)], iter(rows)
    while batch := list(islice(rows, BATCH)):
        parts.append(row_files.table(batch, schema))
    return pd.DataFrame(columns_of(pa.concat_tables(parts)))


def frames(
    run: Path | str, damaged: dict[str, InputError] | None = None, planned: Collection[tuple[str, str]] = ()
) -> Iterator[tuple[pd.DataFrame, pa.Table]]:
    """A frame of flat columns and durations for each of the run's files, with the rows it came from."""
    for part in row_files.batches(run, COLUMNS, damaged, planned):
        columns = {name: column for name, column in columns_of(part).items() if name not in _SPENT}
        yield pd.DataFrame(columns), part


def joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The files' frames as one round's rows, with what only the whole can tell: `in_flight` at send."""
    rows = concatenated(parts)
    rows["round"] = 1
    rows["in_flight"] = in_flight(rows)
    return rows.sort_values(["due", "target", "index"], kind="stable", ignore_index=True)


def concatenated(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all frames, one after the other."""
    for name in (*_TEXTS, "token_source"):  # the same categories everywhere, else joining makes a Python object of each
        known = sorted({text for part in parts for text in part[name].cat.categories})
        for part in parts:
            part[name] = part[name].cat.set_categories(known)
    return pd.concat(parts, ignore_index=True)


def in_flight(rows: pd.DataFrame) -> Array:
    """For each row, how many exchanges of its target were open at the instant it was sent, itself included. From the
    rows' own [sent, done] intervals: no worker knows what the others have in flight. nan where never sent."""
    count = np.full(len(rows), np.nan)
    for _, part in rows.groupby("target", observed=True):
        sent = part["sent"].to_numpy()
        begins = np.sort(sent[~np.isnan(sent)])
        done = part["done"].to_numpy()[~np.isnan(sent)]
        ends = np.sort(done[~np.isnan(done)])
        open_ = np.searchsorted(begins, sent, side="right") - np.searchsorted(ends, sent, side="right")
        count[part.index] = np.where(np.isnan(sent), np.nan, open_)
    return count
