"""Was the client fit to judge? valid, suspect or invalid, with reasons. Pure: numbers in, verdict out.

A run is valid where the client's own faults can't have moved its figures: p50 and p99 of TTFT and TPOT, computed at
both ends of the first and last tokens' brackets, agree within 5 %, and lateness p99 stays within 10 ms or 10 % of the
mean gap between arrivals (whichever is longer). Within 20 % (20 ms) it is suspect, beyond it invalid. Reads without a
kernel receive time are judged by their brackets too. A server's failures never make a run invalid: they are results.
Requests that failed through the client's own fault do, where they are more than 1 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from targets.exchange import FULL, WAITED, Diagnostics

if TYPE_CHECKING:
    from ..store.run_folder import Run
    from ..store.run_json import RunFacts

AGREE, DOUBTFUL = 0.05, 0.20  # (high - low) / high of a bracketed quantile
LATE, LATE_SHARE = 0.010, 0.10  # seconds, share of the mean gap; twice that is doubtful
CLOCK_OFFSET = 0.005  # seconds between workers' clocks
OWN_FAULTS = 0.01  # share of requests that failed through a fault of the client
UNSTAMPED = 0.01  # share of exchanges without kernel times, above which these are the brackets' cause
REMEDY_CLIENT = "use more processes (--processes N) or fewer streams a process"
REMEDY_BUSY = "the client's process had time left: leave it a core that nothing else wants"
REMEDY_FAST = "more processes won't help: nothing more than an upper bound can be known of them"
REMEDY_UNSTAMPED = "TCP on Linux has kernel receive times, which Unix sockets don't have"
REMEDIES = {
    "Too many open files": "raise the limit of open files (ulimit -n), or use more processes (--processes N)",
    "Cannot assign requested address": "widen the range of local ports, or send from more machines",
    "": "report it with run.json",
}  # by the beginning of a fault's text


class Status(StrEnum):
    VALID = "valid"
    SUSPECT = "suspect"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Reason:
    """`affects`: the figures that can't be trusted for it; `target` and `step` are empty where all are concerned."""

    status: Status
    text: str
    affects: str = "all figures"
    remedy: str = ""
    target: str = ""
    step: str = ""


