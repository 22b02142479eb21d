"""Targets as the command line names them, checked before anything is sent."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from targets.config import load
from targets.target import SECRET_HEADER, Spec, literal_field
from targets.url import split
from targets.wire import WIRES
from traces.errors import InputError

from .asked import Answers, Endpoint, Gates
from .plan import Plan

COMMON = 1000  # requests of an open loop that are thought to be in flight at once
SPARE = 200  # open files beside the connections
VARIABLE = "PHASELOAD_HEADER_"  # holds a secret that the command line gave, for the processes of the run
CREDENTIAL = re.compile(r"(bearer|basic) |(sk|gsk|hf|nvapi|xai)[-_]", re.IGNORECASE)
UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def required(value: str | None, option: str, remedy: str) -> str:
    if not value:
        raise InputError("is missing", where=option, remedy=remedy)
    return value


def spec(name: str, url: str | None, endpoint: Endpoint, answers: Answers) -> Spec:
    """A Spec from options. Raises InputError."""
    url = required(url, "--url", "for example --url http://127.0.0.1:8000")
    try:
        split(url)
    except ValueError as error:
        raise InputError(f"expected {error}" + ("" if "@" in url else f", got {url!r}"), where="--url") from None
    kind = endpoint.endpoint_type
    if kind not in (*WIRES, "auto") and not kind.endswith(".toml"):
        raise InputError(
            f"no such endpoint type: {kind!r}",
            where="--endpoint-type",
            remedy=f"one of {', '.join(WIRES)}, auto, or a custom format's .toml file",
        )
    return Spec(
        name, url, endpoint.model, kind, endpoint.api_key_env, endpoint.api_key_file,
        headers=tuple(map(_header, endpoint.header)), extra_body=_body(answers.extra_body),
        ignore_eos=answers.ignore_eos, insecure=endpoint.insecure, ca_file=endpoint.ca_file,
    )  # fmt: skip


def short_name(url: str | None, model: str) -> str:
    """A target's name where the user gave none: its model, else its host and port."""
    return model.rpartition("/")[2] or urlsplit(url or "").netloc or "target"


def several(named: Sequence[str], file: Path | None, endpoint: Endpoint, answers: Answers) -> list[Spec]:
    """The targets of --target NAME=URL and of --targets FILE. Raises InputError."""
    specs = load(file) if file is not None else []
    for text in named:
        name, equals, url = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"expected NAME=URL, got {text!r}", where="--target")
        specs.append(spec(name.strip(), url.strip(), endpoint, answers))
    names = [one.name for one in specs]
    if len(set(names)) < len(names):
        raise InputError("two targets have the same name", where="--target", remedy="results are told apart by it")
    return specs


def choice(value: str, option: str, known: Sequence[str]) -> str:
    if value not in known:
        raise InputError(f"no such choice: {value!r}", where=option, remedy=f"one of {', '.join(known)}")
    return value


def factors(text: str) -> list[float]:
    """Load steps: "1,2,4"."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if any(not 0 < factor < inf for factor in found):
        raise InputError(f"expected positive factors such as 1,2,4, got {text!r}", where="--steps")
    if len(set(found)) < len(found):
        raise InputError(f"a factor comes twice in {text!r}", where="--steps")
    return found


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise InputError("expected KEY:VALUE", where="--header", remedy="what was given isn't shown: it may be a key")
    return name.strip(), _sheltered(name, value.strip())


def _sheltered(name: str, value: str) -> str:
    """The value; a literal secret moves into the environment, and its variable's name stays."""
    if not _literal(name, value):
        return value
    number = 1
    while os.environ.setdefault(f"{VARIABLE}{number}", value) != value:
        number += 1
    return f"${{{VARIABLE}{number}}}"


def _literal(name: str, value: str) -> bool:
    """Is the value a secret, not the name of one?"""
    return bool(value) and "${" not in value and bool(SECRET_HEADER.search(name) or CREDENTIAL.match(value))


def argv() -> list[str]:
    """The command line as a run may keep it: without literal secrets, wherever they stand."""
    return [_masked(argument) for argument in sys.argv]


def _masked(argument: str) -> str:
    start, brace, rest = argument.partition("{")
    if brace and literal_field(_json(brace + rest)) is not None:
        return start + "***"
    header = re.fullmatch(r"([\w=.-]+):(?!//)\s*(.*?)\s*", argument, re.DOTALL)
    return f"{header[1]}: ***" if header is not None and _literal(header[1], header[2]) else argument


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _body(text: str | None) -> dict[str, Any]:
    try:
        body = json.loads(text or "{}")
    except ValueError as problem:
        raise InputError(f"not JSON: {problem}", where="--extra-body") from None
    if not isinstance(body, dict):
        raise InputError("expected a JSON object", where="--extra-body")
    return body


