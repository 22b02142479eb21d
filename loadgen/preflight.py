"""What is looked at before anything is sent: gates, prompts, the plan, and whether its targets are there."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from targets import quota
from targets.quota import Limit
from targets.secrets import masked
from targets.target import AUTO, Target
from traces.errors import InputError, seconds
from traces.trace import Trace

from . import quotas
from .options import RunOptions
from .plan import Plan

if TYPE_CHECKING:
    from targets.probing import Probe

COMMON = 1000  # requests of an open loop that are assumed to be in flight at once
SPARE = 200  # open files beside the connections


def check_options(options: RunOptions, endpoint_types: Iterable[str]) -> None:
    """A gate that can't be read, or prompts that can't be made, must not come to light after the run."""
    from reports.analysis.gate_grammar import check

    check(options.slo, options.goodput)
    if options.tokenizer is not None:
        from traces.words import counter

        counter(options.tokenizer)
    if (token_ids := options.token_ids) is None:
        return
    for option, value in (("--tokenizer", options.tokenizer), ("--prompts", options.prompts)):
        if value is not None:
            raise InputError(f"can't be combined with {option}", where="--token-ids", remedy="give one of them")
    if not 10 <= token_ids <= 10_000_000:
        raise InputError(f"expected the size of a vocabulary, got {token_ids}", where="--token-ids")
    if any(kind != "completions" for kind in endpoint_types):
        remedy = "--endpoint-type completions"
        raise InputError("only completions endpoints take ids", where="--token-ids", remedy=remedy)


def check(
    plan: Plan, workers: int, targets: Sequence[Target] = (), patience: str | float | None = None, probing: bool = False
) -> dict[str, list[Limit]]:
    """What can be known before the load begins: of the plan, and of targets that aren't ours. Returns what each of
    these is known to admit. Raises InputError."""
    from targets import connect
    from targets.clock import Clock

    for arm in (arm for step in plan.steps for arm in step.arms):
        if arm.concurrency is not None and arm.concurrency < workers:
            raise InputError(f"{arm.concurrency} in flight can't be shared by {workers} workers", where="--concurrency")
    check_open_files(plan, workers)
    for target in targets:  # names, keys and certificates are looked at now, not when the load begins
        connect(target, Clock()).close()
    wait_ready(targets, patience)
    return probe(targets) if probing else limits_stated(targets)


def limits_stated(targets: Sequence[Target]) -> dict[str, list[Limit]]:
    """What each target admits by its own fields."""
    return {target.name: quota.limits(target) for target in targets}


def settled(targets: Sequence[Target], patience: str | float | None) -> list[Target]:
    """The targets with their endpoint types and models known, as far as their servers say them; what was found out is
    reported on stderr. Raises InputError."""
    if not (unknown := [target for target in targets if target.endpoint_type == AUTO or not target.model]):
        return list(targets)
    from targets.probing import settle, with_model

    wait_ready(unknown, patience)
    known = []
    for target in targets:
        target, note = with_model(target)
        if note:
            sys.stderr.write(f"{target.name}: {note}\n")
        if target.endpoint_type == AUTO:
            answer = settle(target)
            if answer.problem:
                raise InputError(answer.problem, where=target.name if answer.sent else "")
            target = answer.target
            sys.stderr.write(f"{target.name}: {target.url} {answer.notes[0]}\n")
        known.append(target)
    return known


def probe(targets: Sequence[Target]) -> dict[str, list[Limit]]:
    """One request to each target; what each is known to admit. Raises InputError where every request would fail; what
    else there is to know goes to stderr."""
    shown = {}
    for answer, _ in look(targets):
        if answer.hopeless:
            raise InputError(answer.problem, where=answer.target.name, remedy="--no-probe starts all the same")
        for line in (answer.problem, *answer.notes):
            if line:
                sys.stderr.write(f"{answer.target.name}: {line}\n")
        shown[answer.target.name] = limits_seen(answer)
    return shown


def look(targets: Sequence[Target], requests: Trace | None = None) -> Iterator[tuple[Probe, list[str]]]:
    """What one request to each target shows, and why the target can't be used for a load (nothing: it can). With
    `requests`, they are compared with the limits that its answer names."""
    from targets.probing import probe, with_model

    for answer in probe([with_model(target)[0] for target in targets]):
        problems = [answer.problem] if answer.problem else []
        if not problems and requests is not None:
            problems = list(quotas.shortfalls(limits_seen(answer), requests))
        yield answer, problems


def limits_seen(answer: Probe) -> list[Limit]:
    """What the target is known to admit, by its own fields and by its answer's headers."""
    return quota.limits(answer.target, orjson.loads(answer.exchange.ratelimit or "{}"))


def check_open_files(plan: Plan, workers: int) -> None:
    """A line on stderr where the system allows fewer connections than the plan may need."""
    from targets.client.http_client import raise_open_files

    allowed = raise_open_files()
    for step in plan.steps:
        slots = [arm.concurrency if arm.concurrency is not None else min(arm.requests, COMMON) for arm in step.arms]
        needed = sum(slots) // workers + SPARE
        if needed > allowed:
            sys.stderr.write(
                f"open files are limited to {allowed}: {step.name} may want {needed} in a process, and requests "
                "beyond the limit fail (raise it with ulimit -n, or use more --processes)\n"
            )


def wait_ready(targets: Sequence[Target], patience: str | float | None) -> None:
    """Waits until each target takes connections, for `patience` (90, "90s", "10m") at most. Raises InputError."""
    try:
        limit = time.monotonic() + seconds(patience or 0)
    except ValueError as error:
        raise InputError(str(error), where="--wait-ready") from None
    for target in targets:
        reported = False
        while (problem := _unreachable(target)) is not None:
            if time.monotonic() >= limit:
                remedy = "start the server, or give --wait-ready 10m"
                raise InputError(f"nobody answers at {problem}", where=target.name, remedy=remedy)
            if not reported:
                sys.stderr.write(f"{target.name}: waiting for {problem}\n")
                reported = True
            time.sleep(0.5)


def _unreachable(target: Target) -> str | None:
    """The first of a target's servers to which no connection can be made, and why; or None."""
    from targets.address import address

    target = target.opened()
    for url in dict.fromkeys((*target.prefill, *target.decode) or (target.url,)):
        try:
            problem = _closed(address(url).sockaddrs)
        except InputError as error:  # of a name that may come to be known
            problem = error.message
        if problem is not None:
            return f"{masked(url)}: {problem}"
    return None


def _closed(sockaddrs: Sequence[tuple[int, Any]]) -> str | None:
    """Why none of the addresses takes a connection, or None where one does."""
    problem = None
    for family, sockaddr in sockaddrs:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            try:
                sock.connect(sockaddr)
                return None
            except OSError as error:
                problem = error.strerror or str(error)
    return problem