@dataclass(frozen=True, slots=True)
class Validity:
    """Whether a run's figures can be trusted: the worst status of all reasons, and the reasons, the worst first."""

    status: Status
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rows of one target and load step say about the client. Durations in seconds, shares from 0 to 1."""

    target: str
    step: str
    brackets: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # "ttft p99" -> (low end, high end)
    lateness_p99: float | None = None
    mean_gap: float | None = None
    counted: int = 1  # requests inside the window
    unstamped_share: float = 0.0  # of exchanges with a read that had no kernel timestamp
    internal_errors: int = 0  # counted requests that failed through the client's own fault
    fault: str = ""  # what most of them say
    duplicates: int = 0
    stepped: int = 0  # open while the clock was stepped: without durations


def judge(groups: Sequence[Evidence], run: Run) -> Validity:
    """The worst of all reasons is the status."""
    remedy = _remedy([worker.diagnostics for worker in run.facts.workers if worker.diagnostics])
    reasons = [*_of_run(run.facts), *_of_files(run)]
    if not any(group.counted for group in groups):
        text = "no verdict: no request was counted"
        reasons.append(Reason(Status.INVALID, text, remedy="a longer --duration or a shorter --warmup"))
    for group in groups:
        reasons += [*_of_brackets(group, remedy), *_of_lateness(group, remedy), *_of_rows(group)]
    reasons.sort(key=lambda reason: -list(Status).index(reason.status))
    return Validity(reasons[0].status if reasons else Status.VALID, tuple(reasons))


def _of_run(facts: RunFacts) -> Iterator[Reason]:
    interrupted = facts.ended == "interrupted"
    if interrupted:
        text = "the run ended early: interrupted; its figures cover only what had been sent by then"
        yield Reason(Status.SUSPECT, text)
    if facts.ended == "running":
        text = "the run never ended (killed?): what wasn't on disk is lost, nobody knows how much"
        yield Reason(Status.INVALID, text)
    lost = ", ".join(f"{worker.number} ({worker.lost})" for worker in facts.workers if worker.lost)
    if lost or facts.ended == "worker_lost":
        text = f"worker lost in mid-run: {lost or 'one or more'}; its share of the load was not sent to the end"
        yield Reason(Status.INVALID, text)
    for target, missing in facts.missing.items():
        text = f"{missing} planned requests were {'not sent' if interrupted else 'never recorded'}"
        if missing:
            yield Reason(Status.SUSPECT if interrupted else Status.INVALID, text, target=target)
    if steps := sum(len(worker.diagnostics.clock_steps) for worker in facts.workers if worker.diagnostics):
        text, affects = f"the clock was stepped {steps} times during the run", "durations across a step"
        yield Reason(Status.SUSPECT, text, affects, "stop time synchronisation from stepping the clock")
    offset_s = max((abs(worker.clock_offset_s or 0.0) for worker in facts.workers), default=0.0)
    if offset_s > CLOCK_OFFSET:
        text = f"workers' clocks differ by {offset_s * 1e3:.1f} ms"
        yield Reason(Status.SUSPECT, text, "arrival instants across workers", "synchronise the workers' clocks")
    if facts.certificate_exceeded:
        yield Reason(Status.SUSPECT, facts.certificate_exceeded, remedy="phaseload certify")


def _of_files(run: Run) -> Iterator[Reason]:
    if run.damaged:
        yield Reason(Status.INVALID, f"row files that can't be read, left out: {', '.join(run.damaged)}")
    if lacking := run.lacking:
        text = f"{lacking:,} exchanges that the run recorded are in no readable row file: a file is gone or cut"
        yield Reason(Status.INVALID, text, remedy="restore the run's exchanges/ folder")


def _remedy(processes: Sequence[Diagnostics]) -> str:
    """What would make the client exact, as `phaseload certify` finds it out: a client at its limit fills its core, and
    one that has time left and is late all the same had no core when it needed one. Where neither is so, nothing does:
    a process that was free to read at once took events from one read, because they came faster than it can wake up."""
    busiest = [process.busiest_core for process in processes if process.busiest_core is not None]
    if not busiest or max(busiest) >= FULL:
        return REMEDY_CLIENT
    waited = max((process.waited_s or 0.0) / process.wall_s for process in processes if process.wall_s)
    return REMEDY_BUSY if waited > WAITED else REMEDY_FAST


def _of_brackets(group: Evidence, remedy: str) -> Iterator[Reason]:
    """One reason for the worst bracket: the others follow from the same cause."""
    spreads = {name: (high - low) / high for name, (low, high) in group.brackets.items() if high > 0}
    worst = max(spreads, key=lambda name: spreads[name], default="")
    if not worst or spreads[worst] <= AGREE:
        return
    low, high = group.brackets[worst]
    status = Status.SUSPECT if spreads[worst] <= DOUBTFUL else Status.INVALID
    cause = f"the client read too late to know {worst}"
    if group.unstamped_share > UNSTAMPED:
        cause = f"reads had no kernel receive time, and came too late to know {worst}"
        remedy = f"{REMEDY_UNSTAMPED}; or {remedy}"
    elif remedy == REMEDY_FAST:
        cause = f"{worst} is too fast for this client to tell apart"
    text = (
        f"{cause}: between {low * 1e3:.3g} and {high * 1e3:.3g} ms "
        f"({spreads[worst]:.1%} apart, at most {AGREE:.0%} is valid)"
    )
    affects = ", ".join(name for name, spread in spreads.items() if spread > AGREE)
    yield Reason(status, text, affects, remedy, group.target, group.step)


def _of_lateness(group: Evidence, remedy: str) -> Iterator[Reason]:
    if group.lateness_p99 is None:
        return
    limit = max(LATE, LATE_SHARE * (group.mean_gap or 0.0))
    if group.lateness_p99 <= limit:
        return
    status = Status.SUSPECT if group.lateness_p99 <= 2 * limit else Status.INVALID
    text = f"requests left late: lateness p99 {group.lateness_p99 * 1e3:.1f} ms, at most {limit * 1e3:.1f} ms is valid"
    remedy = REMEDY_BUSY if remedy == REMEDY_FAST else remedy  # no server makes a client leave late
    yield Reason(status, text, "the load and TTFT from due", remedy, group.target, group.step)


def _of_rows(group: Evidence) -> Iterator[Reason]:
    where = {"target": group.target, "step": group.step}
    if group.duplicates:
        yield Reason(Status.INVALID, f"{group.duplicates} requests were sent twice", **where)
    if group.stepped:
        text = f"{group.stepped} requests were open while the clock was stepped and have no durations"
        yield Reason(Status.SUSPECT, text, "the sample of all figures", **where)
    if group.internal_errors:
        status = Status.SUSPECT if group.internal_errors <= OWN_FAULTS * group.counted else Status.INVALID
        cause = next(beginning for beginning in REMEDIES if group.fault.startswith(beginning))
        text = f"{group.internal_errors:,} of {group.counted:,} requests failed through the client's own fault"
        text += f": {cause or group.fault}" if group.fault else ""
        yield Reason(status, text, "the load, failure counts and adjusted quantiles", REMEDIES[cause], **where)