def check_gates(gates: Gates) -> None:
    """A gate that can't be read must not be found out after the run."""
    from reports.gates import check

    check(gates.slo, gates.goodput)


def check_prompts(answers: Answers, endpoint_type: str) -> None:
    tokenizer, token_ids = answers.tokenizer, answers.token_ids
    if tokenizer is not None:
        from traces.tokenizer import counter

        counter(tokenizer)
    if token_ids is None:
        return
    for option, value in (("--tokenizer", tokenizer), ("--prompts", answers.prompts)):
        if value is not None:
            raise InputError(f"can't be combined with {option}", where="--token-ids", remedy="give one of them")
    if not 10 <= token_ids <= 10_000_000:
        raise InputError(f"expected the size of a vocabulary, got {token_ids}", where="--token-ids")
    if endpoint_type != "completions":
        raise InputError(
            "only completions endpoints take ids", where="--token-ids", remedy="--endpoint-type completions"
        )


def preflight(
    plan: Plan, workers: int, specs: Sequence[Spec] = (), patience: str | None = None, probing: bool = False
) -> None:
    """What can be known before the load begins: of the plan, and of targets that aren't ours. Raises InputError."""
    check_workers(plan, workers)
    check_open_files(plan, workers)
    check(specs)
    wait_ready(specs, patience)
    if probing:
        probe(specs)


def check_workers(plan: Plan, workers: int) -> None:
    for phase in plan.phases:
        for leg in phase.legs:
            if leg.concurrency is not None and leg.concurrency < workers:
                raise InputError(
                    f"{leg.concurrency} in flight can't be shared by {workers} workers", where="--concurrency"
                )


def seconds(text: str, option: str) -> float:
    """A time as people write it: 90, 90s, 10m, 500ms."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text.strip())
    if match is None:
        raise InputError(f"expected a time such as 90s or 10m, got {text!r}", where=option)
    return float(match[1]) * UNITS[match[2]]


def check(specs: Sequence[Spec]) -> None:
    """Names, keys and certificates of the targets are looked at now, not when the load begins. Raises InputError."""
    from targets.clock import Clock
    from targets.connect import connect

    for one in specs:
        connect(one, Clock()).close()


def settled(specs: Sequence[Spec], patience: str | None) -> list[Spec]:
    """The targets with their endpoint types known: "auto" is found out, and said on stderr. Raises InputError."""
    unknown = [one for one in specs if one.endpoint_type == "auto"]
    if not unknown:
        return list(specs)
    from targets.auto import settle

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


def probe(specs: Sequence[Spec]) -> None:
    """One request to each target. Raises InputError where every request would fail; says on stderr what else it saw."""
    from targets.probe import probe

    for found in probe(specs):
        if found.hopeless:
            raise InputError(found.problem, where=found.spec.name, remedy="--no-probe starts all the same")
        for line in (found.problem, *found.notes):
            if line:
                sys.stderr.write(f"{found.spec.name}: {line}\n")


def check_open_files(plan: Plan, workers: int) -> None:
    """Says on stderr where the system allows fewer connections than the plan may want."""
    from targets.client import raise_open_files

    allowed = raise_open_files()
    for phase in plan.phases:
        slots = [leg.concurrency if leg.concurrency is not None else min(leg.requests, COMMON) for leg in phase.legs]
        wanted = sum(slots) // workers + SPARE
        if wanted > allowed:
            sys.stderr.write(
                f"open files are limited to {allowed}: {phase.name} may want {wanted} in a process, and requests "
                "beyond the limit fail (raise it with ulimit -n, or use more --processes)\n"
            )


def wait_ready(specs: Sequence[Spec], patience: str | None) -> None:
    """Until each target takes connections: at once, or within --wait-ready. Raises InputError."""
    limit = time.monotonic() + (seconds(patience, "--wait-ready") if patience else 0.0)
    for target in specs:
        said = False
        while (problem := _unreachable(target)) is not None:
            if time.monotonic() >= limit:
                raise InputError(
                    f"nobody answers: {problem}", where=target.url, remedy="start the server, or give --wait-ready 10m"
                )
            if not said:
                sys.stderr.write(f"waiting for {target.url} ({problem})\n")
                said = True
            time.sleep(0.5)


def _unreachable(target: Spec) -> str | None:
    """Why no connection can be made, or None."""
    from targets.address import address

    urls = dict.fromkeys((target.url, *target.prefill, *target.decode))
    try:
        return next(filter(None, (_closed(address(url).sockaddrs) for url in urls)), None)
    except InputError as error:  # of a name that may come to be known
        return error.message


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
