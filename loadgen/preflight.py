"""What is looked at before anything is sent: gates, prompts, the plan, and whether its targets are there."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from targets.target import Target
from traces.errors import InputError

from .load import RunOptions
from .plan import Plan

COMMON = 1000  # requests of an open loop that are thought to be in flight at once
SPARE = 200  # open files beside the connections
UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def check_options(options: RunOptions, endpoint_types: Iterable[str]) -> None:
    """A gate that can't be read, or prompts that can't be made, must not come to light after the run."""
    check_gates(options)
    if options.tokenizer is not None:
        from traces.prompts.tokenizer import counter

        counter(options.tokenizer)
    token_ids = options.token_ids
    if token_ids is None:
        return
    for option, value in (("--tokenizer", options.tokenizer), ("--prompts", options.prompts)):
        if value is not None:
            raise InputError(f"can't be combined with {option}", where="--token-ids", remedy="give one of them")
    if not 10 <= token_ids <= 10_000_000:
        raise InputError(f"expected the size of a vocabulary, got {token_ids}", where="--token-ids")
    if any(kind != "completions" for kind in endpoint_types):
        raise InputError(
            "only completions endpoints take ids", where="--token-ids", remedy="--endpoint-type completions"
        )


def check_gates(options: RunOptions) -> None:
    from reports.analysis.gates import check

    check(options.slo, options.goodput)


def check(
    plan: Plan, workers: int, specs: Sequence[Target] = (), patience: str | None = None, probing: bool = False
) -> None:
    """What can be known before the load begins: of the plan, and of targets that aren't ours. Raises InputError."""
    check_workers(plan, workers)
    check_open_files(plan, workers)
    check_keys(specs)
    wait_ready(specs, patience)
    if probing:
        probe(specs)


def check_workers(plan: Plan, workers: int) -> None:
    for step in plan.steps:
        for arm in step.arms:
            if arm.concurrency is not None and arm.concurrency < workers:
                raise InputError(
                    f"{arm.concurrency} in flight can't be shared by {workers} workers", where="--concurrency"
                )


def seconds(text: str, option: str) -> float:
    """A time as people write it: 90, 90s, 10m, 500ms."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text.strip())
    if match is None:
        raise InputError(f"expected a time such as 90s or 10m, got {text!r}", where=option)
    return float(match[1]) * UNITS[match[2]]


def check_keys(specs: Sequence[Target]) -> None:
    """Names, keys and certificates of the targets are looked at now, not when the load begins. Raises InputError."""
    from targets.clock import Clock
    from targets.connecting import connect

    for one in specs:
        connect(one, Clock()).close()


def settled(specs: Sequence[Target], patience: str | None) -> list[Target]:
    """The targets with their endpoint types known: "auto" is found out, and said on stderr. Raises InputError."""
    unknown = [one for one in specs if one.endpoint_type == "auto"]
    if not unknown:
        return list(specs)
    from targets.inspection.autodetect import settle

    wait_ready(unknown, patience)
    known = []
    for one in specs:
        if one in unknown:
            found = settle(one)
            if found.problem:
                raise InputError(found.problem, where=one.name if found.asked else "")
            one = found.spec
            sys.stderr.write(f"{one.name}: {one.url} {found.notes[0]}\n")
        known.append(one)
    return known


def probe(specs: Sequence[Target]) -> None:
    """One request to each target. Raises InputError where every request would fail; says on stderr what else it saw."""
    from targets.inspection.probe import probe

    for found in probe(specs):
        if found.hopeless:
            raise InputError(found.problem, where=found.spec.name, remedy="--no-probe starts all the same")
        for line in (found.problem, *found.notes):
            if line:
                sys.stderr.write(f"{found.spec.name}: {line}\n")


def check_open_files(plan: Plan, workers: int) -> None:
    """Says on stderr where the system allows fewer connections than the plan may want."""
    from targets.client.http_client import raise_open_files

    allowed = raise_open_files()
    for step in plan.steps:
        slots = [arm.concurrency if arm.concurrency is not None else min(arm.requests, COMMON) for arm in step.arms]
        wanted = sum(slots) // workers + SPARE
        if wanted > allowed:
            sys.stderr.write(
                f"open files are limited to {allowed}: {step.name} may want {wanted} in a process, and requests "
                "beyond the limit fail (raise it with ulimit -n, or use more --processes)\n"
            )


def wait_ready(specs: Sequence[Target], patience: str | None) -> None:
    """Until each target takes connections: at once, or within --wait-ready. Raises InputError."""
    limit = time.monotonic() + (seconds(patience, "--wait-ready") if patience else 0.0)
    for target in specs:
        said = False
        while (problem := _unreachable(target)) is not None:
            if time.monotonic() >= limit:
                remedy = "start the server, or give --wait-ready 10m"
                raise InputError(f"nobody answers at {problem}", where=target.name, remedy=remedy)
            if not said:
                sys.stderr.write(f"{target.name}: waiting for {problem}\n")
                said = True
            time.sleep(0.5)


def _unreachable(target: Target) -> str | None:
    """The first of a target's servers to which no connection can be made, and why; or None."""
    from targets.address import address

    for url in dict.fromkeys((*target.prefill, *target.decode) or (target.url,)):
        try:
            problem = _closed(address(url).sockaddrs)
        except InputError as error:  # of a name that may come to be known
            problem = error.message
        if problem is not None:
            return f"{url}: {problem}"
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
