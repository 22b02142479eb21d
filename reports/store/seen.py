"""What a server said of itself in a run's rows: request ids, model, fingerprint, service tier, region, cached tokens.

Read from the row files apart from `run_folder`, whose frame leaves these texts out; counted by Arrow, so that a server
that gives each answer another name costs no Python object a row. What a server says is hostile: of different names the
MOST frequent are kept, each cut to one line of LENGTH characters, and the others are counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from targets.wire.lenient import line
from traces.errors import InputError
from traces.request import NS_PER_S

from . import row_files

NAMES = ("model", "fingerprint", "service_tier", "region")
COLUMNS = ["target", "sent", "request_id", *NAMES, "usage_prompt", "usage_cached"]
MOST = 8  # different names of a kind
LISTED = 3  # request ids at each end of a run
LENGTH = 80  # characters of a name
RAY = re.compile(r"[0-9a-f]{16}-([A-Z]{3})")  # Cloudflare's: a request's own number, and the place that took it


@dataclass(frozen=True, slots=True)
class Name:
    """A name that a server gave: how many answers had it, and the seconds of the first's and the last's request, from
    the round's start."""

    text: str
    n: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What one target said of itself. `names`: of each kind (model, fingerprint, service_tier, region) the most
    frequent first; `others`: how many more different ones there were. `request_ids`: how many answers had one, `ids`
    the first few and the last few. `cached_tokens` of `prompt_tokens`, as far as it reported both."""

    names: Mapping[str, tuple[Name, ...]]
    others: Mapping[str, int] = field(default_factory=dict)
    request_ids: int = 0
    ids: tuple[str, ...] = ()
    cached_tokens: int = 0
    prompt_tokens: int = 0


def seen(folder: Path) -> dict[str, Seen]:
    """By target. Row files that can't be read are left out: whoever opens the run names them."""
    damaged: dict[str, InputError] = {}
    if not (tables := list(row_files.batches(folder, COLUMNS, damaged))):
        return {}
    rows = pa.concat_tables(tables)
    regions = pc.replace_substring_regex(rows["region"], f"^{RAY.pattern}$", r"\1")
    rows = rows.set_column(rows.schema.get_field_index("region"), "region", regions)
    kinds = {kind: _names(rows, kind) for kind in NAMES}
    tokens, ids = _cached(rows), _ids(rows)
    return {
        target: Seen(
            {kind: names for kind in NAMES if (names := tuple(kinds[kind][target][:MOST]))},
            {kind: more for kind in NAMES if (more := len(kinds[kind][target]) - MOST) > 0},
            *ids.get(target, (0, ())),
            *tokens.get(target, (0, 0)),
        )
        for target in pc.unique(rows["target"]).to_pylist()
    }


def _names(rows: pa.Table, kind: str) -> dict[str, list[Name]]:
    """By target, the most frequent first."""
    known = rows.filter(pc.and_(pc.is_valid(rows[kind]), pc.is_valid(rows["sent"])))
    groups = known.group_by(["target", kind]).aggregate([("sent", "count"), ("sent", "min"), ("sent", "max")])
    groups = groups.sort_by([("sent_count", "descending"), ("sent_min", "ascending"), (kind, "ascending")])
    names: defaultdict[str, list[Name]] = defaultdict(list)
    for row in groups.to_pylist():
        first, last = (row[f"sent_{end}"] / NS_PER_S for end in ("min", "max"))
        names[row["target"]].append(Name(line(row[kind], LENGTH), row["sent_count"], first, last))
    return names


def _ids(rows: pa.Table) -> dict[str, tuple[int, tuple[str, ...]]]:
    """By target: how many, and those at both ends."""
    known = rows.filter(pc.and_(pc.is_valid(rows["request_id"]), pc.is_valid(rows["sent"]))).sort_by("sent")
    by_target = {}
    for target in pc.unique(known["target"]).to_pylist():
        ids: Any = known.filter(pc.equal(known["target"], target))["request_id"]
        few = [*ids[:LISTED].to_pylist(), *ids[max(LISTED, len(ids) - LISTED) :].to_pylist()]
        by_target[target] = len(ids), tuple(line(each, LENGTH) for each in few)
    return by_target


def _cached(rows: pa.Table) -> dict[str, tuple[int, int]]:
    known = rows.filter(pc.and_(pc.is_valid(rows["usage_cached"]), pc.is_valid(rows["usage_prompt"])))
    sums = known.group_by("target").aggregate([("usage_cached", "sum"), ("usage_prompt", "sum")]).to_pylist()
    return {row["target"]: (row["usage_cached_sum"], row["usage_prompt_sum"]) for row in sums}
