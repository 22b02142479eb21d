"""The options of `phaseload replay` as class attributes of a `TraceUser` in a user's own Locust file.

Read when Locust starts, in every process: a name that nobody knows is refused before the web page opens, and a secret
in a header moves into the environment of each worker.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from targets.target import Target
from traces.errors import InputError
from traces.trace import Trace

from ..options import Load, RunOptions, TargetOptions

LOAD, RUN, TARGET, REST = ({field.name for field in fields(each)} for each in (Load, RunOptions, TargetOptions, Target))
RUN -= {"json"}
REST -= TARGET  # what targets.toml has and no option
KNOWN = {"trace", "url", "host", *LOAD, *RUN, *TARGET, *REST}


@dataclass(frozen=True)
class UserOptions:
    """What the attributes of a class ask for. `url` may be empty: Locust's --host is the other way to give it."""

    name: str
    trace: Trace | str
    url: str
    load: Load
    run: RunOptions
    endpoint: TargetOptions
    rest: Mapping[str, Any]  # more fields of the target

    def target(self, host: str | None) -> Target:
        """The target, at the class's URL or Locust's --host. Raises InputError."""
        url = self.url or host
        if not self.trace or not url:
            raise InputError("needs a trace and a URL", where=self.name, remedy='trace = "FILE", url = "http://..."')
        return replace(self.endpoint.target(url, self.name), **self.rest)


def read(user: type, base: type, locusts: Collection[str]) -> UserOptions:
    """The options that a class has below `base`. `locusts`: names of Locust's own attributes, which pass, as methods,
    properties and what starts with an underscore do. Raises InputError, for a name that nobody knows too."""
    attributes = ChainMap(*(dict(vars(each)) for each in user.__mro__[: user.__mro__.index(base)]))
    given = {name: value for name, value in attributes.items() if _is_option(name, value, locusts)}
    for name in given.keys() - KNOWN:
        near = get_close_matches(name, KNOWN, 1)
        remedy = f"did you mean {near[0]}?" if near else "an option of `phaseload replay`, with underscores"
        raise InputError(f"no option of a replay: {name}", where=user.__name__, remedy=remedy)

    def of(names: set[str]) -> dict[str, Any]:
        return {name: given[name] for name in names & given.keys()}

    endpoint, rest = of(TARGET), {"name": user.__name__, **of(REST - {"url"})}
    if not isinstance(endpoint.get("extra_body", ""), str):
        rest["extra_body"] = endpoint.pop("extra_body")
    rest = {name: tuple(value) if isinstance(value, list) else value for name, value in rest.items()}
    url = given.get("url") or given.get("host") or ""
    load, run = Load(**of(LOAD)), RunOptions(**of(RUN))
    return UserOptions(user.__name__, given.get("trace", ""), url, load, run, TargetOptions(**endpoint), rest)


def _is_option(name: str, value: object, locusts: Collection[str]) -> bool:
    if name.startswith("_") or callable(value) or isinstance(value, property | classmethod | staticmethod):
        return False
    return name in KNOWN or name not in locusts
