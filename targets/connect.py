"""`connect`: the target that a spec names, whatever its kind."""

from __future__ import annotations

from .client import HttpTarget
from .clock import Clock
from .exchange import Exchange
from .target import Spec, Target
from .twoleg import TwoLegTarget
from .wire import custom


def connect(spec: Spec, clock: Clock, kind: type[Exchange] = Exchange) -> Target:
    """A ready target: two legs or one, a user's own wire format or a known one. Raises InputError.

    `kind` Verbatim: the exchanges keep their answers' text."""
    if spec.protocol is not None:
        return TwoLegTarget(spec, clock, kind)
    return HttpTarget(spec, clock, custom.of(spec), kind)
